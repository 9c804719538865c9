"""Did it become slower: the verdict on a case that was just measured.

The ratio of two engines that take turns in one process does not move with the machine. So it is what is gated wherever
the baseline's engine is at hand; the stored number is compared as well, and only recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_trt.baselines.anchors import judge_latency, recordings
from pytest_trt.errors import LatencyFailure
from pytest_trt.lab.ab import NotAtHand, find_engine, judge_beside
from pytest_trt.lab.again import measure_again
from pytest_trt.lab.confirm import confirm
from pytest_trt.lab.past import Past

if TYPE_CHECKING:
    from pytest_trt.baselines.state import Match
    from pytest_trt.lab import Lab
    from pytest_trt.latency.gate import Verdict
    from pytest_trt.latency.stats import Summary
    from pytest_trt.record import Record
    from pytest_trt.spec.case import Case

__all__ = ["judge"]


def judge(lab: Lab, case: Case, record: Record, match: Match, summary: Summary, limit: float) -> Verdict | None:
    """The verdict on *case*, with all about it in ``record.verdict``; one that gates and is not green is confirmed.

    ``method`` there is ``interleaved``, or ``stored`` with the reason in ``not_interleaved``. The recent recording and
    the anchor both judge, each by its engine or else by its stored number, and the worse verdict counts. None where
    there is neither an old engine nor a stored number of the same clock. Raises LatencyFailure for a regression that
    gates, and what reading ``--trt-baseline-engine`` raises.
    """
    verdict = _once(lab, case, record, match, summary, limit)
    if verdict is None or not (record.verdict or {})["gates"]:
        return verdict
    if lab.settings.confirm == "on" and verdict.outcome.value != "pass":
        verdict = confirm(lab, case, record, limit, verdict)
    if verdict.outcome.value == "fail":
        raise LatencyFailure(f"{case}: {(record.verdict or {})['sentence']}", _evidence(lab, record, match))
    return verdict


def _once(lab: Lab, case: Case, record: Record, match: Match, summary: Summary, limit: float) -> Verdict | None:
    clock, plan = (record.latency or {})["clock"], (record.engine or {})["plan"]
    past = Past(lab, case, clock)
    numbers = partial(
        judge_latency,
        match,
        summary,
        plan=plan,
        clock=clock,
        threshold=limit,
        history=past.medians_of_plan,
        comparisons=lab.comparisons,
    )
    beside: dict[str, Verdict] = {}
    told: dict[str, dict[str, Any]] = {}
    entries = recordings(match) or {"recent": {}}
    for name, entry in entries.items():
        if name == "anchor" and "recent" in beside and _same_engine(lab, entries):
            beside[name], told[name] = beside["recent"], told["recent"]
            continue
        try:
            old = find_engine(lab, case, name, entry, plan)
            beside[name], told[name] = judge_beside(
                lab, case, old, clock, match.threshold(limit), past.ratios_of_equals
            )
        except NotAtHand as reason:
            told[name] = {"not_interleaved": str(reason)}
    judged, alone = numbers(beside=beside), numbers()
    if judged is None:
        _say_clocks(record, match, clock)
        return None
    against, about = judged.against, dict(told[judged.against])
    about["method"] = "interleaved" if against in beside else "stored"
    if against in beside:
        stored = alone.verdicts.get(against) if alone else None
        about["stored"] = stored.to_json() if stored else None
        # Whatever became of the engine: the old one itself is slower now than it was.
        if stored and stored.outcome.value == "fail" and beside[against].outcome.value != "fail":
            then = entries[against]["latency"]["median_ms"]
            about["machine"] = (
                f"this machine is slower than when the baseline was recorded: its engine takes"
                f" {about['baseline_ms']:.4g} ms now, {then:.4g} ms then"
            )
    # Who names an engine wants to be judged by it, also where nothing is stored.
    gates = match.gates_on("latency") or (lab.settings.baseline_engine is not None and not match.gates)
    record.verdict = {**judged.to_json(), "clock": clock, "gates": gates, **about}
    return judged.verdict


def _same_engine(lab: Lab, entries: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether recent recording and anchor stand for one plan: a verdict on the ratio is then one on both."""
    named = lab.settings.baseline_engine is not None
    return not named and entries["recent"].get("plan") == entries["anchor"].get("plan")


def _say_clocks(record: Record, match: Match, clock: str) -> None:
    others = {(stored.get("latency") or {}).get("clock") for stored in recordings(match).values()} - {None}
    if others:
        said = f"not compared: the baseline was measured by another clock ({', '.join(sorted(map(str, others)))})"
        latency = record.latency or {}
        latency["note"] = "; ".join(filter(None, [latency.get("note"), said]))
    if match.state == "current":  # a strict run must hear that nothing holds this latency
        clocks = f"latency clock: {', '.join(sorted(map(str, others))) or 'none'} → {clock}"
        record.baseline = {**match.to_json(), "state": "stale", "part": "latency", "differences": [clocks]}


def _evidence(lab: Lab, record: Record, match: Match) -> str:
    verdict, latency = record.verdict or {}, record.latency or {}
    summary, against = latency["summary"], verdict["against"]
    lines = [f"measured     {summary['median_ms']:.4g} ms ({latency['clock']}, {summary['loads']} loads)"]
    entry = recordings(match).get(against, {})
    if entry.get("latency"):
        anchor = "" if against == "recent" else " (the anchor, which accepting a recent one does not move)"
        median_ms = entry["latency"]["median_ms"]
        lines.append(f"baseline     {median_ms:.4g} ms, recorded {entry['recorded']}, {match.file}{anchor}")
    if verdict["method"] == "interleaved":
        lines.append(
            f"interleaved  {verdict['candidate_ms']:.4g} ms, the old engine {verdict['baseline_ms']:.4g} ms"
            f" ({verdict['origin']}, {verdict['rounds']} loads of each)"
        )
    again = f"reproduce    {measure_again(lab, record.case)}"
    return "\n".join([*lines, f"noise        {verdict['level']}", "", again])
