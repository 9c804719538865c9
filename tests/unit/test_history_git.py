from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from history_rows import git, repository

import pytest_trt
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


GPG = """#!/bin/sh
cat > {null}
case "$*" in
*--verify*) echo "gpg: Good signature" >&2; echo "[GNUPG:] GOODSIG 0 n" ;;
*) echo "[GNUPG:] SIG_CREATED D" >&2; echo "-----BEGIN PGP SIGNATURE-----" ;;
esac
"""


@pytest.mark.skipif(os.name == "nt", reason="git is given a shell script")
def test_a_user_who_is_shown_signatures_has_the_same_commit(tmp_path: Path):
    program = tmp_path / "gpg.sh"
    program.write_text(GPG.format(null=os.devnull))
    program.chmod(0o700)
    repository(tmp_path / "code", 1)
    git(tmp_path / "code", "config", "gpg.program", str(program))
    git(tmp_path / "code", "config", "log.showSignature", "true")
    git(tmp_path / "code", "commit", "-q", "-S", "--amend", "-m", "signed")

    found = git_state(tmp_path / "code", {})

    assert found is not None
    assert found.commit == git(tmp_path / "code", "rev-parse", "HEAD")


def test_a_branch_is_utf_8_in_any_locale(tmp_path: Path):
    repository(tmp_path, 1)
    git(tmp_path, "checkout", "-q", "-b", "größer")
    code = (
        "from pathlib import Path; from pytest_trt.history.git import git_state; print(ascii(git_state(Path()).branch))"
    )
    path = os.pathsep.join([str(Path(pytest_trt.__file__).parents[1]), *sys.path])
    ascii_locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": path}

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, **ascii_locale}, capture_output=True, check=True
    )

    assert done.stdout.decode().strip() == ascii("größer")


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
