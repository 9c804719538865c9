"""Bundles of engines, through the bindings of every TensorRT; builds and runs are simulated."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hand_network import TOML, write_hand
from planted import corrupt, with_other_weight, write_chain
from test_standalone import FakeDriver

from pytest_trt.backends.tensorrt.versions.standalone import run_tensorrt
from pytest_trt.diagnosis.bundle.verdict import main
from pytest_trt.errors import AccuracyFailure
from pytest_trt.lab import Lab
from pytest_trt.settings import Settings


@pytest.fixture
def wrong(backend, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Builders that take a weight for another one; by default always."""
    build = type(backend).build
    conditions: list[Any] = [lambda request: True]

    def corrupted(self: Any, request: Any, *arguments: Any) -> Any:
        if conditions[-1](request):
            request = with_other_weight(request, "w1")
        return build(self, request, *arguments)

    monkeypatch.setattr(type(backend), "build", corrupted)
    return conditions


@pytest.fixture
def lab(backend, cuda, tmp_path: Path) -> Iterator[Lab]:
    settings = Settings(
        cache_dir=tmp_path / "cache", backend=("tensorrt",), precision=("fp16",), census="off",
        bundle=tmp_path / "bundles", opt_level=1, workspace=2**30,
    )  # fmt: skip
    with Lab(settings, tmp_path) as made:
        yield made
    assert not cuda.live


def failing(lab: Lab, folder: Path) -> tuple[Path, str]:
    """The bundle that a failing check leaves, and what the check says."""
    (case,) = lab.cases(lab.add(folder))
    with pytest.raises(AccuracyFailure) as caught:
        lab.check(case, lab.record(case))
    (bundle,) = (lab.root / "bundles").iterdir()
    return bundle, str(caught.value)


def test_a_bundle_builds_the_engine_that_failed(trt, cuda, wrong, lab, tmp_path: Path, capsys) -> None:
    bundle, said = failing(lab, write_chain(tmp_path / "chain", 4, width=16, rows=8))

    assert "of 12 nodes still fails: matmul_1;" in said
    case = json.loads((bundle / "case.json").read_text())
    how = case["run"]
    assert how["tool"] == "tensorrt"
    assert how["attributes"] == {"builder_optimization_level": 1}
    assert how["memory_pools"] == {"WORKSPACE": 2**30}
    assert "FP16" in how["flags_on"]
    assert (bundle / how["timing_cache"]).read_bytes()
    assert case["environment"]["libraries"]["tensorrt"] == trt.__version__
    trtexec = next(line for line in (bundle / "commands.txt").read_text().splitlines() if line.startswith("trtexec"))
    assert "--builderOptimizationLevel=1" in trtexec
    assert ("--fp16" in trtexec) == trt.__version__.startswith("8.6")
    # The file itself, where there is no TensorRT.
    without = "import runpy, sys; sys.modules['tensorrt'] = sys.modules['pytest_trt'] = None; del sys.argv[0]; "
    run = [sys.executable, "-c", f"{without}runpy.run_path(sys.argv[0], run_name='__main__')", bundle / "reproduce.py"]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert (done.returncode, "cannot run here: import of tensorrt" in done.stdout) == (2, True), done.stderr

    # What reproduce.py does. The script's own builder is not the one that errs: the failure does not show.
    assert script(bundle, cuda) == 0
    proto = onnx.load(bundle / how["model"])
    corrupt(proto, "w1")
    onnx.save(proto, bundle / how["model"])
    assert script(bundle, cuda) == 1
    # A model that lies elsewhere is built by the same timings.
    (tmp_path / "other.onnx").write_bytes((bundle / how["model"]).read_bytes())
    assert script(bundle, cuda, str(tmp_path / "other.onnx")) == 1
    proto.graph.node[0].op_type = "NoSuchOp"
    onnx.save(proto, tmp_path / "other.onnx")
    capsys.readouterr()
    assert script(bundle, cuda, str(tmp_path / "other.onnx")) == 2
    assert f"cannot run here: TensorRT {trt.__version__} cannot parse other.onnx: " in capsys.readouterr().out


def script(bundle: Path, cuda: Any, *arguments: str) -> int:
    device = FakeDriver(cuda)
    runners = {"tensorrt": lambda *given: run_tensorrt(*given, device)}
    code = main(bundle, runners, arguments)
    cuda.live = {key: thing for key, thing in cuda.live.items() if key != ("stream", device.stream)}
    return code


DYNAMIC = """
[inputs]
file = "inputs.npz"
[profiles.b]
x = { min = [1, 16], opt = [8, 16], max = [16, 16] }
"""


@pytest.mark.parametrize("trt", ["10.13.3.9"], indirect=True)
@pytest.mark.parametrize("needs_range", [False, True])
def test_the_profile_stays_where_the_failure_needs_it(wrong, lab, tmp_path: Path, needs_range: bool) -> None:
    folder = write_chain(tmp_path / "chain", 3, width=16, rows=16)
    (folder / "trt.toml").write_text(DYNAMIC)
    wrong.append(lambda request: not needs_range or not request.profile.is_static)
    bundle, said = failing(lab, folder)

    manifest = (bundle / "trt.toml").read_text()
    assert ("x = [8, 16]" in manifest) == (not needs_range)
    assert ("x = { min = [1, 16], opt = [8, 16], max = [16, 16] }" in manifest) == needs_range
    assert ("the profile stays; compare with --shapes=opt" in said) == needs_range
    profile = json.loads((bundle / "case.json").read_text())["run"]["profile"]["x"]
    assert profile == [[1, 16] if needs_range else [8, 16], [8, 16], [16, 16] if needs_range else [8, 16]]


@pytest.mark.parametrize("trt", ["10.13.3.9"], indirect=True)
def test_samples_lie_one_after_the_other(wrong, lab, tmp_path: Path) -> None:
    """20 rows, 8 at a time: three samples, of which the last one is filled up."""
    folder = write_chain(tmp_path / "chain", 3, width=16, rows=20)
    (folder / "trt.toml").write_text(DYNAMIC)
    bundle, _ = failing(lab, folder)

    for name in ("inputs", "expected", "actual"):
        (array,) = np.load(bundle / f"{name}.npz").values()
        assert array.shape == (3, 8, 16)
    assert json.loads((bundle / "case.json").read_text())["samples"] == 3


@pytest.mark.parametrize("trt", ["10.13.3.9"], indirect=True)
def test_a_network_builder_leaves_what_there_is(lab, tmp_path: Path) -> None:
    """There is no ONNX graph to store: arrays, the case and its explanation are."""
    pytest.importorskip("matplotlib")
    write_hand(tmp_path)
    (tmp_path / "trt.toml").write_text(TOML.replace("net.py:reference", "net.py:wrong"))
    lab.settings = dataclasses.replace(lab.settings, precision=("fp32",))
    bundle, said = failing(lab, tmp_path)

    assert "note         no model: there is no ONNX graph" in said
    assert {file.name for file in bundle.iterdir()} == {
        *("inputs.npz", "expected.npz", "actual.npz", "case.json", "explanation.txt", "commands.txt"),
        *("reproduce.py", "error_histogram.svg"),
    }
    assert main(bundle, {}, []) == 2
