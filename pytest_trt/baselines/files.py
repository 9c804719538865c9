"""The baseline files: ``baselines/<environment>/<model>.json``, one block per case, sorted and rounded for diffs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytest_trt.errors import BaselineError
from pytest_trt.whole_file import write_whole

__all__ = ["SCHEMA_VERSION", "exclusive", "file_name", "read", "write"]

# 1: an entry is one recording. 2: it may hold an ``anchor`` beside it; where it does not, it is its own.
SCHEMA_VERSION = 2
_READABLE = (1, SCHEMA_VERSION)

# What a judgement reads of a recording; a file that was edited by hand or merged by git may lack it.
_NEEDED = {"recorded", "accuracy", "latency"}


def file_name(model: str) -> str:
    """The name of *model*'s file, which is no path whatever the model is called."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in model) + ".json"


def read(file: Path) -> dict[str, Any]:
    """The content of *file* in the present schema. Raises BaselineError that names it."""
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if content["schema"] not in _READABLE:
            raise BaselineError(
                f"{file}: schema {content['schema']} is none of {', '.join(map(str, _READABLE))}",
                hint="upgrade pytest-trt, or record it anew",
            )
        if not isinstance(content["cases"], dict) or not isinstance(content["environment"], dict):
            raise TypeError("cases and environment must be objects")
        for name, entry in content["cases"].items():
            _check(name, entry)
            if "anchor" in entry:
                _check(f"{name}: anchor", entry["anchor"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BaselineError(
            f"{file}: not a baseline file ({type(error).__name__}: {error})",
            hint="restore it from git, or delete it and record it anew",
        ) from error
    return {**content, "schema": SCHEMA_VERSION}


def _check(name: str, recording: Any) -> None:
    if not isinstance(recording, dict) or not recording.keys() >= _NEEDED:
        raise TypeError(f"case {name!r} needs {', '.join(sorted(_NEEDED))}")


def write(file: Path, content: dict[str, Any]) -> None:
    """Replace *file*, or make it, in one step; without cases it is deleted. Raises BaselineError."""
    content["cases"] = dict(sorted(content["cases"].items()))
    try:
        if not content["cases"]:
            file.unlink(missing_ok=True)
            return
        write_whole(file, json.dumps(content, indent=1, ensure_ascii=False, sort_keys=False) + "\n")
    except OSError as error:
        raise BaselineError(
            f"{file}: cannot be written: {error}", hint="choose another folder with --trt-baselines"
        ) from error


@contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Keep this user's other processes on this machine from writing below *root*. Not reentrant."""
    from pytest_trt.artifacts.locks import machine_lock

    # A lock file beside the baselines would show up in git.
    with machine_lock(f"baselines {root.resolve()}"):
        yield
