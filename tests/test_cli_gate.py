"""``pytest-trt gate``: over files of samples, and over two engines that take turns."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import model, node, weights
from project import MANIFEST, write_model
from shell import Cli, shell

from pytest_trt.backends import get_backend

PASS, REGRESSION, USAGE, INCONCLUSIVE, NOTHING, ENVIRONMENT = range(6)
RNG = np.random.default_rng(3)


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run ``pytest-trt gate`` in an empty folder, on the simulated backend unless told otherwise."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTEST_TRT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTEST_TRT_BACKEND", "fake")
    monkeypatch.setenv("PYTEST_TRT_DURATION", "0.03")
    monkeypatch.setenv("PYTEST_TRT_WARMUP", "0")
    return shell(capsys, "gate")


def durations(median_ms: float = 1.0, *, repeats: int = 3, spread: float = 0.002, count: int = 400) -> np.ndarray:
    return median_ms * np.exp(spread * RNG.standard_normal((repeats, count)))


def saved(name: str, **arrays: Any) -> Path:
    np.savez(name, **arrays)
    return Path(name)


# ---- samples ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "code", "said"), [(1.0, PASS, "no slowdown"), (1.06, REGRESSION, "slower by more")])
def test_samples_against_samples(gate: Cli, factor: float, code: int, said: str) -> None:
    base, cand = saved("base.npz", net__graph=durations()), saved("cand.npz", net__graph=durations(factor))

    ran = gate(base, cand, "--threshold", "3%")

    assert ran.code == code
    assert f"{abs(factor - 1):.1%} against the baseline" in ran.out  # the sign of nothing is open
    assert f"{said} " in ran.out


def test_one_bad_case_makes_the_run_red_and_one_unclear_case_makes_it_unclear(gate: Cli) -> None:
    base = saved("base.npz", a__graph=durations(), b__host=durations(), c__graph=durations())
    unclear = saved("unclear.npz", a__graph=durations(), b__host=durations(), c__graph=durations())
    red = saved("red.npz", a__graph=durations(), b__host=durations(), c__graph=durations(1.2))

    first, second = gate(base, unclear, "--json"), gate(base, red, "--json")

    assert (first.code, second.code) == (INCONCLUSIVE, REGRESSION)
    found = json.loads(second.out)
    assert found["outcome"] == "fail"
    assert {name: one["outcome"] for name, one in found["verdicts"].items()} == {
        "a__graph": "pass",
        "b__host": "inconclusive",
        "c__graph": "fail",
    }
    assert found["verdicts"]["c__graph"]["candidate_ms"] == pytest.approx(1.2, rel=0.01)
    assert {one["comparisons"] for one in found["verdicts"].values()} == {1, 2}  # red ones leave the others' number


def test_a_clock_chooses_what_it_timed(gate: Cli) -> None:
    base = saved("base.npz", a__graph=durations(), b__host=durations())
    ran = gate(base, base, "--clock=graph")

    assert ran.code == PASS
    assert ran.err == "pytest-trt: b__host is not judged: --clock=graph, and it was timed by host\n"
    assert gate(base, base, "--clock=sync").code == NOTHING


def test_pairs_cancel_what_slows_both(gate: Cli) -> None:
    drift = np.linspace(1, 3, 400)
    base, cand = saved("base.npz", x=durations() * drift), saved("cand.npz", x=durations(1.10) * drift)

    alone, paired = gate(base, cand, "--clock=host"), gate(base, cand, "--clock=host", "--paired")

    assert (alone.code, paired.code) == (INCONCLUSIVE, REGRESSION)


def test_what_the_repeats_are_counts(gate: Cli) -> None:
    base, cand = saved("base.npz", x=durations()), saved("cand.npz", x=durations(1.06))

    codes = [gate(base, cand, "--threshold=3%", "--clock=graph", f"--repeats={r}").code for r in ("processes", "loads")]

    assert codes == [REGRESSION, INCONCLUSIVE]


def benchmarks(name: str, clock: str, factor: float = 1.0) -> str:
    """A file as pytest-benchmark writes it, with the clock that pytest-trt notes."""
    data = list(durations(factor / 1e3, repeats=1)[0])
    rows = [{"name": "b", "fullname": "t.py::b", "stats": {"data": data}, "extra_info": {"clock": clock}}]
    Path(name).write_text(json.dumps({"benchmarks": rows}))
    return name


@pytest.mark.parametrize("clock", ["queued+graph", "queued+transfers+blocking", "isolated+graph+held", "throughput"])
def test_the_clock_of_another_mode_has_the_prior_of_its_device(gate: Cli, clock: str) -> None:
    base, same = benchmarks("a.json", clock), benchmarks("b.json", clock)
    slower, other = benchmarks("c.json", clock, 1.2), benchmarks("d.json", "graph")

    judged = gate(base, slower, "--json")

    assert (judged.code, gate(base, same).code) == (REGRESSION, PASS)
    assert json.loads(judged.out)["verdicts"]["t.py::b"]["clock"] == clock
    refused = gate(base, other)
    assert refused.code == USAGE
    assert f"timed by graph and {clock}: such times do not compare" in refused.err


def test_other_formats(gate: Cli) -> None:
    def trtexec(name: str, factor: float) -> str:
        Path(name).write_text(json.dumps([{"computeMs": one} for one in durations(factor, repeats=1)[0]]))
        return name

    assert gate(benchmarks("a.json", "graph"), benchmarks("b.json", "graph", 1.2)).code == REGRESSION
    assert gate(trtexec("c.json", 1.0), trtexec("d.json", 1.2)).code == REGRESSION
    # One series each: what they are called does not matter.
    assert "compute: " in gate(trtexec("c.json", 1.0), saved("e.npz", mine__sync=durations())).out


@pytest.mark.parametrize(("name", "clock"), [("x", "sync"), ("arr_0", "sync"), ("x__graph", "graph")])
def test_where_no_file_says_what_timed_it_that_is_said(gate: Cli, name: str, clock: str) -> None:
    """One that says it speaks for both."""
    base, cand = saved("old.npz", **{name: durations()}), saved("new.npz", other=durations(1.2))

    ran = gate(base, cand)
    (verdict,) = json.loads(gate(base, cand, "--json").out)["verdicts"].values()

    assert (ran.code, verdict["clock"], verdict["clock_said"]) == (REGRESSION, clock, clock == "graph")
    assert ("as if timed by sync" in ran.out) == (clock == "sync")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("base.npz", "none.npz"), "none.npz: cannot be read"),
        (("base.npz", "base.npz", "--threshold=0"), "--threshold: cannot use '0'"),
        (("base.npz", "base.npz", "--threshold=5"), "--threshold: cannot use '5': that is 500 %; 5% or 0.05 is wanted"),
        (("base.npz", "sync.json"), "timed by graph and sync"),
        (("base.npz", "short.npz", "--paired"), "[400, 400, 400] and [10, 10, 10] samples by repeat are no pairs"),
        (("base.npz", "net.onnx"), "net.onnx is an engine or a model"),
        (("base.npz", "base.npz", "--backend=fake"), "--backend is about engines"),
        (("base.npz", "base.npz", "--manifest=tiny"), "--manifest is about engines"),
        (("base.npz", "base.npz", "--ab"), "two .onnx files or two .plan files"),
        (("net.onnx", "net.plan", "--ab"), "two .onnx files or two .plan files"),
        (("net.onnx", "net.onnx", "--ab"), "there is no such file"),
        (("net.onnx", "net.onnx", "--ab", "--paired"), "are about samples"),
        (("net.plan", "net.plan", "--ab", "--backend=fake"), "a plan runs on --backend=tensorrt"),
        (("base.npz",), "the following arguments are required: CAND"),
    ],
)
def test_what_cannot_be_judged_is_said(gate: Cli, arguments: tuple[str, ...], said: str) -> None:
    saved("base.npz", x__graph=durations())
    saved("short.npz", x__graph=durations(count=10))
    Path("sync.json").write_text(json.dumps([{"computeMs": 1.0}] * 20))

    ran = gate(*arguments)

    assert ran.code == USAGE
    assert said in ran.err


def test_nothing_in_common(gate: Cli) -> None:
    ran = gate(saved("a.npz", x__graph=durations(), y__graph=durations()), saved("b.npz", z__graph=durations()))

    assert ran.code == NOTHING
    assert [line.split()[1] for line in ran.err.splitlines()] == ["x__graph", "y__graph", "z__graph"]


# ---- engines ---------------------------------------------------------------------------------------------------------


def deep(name: str, layers: int, width: int = 64, inputs: str = "x") -> Path:
    """A chain of square matrix products of float32[N, width]."""
    nodes, values, last = [], {}, inputs
    for layer in range(layers):
        values[f"w{layer}"] = weights(layer, width, width, scale=width**-0.5)
        nodes.append(
            node("MatMul", [last, f"w{layer}"], ["y" if layer == layers - 1 else f"h{layer}"], name=f"l{layer}")
        )
        last = f"h{layer}"
    onnx.save(model(nodes, {inputs: ["N", width]}, {"y": ["N", width]}, values), name)
    return Path(name)


def test_a_model_against_itself(gate: Cli) -> None:
    old = deep("old.onnx", 1)

    ran = gate("--ab", old, old, "--threshold=3%")

    assert ran.code == PASS
    assert ran.out.startswith("pass         old-fp32-default-fake (simulated times, synthetic inputs, ")


def test_json_of_two_engines(gate: Cli) -> None:
    old = deep("old.onnx", 1)
    (one,) = json.loads(gate("--ab", old, old, "--json", "--loads=2").out)["verdicts"].values()

    assert (one["rounds"], one["clock"], one["inputs"]) == (2, "simulated", "synthetic seed 0")
    assert one["plans"][0] == one["plans"][1]
    assert one["samples"] > 10


def test_a_larger_model_is_slower_on_a_real_clock(gate: Cli) -> None:
    """A hundred times the work: whatever else this machine does, that shows."""
    old, new = deep("old.onnx", 1, 256), deep("new.onnx", 100, 256)

    ran = gate("--ab", old, new, "--backend=onnxruntime-cpu", "--duration=0.3")
    back = gate("--ab", new, old, "--backend=onnxruntime-cpu", "--duration=0.3")

    assert ran.code == REGRESSION
    assert back.code == PASS
    assert "faster beyond noise" in back.out


def test_two_models_of_one_name(gate: Cli) -> None:
    for folder in ("before", "after"):
        Path(folder).mkdir()
    old, new = deep("before/model.onnx", 1), deep("after/model.onnx", 1)

    assert gate("--ab", old, new).code == PASS


def test_a_manifest_gives_inputs_and_profiles(gate: Cli, tmp_path: Path) -> None:
    write_model(tmp_path / "tiny", MANIFEST)
    onnx.save(onnx.load("tiny/model.onnx"), "new.onnx")

    ran = gate("--ab", "tiny/model.onnx", "new.onnx", "--manifest=tiny", "--precision=fp32,fp16", "--profile=b8")

    assert ran.code == PASS
    assert [line.split()[1] for line in ran.out.splitlines()] == ["tiny-fp32-b8-fake", "tiny-fp16-b8-fake"]
    assert ["(simulated, " in line for line in ran.out.splitlines()] == [False, True]
    assert all("simulated times, " in line for line in ran.out.splitlines())
    assert "synthetic" not in ran.out
    assert "corrected for 2 comparisons" in ran.out


def test_models_of_other_inputs(gate: Cli) -> None:
    ran = gate("--ab", deep("old.onnx", 1), deep("new.onnx", 1, inputs="z"))

    assert ran.code == USAGE
    assert "do not take the same inputs: x float32[1, 64]; and z float32[1, 64]" in ran.err


def test_a_precision_that_the_backend_lacks_is_not_judged(gate: Cli) -> None:
    old = deep("old.onnx", 1)

    ran = gate("--ab", old, old, "--backend=onnxruntime-cpu", "--precision=tf32")

    assert ran.code == NOTHING
    assert "is not judged: ONNX Runtime's CPU provider has no tf32" in ran.err


@pytest.mark.skipif(get_backend("tensorrt").probe().ok, reason="TensorRT works here")
def test_plans_need_tensorrt(gate: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_TRT_BACKEND")
    Path("net.plan").write_bytes(b"a plan")

    ran = gate("--ab", "net.plan", "net.plan")

    assert ran.code == ENVIRONMENT


def test_a_plan_that_nobody_vouches_for_is_not_loaded(gate: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for its digest before any TensorRT reads it."""
    from pytest_trt.backends import Availability
    from pytest_trt.backends.tensorrt import TensorRTBackend

    monkeypatch.delenv("PYTEST_TRT_BACKEND")
    monkeypatch.setattr(TensorRTBackend, "probe", lambda self: Availability(True, versions={"tensorrt": "10.0"}))
    monkeypatch.setattr(TensorRTBackend, "check", lambda self, options: None)
    Path("net.plan").write_bytes(b"a plan")

    ran = gate("--ab", "net.plan", "net.plan", "--trust=" + "0" * 16)

    assert ran.code == USAGE
    assert f"its SHA-256 is {hashlib.sha256(b'a plan').hexdigest()}" in ran.err
