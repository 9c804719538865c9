"""What is left of a session that was killed. The backend is the simulated one."""

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


def test_a_session_that_ends_leaves_the_report_alone(run: Run, project: Path) -> None:
    run("models", "--trt-cache=off", "--trt-report=out/report.json").assert_outcomes(passed=5)

    assert [path.name for path in (project / "out").iterdir()] == ["report.json"]


def test_a_report_that_cannot_be_written_is_told_once(run: Run, project: Path) -> None:
    (project / "out").write_text("a file")
    result = run("models", "--trt-cache=off", "--trt-report=out/report.json")

    result.assert_outcomes(passed=5)
    assert result.stdout.str().count("cannot be written") == 1
