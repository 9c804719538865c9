"""Accepting baselines: which records a mode writes. Never changes an outcome of the run that wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_trt.baselines.entries import environment_of, fingerprint_of
from pytest_trt.baselines.repeatability import outputs_that_differ, unsteady_latency
from pytest_trt.baselines.state import Match, complaint
from pytest_trt.baselines.store import BaselineStore
from pytest_trt.errors import UsageError
from pytest_trt.record import Record

__all__ = ["MODES", "Accepted", "accept", "selected", "update"]

# What each mode does; all but the first change what is stored, and want a reason.
MODES = {
    "new": "record cases of which nothing is stored",
    "renamed": "give renamed cases the entry of their old id",
    "orphaned": "delete the entries of cases that are gone",
    "failed": "record missing and stale cases, and those that are worse than their baseline",
    "all": "record every case that ran and is right",
    "anchor": "record every such case as recent baseline and as anchor",
}


@dataclass(frozen=True)
class Accepted:
    """What an update did: ``lines`` for the report, how many entries it wrote, and how many cases it refused since
    they do not repeat."""

    lines: list[str]
    written: int
    refused: int


def selected(store: BaselineStore, records: Sequence[Record], mode: str) -> list[Record]:
    """The records that *mode* writes. A case whose outputs are wrong, or that did not run, is never written. What is
    stored is looked up now: a report may be older than the files."""
    if mode == "orphaned":
        return [r for r in records if (r.baseline or {}).get("state") == "orphaned"]
    known = {record.case.model for record in records}
    chosen = []
    for record in records:
        ran = record.latency is not None or record.accuracy is not None
        wrong = record.outcomes.get("accuracy") == "error" or not (record.accuracy or {"ok": True})["ok"]
        if not ran or wrong or "not_honoured" in (record.engine or {}):
            continue
        match = store.match(record.case, environment_of(record), fingerprint=fingerprint_of(record), known=known)
        if _writes(mode, record, match):
            chosen.append(record)
    return chosen


def _writes(mode: str, record: Record, match: Match) -> bool:
    state = match.found
    if record.latency and match.gates:
        stored = (match.entry or {}).get("latency")
        if not stored:
            state = "missing"  # recorded while latency was not measured
        elif stored["clock"] != record.latency["clock"]:
            state = "stale"
    if mode == "renamed":
        return state == "renamed"
    if mode in ("all", "anchor") or state == "missing":
        return True
    return mode == "failed" and (state == "stale" or (state == "current" and _worse(record)))


def _worse(record: Record) -> bool:
    """Whether *record* failed by its values: that a waiver covers it, or has ended, does not make it worse."""
    said = complaint(record.baseline, strict=True)
    failed = [part for part, outcome in record.outcomes.items() if outcome == "failed"]
    return record.outcome == "failed" and not (said and all(record.messages.get(part) == said[0] for part in failed))


def update(store: BaselineStore, records: Sequence[Record], mode: str, reason: str | None) -> list[str]:
    """Do what *mode* says, and return lines for the report. Raises UsageError, see ``accept``."""
    return accept(store, records, mode, reason).lines


def accept(store: BaselineStore, records: Sequence[Record], mode: str, reason: str | None) -> Accepted:
    """Write what *mode* selects and mark those records ``new``. First it is asked whether their values repeat: a
    latency that does not is never written, outputs that do not only by a mode that replaces all of them.

    Raises UsageError where something would be changed without a reason.
    """
    why = (reason or "").strip()
    if mode != "new" and not why:
        raise UsageError(f"changing baselines ({mode}) needs a reason", hint='add --trt-reason="why it is right"')
    with store.exclusive():
        chosen = selected(store, records, mode)
        if mode in ("renamed", "orphaned"):
            known = _models(records)
            done = store.remove(chosen) if mode == "orphaned" else store.rename(chosen, reason=why, known=known)
            return _told(f"{len(done)} {mode} ({why})", store, done, [], mode)
        refused = {r.case.id: said for r in chosen if (said := _refusal(r, mode))}
        steady = [record for record in chosen if record.case.id not in refused]
        lines = store.accept(
            steady,
            reason=why or "first recording",
            anchor=mode == "anchor",
            known=_models(records),
            unsteady={record.case.id: outputs_that_differ(record) for record in steady},
        )
    red = sum(record.outcome in ("failed", "error") for record in steady)
    for record in steady:
        record.baseline = {**(record.baseline or {}), "state": "new"}
    lines += [f"{red} of them failed in the run that recorded them, and stay failed there"] if red else []
    return _told(f"{len(steady)} written", store, lines, [f"{k}: not written: {v}" for k, v in refused.items()], mode)


def _models(records: Sequence[Record]) -> set[str]:
    return {record.case.model for record in records}


def _refusal(record: Record, mode: str) -> str:
    outputs = outputs_that_differ(record)
    if outputs and mode not in ("all", "anchor"):
        return f"{outputs}; --trt-update-baselines=all writes it all the same"
    unsteady = unsteady_latency(record)
    return f"{unsteady}; measure again, longer or on a quieter machine" if unsteady else ""


def _told(head: str, store: BaselineStore, done: list[str], refused: list[str], mode: str) -> Accepted:
    count = int(head.split()[0])
    lines = [f"baselines: {head} below {store.root}", *(f"  {line}" for line in done)] if count else []
    lines += [f"baselines: {line}" for line in refused]
    return Accepted(lines or [f"baselines: nothing to write ({mode})"], count, len(refused))
