"""Records -> ``report.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pytest_trt import __version__
from pytest_trt.environment import git_commit
from pytest_trt.errors import UsageError
from pytest_trt.record import SCHEMA_VERSION, Record

__all__ = ["read_report", "write_report"]


def write_report(path: Path, records: Sequence[Record], root: Path, *, samples: bool = True) -> None:
    """Write *records* to *path*, with their latency samples or without. Raises UsageError when that fails."""
    content: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "pytest_trt": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": git_commit(root),
        "totals": {
            outcome: sum(r.outcome == outcome for r in records) for outcome in sorted({r.outcome for r in records})
        },
        "records": [_row(record, samples) for record in records],
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{path}: the report cannot be written: {error.strerror or error}", hint="name a file that you may write"
        ) from error


def _row(record: Record, samples: bool) -> dict[str, Any]:
    row = record.to_json()
    if row["latency"] and not samples:
        row["latency"] = {k: v for k, v in row["latency"].items() if k != "samples_ms"}
    return row


def read_report(path: Path) -> list[Record]:
    """Read the records of a ``report.json``. Raises UsageError that names the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA_VERSION:
            raise UsageError(f"{path}: report schema {content['schema']} is not {SCHEMA_VERSION}")
        return [Record.from_json(data) for data in content["records"]]
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: not a report of pytest-trt ({type(error).__name__}: {error})") from error
