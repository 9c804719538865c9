"""A run where it is not at home: a terminal without our characters, a checkout that git refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from history_rows import git

from pytest_trt.history.log import HistoryLog

RUN = ("-p", "no:randomly", "-p", "no:cacheprovider", "--trt-backend=fake", "--trt-profile=b1")


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_a_failure_keeps_its_lines_where_the_terminal_lacks_characters(
    pytester: pytest.Pytester, project: Path, monkeypatch: pytest.MonkeyPatch, workers: tuple[str, ...]
):
    """pytest puts a whole message on one line of escapes there."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")

    result = pytester.runpytest_subprocess(*RUN, *workers, "models", "--trt-fake=error=0.5", "--junitxml=junit.xml")

    result.stdout.fnmatch_lines(
        [
            "tiny[[]fp32, b1, fake]: output * mismatched *",
            "  furthest off * x its limit",
            "  limit * |actual - expected| <= *",
            " case * engine * result",
            " -----*",
            " tiny-fp32-b1 * accuracy failed",
        ]
    )
    result.stdout.no_fnmatch_line("*\\\\u2*")
    assert "≤" in (project / "junit.xml").read_text(encoding="utf-8"), "a file is UTF-8, wherever it is written"


@pytest.mark.parametrize("git_is", ["at home", "told that it is another's checkout", "missing"])
def test_a_history_without_a_commit_says_so(
    pytester: pytest.Pytester, project: Path, monkeypatch: pytest.MonkeyPatch, git_is: str
):
    if git_is == "missing":
        monkeypatch.setenv("PATH", "")
    else:
        git(project, "init", "-q")
        git(project, "add", "models")
        git(project, "commit", "-q", "-m", "models")
    if git_is.startswith("told"):
        monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")

    result = pytester.runpytest(*RUN, "models", "--trt-history=history")

    known = git_is == "at home"
    (row,) = HistoryLog(project / "history").read()[0]
    assert bool(row.commit) == known
    end = "jsonl" if known else f"jsonl, of no commit: git names none for {project}"
    result.stdout.fnmatch_lines([f"history: 1 cases appended as *.{end}"])
