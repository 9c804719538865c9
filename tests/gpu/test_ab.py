"""A slowdown made by a really longer kernel, judged beside the engine that it is held against."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import onnx
import pytest
from networks import model, node, weights

from pytest_trt.cli import main
from pytest_trt.errors import LatencyFailure
from pytest_trt.lab import Lab
from pytest_trt.settings import Settings

pytestmark = pytest.mark.gpu

WIDTH, ROWS, LAYERS = 1024, 4096, 20  # one layer more is 5 % more work
MANIFEST = f"[profiles.b]\nx = [{ROWS}, {WIDTH}]\n"
# What the gate knows of loads decides how much it can see: the 9 of each that are the default are enough for 5 % at a
# threshold of 1 %, and for an unchanged engine at one of 3 %.
SETTINGS = {"backend": "tensorrt", "precision": "fp16"}


def write_chain(folder: Path, layers: int) -> Path:
    """A chain of matrix products, each with an activation, so that none can be folded into the next."""
    folder.mkdir(parents=True, exist_ok=True)
    nodes, values, last = [], {}, "x"
    for layer in range(layers):
        values[f"w{layer}"] = weights(layer, WIDTH, WIDTH, scale=1.4 * WIDTH**-0.5)
        nodes.append(node("MatMul", [last, f"w{layer}"], [f"m{layer}"], name=f"product{layer}"))
        last = "y" if layer == layers - 1 else f"r{layer}"
        nodes.append(node("Relu", [f"m{layer}"], [last], name=f"relu{layer}"))
    onnx.save(model(nodes, {"x": ["N", WIDTH]}, {"y": ["N", WIDTH]}, values), folder / "model.onnx")
    (folder / "trt.toml").write_text(MANIFEST)
    return folder / "model.onnx"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests: they judge the same two engines."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def root(backend, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTEST_TRT_CACHE_DIR", str(cache))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lab_of(root: Path, **given: str) -> Lab:
    return Lab(Settings.resolve({**SETTINGS, **given}, {}, os.environ), root)


def measured(root: Path, **given: str):
    """The record of the chain as it is now, and whether it turned red."""
    with lab_of(root, **given) as lab:
        (case,) = lab.cases(lab.add("net"))
        record = lab.record(case)
        try:
            lab.measure(case, record)
        except LatencyFailure:
            return record, True
        if given.get("confirm") == "off" and not record.verdict:
            lab.baselines.accept([record], reason="first recording")
        return record, False


def test_one_layer_more_is_red_and_the_same_engine_is_not(root: Path, capsys) -> None:
    write_chain(root / "net", LAYERS)
    measured(root, confirm="off")
    started = time.perf_counter()
    same, same_is_red = measured(root, threshold="3%")
    seconds = time.perf_counter() - started
    write_chain(root / "net", LAYERS + 1)
    longer, longer_is_red = measured(root, threshold="1%")
    with capsys.disabled():
        sys.stdout.write(
            f"\nunchanged ({seconds:.1f} s in all): {same.verdict['sentence']}\nlonger: {longer.verdict['sentence']}\n"
        )

    assert (same.verdict["method"], same.verdict["same_plan"], same_is_red) == ("interleaved", True, False)
    assert same.verdict["outcome"] == "pass"
    assert (longer.verdict["method"], longer.verdict["origin"]) == ("interleaved", "from the cache")
    assert 1.03 < longer.verdict["ratio"] < 1.08
    assert longer_is_red
    assert [attempt["outcome"] for attempt in longer.verdict["attempts"]] == ["fail", "fail"]


def test_two_plans_from_the_shell(root: Path, capsys) -> None:
    digests = []
    for name, layers in (("old", LAYERS), ("new", LAYERS + 1)):
        write_chain(root / "net", layers)
        with lab_of(root) as lab:
            (case,) = lab.cases(lab.add("net"))
            stored, _ = lab.engine(case)
            (root / f"{name}.plan").write_bytes(stored.plan)
            digests.append(stored.plan_digest)

    arguments = ["gate", "--ab", "--json", f"--trust={','.join(digests)}"]
    longer = main([*arguments, "--threshold=1%", "old.plan", "new.plan"])
    (found,) = json.loads(capsys.readouterr().out)["verdicts"].values()
    same = main([*arguments, "--threshold=3%", "old.plan", "old.plan"])

    assert (longer, same) == (1, 0)
    assert found["clock"] == "graph"
    assert found["plans"] == digests


def test_two_onnx_files_from_the_shell(root: Path) -> None:
    old, new = write_chain(root / "old", LAYERS), write_chain(root / "new", LAYERS + 1)

    arguments = ["gate", "--ab", str(old), str(new), f"--manifest={root / 'old'}"]

    assert main([*arguments, "--backend=tensorrt", "--precision=fp16", "--threshold=1%"]) == 1
