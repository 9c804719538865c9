"""Row: what the history keeps of one case in one run. One line of JSON each."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime, timezone
from typing import Any, NamedTuple

from pytest_trt.baselines.store import environment_of
from pytest_trt.history.git import GitState
from pytest_trt.record import Record

__all__ = ["SCHEMA_VERSION", "Row", "Series", "new_run", "rows_of", "spread"]

SCHEMA_VERSION = 1

_ACCURACY = ("ok", "max_abs", "rmse", "expected_rms", "cosine", "snr_db", "top1")
_VERDICT = ("outcome", "ratio", "low", "high", "equals")
_ENGINE = (
    "plan",
    "plan_bytes",
    "device_memory_bytes",
    "layers",
    "precisions",
    "structure",
    "build_seconds",
    "fresh",
    "model_fingerprint",
)


class Series(NamedTuple):
    """What makes rows comparable over time: the case, and the device and clock that it was measured with."""

    id: str
    backend: str
    device: str
    clock: str

    def __str__(self) -> str:
        return f"{self.id} on {self.device or 'an unknown device'}" + (f", {self.clock}" if self.clock else "")


@dataclass(frozen=True)
class Row:
    """One case in one run. ``time`` is UTC, ISO 8601; the sections are those of a Record, reduced, None where that
    part did not run. ``latency`` holds ``summary`` (ms), ``spread`` (what pytest-benchmark says of the samples, ms)
    and, where asked for, ``samples_ms``.
    """

    run: str
    time: str
    id: str
    outcome: str
    case: dict[str, Any] | None = None
    git: GitState | None = None
    slug: str = ""
    environment: dict[str, Any] | None = None
    simulated: str | None = None
    latency: dict[str, Any] | None = None
    accuracy: dict[str, Any] | None = None
    engine: dict[str, Any] | None = None
    verdict: dict[str, Any] | None = None

    @property
    def commit(self) -> str:
        return self.git.commit if self.git else ""

    @property
    def revision(self) -> str:
        """The commit as people write it: ``1a2b3c4d``, ``1a2b3c4d+dirty``; the run where there is none."""
        return f"{self.git.commit[:8]}{'+dirty' if self.git.dirty else ''}" if self.git else self.run

    @property
    def median_ms(self) -> float | None:
        median = ((self.latency or {}).get("summary") or {}).get("median_ms")
        return None if median is None else float(median)

    @property
    def plan_bytes(self) -> int | None:
        size = (self.engine or {}).get("plan_bytes")
        return None if size is None else int(size)

    @property
    def rmse(self) -> float | None:
        """The largest error of an output, relative to the size of the reference where that is known."""
        found = []
        for output in (self.accuracy or {}).values():
            if isinstance(output.get("rmse"), (int, float)):
                found.append(float(output["rmse"]) / (output.get("expected_rms") or 1.0))
        return max(found, default=None)

    @property
    def series(self) -> Series:
        environment, latency = self.environment or {}, self.latency or {}
        return Series(
            self.id,
            str(environment.get("backend", "")),
            str(environment.get("device", "")),
            str(latency.get("clock", "")),
        )

    def to_json(self) -> dict[str, Any]:
        """The content of the line; sections that are None are left out."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        kept = {name: value for name, value in own.items() if value is not None}
        return {"schema": SCHEMA_VERSION, **kept, **({"git": self.git.to_json()} if self.git else {})}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Row:
        """Read a line's content. Raises ValueError, KeyError or TypeError for what is no row."""
        if data["schema"] != SCHEMA_VERSION:
            raise ValueError(f"schema {data['schema']!r} is not {SCHEMA_VERSION}")
        known = {field.name: data[field.name] for field in fields(cls) if field.name in data}
        for name in ("run", "time", "id", "outcome"):
            if not isinstance(known[name], str):
                raise TypeError(f"{name} is no text")
        for name in ("case", "git", "environment", "latency", "accuracy", "engine", "verdict"):
            if not isinstance(known.get(name, {}), Mapping):
                raise TypeError(f"{name} is no object")
        if known.get("latency") and not isinstance(known["latency"].get("summary"), Mapping):
            raise TypeError("latency has no summary")
        git = known.pop("git", None)
        return replace(cls(**known), git=GitState.from_json(git) if git else None)


def new_run(git: GitState | None, now: datetime | None = None) -> tuple[str, str]:
    """A run's name, unique and sortable by time, and its time, in full: files that a script imports one after another
    are of one second."""
    moment = (now or datetime.now(timezone.utc)).astimezone(timezone.utc)
    commit = git.commit[:8] if git else "no-commit"
    return f"{moment:%Y%m%dT%H%M%SZ}-{commit}-{secrets.token_hex(3)}", moment.isoformat()


def rows_of(records: Iterable[Record], git: GitState | None, *, samples: bool = False) -> list[Row]:
    """The rows of one run, all under one new name. Cases that were skipped say nothing and get none."""
    run, time = new_run(git)
    return [_row(record, run, time, git, samples) for record in records if record.outcome != "skipped"]


def _row(record: Record, run: str, time: str, git: GitState | None, samples: bool) -> Row:
    outputs = (record.accuracy or {}).get("outputs") or {}
    engine = {name: record.engine[name] for name in _ENGINE if name in record.engine} if record.engine else None
    return Row(
        run=run,
        time=time,
        id=record.case.id,
        outcome=record.outcome,
        case=record.case.to_json(),
        git=git,
        slug=environment_of(record).slug if record.environment else "",
        environment=record.environment,
        simulated=record.simulated,
        latency=_latency(record.latency, samples) if record.latency else None,
        accuracy={
            name: {key: _rounded(output[key]) for key in _ACCURACY if output.get(key) is not None}
            for name, output in sorted(outputs.items())
        }
        or None,
        engine=engine,
        verdict={k: record.verdict[k] for k in _VERDICT if record.verdict.get(k) is not None}
        if record.verdict
        else None,
    )


def _latency(section: Mapping[str, Any], samples: bool) -> dict[str, Any]:
    # Small facts are all kept: clocks, temperatures and loads may explain a change one day.
    kept = {name: value for name, value in section.items() if name != "samples_ms"}
    if taken := section.get("samples_ms"):
        kept["spread"] = spread(taken)
        if samples:
            kept["samples_ms"] = list(taken)
    return kept


def spread(samples_ms: Iterable[float]) -> dict[str, Any]:
    """What pytest-benchmark says of these samples, by its own definitions, in ms (``ops`` apart: it follows)."""
    from pytest_benchmark.stats import Stats

    stats = Stats()
    for sample in samples_ms:
        stats.update(float(sample))
    return {name: _rounded(value) for name, value in stats.as_dict().items() if name != "ops"}


def _rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
