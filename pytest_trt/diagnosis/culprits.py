"""Which nodes must stay in higher precision: a search over the nodes that a recipe changes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_trt.accuracy.metrics import plain
from pytest_trt.diagnosis.bisect import Found, heaviest_first, never, smallest_subset
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
    manifest excludes, where it does. Where nothing helps, ``after`` is the model with everything excluded."""

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
    of nodes is measured, by typing them alone. *limit* bounds the runs, but for three; when it is *late*, no more than
    those are made.

    Raises PrecisionError where the recipe changes nothing.
    """
    started = time.monotonic()
    candidates = conversion.candidates
    names = [candidate.entry for candidate in candidates]
    trial = _Trial(conversion, judge, len(names), progress)
    ranked = [candidate.entry for candidate in (rank(candidates) if rank is not None else candidates)]
    if not trial.is_close(()) and trial.is_close(names) and not any(trial.is_close(ranked[:n]) for n in _FIRST_TRIES):

        def damage(members: Collection[str]) -> float:
            return trial.squared_error(set(names).difference(members))

        ranked = heaviest_first(ranked, damage, trial.is_close, limit=limit, late=late)
    remaining = limit and max(1, limit - trial.evaluations)
    found = smallest_subset(names, trial.holds, ranked=ranked, limit=remaining, late=late)
    members = set(found.members)
    if found.outcome == "unfinished":
        members = set(trial.smallest_close() or ())
    configured = None
    if conversion.excluded and found.outcome != "empty":
        configured = trial.accuracy(conversion.excluded)
    return Culprits(
        found,
        tuple(c for c in candidates if c.entry in members),
        len(candidates),
        trial.evaluations,
        trial.accuracy(()),
        trial.accuracy(names if found.outcome == "nothing" else members),
        configured,
        time.monotonic() - started,
    )


# So many of the likeliest are tried before anything is measured.
_FIRST_TRIES = (1, 2)


class _Trial:
    """The accuracy of a conversion with some nodes excluded; each set is run once, unless the search asks again."""

    def __init__(
        self, conversion: Conversion, judge: Callable[[Model], Comparison], count: int, progress: Progress | None
    ) -> None:
        self.conversion, self.judge, self.count, self.progress = conversion, judge, count, progress
        self.evaluations = 0
        self._known: dict[frozenset[str], Accuracy] = {}
        self._asked: set[frozenset[str]] = set()

    def accuracy(self, excluded: Collection[str]) -> Accuracy:
        subset = frozenset(excluded)
        if subset not in self._known:
            self.evaluations += 1
            proto = self.conversion.apply(subset).proto
            found = Accuracy.of(self.judge(Model.from_proto(proto, self.conversion.model.name)))
            self._known[subset] = found
            if self.progress is not None:
                error = f"error {found.error:.3g}" if math.isfinite(found.error) else "NaN or infinite"
                verdict = "close" if found.ok else "not close"
                self.progress(f"{len(subset)} of {self.count} nodes excluded: {error}, {verdict}")
        return self._known[subset]

    def is_close(self, excluded: Collection[str]) -> bool:
        return self.accuracy(excluded).ok

    def smallest_close(self) -> frozenset[str] | None:
        """The smallest set that was seen to be close; None where none was."""
        return min((subset for subset, found in self._known.items() if found.ok), key=len, default=None)

    def squared_error(self, excluded: Collection[str]) -> float:
        return self.accuracy(excluded).error ** 2

    def holds(self, excluded: frozenset[str]) -> bool:
        """What the search asks. It remembers its answers: what it asks again is to be run again."""
        if excluded in self._asked:
            self._known.pop(excluded, None)
        self._asked.add(excluded)
        return self.is_close(excluded)
