"""What the history asks of git. Everything is None or empty outside of a repository, and where git is missing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["GitState", "between", "count_between", "git_state", "line_of", "resolve"]

# A job that has checked out a commit is on no branch; CI systems say in a variable which one it stands for.
_BRANCH_VARIABLES = ("GITHUB_HEAD_REF", "GITHUB_REF_NAME", "CI_COMMIT_REF_NAME", "BRANCH_NAME")


@dataclass(frozen=True)
class GitState:
    """The commit that was measured. ``dirty``: tracked files were changed; ``committed``: the committer's date."""

    commit: str
    branch: str | None = None
    dirty: bool = False
    committed: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> GitState:
        return cls(str(data["commit"]), data.get("branch"), bool(data.get("dirty")), data.get("committed"))


def git_state(folder: Path, environ: Mapping[str, str] = os.environ) -> GitState | None:
    """The state of the repository that *folder* is in; None outside of one and before the first commit."""
    # A user's log.showSignature would put what gpg says before it.
    head = _git(folder, "log", "-1", "--no-show-signature", "--format=%H %cI")
    if not head:
        return None
    commit, _, committed = head.partition(" ")
    # Untracked files do not count: reports and caches lie about in every job.
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    named = next((environ[name] for name in _BRANCH_VARIABLES if environ.get(name)), None)
    return GitState(commit, _git(folder, "symbolic-ref", "--short", "-q", "HEAD") or named, bool(changed), committed)


def resolve(folder: Path, revision: str) -> str | None:
    """The full commit that *revision* names (a tag, ``HEAD~3``, an abbreviated hash); None if there is none."""
    return _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}") or None


def line_of(folder: Path) -> dict[str, int]:
    """Every commit that ``HEAD`` contains -> its place, oldest first. Empty where git cannot say."""
    commits = _git(folder, "rev-list", "--topo-order", "--reverse", "HEAD") or ""
    return {commit: place for place, commit in enumerate(commits.split())}


def between(folder: Path, revisions: str) -> set[str] | None:
    """The commits of a range as ``git log`` takes it, ``A..B``; None where git does not know it."""
    commits = _git(folder, "rev-list", "--end-of-options", revisions)
    return None if commits is None else set(commits.split())


def count_between(folder: Path, first: str, last: str) -> int | None:
    """How many commits ``first..last`` holds; None where git does not know them (a shallow clone, say)."""
    count = _git(folder, "rev-list", "--count", "--end-of-options", f"{first}..{last}")
    return int(count) if count else None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    # A branch is UTF-8 by git's custom, whatever the locale is.
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None
