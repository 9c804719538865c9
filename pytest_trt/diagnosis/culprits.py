"""Which nodes must stay in higher precision: a search over the nodes that a recipe changes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_trt.accuracy.metrics import plain
from pytest_trt.counted import counted
from pytest_trt.diagnosis.bisect import Exhausted, Found, heaviest_first, never, smallest_subset
from pytest_trt.diagnosis.deviation import comparison_error, worst_cosine
from pytest_trt.spec.model import Model

if TYPE_CHECKING:
    from pytest_trt.accuracy.comparison import Comparison
    from pytest_trt.backends import Progress
    from pytest_trt.diagnosis.conversion import Candidate, Conversion

__all__ = ["Accuracy", "Culprits", "find_culprits"]


@dataclass(frozen=True)
class Accuracy:
    """How close a typed model is: ``error`` is the relative rms error, ``cosine`` the worst output's."""

    ok: bool
    error: float
    cosine: float | None
    summary: str

    @classmethod
    def of(cls, comparison: Comparison) -> Accuracy:
        return cls(comparison.ok, comparison_error(comparison), worst_cosine(comparison), comparison.summary)

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "error": plain(self.error), "cosine": self.cosine, "summary": self.summary}


@dataclass(frozen=True)
class Culprits:
    """The nodes to exclude. ``before``: nothing excluded; ``after``: the set that was found; ``configured``: what the
    manifest excludes, where it does and the limit left a run for it. Where nothing helps, ``after`` is the model with
    everything excluded."""

    found: Found
    nodes: tuple[Candidate, ...]
    candidates: int
    evaluations: int
    before: Accuracy
    after: Accuracy
    configured: Accuracy | None
    seconds: float

    @property
    def exclude_nodes(self) -> tuple[str, ...]:
        """What to write into the recipe."""
        return tuple(node.entry for node in self.nodes)

    def to_json(self) -> dict[str, Any]:
        return {
            "outcome": self.found.outcome,
            "exclude_nodes": list(self.exclude_nodes),
            "operators": [node.op_type for node in self.nodes],
            "minimal": self.found.minimal,
            "candidates": self.candidates,
            "evaluations": self.evaluations,
            "contradictions": len(self.found.contradictions),
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "configured": None if self.configured is None else self.configured.to_json(),
            "seconds": round(self.seconds, 1),
        }


def find_culprits(
    conversion: Conversion,
    judge: Callable[[Model], Comparison],
    *,
    rank: Callable[[Sequence[Candidate]], Sequence[Candidate]] | None = None,
    limit: int | None = None,
    late: Callable[[], bool] = never,
    progress: Progress | None = None,
) -> Culprits:
    """Search the fewest nodes of *conversion* that must be excluded for the typed model to be close to its reference.

    *judge* runs a typed model and compares it; *rank* puts the likeliest first. Where these are not enough, the damage
    of nodes is measured, by typing them alone. No more than *limit* models are run, and when it is *late* none but the
    first few: with nothing excluded, with all, with what the manifest excludes, and with the likeliest.

    Raises PrecisionError where the recipe changes nothing.
    """
    started = time.monotonic()
    candidates = conversion.candidates
    names = [candidate.entry for candidate in candidates]
    trial = _Trial(conversion, judge, len(names), limit, progress)
    ranked = [candidate.entry for candidate in (rank(candidates) if rank is not None else candidates)]
    before, configured = trial.accuracy(()), None

    def damage(members: Collection[str]) -> float:
        return trial.squared_error(set(names).difference(members))

    with suppress(Exhausted):
        if conversion.excluded and not before.ok:
            configured = trial.accuracy(conversion.excluded)
        if not before.ok and trial.is_close(names) and not any(trial.is_close(ranked[:n]) for n in _FIRST_TRIES):
            # An order is worth nothing without a search that follows it.
            share = limit and max(1, (limit - trial.evaluations) * 2 // 3)
            ranked = heaviest_first(ranked, damage, trial.is_close, limit=share, late=late)
    found = smallest_subset(names, trial.holds, ranked=ranked, late=late)
    members = set(found.members)
    if found.outcome == "unfinished":
        members = trial.smallest_close(frozenset(names))
    return Culprits(
        found,
        tuple(c for c in candidates if c.entry in members),
        len(candidates),
        trial.evaluations,
        before,
        trial.accuracy(names if found.outcome == "nothing" else members),
        configured,
        time.monotonic() - started,
    )


# So many of the likeliest are tried before anything is measured.
_FIRST_TRIES = (1, 2)


class _Trial:
    """The accuracy of a conversion with some nodes excluded; each set is run once, unless the search asks again. Raises
    Exhausted in place of a run above *limit*."""

    def __init__(
        self,
        conversion: Conversion,
        judge: Callable[[Model], Comparison],
        count: int,
        limit: int | None,
        progress: Progress | None,
    ) -> None:
        self.conversion, self.judge, self.count, self.progress = conversion, judge, count, progress
        self.limit = math.inf if limit is None else limit
        self.evaluations = 0
        self._known: dict[frozenset[str], Accuracy] = {}
        self._asked: set[frozenset[str]] = set()

    def accuracy(self, excluded: Collection[str]) -> Accuracy:
        subset = frozenset(excluded)
        if subset not in self._known:
            self._known[subset] = self._run(subset)
        return self._known[subset]

    def _run(self, subset: frozenset[str]) -> Accuracy:
        if self.evaluations >= self.limit:
            raise Exhausted
        self.evaluations += 1
        proto = self.conversion.apply(subset).proto
        found = Accuracy.of(self.judge(Model.from_proto(proto, self.conversion.model.name)))
        if self.progress is not None:
            error = f"error {found.error:.3g}" if math.isfinite(found.error) else "NaN or infinite"
            verdict = "close" if found.ok else "not close"
            self.progress(f"{len(subset)} of {counted(self.count, 'node')} excluded: {error}, {verdict}")
        return found

    def is_close(self, excluded: Collection[str]) -> bool:
        return self.accuracy(excluded).ok

    def smallest_close(self, candidates: frozenset[str]) -> set[str]:
        """The smallest set of *candidates* that was seen to be close; empty where none was."""
        close = (subset for subset, found in self._known.items() if found.ok and subset <= candidates)
        return set(min(close, key=len, default=()))

    def squared_error(self, excluded: Collection[str]) -> float:
        return self.accuracy(excluded).error ** 2

    def holds(self, excluded: frozenset[str]) -> bool:
        """What the search asks. It remembers its answers: what it asks again is to be run again."""
        if excluded in self._asked:
            self._known[excluded] = self._run(excluded)
        self._asked.add(excluded)
        return self.is_close(excluded)
