"""Hand-made rows of a history, and a git repository with commits at given dates."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from records import ENVIRONMENT

from pytest_trt.history.git import GitState
from pytest_trt.history.rows import Row, spread
from pytest_trt.latency.stats import summarize


def commit(number: int) -> str:
    """A made-up hash that begins with its number."""
    return f"{number:04x}".ljust(40, "c")


def row(
    number: int = 0,
    median_ms: float | None = 1.0,
    *,
    id: str = "digits-fp16-b8-tensorrt",
    clock: str = "graph",
    plan: str = "cd" * 32,
    branch: str = "main",
    dirty: bool = False,
    run: str | None = None,
    samples: bool = False,
    environment: dict[str, Any] | None = None,
    **fields: Any,
) -> Row:
    """The row of commit *number*, measured on day *number* of 2026, with 40 samples around *median_ms*."""
    day = f"2026-{1 + number // 28:02}-{1 + number % 28:02}T00:00:00+00:00"
    latency = None
    if median_ms is not None:
        taken = [median_ms * (1 + 0.0005 * ((i * 7) % 5 - 2)) for i in range(40)]
        latency = {"clock": clock, "summary": summarize(taken).to_json(), "spread": spread(taken)}
        if samples:
            latency["samples_ms"] = taken
    given: dict[str, Any] = {
        "run": run or f"run-{number:04}",
        "time": day,
        "id": id,
        "outcome": "passed",
        "case": {"model": id.partition("-")[0], "precision": "fp16"},
        "git": GitState(commit(number), branch, dirty, day),
        "slug": "nvidia-h200_tensorrt_10.16.1",
        "environment": environment or dict(ENVIRONMENT),
        "latency": latency,
        "accuracy": {"y": {"ok": True, "rmse": 2e-4, "expected_rms": 2.0}},
        "engine": {"plan": plan, "plan_bytes": 1_234_567, "model_fingerprint": "01" * 32},
    }
    return Row(**{**given, **fields})


def git(folder: Path, *arguments: str) -> str:
    """What git prints in *folder*; skips the test where there is no git, as in a slim container."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    identity = ("-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def repository(folder: Path, commits: int) -> list[str]:
    """Make *folder* a repository with so many commits on ``main``; return their hashes, oldest first."""
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "-q")
    hashes = []
    for number in range(commits):
        (folder / "code.txt").write_text(str(number))
        git(folder, "add", "code.txt")
        git(folder, "commit", "-q", "-m", f"commit {number}")
        hashes.append(git(folder, "rev-parse", "HEAD"))
    return hashes
