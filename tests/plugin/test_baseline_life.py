"""The states of a baseline, as a user meets them: drift, renames, orphans, waivers; and what accepts them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from project import MANIFEST

Run = Callable[..., pytest.RunResult]

NEW = "--trt-update-baselines=new"
STRICT = "--trt-baseline=strict"
REASON = "--trt-reason=it is right"


def report(project: Path) -> dict[str, dict[str, Any]]:
    """The records of the last run, by case id."""
    return {r["id"]: r for r in json.loads((project / "report.json").read_text())["records"]}


def stored(project: Path, model: str = "tiny") -> dict[str, Any]:
    """The file's cases."""
    (file,) = project.glob(f"baselines/*/{model}.json")
    cases: dict[str, Any] = json.loads(file.read_text())["cases"]
    return cases


def waive(project: Path, **changes: Any) -> None:
    """Write one waiver; values are TOML."""
    keys = {"case": '"tiny-*"', "owner": '"jane"', "reason": '"the plugin is late"', "expires": "2999-01-31"}
    lines = [f"{name} = {value}" for name, value in {**keys, **changes}.items()]
    (project / "baselines" / "waivers.toml").write_text("\n".join(["[[waiver]]", *lines, ""]))


def test_slow_drift_that_is_accepted_step_by_step_fails_against_the_anchor(run: Run, project: Path) -> None:
    run("models", NEW)
    outcomes = []
    for latency in ("1.03", "1.06", "1.09"):
        result = run(
            "models", f"--trt-fake=latency={latency}", "--trt-update-baselines=all", REASON, "--trt-report=report.json"
        )
        outcomes.append(result.parseoutcomes())
    record = report(project)["tiny-fp32-b1-fake"]

    assert [found.get("failed", 0) for found in outcomes] == [0, 2, 2]
    assert record["verdict"]["against"] == "anchor"
    assert record["verdict"]["ratio"] == pytest.approx(1.09, abs=0.01)
    assert record["verdict"]["recent"]["outcome"] == "pass"  # each step is small
    entry = stored(project)["tiny-fp32-b1-fake"]
    assert entry["latency"]["median_ms"] > 1.08 * entry["anchor"]["latency"]["median_ms"]


def test_accuracy_that_drifts_fails_against_the_anchor(run: Run, project: Path) -> None:
    run("models", NEW, "--trt-fake=error=0.00001", "-k", "accuracy")
    accepted = run("models", "--trt-fake=error=0.000019", "-k", "accuracy", "--trt-update-baselines=all", REASON)
    result = run("models", "--trt-fake=error=0.00003", "-k", "accuracy")

    accepted.assert_outcomes(passed=2, deselected=3)
    result.assert_outcomes(failed=2, deselected=3)
    result.stdout.fnmatch_lines(["*rmse * times the baseline's (anchor of *)"])


def test_an_anchor_moves_only_with_a_reason(run: Run, project: Path) -> None:
    run("models", NEW)
    refused = run("models", "--trt-update-baselines=anchor")
    before = stored(project)
    slower = run("models", "--trt-fake=latency=1.5", "--trt-update-baselines=anchor", "--trt-reason=release 2")
    after = run("models", "--trt-fake=latency=1.5")

    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["*changing baselines (anchor) needs a reason*"])
    slower.assert_outcomes(passed=3, failed=2)  # the run that accepts stays red
    after.assert_outcomes(passed=5)
    entry = stored(project)["tiny-fp32-b1-fake"]
    assert entry["reason"] == "release 2"
    assert "anchor" not in entry
    assert entry["latency"]["median_ms"] > before["tiny-fp32-b1-fake"]["latency"]["median_ms"] * 1.4


def test_a_renamed_model_is_proposed_and_accepted_explicitly(run: Run, project: Path) -> None:
    run("models", NEW)
    past = stored(project)["tiny-fp32-b1-fake"]
    shutil.move(project / "models" / "tiny", project / "models" / "small")

    proposed = run("models", "--trt-report=report.json", "--trt-fake=latency=3", NEW)
    strict = run("models", STRICT)
    accepted = run("models", "--trt-update-baselines=renamed", REASON)
    after = run("models", STRICT)

    proposed.assert_outcomes(passed=5)  # shown, not gated
    proposed.stdout.fnmatch_lines(["*small-fp32-b1-fake seems to be tiny-fp32-b1-fake renamed*"])
    proposed.stdout.fnmatch_lines(["baselines: nothing to write (new)"])  # a rename is no way to forget
    found = report(project)["small-fp32-b1-fake"]
    assert (found["baseline"]["state"], found["baseline"]["from"]) == ("renamed", "tiny-fp32-b1-fake")
    assert found["verdict"]["gates"] is False
    strict.assert_outcomes(passed=3, failed=2)
    strict.stdout.fnmatch_lines(["*the baseline is renamed (tiny-fp32-b1-fake is the same model and case)*"])
    accepted.stdout.fnmatch_lines(["baselines: 2 renamed*", "*tiny-fp32-b1-fake → small-fp32-b1-fake: * ms*"])
    after.assert_outcomes(passed=5)
    moved = stored(project, "small")["small-fp32-b1-fake"]
    assert moved.pop("renamed").endswith(REASON.partition("=")[2])
    assert moved == past
    assert not list(project.glob("baselines/*/tiny.json"))


def test_a_copy_beside_its_model_is_not_renamed(run: Run, project: Path) -> None:
    run("models", NEW)
    shutil.copytree(project / "models" / "tiny", project / "models" / "copy")

    result = run("models", "--trt-report=report.json")

    result.stdout.fnmatch_lines(["*baselines: 2 missing*"])
    states = {name: record["baseline"]["state"] for name, record in report(project).items()}
    assert states == {
        "copy-fp32-b1-fake": "missing",
        "copy-fp32-b8-fake": "missing",
        "tiny-fp32-b1-fake": "current",
        "tiny-fp32-b8-fake": "current",
    }


def test_an_orphan_is_told_fails_a_strict_run_and_is_removed_explicitly(run: Run, project: Path) -> None:
    run("models", NEW)
    (project / "models" / "tiny" / "trt.toml").write_text(MANIFEST.partition("[profiles.b8]")[0])

    told = run("models", "--trt-report=report.json")
    strict = run("models", STRICT)
    removed = run("models", "--trt-update-baselines=orphaned", REASON)
    after = run("models", STRICT)

    told.assert_outcomes(passed=3)
    told.stdout.fnmatch_lines(["baselines: 1 orphaned, their cases are gone: tiny-fp32-b8-fake; *"])
    assert report(project)["tiny-fp32-b8-fake"]["baseline"]["state"] == "orphaned"
    strict.assert_outcomes(passed=2, failed=1)
    strict.stdout.fnmatch_lines(["tiny[[]fp32, b8, fake]: the baseline is orphaned*"])
    removed.stdout.fnmatch_lines(["baselines: 1 orphaned *", "*tiny-fp32-b8-fake: * ms* → none"])
    after.assert_outcomes(passed=3)
    assert list(stored(project)) == ["tiny-fp32-b1-fake"]


@pytest.mark.parametrize("narrowed", [["--trt-precision=fp16"], ["--trt-profile=b1"], ["-k", "b1"]])
def test_what_the_command_line_left_out_is_no_orphan(run: Run, project: Path, narrowed: list[str]) -> None:
    run("models", NEW, "--trt-precision=fp32,fp16")

    result = run("models", *narrowed)

    assert result.ret == 0
    result.stdout.fnmatch_lines(["*tiny-fp*"])
    result.stdout.no_fnmatch_line("*orphaned*")


def test_a_waiver_lets_a_regression_pass_and_says_so(run: Run, project: Path) -> None:
    run("models", NEW)
    waive(project, at_most='"60%"')

    waived = run("models", "--trt-fake=latency=1.5", "--trt-report=report.json")
    found = report(project)["tiny-fp32-b1-fake"]
    above = run("models", "--trt-fake=latency=1.9")
    wrong = run("models", "--trt-fake=error=0.05", "-k", "accuracy")
    waive(project)
    unlimited = run("models", "--trt-fake=latency=1.9")

    waived.assert_outcomes(passed=5)
    waived.stdout.fnmatch_lines(["baselines: tiny-fp32-b1-fake waived until 2999-01-31 by jane: the plugin is late"])
    assert found["baseline"]["state"] == "waived"
    assert [waiver["owner"] for waiver in found["baseline"]["waivers"]] == ["jane"]
    above.assert_outcomes(passed=3, failed=2)  # more than what was waived
    unlimited.assert_outcomes(passed=5)
    wrong.assert_outcomes(failed=2, deselected=3)  # outputs that are wrong are not waived


def test_outputs_that_do_not_repeat_are_no_baseline_until_somebody_says_so(run: Run, project: Path) -> None:
    unstable = ("models", "--trt-fake=unstable=1", "--trt-tolerance=rtol=1,atol=1")

    refused = run(*unstable, NEW)
    before = list(project.glob("baselines/*/*.json"))
    accepted = run(*unstable, "--trt-update-baselines=all", REASON)

    refused.assert_outcomes(passed=5)
    refused.stdout.fnmatch_lines(
        ["baselines: tiny-fp32-b1-fake: not written: the engine gives other outputs each time*"]
    )
    assert not before
    accepted.stdout.fnmatch_lines(["*written all the same: the engine gives other outputs each time, even alone"])
    assert "unsteady" in stored(project)["tiny-fp32-b1-fake"]


@pytest.mark.parametrize(("part", "left"), [("on", 3), ("off", 1)])
def test_a_strict_run_lets_no_waiver_pass(run: Run, project: Path, part: str, left: int) -> None:
    run("models", NEW)
    waive(project)
    before = stored(project)
    asked = ("models", f"--trt-latency={part}", "--trt-fake=latency=1.02", STRICT)

    strict = run(*asked, "--trt-report=report.json", "--trt-update-baselines=failed", REASON)

    strict.assert_outcomes(failed=2, passed=left)
    strict.stdout.fnmatch_lines(
        ["tiny[[]fp32, b1, fake]: the baseline is waived until 2999-01-31 (jane: the plugin is late)"]
    )
    strict.stdout.fnmatch_lines(["baselines: nothing to write (failed)"])  # a waived case is not worse
    assert report(project)["tiny-fp32-b1-fake"]["outcome"] == "failed"
    assert stored(project) == before


@pytest.mark.parametrize("body", ["trt_check()", "trt_check(); trt_latency()"])
def test_a_strict_run_judges_the_baselines_of_tests_of_ones_own(run: Run, project: Path, body: str) -> None:
    takes = ", ".join(call[:-2] for call in body.split("; "))
    (project / "test_own.py").write_text(
        f'import pytest\n\n\n@pytest.mark.trt("models/tiny")\ndef test_own({takes}):\n    {body}\n'
    )
    missing, lenient = run("test_own.py", STRICT), run("test_own.py", NEW)
    gated = run("test_own.py", STRICT)

    missing.assert_outcomes(failed=2)
    missing.stdout.fnmatch_lines(["*the baseline is missing*"])
    lenient.assert_outcomes(passed=2)
    gated.assert_outcomes(passed=2)


def test_a_waiver_of_one_gate_leaves_the_others(run: Run, project: Path) -> None:
    run("models", NEW)
    waive(project, gates='["accuracy"]')

    slower = run("models", "--trt-fake=latency=1.5")
    drifted = run("models", "--trt-fake=error=0.00005", "-k", "accuracy")

    slower.assert_outcomes(passed=3, failed=2)
    drifted.assert_outcomes(passed=2, deselected=3)


@pytest.mark.parametrize("part", ["on", "off"])
def test_an_expired_waiver_fails_its_cases(run: Run, project: Path, part: str) -> None:
    run("models", NEW)
    waive(project, case='"tiny-fp32-b1-fake"', expires="2020-02-29")

    result = run("models", f"--trt-latency={part}")

    result.assert_outcomes(failed=1, passed=4 if part == "on" else 2)
    result.stdout.fnmatch_lines(["tiny[[]fp32, b1, fake]: the waiver expired on 2020-02-29 (jane: the plugin is late)"])
    result.stdout.fnmatch_lines(["baselines: tiny-fp32-b1-fake waived EXPIRED on 2020-02-29 by jane: *"])


def test_a_waiver_that_cannot_be_read_is_named(run: Run, project: Path) -> None:
    run("models", NEW)
    waive(project, expires='"soon"')

    result = run("models", "-k", "latency")

    result.assert_outcomes(failed=2, deselected=3)
    result.stdout.fnmatch_lines(["*waivers.toml: waiver 1: expires must be a date"])


def test_a_patch_of_the_key_is_told_where_the_baseline_is_stale(run: Run, project: Path) -> None:
    run("models", NEW)
    (file,) = project.glob("baselines/*/tiny.json")
    content = json.loads(file.read_text())
    content["environment"]["libraries"]["fake"] = "0"
    file.write_text(json.dumps(content))

    slower = run("models", "--trt-fake=latency=3")
    accepted = run("models", "--trt-update-baselines=failed", REASON)

    slower.assert_outcomes(passed=5)
    slower.stdout.fnmatch_lines(["baselines: tiny-fp32-b1-fake is slower than its stale one: 3x"])
    accepted.stdout.fnmatch_lines(["*tiny-fp32-b1-fake: * ms* → * ms*", "*environment fake: 0 → 1"])


def test_a_file_of_the_first_schema_gates_and_is_written_in_the_second(run: Run, project: Path) -> None:
    run("models", NEW)
    (file,) = project.glob("baselines/*/tiny.json")
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "schema": 1}))

    slower = run("models", "--trt-fake=latency=1.5")
    run("models", "--trt-update-baselines=all", REASON)

    slower.assert_outcomes(passed=3, failed=2)
    assert json.loads(file.read_text())["schema"] == 2


def test_the_anchor_is_judged_beside_its_own_engine(run: Run, project: Path) -> None:
    """Its stored number is made half of what it was: it is the engine that counts, while the cache has it."""
    run("models", NEW)
    run("models", "--trt-fake=latency=1.03", "--trt-update-baselines=all", REASON)
    for file in project.glob("baselines/*/*.json"):
        content = json.loads(file.read_text())
        for entry in content["cases"].values():
            entry["anchor"]["latency"]["median_ms"] /= 2
        file.write_text(json.dumps(content))

    run("models", "--trt-fake=latency=1.04", "--trt-report=report.json").assert_outcomes(passed=5)
    slower = run("models", "--trt-fake=latency=1.07", "--trt-report=report.json")
    verdict = report(project)["tiny-fp32-b1-fake"]["verdict"]

    assert slower.parseoutcomes()["failed"] == 2
    assert (verdict["against"], verdict["method"], verdict["origin"]) == ("anchor", "interleaved", "from the cache")
    assert verdict["ratio"] == pytest.approx(1.07, abs=0.01)
    assert verdict["recent"]["ratio"] == pytest.approx(1.07 / 1.03, abs=0.01)
