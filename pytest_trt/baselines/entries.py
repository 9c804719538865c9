"""One entry of a baseline file: the recent recording of a case, and beside it the anchor that acceptance leaves alone.

An entry is a recording: ``recorded``, ``reason``, ``model_fingerprint``, ``accuracy``, ``metrics`` (task metrics with
their scores, sample by sample), ``latency``, ``plan``, ``plan_bytes``, ``engine`` (its cache entry), ``structure``,
``lock``. Where it replaced another one, it holds the one of the last release under ``anchor``. An entry without is its
own anchor. Pure but for the date.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from pytest_trt.environment import Environment
from pytest_trt.record import Record

__all__ = ["anchor_of", "anchored", "environment_of", "fingerprint_of", "make_entry", "median_ms", "renamed"]

_ANCHOR = "anchor"
_OF_A_METRIC = ("definition", "samples", "count", "mean", "deviation", "bits", "float32")
# What a latency was measured on belongs to it.
_OF_THE_LATENCY = ("latency", "plan", "plan_bytes", "engine")
_KNOWN = {
    "recorded", "reason", "simulated", "unsteady", "model_fingerprint", "accuracy", "metrics", *_OF_THE_LATENCY,
    "structure", "lock", "anchored", "renamed", _ANCHOR,
}  # fmt: skip


def anchor_of(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """The anchored recording of *entry*: its own where acceptance has not moved away from it."""
    found: Mapping[str, Any] = entry.get(_ANCHOR, entry)
    return found


def anchored(entry: Mapping[str, Any], reason: str) -> dict[str, Any]:
    """*entry* with its recent recording as its anchor, and when and why it became that."""
    return {**{k: v for k, v in entry.items() if k != _ANCHOR}, "anchored": f"{_today()}: {reason}"}


def renamed(entry: Mapping[str, Any], reason: str) -> dict[str, Any]:
    """*entry*, values untouched, and when and why it got its present name."""
    return {**entry, "renamed": f"{_today()}: {reason}"}


def fingerprint_of(record: Record) -> str:
    """The model's fingerprint as entries hold it; empty where no engine was made."""
    return str((record.engine or {}).get("model_fingerprint", ""))[:16]


def environment_of(record: Record) -> Environment:
    """The environment that a record was made in."""
    stored = dict(record.environment or {})
    return Environment(**{**stored, "libraries": tuple(sorted(stored["libraries"].items()))})


def median_ms(entry: Mapping[str, Any] | None) -> float | None:
    return ((entry or {}).get("latency") or {}).get("median_ms")


def make_entry(
    record: Record, reason: str, old: Mapping[str, Any] | None, *, anchor: bool = False, unsteady: str = ""
) -> dict[str, Any]:
    """The entry that *record* makes of the *old* one: the recent recording is *record*'s, the anchor stays, unless
    *anchor* moves it here as well. *unsteady* says why the recording was written although it does not repeat."""
    new = _recording(record, reason, old, unsteady)
    if old is None or anchor:
        return new
    kept = _completed({k: v for k, v in anchor_of(old).items() if k != _ANCHOR}, new)
    return new if kept == new else {**new, _ANCHOR: kept}


def _recording(record: Record, reason: str, old: Mapping[str, Any] | None, unsteady: str) -> dict[str, Any]:
    fingerprint = fingerprint_of(record)
    # A run of one part alone (--trt-latency=off, -k latency) keeps what is stored of the other for the same model.
    kept = old if old and old.get("model_fingerprint") == fingerprint else {}
    accuracy = {
        name: {k: _rounded(o.get(k)) for k in ("max_abs", "rmse", "cosine", "top1")}
        for name, o in sorted((record.accuracy or {}).get("outputs", {}).items())
    }
    metrics = {
        name: {k: v for k, v in row.items() if k in _OF_A_METRIC}
        for name, row in sorted((record.accuracy or {}).get("metrics", {}).items())
    } or (kept.get("metrics") if record.accuracy is None else None)
    latency = {"clock": record.latency["clock"], **record.latency["summary"]} if record.latency else None
    # The plan is the one that the latency was measured on.
    made = record.engine or {}
    measured = kept if latency is None and kept.get("latency") else {**made, "engine": made.get("digest")}
    return {
        "recorded": _today(),
        "reason": reason,
        **({"simulated": True} if record.simulated else {}),
        **({"unsteady": unsteady} if unsteady else {}),
        "model_fingerprint": fingerprint,
        "accuracy": accuracy or kept.get("accuracy", {}),
        **({"metrics": metrics} if metrics else {}),
        "latency": latency or kept.get("latency"),
        **{name: measured.get(name) for name in ("plan", "plan_bytes", "engine")},
        **{name: found for name in ("structure", "lock") if (found := _of_the_engine(record, kept, name))},
        # What a later version has noted is not this one's to drop.
        **{name: value for name, value in (old or {}).items() if name not in _KNOWN},
    }


def _of_the_engine(record: Record, kept: Mapping[str, Any], name: str) -> Any:
    """What the entry says of the engine: the new one's, or what is stored where this run did not look."""
    return (record.engine or {}).get(name) or kept.get(name)


def _completed(anchor: dict[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """*anchor*, with the part that its run did not have: the first recording of a part is its anchor, of the latency
    the first by this clock, since those of another one cannot judge it."""
    if new["latency"] and (anchor["latency"] or {}).get("clock") != new["latency"]["clock"]:
        anchor |= {name: new[name] for name in _OF_THE_LATENCY}
    if not anchor["accuracy"] and new["accuracy"]:
        anchor["accuracy"] = new["accuracy"]
    if new.get("metrics"):
        past = anchor.get("metrics") or {}
        first = {n: m for n, m in new["metrics"].items() if past.get(n, {}).get("definition") != m["definition"]}
        anchor["metrics"] = {**past, **first}
    return anchor


def _today() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%d")


def _rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value
