"""Metrics of a manifest, as a user meets them: recorded, gated, undecided, not comparable, broken."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats  # noqa: F401 - runs of pytester forget what they import, and scipy loads once in a process

from pytest_trt.cli import main

Run = Callable[..., pytest.RunResult]

NEW = "--trt-update-baselines=new"
ALL = "--trt-update-baselines=all"
REASON = "--trt-reason=it is right"
REPORT = "--trt-report=report.json"
# A function whose scores depend on a file beside it: what an engine that got worse does to them.
SCORE = """
from pathlib import Path

def score(outputs, expected, inputs, labels):
    shift, lost = Path(__file__).with_name("quality.txt").read_text().split()
    if lost == "-":
        return inputs["x"][:, 0] / 10 + float(shift)
    return inputs["x"][:, 0] > float(lost)
"""


@pytest.fixture
def metric(project: Path) -> Callable[..., None]:
    """Write the metric's table, its function, and what the function shall find."""

    def write(keys: str = "max_drop = 0.01", *, shift: float = 0, lost: str = "-", source: str = SCORE) -> None:
        folder = project / "models" / "tiny"
        manifest = (folder / "trt.toml").read_text().partition("[metrics")[0]
        (folder / "trt.toml").write_text(f'{manifest}[metrics.quality]\nmetric = "eval.py:score"\n{keys}\n')
        (folder / "eval.py").write_text(source)
        (folder / "quality.txt").write_text(f"{shift} {lost}")

    return write


@pytest.fixture
def check(run: Run) -> Run:
    def check(*arguments: str) -> pytest.RunResult:
        return run("models", "--trt-latency=off", "--trt-profile=b8", *arguments)

    return check


def rows(project: Path) -> dict[str, Any]:
    (record,) = json.loads((project / "report.json").read_text())["records"]
    found: dict[str, Any] = record["accuracy"]["metrics"]["quality"]
    return found


def stored(project: Path) -> dict[str, Any]:
    (file,) = project.glob("baselines/*/tiny.json")
    (entry,) = json.loads(file.read_text())["cases"].values()
    found: dict[str, Any] = entry
    return found


def test_a_drop_fails_with_its_evidence(check: Run, metric: Callable[..., None], project: Path) -> None:
    metric()
    first = check(NEW, REPORT)
    digest = rows(project)["definition"]["digest"]
    same = check()
    metric(shift=-0.05)
    worse = check(REPORT)
    metric(shift=0.05)
    better = check()

    first.assert_outcomes(passed=2)
    first.stdout.fnmatch_lines(["metrics not compared (1): there is no baseline"])
    first.stdout.fnmatch_lines(["*metric quality none → *"])
    assert stored(project)["metrics"]["quality"]["definition"]["digest"] == digest
    assert len(digest) == 64
    same.assert_outcomes(passed=2)
    same.stdout.fnmatch_lines(["*metric quality: pass (*a drop of 0.01 is excluded; the same 16 samples, sign flips*"])
    worse.assert_outcomes(passed=1, failed=1)
    worse.stdout.fnmatch_lines(
        [
            '*metric "quality" got worse: *worse by 0.05*a real drop*α = 0.05, power = 0.8, smallest detectable drop*',
            "metric * eval.py:score*on 16 samples",
            "baseline *tiny.json, recorded *",
            "moved * 16 samples are worse, 0 better; most of all: *",
            "test * the same 16 samples, sign flips*",
        ]
    )
    assert rows(project)["verdict"]["p"] == pytest.approx(0.5**16, rel=1e-3)
    better.assert_outcomes(passed=2)


def test_lower_may_be_better(check: Run, metric: Callable[..., None]) -> None:
    keys = "max_drop = 0.01\nlower_is_better = true"
    metric(keys)
    check(NEW)
    metric(keys, shift=-0.05)
    lower = check()
    metric(keys, shift=0.05)
    higher = check()

    lower.assert_outcomes(passed=2)
    higher.assert_outcomes(passed=1, failed=1)


def test_too_few_samples_are_no_verdict(check: Run, metric: Callable[..., None], project: Path) -> None:
    metric("", lost="0")
    check(NEW)
    metric("", lost="0.2")
    warned = check(REPORT)
    record = json.loads((project / "report.json").read_text())["records"][0]
    fatal = check("--trt-inconclusive=fail")

    warned.assert_outcomes(passed=2)
    warned.stdout.fnmatch_lines(["*accuracy inconclusive*", "*metric quality: inconclusive (*too few samples*"])
    assert record["outcomes"] == {"accuracy": "inconclusive"}
    assert "too few samples" in record["messages"]["accuracy"]
    fatal.assert_outcomes(passed=1, failed=1)
    fatal.stdout.fnmatch_lines(['*metric "quality" may have got worse: *'])


def test_alpha_and_power_come_from_the_command_line_before_the_manifest(
    check: Run, metric: Callable[..., None], project: Path
) -> None:
    metric("alpha = 0.01\npower = 0.9")
    check(NEW)
    check(REPORT)
    manifest = rows(project)["verdict"]
    check(REPORT, "--trt-alpha=0.1")
    both = rows(project)["verdict"]

    assert (manifest["alpha"], manifest["power"]) == (0.01, 0.9)
    assert (both["alpha"], both["power"]) == (0.1, 0.9)


def test_the_command_of_a_drop_decides_by_the_same_alpha(
    check: Run, metric: Callable[..., None], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two samples of 16 fell: p = 0.25."""
    metric("", lost="0")
    check(NEW)
    metric("", lost="0.2")
    failed = check("--trt-alpha=0.3", "--trt-power=0.7")
    failed.assert_outcomes(passed=1, failed=1)
    again = next(line for line in failed.outlines if line.startswith("reproduce    pytest-trt compare "))

    monkeypatch.chdir(project)
    words = shlex.split(again)[2:]
    assert main(words) == 1
    assert main([word for word in words if "alpha" not in word]) == 3


def test_another_function_is_not_compared(check: Run, metric: Callable[..., None], project: Path) -> None:
    metric()
    check(NEW)
    metric(shift=-1, source=SCORE + "# changed\n")
    changed = check(REPORT)
    strict = check("--trt-baseline=strict")
    accepted = check(ALL, REASON)
    after = check("--trt-baseline=strict")

    changed.assert_outcomes(passed=2)
    assert rows(project)["not_compared"] == "the file of eval.py:score is not the one of the baseline's scores"
    strict.assert_outcomes(passed=1, failed=1)
    strict.stdout.fnmatch_lines(['*metric "quality" is not compared: the file of eval.py:score*'])
    accepted.stdout.fnmatch_lines(["*metric quality * → *"])
    after.assert_outcomes(passed=2)


def test_a_slow_slide_that_is_accepted_step_by_step_fails_against_the_anchor(
    check: Run, metric: Callable[..., None], project: Path
) -> None:
    metric("max_drop = 0.05")
    check(NEW)
    outcomes = []
    for shift in (-0.03, -0.06, -0.09):
        metric("max_drop = 0.05", shift=shift)
        outcomes.append(check(ALL, REASON, REPORT).parseoutcomes().get("failed", 0))

    assert outcomes == [0, 1, 1]
    assert rows(project)["verdict"]["against"] == "anchor"
    entry = stored(project)
    assert entry["metrics"]["quality"]["mean"] < entry["anchor"]["metrics"]["quality"]["mean"] - 0.08


def test_other_samples_are_compared_all_the_same(check: Run, metric: Callable[..., None], project: Path) -> None:
    metric()
    check(NEW)
    check(REPORT, "--trt-samples=1")

    found = rows(project)["verdict"]
    assert (found["paired"], found["method"], found["count"], found["old_count"]) == (False, "Welch's t-test", 8, 16)


def test_as_many_other_samples_are_no_pairs(check: Run, metric: Callable[..., None], project: Path) -> None:
    metric()
    check(NEW)
    x = np.random.default_rng(7).standard_normal((16, 4)).astype(np.float32)
    np.savez(project / "models" / "tiny" / "inputs.npz", x=x)
    check(REPORT)

    found = rows(project)["verdict"]
    assert (found["paired"], found["count"], found["old_count"]) == (False, 16, 16)


def test_a_waiver_for_accuracy_covers_metrics(check: Run, metric: Callable[..., None], project: Path) -> None:
    metric()
    check(NEW)
    metric(shift=-0.05)
    (project / "baselines" / "waivers.toml").write_text(
        '[[waiver]]\ncase = "tiny-*"\nowner = "jane"\nreason = "known"\nexpires = 2999-01-31\ngates = ["accuracy"]\n'
    )
    result = check(REPORT)

    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*metric quality: fail (not gated, *"])
    assert rows(project)["verdict"]["gates"] is False


def test_the_first_scores_of_a_metric_are_its_anchor(check: Run, metric: Callable[..., None], project: Path) -> None:
    check(NEW)
    metric()
    added = check()
    check(ALL, REASON)
    first = stored(project)["anchor"]["metrics"]["quality"]["mean"]
    metric(shift=-0.05)
    check(ALL, REASON)

    said = "the baseline has no scores of this metric; pytest … --trt-update-baselines=all records them"
    added.stdout.fnmatch_lines([f"metrics not compared (1): {said}"])
    assert stored(project)["anchor"]["metrics"]["quality"]["mean"] == first
    assert stored(project)["metrics"]["quality"]["mean"] == pytest.approx(first - 0.05)


def test_an_error_says_where_and_outputs_that_are_wrong_come_first(check: Run, metric: Callable[..., None]) -> None:
    metric(source="def score(outputs, expected, inputs, labels):\n    return outputs['z'].mean()\n")
    broken = check()
    wrong = check("--trt-fake=error=0.5", "--trt-explain=off")

    broken.assert_outcomes(passed=1, failed=1)
    broken.stdout.fnmatch_lines(["*metrics.quality: eval.py:score failed at eval.py:2 on *: KeyError: 'z'"])
    wrong.stdout.fnmatch_lines(['*output "y" is not close to the reference*'])
    wrong.stdout.no_fnmatch_line("*failed at eval.py*")


def test_a_mean_beyond_its_limit_is_never_recorded(check: Run, metric: Callable[..., None], project: Path) -> None:
    metric("limit = 5")
    result = check(NEW)

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(['*metric "quality" is *, required 5*', "baselines: nothing to write (new)"])
    assert not list(project.glob("baselines/*/*.json"))


def test_a_run_without_accuracy_keeps_the_scores(run: Run, metric: Callable[..., None], project: Path) -> None:
    metric()
    run("models", "--trt-profile=b8", NEW)
    before = stored(project)["metrics"]
    run("models", "--trt-profile=b8", ALL, REASON, "-k", "latency")

    assert stored(project)["metrics"] == before
