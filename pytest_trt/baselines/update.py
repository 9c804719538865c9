"""Accepting baselines: which records a mode writes. Never changes an outcome of the run that wrote them."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_trt.baselines.store import BaselineStore
from pytest_trt.record import Record

__all__ = ["selected", "update"]


def selected(records: Sequence[Record], mode: str) -> list[Record]:
    """The records that *mode* writes: ``new`` those without a current baseline, ``failed`` also those that are
    worse than theirs, ``all`` all. A case whose outputs are wrong, or that did not run, is never written."""
    chosen = []
    for record in records:
        wrong = record.outcomes.get("accuracy") in ("failed", "error") and not (record.accuracy or {}).get("drift")
        ran = record.latency is not None or record.accuracy is not None
        if wrong or not ran or (record.accuracy is not None and not record.accuracy["ok"]):
            continue
        fresh = (record.baseline or {}).get("state") != "current"
        if mode == "all" or fresh or (mode == "failed" and record.outcome == "failed"):
            chosen.append(record)
    return chosen


def update(store: BaselineStore, records: Sequence[Record], mode: str, reason: str | None) -> list[str]:
    """Write what *mode* selects, mark those records ``new``, and return lines for the report."""
    chosen = selected(records, mode)
    if not chosen:
        return [f"baselines: nothing to write ({mode})"]
    lines = store.accept(chosen, reason=reason or "first recording")
    for record in chosen:
        record.baseline = {**(record.baseline or {}), "state": "new"}
    return [f"baselines: {len(chosen)} written below {store.root}", *(f"  {line}" for line in lines)]
