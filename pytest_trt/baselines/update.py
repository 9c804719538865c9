"""Accepting baselines: which records a mode writes. Never changes an outcome of the run that wrote them."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_trt.baselines.store import BaselineStore, environment_of
from pytest_trt.record import Record

__all__ = ["selected", "update"]


def selected(store: BaselineStore, records: Sequence[Record], mode: str) -> list[Record]:
    """The records that *mode* writes: ``new`` those of which nothing is stored, ``failed`` also those whose baseline
    is stale or that are worse than theirs, ``all`` all. A case whose outputs are wrong, or that did not run, is never
    written. What is stored is looked up now: a report may be older than the files."""
    chosen = []
    for record in records:
        ran = record.latency is not None or record.accuracy is not None
        wrong = record.outcomes.get("accuracy") == "error" or not (record.accuracy or {"ok": True})["ok"]
        if not ran or wrong or "not_honoured" in (record.engine or {}):
            continue
        match = store.match(record.case, environment_of(record))
        state = match.state
        if record.latency and match.gates and not (match.entry or {}).get("latency"):
            state = "missing"  # recorded while latency was not measured
        if (
            mode == "all"
            or state == "missing"
            or (mode == "failed" and (state == "stale" or record.outcome == "failed"))
        ):
            chosen.append(record)
    return chosen


def update(store: BaselineStore, records: Sequence[Record], mode: str, reason: str | None) -> list[str]:
    """Write what *mode* selects, mark those records ``new``, and return lines for the report."""
    chosen = selected(store, records, mode)
    if not chosen:
        return [f"baselines: nothing to write ({mode})"]
    lines = store.accept(chosen, reason=reason or "first recording")
    for record in chosen:
        record.baseline = {**(record.baseline or {}), "state": "new"}
    return [f"baselines: {len(chosen)} written below {store.root}", *(f"  {line}" for line in lines)]
