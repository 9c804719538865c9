"""The history on disk: a folder of JSON lines, one file per run.

A run never touches the file of another one. So nothing needs a lock, two branches that both add runs merge without a
conflict, and a history that is kept in git does not make the working tree dirty for the next run. Files may be put
together with ``cat``: a row that turns up twice counts once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from pytest_trt.errors import UsageError
from pytest_trt.history.rows import Row
from pytest_trt.whole_file import write_whole

__all__ = ["HistoryLog"]


class HistoryLog:
    """Appends to, and reads, one folder: ``YYYY-MM/RUN.jsonl``. A missing folder is an empty history."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def append(self, rows: Sequence[Row]) -> Path | None:
        """Write the rows of one run as one new file, which appears whole or not at all; None for no rows.

        Raises UsageError when the folder cannot be written.
        """
        if not rows:
            return None
        file = self.root / rows[0].time[:7] / f"{rows[0].run}.jsonl"
        lines = [json.dumps(row.to_json(), ensure_ascii=False, allow_nan=False, sort_keys=True) for row in rows]
        try:
            write_whole(file, "\n".join(lines) + "\n")
        except OSError as error:
            raise UsageError(
                f"--trt-history: {self.root} cannot be written: {error}", hint="name a folder that you may write"
            ) from error
        return file

    def read(self) -> tuple[list[Row], list[str]]:
        """All rows, by time, and a sentence ``FILE:LINE: …`` for each line that is none: a history outlives its
        writers, and one torn line must not hide the rest. Raises UsageError for a folder that cannot be read."""
        if self.root.exists() and not self.root.is_dir():
            raise UsageError(f"--trt-history: {self.root} is a file, a folder is wanted")
        found: dict[tuple[str, str], Row] = {}
        problems: list[str] = []
        for file in sorted(self.root.rglob("*.jsonl")):
            try:
                text = file.read_bytes()
            except OSError as error:
                problems.append(f"{file}: cannot be read: {error.strerror}")
                continue
            for row in _rows(file, text, problems):
                found.setdefault((row.run, row.id), row)
        return sorted(found.values(), key=lambda row: (row.time, row.run, row.id)), problems


def _rows(file: Path, text: bytes, problems: list[str]) -> Iterable[Row]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
            if not isinstance(content, dict):
                raise TypeError("the line is no object")
            yield Row.from_json(content)
        except KeyError as error:
            problems.append(f"{file}:{number}: not a row of the history: {error} is missing")
        except (ValueError, TypeError) as error:
            problems.append(f"{file}:{number}: not a row of the history: {error}")
