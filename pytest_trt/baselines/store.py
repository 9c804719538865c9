"""The baseline files: ``baselines/<environment>/<model>.json``, one block per case, sorted and rounded for diffs."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pytest_trt.environment import Environment
from pytest_trt.errors import BaselineError
from pytest_trt.record import Record
from pytest_trt.spec.case import Case

__all__ = ["SCHEMA_VERSION", "BaselineStore", "Match", "environment_of"]

SCHEMA_VERSION = 1

# What a judgement reads of an entry; a file that was edited by hand or merged by git may lack it.
_NEEDED = {"recorded", "accuracy", "latency"}


@dataclass(frozen=True)
class Match:
    """What is stored for a case in an environment.

    ``state``: ``current`` (the environment is the same: it gates), ``stale`` (the same device, but
    ``differences`` in drivers or libraries: compared, not gated), ``missing`` (nothing to compare with).
    """

    state: str
    entry: dict[str, Any] | None = None
    file: Path | None = None
    differences: tuple[str, ...] = ()

    @property
    def gates(self) -> bool:
        return self.state == "current"

    def to_json(self) -> dict[str, Any]:
        found = {"median_ms": (self.entry.get("latency") or {}).get("median_ms")} if self.entry else {}
        return {"state": self.state, **found, **({"differences": list(self.differences)} if self.differences else {})}


class BaselineStore:
    """Reads and writes one folder of baseline files. A missing folder is an empty one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files: dict[Path, dict[str, Any]] = {}

    def match(self, case: Case, environment: Environment) -> Match:
        """Find the best stored entry for *case*. Raises BaselineError for a file that cannot be read."""
        stale: Match | None = None
        for file in self.files(case.model):
            content = self.load(file)
            entry = content["cases"].get(case.id)
            if entry is None:
                continue
            stored = content["environment"]
            differences = environment.differences(stored)
            if not differences:
                return Match("current", entry, file)
            same_device = stored.get("device") == environment.device and stored.get("backend") == environment.backend
            if same_device and (stale is None or entry["recorded"] > (stale.entry or {})["recorded"]):
                stale = Match("stale", entry, file, tuple(differences))
        return stale or Match("missing")

    def files(self, model: str | None = None) -> list[Path]:
        """The baseline files, of one *model* or of all."""
        return sorted(self.root.glob(f"*/{_file_name(model) if model else '*.json'}"))

    def load(self, file: Path) -> dict[str, Any]:
        if file not in self._files:
            try:
                content = json.loads(file.read_text(encoding="utf-8"))
                if content["schema"] != SCHEMA_VERSION:
                    raise BaselineError(
                        f"{file}: schema {content['schema']} is not {SCHEMA_VERSION}",
                        hint="upgrade pytest-trt, or record it anew",
                    )
                if not isinstance(content["cases"], dict) or not isinstance(content["environment"], dict):
                    raise TypeError("cases and environment must be objects")
                for name, entry in content["cases"].items():
                    if not isinstance(entry, dict) or not entry.keys() >= _NEEDED:
                        raise TypeError(f"case {name!r} needs {', '.join(sorted(_NEEDED))}")
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise BaselineError(
                    f"{file}: not a baseline file ({type(error).__name__}: {error})",
                    hint="restore it from git, or delete it and record it anew",
                ) from error
            self._files[file] = content
        return self._files[file]

    def accept(self, records: Iterable[Record], *, reason: str) -> list[str]:
        """Write *records* as baselines; return a line ``id: old → new`` for each. Files appear atomically."""
        groups: dict[tuple[Environment, str], list[Record]] = {}
        for record in records:
            groups.setdefault((environment_of(record), record.case.model), []).append(record)
        lines = []
        for (environment, model), group in groups.items():
            # Found when its turn comes: a group before may have taken the name.
            file = self._file(environment, model)
            content: dict[str, Any] = (
                self.load(file)
                if file.exists()
                else {"schema": SCHEMA_VERSION, "environment": environment.to_json(), "cases": {}}
            )
            for record in group:
                old = content["cases"].get(record.case.id)
                content["cases"][record.case.id] = new = _entry(record, reason, old)
                lines.append(f"{record.case.id}: {_brief(old)} → {_brief(new)}")
            self._write(file, content)
        return lines

    def _file(self, environment: Environment, model: str) -> Path:
        """The file of *environment*: another one of the same name (a driver update, say) keeps its own, so that the
        cases which did not run since stay visible as stale."""
        number = 1
        while True:
            folder = self.root / (environment.slug if number == 1 else f"{environment.slug}-{number}")
            file = folder / _file_name(model)
            if not file.exists() or not environment.differences(self.load(file)["environment"]):
                return file
            number += 1

    def _write(self, file: Path, content: dict[str, Any]) -> None:
        content["cases"] = dict(sorted(content["cases"].items()))
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=file.parent, prefix=".", suffix=".tmp")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as stream:
                    stream.write(json.dumps(content, indent=1, ensure_ascii=False, sort_keys=False) + "\n")
                    stream.flush()
                    os.fsync(stream.fileno())
                Path(name).chmod(0o644)
                Path(name).replace(file)
            finally:
                Path(name).unlink(missing_ok=True)
        except OSError as error:
            raise BaselineError(
                f"{file}: cannot be written: {error}", hint="choose another folder with --trt-baselines"
            ) from error
        self._files[file] = content


def environment_of(record: Record) -> Environment:
    """The environment that a record was made in."""
    stored = dict(record.environment or {})
    return Environment(**{**stored, "libraries": tuple(sorted(stored["libraries"].items()))})


def _file_name(model: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in model) + ".json"


def _entry(record: Record, reason: str, old: dict[str, Any] | None) -> dict[str, Any]:
    outputs = (record.accuracy or {}).get("outputs", {})
    fingerprint = (record.engine or {}).get("model_fingerprint", "")[:16]
    # A run of one part alone (--trt-latency=off, -k latency) keeps what is stored of the other for the same model.
    kept = old if old and old.get("model_fingerprint") == fingerprint else {}
    accuracy = {
        name: {k: _rounded(o.get(k)) for k in ("max_abs", "rmse", "cosine", "top1")}
        for name, o in sorted(outputs.items())
    }
    latency = {"clock": record.latency["clock"], **record.latency["summary"]} if record.latency else None
    # The plan is the one that the latency was measured on.
    measured = kept if latency is None and kept.get("latency") else record.engine or {}
    return {
        "recorded": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "reason": reason,
        **({"simulated": True} if record.simulated else {}),
        "model_fingerprint": fingerprint,
        "accuracy": accuracy or kept.get("accuracy", {}),
        "latency": latency or kept.get("latency"),
        **{name: measured.get(name) for name in ("plan", "plan_bytes")},
        **{name: found for name in ("structure", "lock") if (found := _engines(record, kept, name))},
    }


def _engines(record: Record, kept: dict[str, Any], name: str) -> Any:
    """What the entry says of the engine: the new one's, or what is stored where this run did not look."""
    return (record.engine or {}).get(name) or kept.get(name)


def _rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _brief(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "none"
    median = (entry.get("latency") or {}).get("median_ms")
    return f"{median:.4g} ms" if median is not None else "no latency"
