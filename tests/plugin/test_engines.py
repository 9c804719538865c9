"""Beside accuracy and latency: census, structure, tactics, streams, builds, isolation, build options. All simulated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., pytest.RunResult]

ONE = ("models", "--trt-profile=b8", "--trt-cache=off")
RECORD = ("--trt-update-baselines=new", "--trt-report=report.json")


def records(project: Path) -> dict[str, dict[str, Any]]:
    return {r["id"]: r for r in json.loads((project / "report.json").read_text())["records"]}


def only(project: Path) -> dict[str, Any]:
    (record,) = records(project).values()
    return record


# --- census ---


@pytest.mark.parametrize(
    ("mode", "failed", "line"),
    [
        ("fail", 2, "*the engine does not run in fp16*"),
        ("warn", 0, "tiny-fp16-b8-fake: census: fp16 was asked, every layer runs in float32 (injected)"),
    ],
)
def test_what_a_census_does(run: Run, mode: str, failed: int, line: str) -> None:
    result = run(*ONE, "--trt-precision=fp16", "--trt-fake=fp32=1", f"--trt-census={mode}")

    result.assert_outcomes(passed=3 - failed, failed=failed)
    result.stdout.fnmatch_lines([line])


def test_a_census_that_is_off_says_nothing(run: Run) -> None:
    result = run(*ONE, "--trt-precision=fp16", "--trt-fake=fp32=1", "--trt-census=off")

    result.assert_outcomes(passed=3)
    result.stdout.no_fnmatch_line("*census: *")


# --- structure and tactics ---


def test_a_changed_structure_warns_or_fails(run: Run, project: Path) -> None:
    run(*ONE, *RECORD).assert_outcomes(passed=3)
    assert only(project)["baseline"]["state"] == "new"

    warned = run(*ONE, "--trt-fake=reformats=3")
    failed = run(*ONE, "--trt-fake=reformats=3", "--trt-structure=fail")
    off = run(*ONE, "--trt-fake=reformats=3", "--trt-structure=off")

    warned.assert_outcomes(passed=3)
    warned.stdout.fnmatch_lines(["tiny-fp32-b8-fake: structure differ* from the baseline: *reformats*0*3*"])
    failed.assert_outcomes(passed=2, failed=1)
    failed.stdout.fnmatch_lines(["*structure differ* from the baseline*", "*reformats*0*3*", "baseline*tiny.json"])
    off.stdout.no_fnmatch_line("*reformats*")


def test_an_equal_structure_is_silent(run: Run) -> None:
    run(*ONE, *RECORD)
    result = run(*ONE, "--trt-structure=fail", "--trt-lock=fail")

    result.assert_outcomes(passed=3)
    result.stdout.no_fnmatch_line("*differ*from the baseline*")


def test_locked_tactics_that_changed_are_named(run: Run, project: Path) -> None:
    run(*ONE, *RECORD, "--trt-lock=warn")
    assert only(project)["engine"]["lock"]["layers"]

    warned = run(*ONE, "--trt-fake=tactic=7", "--trt-lock=warn")
    failed = run(*ONE, "--trt-fake=tactic=7", "--trt-lock=fail")
    unlocked = run(*ONE, "--trt-fake=tactic=7")

    warned.assert_outcomes(passed=3)
    warned.stdout.fnmatch_lines(["tiny-fp32-b8-fake: tactics differ from the baseline: *tactic fake_0 → fake_7*"])
    failed.assert_outcomes(passed=2, failed=1)
    unlocked.stdout.no_fnmatch_line("*tactics differ*")


def test_an_engine_out_of_the_cache_is_locked_and_judged_as_any(run: Run, project: Path) -> None:
    cached = ("models", "--trt-profile=b8")
    run(*cached).assert_outcomes(passed=3)
    run(*cached, *RECORD, "--trt-lock=warn").assert_outcomes(passed=3)
    assert only(project)["engine"]["fresh"] is False
    assert only(project)["engine"]["lock"]["layers"]
    assert "tactics" not in only(project)["engine"]

    other = (*cached, "--trt-cache-dir=other", "--trt-fake=tactic=7,reformats=3", "--trt-lock=warn")
    for _ in range(2):
        warned = run(*other)
        warned.assert_outcomes(passed=3)
        warned.stdout.fnmatch_lines(["tiny-fp32-b8-fake: structure differ* from the baseline: *reformats*0*3*"])
        warned.stdout.fnmatch_lines(["tiny-fp32-b8-fake: tactics differ from the baseline: *tactic fake_0 → fake_7*"])
    warned.stdout.fnmatch_lines(["engines: 0 built in *, 1 from the cache"])


@pytest.mark.parametrize("mode", ["warn", "fail"])
def test_a_baseline_without_tactics_says_that_it_locks_nothing(run: Run, mode: str) -> None:
    said = "tiny-fp32-b8-fake: the baseline holds no tactics: --trt-lock compared nothing; *--trt-update-baselines=all"
    new = run(*ONE, *RECORD)
    before = run(*ONE, f"--trt-lock={mode}", "--trt-fake=tactic=7")
    written = run(*ONE, f"--trt-lock={mode}", "--trt-update-baselines=all", "--trt-reason=locked")
    after = run(*ONE, f"--trt-lock={mode}")

    for result in (new, before, written, after):
        result.assert_outcomes(passed=3)
    before.stdout.fnmatch_lines([said])
    for result in (new, written, after):
        result.stdout.no_fnmatch_line("*holds no tactics*")


def test_tactics_stay_out_of_a_report_that_nobody_locks(run: Run, project: Path) -> None:
    run(*ONE, "--trt-report=report.json")

    assert not {"tactics", "lock"} & only(project)["engine"].keys()


# --- several contexts ---


def test_streams_are_compared_and_timed(run: Run, project: Path) -> None:
    result = run(*ONE, "--trt-streams=3", "--trt-report=report.json")

    result.assert_outcomes(passed=4)
    streams = only(project)["streams"]
    assert (streams["streams"], streams["identical"], streams["repeats"]) == (3, True, True)
    assert streams["several"]["per_second"] > 0
    result.stdout.fnmatch_lines(["tiny-fp32-b8-fake: 3 streams: equal outputs, *"])


def test_contexts_that_disturb_each_other_fail(run: Run) -> None:
    result = run(*ONE, "--trt-streams=3", "--trt-fake=race=1", "-k", "streams")

    result.assert_outcomes(failed=1, deselected=3)
    result.stdout.fnmatch_lines(["*outputs of 3 contexts at once differ from those of one alone", "context 1: y"])


def test_an_engine_that_never_repeats_itself_is_not_blamed_on_streams(run: Run, project: Path) -> None:
    result = run(*ONE, "--trt-streams=2", "--trt-fake=unstable=1", "--trt-report=report.json", "-k", "streams")

    result.assert_outcomes(passed=1, deselected=3)
    assert only(project)["streams"]["repeats"] is False
    result.stdout.fnmatch_lines(["*the engine does not repeat itself, even alone*"])


# --- several builds ---


def test_builds_report_their_spread(run: Run, project: Path) -> None:
    result = run(*ONE, "--trt-builds=4", "--trt-fake=lottery=1", "--trt-report=report.json")

    result.assert_outcomes(passed=4)
    builds = only(project)["builds"]
    assert len(set(builds["plans"])) == builds["count"] == 4
    assert builds["spread"] > 0
    assert builds["equal_outputs"] is True
    assert builds["equal_tactics"] == 1.0
    result.stdout.fnmatch_lines(
        ["tiny-fp32-b8-fake: 4 builds: medians spread *, bitwise equal outputs, tactics 100% equal"]
    )


def test_a_build_that_is_not_close_fails(run: Run) -> None:
    result = run(*ONE, "--trt-builds=2", "--trt-fake=error=0.2", "-k", "builds")

    result.assert_outcomes(failed=1, deselected=3)
    result.stdout.fnmatch_lines(["*2 of 2 builds are not close to the reference", "builds       1, 2"])


# --- builds in a process of their own ---


def test_a_crash_of_the_builder_is_one_failed_case_with_its_log(run: Run) -> None:
    result = run(*ONE, "--trt-isolate=on", "--trt-fake=crash=1,log=1", "-k", "accuracy")

    result.assert_outcomes(failed=1, deselected=2)
    result.stdout.fnmatch_lines(["*SIGSEGV*", "*build log*", "*fake: what follows is as injected*"])


def test_a_build_that_takes_too_long_is_ended(run: Run) -> None:
    result = run(*ONE, "--trt-build-timeout=2", "--trt-fake=hang=600", "-k", "accuracy")

    result.assert_outcomes(failed=1, deselected=2)
    result.stdout.fnmatch_lines(["*2 s*--trt-build-timeout*"])


def test_a_failed_build_attaches_its_log(run: Run) -> None:
    result = run(*ONE, "--trt-fake=build=1,log=1", "-k", "accuracy")

    result.stdout.fnmatch_lines(["*build log*", "*what follows is as injected*"])


def test_an_isolated_build_is_judged_as_any(run: Run) -> None:
    run(*ONE, "--trt-isolate=on").assert_outcomes(passed=3)


# --- build options ---


@pytest.mark.parametrize("flag", ["--trt-plugin", "--trt-plugins"])
def test_a_plugin_library_by_either_spelling(run: Run, project: Path, flag: str) -> None:
    (project / "libfoo.so").write_bytes(b"a library")

    run(*ONE, f"{flag}=libfoo.so", "--trt-report=report.json").assert_outcomes(passed=3)

    assert list(only(project)["engine"]["options"]["plugins"]) == ["libfoo.so"]


def test_a_markers_options_are_of_its_case(run: Run, project: Path) -> None:
    (project / "test_options.py").write_text(
        "import pytest\n"
        '@pytest.mark.trt("models/tiny", profiles=["b8"], opt_level=2, refit="on", graphs=["as-is", "ort-basic"])\n'
        "def test_it(trt_check):\n    trt_check()\n"
    )
    result = run("test_options.py", "--trt-report=report.json", "--trt-opt-level=4", "--trt-sparsity=on")

    result.assert_outcomes(passed=2)
    found = records(project)
    assert set(found) == {
        "tiny-fp32-b8[opt_level=2,refit=on]-fake",
        "tiny-fp32-b8[ort-basic][opt_level=2,refit=on]-fake",
    }
    for record in found.values():
        assert record["engine"]["options"] == {"opt_level": 2, "refit": "on", "sparsity": True}


def test_a_markers_options_do_not_stop_a_run_without_tensorrt(run: Run, project: Path) -> None:
    (project / "test_options.py").write_text(
        "import pytest\n"
        '@pytest.mark.trt("models/tiny", profiles=["b8"], opt_level=2, tactics=["-JIT_CONVOLUTIONS"])\n'
        "def test_it(trt_check):\n    trt_check()\n"
    )
    run("test_options.py", backend="onnxruntime-cpu").assert_outcomes(passed=1)


def test_an_option_that_cannot_be_read_names_the_marker(run: Run, project: Path) -> None:
    (project / "test_options.py").write_text(
        'import pytest\n@pytest.mark.trt("models/tiny", opt_level=9)\ndef test_it(trt_check):\n    trt_check()\n'
    )
    result = run("test_options.py")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*@pytest.mark.trt: opt_level: cannot use '9': a number from 0 to 5 is wanted*"])


def test_graphs_span_an_axis(run: Run, project: Path) -> None:
    result = run(*ONE, "--trt-graph=as-is,ort-basic,opset=17", "--trt-report=report.json", "-k", "accuracy")

    result.assert_outcomes(passed=3, deselected=4)
    assert {r["case"]["graph"] for r in records(project).values()} == {"as-is", "ort-basic", "opset=17"}


def test_backends_stand_side_by_side(run: Run) -> None:
    result = run(*ONE, backend="fake,onnxruntime-cpu")

    result.stdout.fnmatch_lines(
        [" case * fake * onnxruntime-cpu*", " tiny-fp32-b8 * ms, max abs * ms, max abs *(host)*"]
    )


def test_a_build_that_fails_is_not_tried_again_by_the_other_parts(run: Run) -> None:
    result = run(*ONE, "-v", "--trt-fake=build=1", "--trt-streams=2")

    result.assert_outcomes(passed=1, failed=3)
    assert result.stdout.str().count("fake: building") == 1
    result.stdout.fnmatch_lines(["*tiny: latency*", "*the fake builder*", "*tiny: streams*", "*the fake builder*"])


def test_a_rerun_tries_the_build_again(run: Run) -> None:
    result = run(*ONE, "-v", "--trt-fake=build=1", "--reruns=1", "-k", "accuracy")

    assert result.stdout.str().count("fake: building") == 2


def test_a_plan_that_no_tested_backend_runs_is_refused(run: Run) -> None:
    result = run(*ONE, "--trt-engine=net.plan")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["--trt-engine=net.plan: only the backend tensorrt runs a plan*"])
