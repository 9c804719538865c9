"""Beside other plugins: xdist, pytest-benchmark, randomly, rerunfailures, JUnit; and switched off."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., pytest.RunResult]


def test_two_workers_build_once_per_key_and_report_all(run: Run, project: Path) -> None:
    result = run("models", "-n", "2", "--trt-precision=fp32,fp16", "--trt-report=report.json")

    result.assert_outcomes(passed=9)
    records = json.loads((project / "report.json").read_text())["records"]
    assert len(records) == 4
    assert all(set(r["outcomes"]) == {"accuracy", "latency"} for r in records)
    assert len(list((project / "cache" / "engine").glob("*/*"))) == 4
    result.stdout.fnmatch_lines(["trt: backend fake*", "engines: 4 built*"])


def test_warnings_as_errors(run: Run) -> None:
    run("models", "-W", "error").assert_outcomes(passed=5)


def test_in_random_order(pytester: pytest.Pytester, project: Path) -> None:
    result = pytester.runpytest("models", "--trt-backend=fake", "-p", "randomly", "-p", "no:cacheprovider")

    result.assert_outcomes(passed=5)


def test_reruns_keep_one_record_a_case(run: Run, project: Path) -> None:
    result = run("models", "--reruns=2", "--trt-fake=error=0.5", "--trt-report=report.json", "-k", "accuracy")

    assert result.parseoutcomes() == {"failed": 2, "deselected": 3, "rerun": 4}
    records = json.loads((project / "report.json").read_text())["records"]
    assert [r["outcomes"] for r in records] == [{"accuracy": "failed"}] * 2


def test_without_the_plugin(run: Run, pytester: pytest.Pytester) -> None:
    result = pytester.runpytest("models", "-p", "no:trt")

    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_without_the_reports(run: Run) -> None:
    result = run("models", "-p", "no:pytest_trt.plugin.reporting")

    result.assert_outcomes(passed=5)
    result.stdout.no_fnmatch_line("*vs baseline*")


def test_without_pytest_benchmark(run: Run) -> None:
    run("models", "-p", "no:benchmark").assert_outcomes(passed=5)


def test_samples_go_to_pytest_benchmark(run: Run, project: Path) -> None:
    result = run("models", "--benchmark-json=bench.json", "--trt-report=report.json")

    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(["*benchmark 'tiny': 2 tests*"])
    benchmarks = {b["name"]: b for b in json.loads((project / "bench.json").read_text())["benchmarks"]}
    records = {r["id"]: r for r in json.loads((project / "report.json").read_text())["records"]}
    assert set(benchmarks) == set(records)
    for name, benchmark in benchmarks.items():
        # Not the medians: theirs is that of all samples, ours that of the loads' medians.
        latency = records[name]["latency"]
        assert [s * 1e3 for s in benchmark["stats"]["data"]] == pytest.approx(latency["samples_ms"], rel=1e-4)
        assert benchmark["stats"]["rounds"] == latency["summary"]["count"]
        assert benchmark["extra_info"]["clock"] == "simulated"


def test_saved_benchmarks_are_compared(run: Run, project: Path) -> None:
    run("models", "--benchmark-save=old").assert_outcomes(passed=5)

    result = run("models", "--benchmark-compare", "--benchmark-compare-fail=median:20%", "--trt-fake=latency=2")

    assert result.ret != 0
    result.stdout.fnmatch_lines(["*tiny-fp32-b1-fake (0001_old)*"])


def test_disabled_benchmarks_leave_our_gate(run: Run, project: Path) -> None:
    run("models", "--trt-update-baselines=new")

    result = run("models", "--benchmark-disable", "--trt-fake=latency=2")

    result.assert_outcomes(passed=3, failed=2)


@pytest.mark.parametrize("option", ["", "--benchmark-only"])
def test_items_that_another_plugin_marks_as_skipped_are_skipped(
    run: Run, pytester: pytest.Pytester, option: str
) -> None:
    if not option:
        pytester.makeconftest("""
            import pytest

            def pytest_collection_modifyitems(items):
                for item in items:
                    item.add_marker(pytest.mark.skip(reason="not here"))
        """)

    result = run("models", "-rs", *([option] if option else []))

    result.assert_outcomes(skipped=5)
    result.stdout.fnmatch_lines([f"SKIPPED [[]5[]] models/tiny/trt.toml*: {'Skipping non' if option else 'not here'}*"])


def test_junit_names_the_items_and_keeps_the_message(run: Run, project: Path) -> None:
    run("models", "--junit-xml=junit.xml", "--trt-fake=error=0.5", "--trt-profile=b1")

    cases = {c.get("name"): c for c in ElementTree.parse(project / "junit.xml").iter("testcase")}
    assert set(cases) == {"model", "accuracy[fp32-b1-fake]", "latency[fp32-b1-fake]"}
    failure = cases["accuracy[fp32-b1-fake]"].find("failure")
    assert failure is not None
    assert "is not close to the reference" in (failure.text or "")


def test_the_header_says_what_runs_and_that_it_is_simulated(run: Run) -> None:
    result = run("models", "--collect-only")

    result.stdout.fnmatch_lines(["trt: backend fake (fake 1) on * - SIMULATED*", "trt: cache rw *"])


def test_the_header_shows_variables_and_typos(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_TRT_PRECISON", "fp16")

    result = run("models", "--collect-only")

    result.stdout.fnmatch_lines(["*PYTEST_TRT_PRECISON is no option, did you mean 'PYTEST_TRT_PRECISION'?"])


def test_the_header_is_there_however_deep_the_models_are(run: Run, pytester: pytest.Pytester) -> None:
    (pytester.path / "models").rename(pytester.path / "deep")
    (pytester.path / "a").mkdir()
    (pytester.path / "deep").rename(pytester.path / "a" / "deep")

    result = pytester.runpytest("--collect-only", "-p", "no:randomly", "-p", "no:cacheprovider")

    result.stdout.fnmatch_lines(["collected 5 items", "trt: backend *", "trt: cache rw *"])
    assert "trt: " not in pytester.runpytest("--collect-only", "-q", "-p", "no:randomly").stdout.str()


def test_a_fault_that_no_backend_heeds_is_told(run: Run) -> None:
    heeded = run("models", "--trt-fake=latency=2", "--trt-profile=b8")
    ignored = run("models", "--trt-fake=latency=2", "--trt-profile=b8", "--trt-latency=off", backend="onnxruntime-cpu")

    line = "--trt-fake changed nothing: no case ran on --trt-backend=fake"
    assert line in ignored.outlines
    assert line not in heeded.outlines


def test_baselines_of_another_root_directory_are_named(
    run: Run, pytester: pytest.Pytester, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("models", "--trt-update-baselines=new", "--trt-profile=b8")
    (project / "tox.ini").unlink()
    monkeypatch.chdir(project / "models")

    below = run("tiny", "--trt-profile=b8", "--trt-latency=off")
    asked = run("tiny", "--trt-profile=b8", "--trt-latency=off", f"--trt-baselines={project / 'elsewhere'}")

    below.stdout.fnmatch_lines(
        [f"baselines: none in {project / 'models' / 'baselines'}; those in {project / 'baselines'} *"]
    )
    assert "baselines: none in" not in asked.stdout.str()


def test_an_unrelated_run_has_no_header(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_x():\n    pass\n")

    result = pytester.runpytest()
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("trt:*")
