"""What is left of a session that was killed or interrupted. The backend is the simulated one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., pytest.RunResult]

KILLED = """
import os

import pytest


@pytest.mark.trt("models/tiny", profiles=["b1"])
def test_first(trt_check):
    trt_check()


def test_second():
    os._exit(9)
"""


def test_a_killed_session_leaves_the_records_so_far(pytester: pytest.Pytester, project: Path) -> None:
    pytester.makepyfile(test_killed=KILLED)
    pytester.runpytest_subprocess(
        "test_killed.py", "--trt-backend=fake", "--trt-cache=off", "--trt-report=out/report.json", "-p", "no:randomly"
    )

    assert not (project / "out" / "report.json").exists()
    (record,) = json.loads((project / "out" / "report.json.partial").read_text())["records"]
    assert record["id"] == "tiny-fp32-b1-fake"
    assert record["outcomes"] == {"accuracy": "passed"}


INTERRUPTED = """
import os
import signal
import tempfile
import threading
import time
from pathlib import Path

import pytest


def interrupt():
    while not list(Path(tempfile.gettempdir()).glob("pytest-trt-build-*/output")):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.trt("models/tiny", profiles=["b1", "b8"])
def test_it(trt_check, trt_case):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if trt_case.profile == "b8":
        threading.Thread(target=interrupt).start()
    trt_check()
"""


def test_ctrl_c_ends_an_isolated_build_and_keeps_the_report(
    pytester: pytest.Pytester, run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = project / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    run("models", "--trt-profile=b1", "--trt-latency=off").assert_outcomes(passed=2)  # b1 is in the cache
    pytester.makepyfile(test_interrupted=INTERRUPTED)
    result = pytester.runpytest_subprocess(
        "test_interrupted.py",
        *("--trt-backend=fake", "--trt-fake=hang=600", "--trt-isolate=on", "--trt-report=out/report.json"),
        *("-p", "no:randomly"),
        timeout=120,
    )

    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*records written to out/report.json*"])
    (record,) = json.loads((project / "out" / "report.json").read_text())["records"]
    assert record["id"] == "tiny-fp32-b1-fake"
    assert [path.name for path in (project / "out").iterdir()] == ["report.json"]
    assert not list(temporary.glob("pytest-trt-build-*"))


def test_a_session_that_ends_leaves_the_report_alone(run: Run, project: Path) -> None:
    run("models", "--trt-cache=off", "--trt-report=out/report.json").assert_outcomes(passed=5)

    assert [path.name for path in (project / "out").iterdir()] == ["report.json"]


def test_a_report_that_cannot_be_written_is_told_once(run: Run, project: Path) -> None:
    (project / "out").write_text("a file")
    result = run("models", "--trt-cache=off", "--trt-report=out/report.json")

    result.assert_outcomes(passed=5)
    assert result.stdout.str().count("cannot be written") == 1
