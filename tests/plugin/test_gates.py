"""The gates: accuracy, latency against a baseline, and the life of a baseline."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., pytest.RunResult]


def report(project: Path) -> dict[str, dict[str, object]]:
    """The records of the last run, by case id."""
    return {r["id"]: r for r in json.loads((project / "report.json").read_text())["records"]}


def test_outputs_that_are_close_pass(run: Run) -> None:
    result = run("models", "--trt-precision=fp32,fp16")

    result.assert_outcomes(passed=9)


def test_outputs_that_are_not_close_say_where_and_how_to_go_on(run: Run) -> None:
    result = run("models", "--trt-profile=b8", "--trt-fake=error=0.05", "-k", "accuracy")

    result.assert_outcomes(failed=1, deselected=2)
    result.stdout.fnmatch_lines(
        [
            'tiny[[]fp32, b8, fake]: output "y" is not close to the reference: *mismatched*',
            "*mismatched * / *",
            "*worst abs * at *",
            "*tolerance *fp32 default*",
            "reproduce    pytest-trt compare models/tiny --precision=fp32 --profile=b8 --backend=fake"
            " --fake=error=0.05",
        ]
    )


def test_a_precision_that_the_engine_does_not_run_in_fails(run: Run) -> None:
    result = run("models", "--trt-precision=fp16", "--trt-profile=b1", "--trt-fake=fp32=1")

    result.assert_outcomes(failed=2, passed=1)
    result.stdout.fnmatch_lines(["*the engine does not run in fp16*", "*every layer runs in float32*"])


def test_a_missing_baseline_is_reported(run: Run, project: Path) -> None:
    result = run("models", "--trt-report=report.json")

    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(["*baselines: 2 missing*--trt-update-baselines=new*"])
    assert {r["baseline"]["state"] for r in report(project).values()} == {"missing"}


def test_the_life_of_a_baseline(run: Run, project: Path) -> None:
    recorded = run("models", "--trt-update-baselines=new", "--trt-report=report.json")
    assert {r["baseline"]["state"] for r in report(project).values()} == {"new"}
    same = run("models", "--trt-report=report.json")
    assert {r["baseline"]["state"] for r in report(project).values()} == {"current"}
    slower = run("models", "--trt-fake=latency=1.5", "--trt-report=report.json")
    kept = (next(project.glob("baselines/*/tiny.json"))).read_text()
    accepted = run(
        "models",
        "--trt-fake=latency=1.5",
        "--trt-update-baselines=failed",
        "--trt-reason=a slower but exact kernel",
    )
    drifted = run("models", "--trt-fake=latency=1.5")
    moved = run("models", "--trt-fake=latency=1.5", "--trt-update-baselines=anchor", "--trt-reason=release 2")
    after = run("models", "--trt-fake=latency=1.5")

    recorded.assert_outcomes(passed=5)
    same.assert_outcomes(passed=5)
    slower.assert_outcomes(passed=3, failed=2)
    slower.stdout.fnmatch_lines(
        ["tiny[[]fp32, b1, fake]: +50.*slower by more than 5.0%*", "baseline     * ms, recorded *"]
    )
    accepted.assert_outcomes(passed=3, failed=2)  # accepting never turns the run green that it happens in
    accepted.stdout.fnmatch_lines(
        ["*tiny-fp32-b1-fake: * ms * → * ms *, +*% (95 % interval *", "*the anchor stays: * ms*"]
    )
    drifted.assert_outcomes(passed=3, failed=2)  # accepting moves the recent baseline, not the anchor
    drifted.stdout.fnmatch_lines(["baseline     * ms, recorded *(the anchor, *"])
    moved.assert_outcomes(passed=3, failed=2)
    after.assert_outcomes(passed=5)
    assert "a slower but exact kernel" not in kept
    assert "release 2" in next(project.glob("baselines/*/tiny.json")).read_text()


def test_a_removed_baseline_is_reported_and_strict_fails(run: Run, project: Path) -> None:
    run("models", "--trt-update-baselines=new")
    next(project.glob("baselines/*/tiny.json")).unlink()

    lenient = run("models")
    strict = run("models", "--trt-baseline=strict")

    lenient.assert_outcomes(passed=5)
    lenient.stdout.fnmatch_lines(["*baselines: 2 missing*"])
    strict.assert_outcomes(passed=3, failed=2)
    strict.stdout.fnmatch_lines(["*the baseline is missing*"])


def test_a_baseline_of_another_version_is_stale_and_does_not_gate(run: Run, project: Path) -> None:
    run("models", "--trt-update-baselines=new")
    file = next(project.glob("baselines/*/tiny.json"))
    content = json.loads(file.read_text())
    content["environment"]["libraries"]["fake"] = "0"
    file.write_text(json.dumps(content))

    result = run("models", "--trt-fake=latency=3")

    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(["*baselines: 2 stale, compared but not gated (fake: 0 → 1)*"])


def test_a_broken_baseline_file_is_named(run: Run, project: Path) -> None:
    run("models", "--trt-update-baselines=new")
    next(project.glob("baselines/*/tiny.json")).write_text("{")

    result = run("models")

    result.assert_outcomes(passed=1, failed=4)
    result.stdout.fnmatch_lines(["*tiny.json: not a baseline file*"])


def test_accuracy_within_tolerance_but_worse_than_the_baseline_fails(run: Run) -> None:
    run("models", "--trt-update-baselines=new")

    result = run("models", "--trt-fake=error=0.00005", "-k", "accuracy")

    result.assert_outcomes(failed=2, deselected=3)
    result.stdout.fnmatch_lines(["*accuracy regressed against the baseline*", "*rmse * times the baseline's*"])


def test_an_inconclusive_latency_warns_or_fails_as_asked(run: Run) -> None:
    run("models", "--trt-update-baselines=new", "--trt-fake=noise=0.5")

    warned = run("models", "--trt-fake=noise=0.5", "--trt-threshold=0.01")
    failed = run("models", "--trt-fake=noise=0.5", "--trt-threshold=0.01", "--trt-inconclusive=fail")

    warned.assert_outcomes(passed=5)
    warned.stdout.fnmatch_lines(["*latency inconclusive*not a failure*"])
    assert failed.ret == pytest.ExitCode.TESTS_FAILED
    failed.stdout.fnmatch_lines(["*cannot tell whether slower by 1.0%*"])


@pytest.mark.parametrize(("selected", "comparisons"), [("latency", 2), ("latency and b1", 1)])
def test_a_verdict_is_corrected_for_the_cases_that_the_run_measures(
    run: Run, project: Path, selected: str, comparisons: int
) -> None:
    run("models", "--trt-update-baselines=new")

    run("models", "-k", selected, "--trt-confirm=off", "--trt-report=report.json")

    verdicts = [record["verdict"] for record in report(project).values()]
    assert [verdict["comparisons"] for verdict in verdicts] == [comparisons] * comparisons  # type: ignore[index]


def test_latency_off_collects_no_latency_items(run: Run) -> None:
    result = run("models", "--trt-latency=off")

    result.assert_outcomes(passed=3)


def test_a_second_run_builds_nothing(run: Run, project: Path) -> None:
    first = run("models", "--trt-precision=fp32,int8", "--trt-report=report.json")
    fresh = {r["engine"]["fresh"] for r in report(project).values()}
    second = run("models", "--trt-precision=fp32,int8", "--trt-report=report.json")

    first.stdout.fnmatch_lines(["engines: 4 built*, 0 from the cache"])
    second.stdout.fnmatch_lines(["engines: 0 built*, 4 from the cache"])
    assert fresh == {True}
    assert {r["engine"]["fresh"] for r in report(project).values()} == {False}


def test_a_baseline_of_another_latency_mode_is_not_compared(run: Run, project: Path) -> None:
    run("models", "--trt-update-baselines=new")
    slow = ("--trt-fake=latency=2", "-k", "latency", "--trt-report=report.json")
    mode = ("--trt-latency-mode=isolated", "--trt-l2-flush=on", "--trt-ab=off")
    run("models", *mode, *slow).assert_outcomes(passed=2, deselected=3)
    for record in report(project).values():
        assert record["verdict"] is None
        assert record["latency"]["clock"] == "simulated+isolated+l2-flush"
        assert record["latency"]["note"].endswith("the baseline was measured by another clock (simulated)")
    run("models", *slow).assert_outcomes(failed=2, deselected=3)


@pytest.mark.parametrize(
    ("recorded", "was"), [((), "simulated"), (("--trt-latency=off",), "none")], ids=["another", "none"]
)
def test_a_latency_without_a_clock_to_be_held_against_is_stale(
    run: Run, project: Path, recorded: tuple[str, ...], was: str
) -> None:
    run("models", *recorded, "--trt-update-baselines=new")
    now = ("models", "--trt-latency-mode=isolated", "--trt-ab=off", "-k", "latency")
    lenient = run(*now, "--trt-report=report.json")
    strict = run(*now, "--trt-baseline=strict")
    told = f"latency clock: {was} → simulated+isolated"

    lenient.assert_outcomes(passed=2, deselected=3)
    lenient.stdout.fnmatch_lines([f"baselines: 2 stale in their latency, which nothing gated ({told})"])
    assert {r["baseline"]["state"] for r in report(project).values()} == {"stale"}
    strict.assert_outcomes(failed=2, deselected=3)
    strict.stdout.fnmatch_lines([f"*the baseline is stale ({told})", "accept *--trt-update-baselines=failed*"])

    run(*now, "--trt-update-baselines=failed", "--trt-reason=another mode")
    run(*now, "--trt-baseline=strict").assert_outcomes(passed=2, deselected=3)


def test_a_latency_mode_has_baselines_and_commands_of_its_own(run: Run, project: Path) -> None:
    mode = ("models", "--trt-latency-mode=throughput", "--trt-streams=2", "-k", "latency")
    run(*mode, "--trt-update-baselines=new")
    result = run(*mode, "--trt-fake=latency=2", "--trt-report=report.json")

    result.assert_outcomes(failed=2, deselected=5)
    result.stdout.fnmatch_lines(["reproduce *--trt-latency-mode=throughput --trt-streams=2 -k latency"])
    for record in report(project).values():
        assert record["verdict"]["clock"] == "throughput+streams=2+simulated"
        assert {"ended", "half_width", "warm", "warmup_seconds"} == set(record["latency"]["course"][0])


@pytest.mark.parametrize(("threshold", "slower"), [("3%", "1.04"), ("150%", "2.6")])
def test_the_command_that_measures_again_has_the_same_threshold(
    run: Run, project: Path, threshold: str, slower: str
) -> None:
    run("models", "--trt-profile=b8", "--trt-update-baselines=new")
    asked = (f"--trt-threshold={threshold}", "--trt-ab=off", f"--trt-fake=latency={slower}")
    failed = run("models", "--trt-profile=b8", *asked, "-k", "latency")
    (line,) = {line for line in failed.stdout.lines if line.startswith("reproduce")}  # a summary may repeat it

    run(*shlex.split(line)[2:]).assert_outcomes(failed=1, deselected=2)


def test_a_latency_mode_that_the_backend_lacks_is_skipped(run: Run) -> None:
    result = run("models", "--trt-latency-mode=queued", "-k", "latency", "-rs", backend="onnxruntime-cpu")

    result.assert_outcomes(skipped=2, deselected=3)
    result.stdout.fnmatch_lines(["*onnxruntime-cpu has no latency mode 'queued'*"])


def test_the_interval_ends_the_sampling(run: Run, project: Path) -> None:
    mode = ("models", "--trt-duration=30", "-k", "latency", "--trt-report=report.json")
    run(*mode, "--trt-interval=1%").assert_outcomes(passed=2, deselected=3)
    for record in report(project).values():
        assert {load["ended"] for load in record["latency"]["course"]} == {"interval"}
