from __future__ import annotations

from pathlib import Path

import pytest
from history_rows import git, repository

from pytest_trt.history.git import between, count_between, git_state, line_of, resolve


def test_a_clean_commit(tmp_path: Path):
    (only,) = repository(tmp_path, 1)
    (tmp_path / "report.json").write_text("untracked files are no change of the code")

    found = git_state(tmp_path, {})

    assert found is not None
    assert (found.commit, found.branch, found.dirty) == (only, "main", False)
    assert found.committed == git(tmp_path, "log", "-1", "--format=%cI")


def test_changed_files_make_it_dirty(tmp_path: Path):
    repository(tmp_path, 1)
    (tmp_path / "code.txt").write_text("changed")

    found = git_state(tmp_path, {})

    assert found is not None
    assert found.dirty


@pytest.mark.parametrize(
    ("environ", "branch"),
    [({}, None), ({"GITHUB_REF_NAME": "12/merge", "GITHUB_HEAD_REF": "topic"}, "topic"), ({"BRANCH_NAME": "x"}, "x")],
)
def test_a_job_that_is_on_no_branch_is_told_by_its_ci(tmp_path: Path, environ: dict[str, str], branch: str | None):
    repository(tmp_path, 1)
    git(tmp_path, "checkout", "-q", "--detach")

    found = git_state(tmp_path, environ)

    assert found is not None
    assert found.branch == branch


def test_outside_of_a_repository_there_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    assert git_state(tmp_path) is None
    assert resolve(tmp_path, "HEAD") is None
    assert line_of(tmp_path) == {}
    assert between(tmp_path, "a..b") is None
    assert count_between(tmp_path, "a", "b") is None


def test_without_git_there_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    repository(tmp_path, 1)
    monkeypatch.setenv("PATH", "")

    assert git_state(tmp_path, {}) is None


def test_ranges_and_revisions(tmp_path: Path):
    commits = repository(tmp_path, 4)

    assert line_of(tmp_path) == {commit: place for place, commit in enumerate(commits)}
    assert resolve(tmp_path, "HEAD~1") == commits[2]
    assert between(tmp_path, "HEAD~2..HEAD") == set(commits[2:])
    assert count_between(tmp_path, commits[0], commits[3]) == 3
    assert resolve(tmp_path, "nothing") is None


def test_a_name_is_never_an_option(tmp_path: Path):
    repository(tmp_path, 2)

    assert resolve(tmp_path, "--all") is None
    assert between(tmp_path, "--all") is None
