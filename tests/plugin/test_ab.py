"""The latency gate beside the old engine, and its second measurement, on the simulated backend and on the CPU."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_trt.lab.confirm import settle

Run = Callable[..., pytest.RunResult]
B8 = ("models", "--trt-profile=b8", "-k", "latency")
SLOWER = "--trt-fake=latency=1.5"


@pytest.fixture(autouse=True)
def as_by_default(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the second measurement is as it is by default."""
    monkeypatch.delenv("PYTEST_TRT_CONFIRM")


@pytest.fixture
def measured(run: Run, project: Path) -> Callable[..., dict[str, Any]]:
    """Run the case's latency alone; its record, and the run under ``ran``."""

    def measured(*arguments: str) -> dict[str, Any]:
        ran = run(*B8, "--trt-report=report.json", *arguments)
        (record,) = json.loads((project / "report.json").read_text())["records"]
        return {**record, "ran": ran}

    return measured


@pytest.fixture
def baseline(run: Run, project: Path) -> Path:
    """The baseline file of an engine that the cache holds."""
    run(*B8, "--trt-update-baselines=new").assert_outcomes(passed=1, deselected=2)
    return next(project.glob("baselines/*/tiny.json"))


def entry_of(file: Path) -> dict[str, Any]:
    (entry,) = json.loads(file.read_text())["cases"].values()
    return entry


def cached_plans(project: Path) -> list[Path]:
    return sorted(project.glob("cache/**/engine.fake"))


Measured = Callable[..., dict[str, Any]]


def test_a_baseline_says_where_its_engine_is(baseline: Path, project: Path) -> None:
    entry = entry_of(baseline)
    (plan,) = cached_plans(project)

    assert hashlib.sha256(plan.read_bytes()).hexdigest().startswith(entry["plan"])
    assert entry["engine"] in str(plan)


def test_the_same_engine_takes_turns_with_itself(baseline: Path, measured: Measured) -> None:
    record = measured("--trt-loads=2")
    verdict = record["verdict"]

    record["ran"].assert_outcomes(passed=1, deselected=2)
    assert (verdict["method"], verdict["origin"], verdict["same_plan"]) == ("interleaved", "the very same plan", True)
    assert verdict["ratio"] == pytest.approx(1, abs=0.01)
    assert (verdict["outcome"], verdict["gates"], verdict["rounds"]) == ("pass", True, 2)
    assert len(verdict["round_ratios"]) == len(verdict["conditions"]) == 2
    assert verdict["stored"]["outcome"] == "pass"


def test_an_engine_is_not_red_beside_itself(
    baseline: Path, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that slows one side down, each time: what the engines did is not changed by that."""
    from pytest_trt.latency import gate

    decide = gate.decide

    def disturbed(old: Any, new: Any, **how: Any) -> gate.Verdict:
        return decide(old, [1.5 * load for load in new] if how.get("paired") else new, **how)

    monkeypatch.setattr(gate, "decide", disturbed)
    record = measured("--trt-confirm=off")
    verdict = record["verdict"]

    record["ran"].assert_outcomes(passed=1, deselected=2)
    assert (verdict["outcome"], verdict["same_plan"], verdict["gates"]) == ("inconclusive", True, True)
    assert verdict["low"] > 1 + verdict["threshold"]
    assert "both sides are the very same plan, so that this is noise" in verdict["sentence"]


def test_a_slower_engine_is_red_beside_the_old_one(baseline: Path, measured: Measured) -> None:
    record = measured(SLOWER)
    verdict = record["verdict"]

    record["ran"].assert_outcomes(failed=1, deselected=2)
    record["ran"].stdout.fnmatch_lines(
        [
            "tiny[[]fp32, b8, fake]: +50.*slower by more than 5.0%*; the same in a fresh process (+50.*% there)",
            "interleaved  * ms, the old engine * ms (from the cache, 3 loads of each)",
        ]
    )
    assert (verdict["method"], verdict["origin"], verdict["same_plan"]) == ("interleaved", "from the cache", False)
    assert verdict["baseline_plan"] == entry_of(baseline)["plan"]
    assert verdict["candidate_ms"] == pytest.approx(1.5 * verdict["baseline_ms"], rel=0.01)
    assert [attempt["outcome"] for attempt in verdict["attempts"]] == ["fail", "fail"]
    assert [attempt["method"] for attempt in verdict["attempts"]] == ["interleaved", "interleaved"]


def test_the_ratio_is_gated_and_the_stored_number_only_recorded(baseline: Path, measured: Measured) -> None:
    """A machine that became slower: the stored median is half of what the same engine takes now."""
    content = json.loads(baseline.read_text())
    for entry in content["cases"].values():
        entry["latency"] = {name: v / 2 if name.endswith("_ms") else v for name, v in entry["latency"].items()}
    baseline.write_text(json.dumps(content))

    beside, alone = measured(), measured("--trt-ab=off", "--trt-confirm=off")

    beside["ran"].assert_outcomes(passed=1, deselected=2)
    assert beside["verdict"]["stored"]["outcome"] == "fail"
    assert "this machine is slower than when the baseline was recorded" in beside["verdict"]["machine"]
    beside["ran"].stdout.fnmatch_lines(["tiny-fp32-b8-fake: this machine is slower than *"])
    alone["ran"].assert_outcomes(failed=1, deselected=2)
    assert (alone["verdict"]["method"], alone["verdict"]["not_interleaved"]) == ("stored", "--trt-ab=off")
    assert "attempts" not in alone["verdict"]


def test_beside_each_other_any_mode_compares(baseline: Path, measured: Measured) -> None:
    """Whatever clock the stored number is of: both are timed by the present one."""
    record = measured(SLOWER, "--trt-latency-mode=isolated", "--trt-confirm=off")

    record["ran"].assert_outcomes(failed=1, deselected=2)
    assert (record["verdict"]["clock"], record["verdict"]["stored"]) == ("simulated+isolated", None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda entry: entry.pop("plan"), "does not say which engine"),
        (lambda entry: entry.pop("engine"), "is not in the cache"),
        (lambda entry: entry.update(engine="0" * 16), "is not in the cache"),
        (lambda entry: entry.update(plan="0" * 16), "another build"),
    ],
)
def test_without_the_old_engine_the_stored_number_is_judged(
    baseline: Path, measured: Measured, change: Callable[[dict[str, Any]], Any], reason: str
) -> None:
    content = json.loads(baseline.read_text())
    for entry in content["cases"].values():
        change(entry)
    baseline.write_text(json.dumps(content))

    verdict = measured(SLOWER, "--trt-confirm=off")["verdict"]

    assert (verdict["method"], verdict["outcome"]) == ("stored", "fail")
    assert reason in verdict["not_interleaved"]


def test_an_old_engine_that_does_not_run_here_any_more(baseline: Path, measured: Measured, project: Path) -> None:
    (plan,) = cached_plans(project)
    broken = project / "broken.plan"
    broken.write_bytes(b"{}")
    digest = hashlib.sha256(b"{}").hexdigest()

    red = measured(f"--trt-baseline-engine={broken}", f"--trt-trust={digest}")

    red["ran"].assert_outcomes(failed=1, deselected=2)
    red["ran"].stdout.fnmatch_lines(["*this is no plan of the fake backend*"])
    assert plan.is_file()


# ---- --trt-baseline-engine -------------------------------------------------------------------------------------------


def test_an_engine_from_a_file_gates_without_a_baseline(baseline: Path, measured: Measured, project: Path) -> None:
    plan = shutil.copy(cached_plans(project)[0], project / "old.plan")
    digest = hashlib.sha256(Path(plan).read_bytes()).hexdigest()
    baseline.unlink()

    record = measured(SLOWER, "--trt-baseline-engine=old.plan", f"--trt-trust={'0' * 16},{digest[:16]}")

    record["ran"].assert_outcomes(failed=1, deselected=2)
    record["ran"].stdout.fnmatch_lines(["reproduce *--trt-baseline-engine=old.plan -k latency"])
    assert (record["verdict"]["origin"], record["verdict"]["stored"]) == ("old.plan", None)


def test_an_engine_that_nobody_vouches_for_is_not_loaded(baseline: Path, measured: Measured, project: Path) -> None:
    """The baseline vouches for the engine that it was recorded with, and for no other."""
    plan = shutil.copy(cached_plans(project)[0], project / "old.plan")
    known = measured("--trt-baseline-engine=old.plan")
    Path(plan).write_bytes(Path(plan).read_bytes() + b" ")
    changed = measured("--trt-baseline-engine=old.plan")
    baseline.unlink()
    unknown = measured("--trt-baseline-engine=old.plan")

    assert known["verdict"]["outcome"] == "pass"
    for record, said in (
        (changed, "*this is not the plan that is trusted*"),
        (unknown, "*nobody vouched for this one*"),
    ):
        record["ran"].assert_outcomes(failed=1, deselected=2)
        record["ran"].stdout.fnmatch_lines([said])
        assert record["verdict"] is None


def test_one_engine_is_not_held_against_two_precisions(run: Run, baseline: Path, project: Path) -> None:
    shutil.copy(cached_plans(project)[0], project / "old.plan")

    result = run(*B8, "--trt-precision=fp32,fp16", "--trt-baseline-engine=old.plan")

    result.assert_outcomes(passed=1, failed=1, deselected=3)
    result.stdout.fnmatch_lines(["*is one engine, and both tiny[[]fp32, b8, fake] and tiny[[]fp16, b8, fake]*"])


# ---- the second measurement ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("confirmed", ["on", "off"])
def test_what_is_not_green_is_measured_again(baseline: Path, measured: Measured, confirmed: str) -> None:
    verdict = measured("--trt-fake=noise=1,latency=1.5", "--trt-duration=0.001", f"--trt-confirm={confirmed}")[
        "verdict"
    ]

    assert ("attempts" in verdict) == (confirmed == "on" and verdict["outcome"] != "pass")


def test_a_green_verdict_starts_no_process(baseline: Path, measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_trt.lab.confirm._START", "raise SystemExit(1)")  # would be an error

    assert measured()["verdict"]["outcome"] == "pass"


def test_a_second_measurement_that_does_not_come_about_is_an_error(
    baseline: Path, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_trt.lab.confirm._START", "import sys; sys.exit('out of luck')")

    record = measured(SLOWER)

    record["ran"].assert_outcomes(failed=1, deselected=2)
    record["ran"].stdout.fnmatch_lines(
        ["*measuring again in a fresh process failed: it ended with status 1*", "*out of luck*", "*--trt-confirm=off*"]
    )
    assert record["outcomes"]["latency"] == "error"


def test_an_error_of_the_second_measurement_is_told_as_it_is(
    baseline: Path, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = (
        "import sys; sys.path[:] = sys.argv[2:]\n"
        "from pytest_trt.lab import confirm; from pytest_trt.backends import fake\n"
        "def load(*_): raise fake.RunError('no memory', hint='buy some')\n"
        "fake.FakeBackend.load = load; confirm.main(sys.argv[1])"
    )
    monkeypatch.setattr("pytest_trt.lab.confirm._START", start)

    record = measured(SLOWER)

    record["ran"].stdout.fnmatch_lines(["measuring again in a fresh process: no memory", "*hint: buy some"])


def verdict(outcome: str, ratio: float = 1.1) -> dict[str, Any]:
    return {"outcome": outcome, "ratio": ratio, "sentence": f"the {outcome} of {ratio}"}


@pytest.mark.parametrize(
    ("first", "second", "settled"),
    [
        ("fail", "fail", "fail"),
        ("inconclusive", "inconclusive", "inconclusive"),
        ("fail", "pass", "inconclusive"),
        ("fail", "inconclusive", "inconclusive"),
        ("inconclusive", "pass", "inconclusive"),
        ("inconclusive", "fail", "inconclusive"),
    ],
)
def test_red_stands_only_if_both_say_so(first: str, second: str, settled: str) -> None:
    outcome, sentence = settle(verdict(first), verdict(second, 1.2))

    assert outcome == settled
    assert f"the {first} of 1.1" in sentence
    assert ("+20.0% there" if first == second else f"the {second} of 1.2") in sentence


def test_two_verdicts_that_differ_do_not_fail_the_test(
    baseline: Path, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child finds that the engine is as fast as ever: the file that says so is written for it."""
    start = (
        "import json, pathlib, sys; pathlib.Path(sys.argv[1], 'result.json').write_text(json.dumps("
        "{'clock': 'simulated', 'verdict': {'outcome': 'pass', 'ratio': 1.0, 'sentence': 'as fast as ever'}}))"
    )
    monkeypatch.setattr("pytest_trt.lab.confirm._START", start)

    warned, failed = measured(SLOWER), measured(SLOWER, "--trt-inconclusive=fail")

    warned["ran"].assert_outcomes(passed=1, deselected=2)
    assert warned["outcome"] == "inconclusive"
    assert "fail, then pass in a fresh process" in warned["messages"]["latency"]
    assert "slower by more than 5.0%" in warned["messages"]["latency"]
    assert "as fast as ever" in warned["messages"]["latency"]
    failed["ran"].assert_outcomes(failed=1, deselected=2)


# ---- a real backend --------------------------------------------------------------------------------------------------


def test_the_engine_of_onnx_runtime_is_found_and_run(run: Run, project: Path) -> None:
    """What it measures on this machine is not asserted: only that both took turns."""
    arguments = (*B8, "--trt-duration=0.05", "--trt-confirm=off", "--trt-report=report.json")
    run(*arguments, "--trt-update-baselines=new", backend="onnxruntime-cpu")
    run(*arguments, backend="onnxruntime-cpu")

    (record,) = json.loads((project / "report.json").read_text())["records"]

    assert (record["verdict"]["method"], record["verdict"]["same_plan"]) == ("interleaved", True)
    assert record["verdict"]["clock"] == "host"


def test_a_history_takes_the_place_of_the_prior(run: Run, project: Path) -> None:
    """Of the stored number: what earlier runs measured of this engine. Of the ratio: engines beside themselves."""
    arguments = (*B8, "--trt-precision=fp32", "--trt-history=history", "--trt-report=report.json", "--trt-confirm=off")
    run(*arguments, "--trt-update-baselines=new", backend="onnxruntime-cpu")
    verdicts = []
    for _ in range(3):
        run(*arguments, backend="onnxruntime-cpu")
        (record,) = json.loads((project / "report.json").read_text())["records"]
        verdicts.append(record["verdict"])

    assert [verdict["equals"]["loads"] for verdict in verdicts] == [verdicts[0]["rounds"]] * 3
    assert [verdict["noise_source"] for verdict in verdicts] == [
        *["the clock's prior"] * 2,
        "the clock's prior and 2 recorded ratios",
    ]
    assert verdicts[2]["stored"]["noise_source"] == "the clock's prior and 3 recorded medians"
