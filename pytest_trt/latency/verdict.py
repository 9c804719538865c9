"""The verdict's three outcomes, its figures and its sentence. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

__all__ = ["Outcome", "Verdict", "change_of"]

_MOST = 99  # a hundred times: beyond that a figure says nothing


class Outcome(str, Enum):
    """PASS: no regression of the threshold's size. FAIL: a regression. INCONCLUSIVE: the data cannot tell."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Verdict:
    """What two latencies say about a slowdown.

    ``ratio`` is candidate / baseline with its 95 % interval ``low``–``high``. With several ``comparisons`` in one run
    ``low`` is corrected for their number: it alone can turn a run red. ``detectable`` is the smallest slowdown (a
    share: 0.05 is 5 %) that data like this turns red with 95 % probability. ``improved`` says that the candidate is
    faster beyond noise, corrected likewise.

    ``noise`` is the relative standard deviation of one repeat (of one run with all its loads where repeats are loads)
    that this was judged against, ``noise_level`` what it lies between, and ``noise_source`` where it is from: the
    clock's prior, recorded history, the repeats themselves. ``noise_only``: an engine took turns with itself and looked
    slower.
    """

    outcome: Outcome
    ratio: float
    low: float
    high: float
    threshold: float
    detectable: float
    clock: str
    rebuilt: bool = False
    improved: bool = False
    noise: float = 0.0
    noise_level: str = "between processes"
    noise_source: str = "the clock's prior"
    comparisons: int = 1
    noise_only: bool = False

    def of_one_plan(self) -> Verdict:
        """The same where both sides are one plan: it is neither slower nor faster than itself, whatever was seen."""
        failed = self.outcome is Outcome.FAIL
        outcome = Outcome.INCONCLUSIVE if failed else self.outcome
        return replace(self, outcome=outcome, improved=False, noise_only=failed)

    @property
    def level(self) -> str:
        """The level of noise that this was judged against, in words."""
        if self.rebuilt:
            return f"{self.noise_level}: the plan is another one than the baseline's"
        return self.noise_level

    @property
    def sentence(self) -> str:
        """One plain sentence."""
        ratio, low, high = (change_of(value) for value in (self.ratio, self.low, self.high))
        change = f"{ratio} against the baseline (95 % interval {low} to {high})"
        seen = f"a slowdown of {self.detectable:.0%} would be seen" if self.detectable < _MOST else "too much noise"
        if self.noise_only:
            seen = "both sides are the very same plan, so that this is noise"
        said = {
            Outcome.PASS: f"no slowdown above {self.threshold:.1%}",
            Outcome.FAIL: f"slower by more than {self.threshold:.1%}",
            Outcome.INCONCLUSIVE: f"cannot tell whether slower by {self.threshold:.1%}; {seen}",
        }[self.outcome]
        improved = "; faster beyond noise" if self.improved else ""
        many = f"; corrected for {self.comparisons} comparisons" if self.comparisons > 1 else ""
        lottery = f"; judged against the build lottery ({self.noise:.1%} {self.noise_level}, by {self.noise_source})"
        builds = lottery if self.noise_level == "between builds" else ""
        return f"{change}: {said}{improved}{many}{builds}"

    def to_json(self) -> dict[str, Any]:
        figures = ("ratio", "low", "high", "threshold", "detectable", "noise")
        return {
            "outcome": self.outcome.value,
            **{name: round(getattr(self, name), 5) for name in figures},
            "improved": self.improved,
            "clock": self.clock,
            "level": self.level,
            "noise_source": self.noise_source,
            "comparisons": self.comparisons,
            "sentence": self.sentence,
        }


def change_of(ratio: float) -> str:
    """*ratio* as a change in percent, ``+1.5%``; beyond a hundred times only that."""
    change = round(ratio - 1, 3) + 0.0  # no minus before a zero
    return f"{change:+.1%}" if change < _MOST else f"over +{_MOST:.0%}"
