"""Both baselines judge: the recent one, and the anchor that acceptance never moves. Slow drift passes the first and
fails the second. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pytest_trt.baselines.drift import accuracy_drift
from pytest_trt.baselines.state import Match

if TYPE_CHECKING:
    from pytest_trt.latency.gate import Verdict
    from pytest_trt.latency.stats import Summary

__all__ = ["Judgement", "accuracy_sentences", "judge_latency", "recordings"]

_WORST_FIRST = ("fail", "inconclusive", "pass")


def recordings(match: Match) -> dict[str, Mapping[str, Any]]:
    """What judges a case, by name: ``recent``, and ``anchor`` where that is another recording."""
    found: dict[str, Mapping[str, Any]] = {}
    if match.entry is not None:
        found["recent"] = match.entry
    if match.anchor is not None:
        found["anchor"] = match.anchor
    return found


@dataclass(frozen=True)
class Judgement:
    """The verdicts of a case by the recording they were made against. ``against`` names the worst one."""

    verdicts: Mapping[str, Verdict]
    against: str

    @property
    def verdict(self) -> Verdict:
        return self.verdicts[self.against]

    def to_json(self) -> dict[str, Any]:
        """The worst verdict, ``against``, and where both judged, ratio and outcome of the other one by its name."""
        others = {
            name: {"outcome": verdict.outcome.value, "ratio": round(verdict.ratio, 5)}
            for name, verdict in self.verdicts.items()
            if name != self.against
        }
        return {**self.verdict.to_json(), "against": self.against, **others}


def judge_latency(
    match: Match,
    summary: Summary,
    *,
    plan: str | None,
    clock: str,
    threshold: float,
    beside: Mapping[str, Verdict] = MappingProxyType({}),
    history: Callable[[str], Sequence[float]] = lambda _: (),
    comparisons: int = 1,
) -> Judgement | None:
    """Judge a measurement of the engine with digest *plan* against what is stored; None where nothing of the same
    *clock* is. *beside* takes the place of the verdicts on these recordings, where better ones are at hand (their
    engines were measured in the same process). *threshold* is raised where a waiver allows more. *history* gives the
    medians in ms of earlier runs of a plan; *comparisons* is that of ``decide``."""
    from pytest_trt.latency.gate import decide
    from pytest_trt.latency.modes import prior_of
    from pytest_trt.latency.stats import Summary

    verdicts: dict[str, Verdict] = dict(beside)
    for name, stored in recordings(match).items():
        latency = stored.get("latency")
        if name in verdicts or not latency or latency["clock"] != clock:
            continue
        verdicts[name] = decide(
            Summary.from_json(latency),
            summary,
            threshold=match.threshold(threshold),
            clock=prior_of(clock),
            rebuilt=stored.get("plan") != plan,
            repeats="loads",
            history=history(str(stored.get("plan"))),
            comparisons=comparisons,
        )
    if not verdicts:
        return None

    def rank(name: str) -> int:
        outcome = verdicts[name].outcome.value
        # A number that can no longer tell, the engine being gone, would leave every run from here on open.
        gone = bool(beside) and name not in beside and outcome == "inconclusive"
        return len(_WORST_FIRST) if gone else _WORST_FIRST.index(outcome)

    return Judgement(verdicts, min(verdicts, key=rank))


def accuracy_sentences(match: Match, outputs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What got worse than the recent recording, and what of the rest than the anchor, a sentence each."""
    sentences = []
    for name, stored in recordings(match).items():
        drift = accuracy_drift(stored["accuracy"], outputs)
        sentences += drift if name == "recent" else [f"{line} (anchor of {stored['recorded']})" for line in drift]
    return sentences
