"""Was it better: the latency verdict on what is stored, and the baselines whose case is gone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_trt.baselines.anchors import judge_latency, recordings
from pytest_trt.baselines.entries import median_ms
from pytest_trt.baselines.store import Match
from pytest_trt.errors import BaselineError, LatencyFailure
from pytest_trt.record import Record

if TYPE_CHECKING:
    from pytest_trt.lab import Lab
    from pytest_trt.latency.gate import Verdict
    from pytest_trt.latency.stats import Summary
    from pytest_trt.spec.case import Case

__all__ = ["judge_against_recordings", "orphans"]


def judge_against_recordings(
    record: Record, match: Match, summary: Summary, threshold: float, again: str
) -> Verdict | None:
    """Judge *summary* against the recent recording and the anchor, and fill *record* with the worse verdict; None
    where nothing of the same clock is stored. Raises LatencyFailure, whose last line is *again*."""
    clock, plan = (record.latency or {})["clock"], (record.engine or {})["plan"]
    judged = judge_latency(match, summary, plan=plan, clock=clock, threshold=threshold)
    if judged is None:
        others = {(stored.get("latency") or {}).get("clock") for stored in recordings(match).values()} - {None}
        if others:
            said = f"not compared: the baseline was measured by another clock ({', '.join(sorted(map(str, others)))})"
            latency = record.latency or {}
            latency["note"] = "; ".join(filter(None, [latency.get("note"), said]))
        return None
    verdict, gates = judged.verdict, match.gates_on("latency")
    record.verdict = {**judged.to_json(), "clock": clock, "gates": gates}
    if gates and verdict.outcome.value == "fail":
        stored = recordings(match)[judged.against]
        anchor = "" if judged.against == "recent" else " (the anchor, which accepting a recent one does not move)"
        evidence = [
            f"measured     {summary.median_ms:.4g} ms ({clock}, {summary.loads} loads)",
            f"baseline     {median_ms(stored):.4g} ms, recorded {stored['recorded']}, {match.file}{anchor}",
            f"noise        {verdict.level}",
            "",
            again,
        ]
        raise LatencyFailure(f"{record.case}: {verdict.sentence}", "\n".join(evidence))
    return verdict


def orphans(lab: Lab, cases: Sequence[Case]) -> list[Record]:
    """A record for each baseline whose case is gone, given all *cases* of one model; none where the command line chose
    among its profiles."""
    if lab.settings.profile:
        return []
    records = []
    for backend in dict.fromkeys(case.backend for case in cases):
        environment = lab.environment(backend)
        beside = [case for case in cases if case.backend == backend]
        with suppress(BaselineError):  # a file that cannot be read: the cases say so
            for gone, entry in lab.baselines.orphans(beside, environment):
                found = {"state": "orphaned", "median_ms": median_ms(entry)}
                records.append(Record(gone, environment=environment.to_json(), baseline=found))
    return records
