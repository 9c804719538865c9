"""When did it change: change points in the medians of a series, by the library ``ruptures``.

The logarithms of the medians are cut into stretches of one level each by PELT with the l1 cost: one odd run moves
neither a level nor a boundary. What a cut must save is counted in the noise of the series, which is the spread
between neighbouring runs and, as long as there are few of them, the prior of the clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from pytest_trt.errors import UsageError
from pytest_trt.history.compare import differences
from pytest_trt.history.rows import Row

__all__ = ["Level", "Shift", "level_shifts", "noise_of", "shifts"]

# Standard deviations of noise, times ln(runs), that a cut must save. Of simulated series of one level (normal, or t
# with 3 degrees of freedom; 6 to 100 runs) 1 % or fewer are cut where the noise is known, and up to 5 % where fewer
# than ten runs, noisier than the prior says, have to show it themselves.
_PENALTY = 2.5
_FEWEST = 2  # runs a level: one alone may be an outlier
# A boundary as improbable as 1 : 20 against the best one still counts as possible.
_LIKELIHOOD = math.log(20)


@dataclass(frozen=True)
class Level:
    """A boundary between two levels of a series: they change in front of ``index``, and with 95 % likelihood somewhere
    after run ``first`` and not after run ``last``. ``before`` and ``after`` are the levels."""

    index: int
    first: int
    last: int
    before: float
    after: float

    @property
    def ratio(self) -> float:
        return self.after / self.before


@dataclass(frozen=True)
class Shift:
    """A change of level between two rows: ``before`` is surely of the old level, ``after`` surely of the new one.
    ``differences`` are what changed there besides the code."""

    before: Row
    after: Row
    before_ms: float
    after_ms: float
    runs: tuple[int, int]
    differences: tuple[str, ...]

    @property
    def ratio(self) -> float:
        return self.after_ms / self.before_ms

    @property
    def commits(self) -> tuple[str, str] | None:
        """The range ``before..after`` to look into; None where both are one commit, or there are none."""
        pair = self.before.commit, self.after.commit
        return pair if all(pair) and pair[0] != pair[1] else None

    def to_json(self) -> dict[str, Any]:
        return {
            "before": {"run": self.before.run, "commit": self.before.commit or None, "median_ms": self.before_ms},
            "after": {"run": self.after.run, "commit": self.after.commit or None, "median_ms": self.after_ms},
            "ratio": self.ratio,
            "runs": list(self.runs),
            "differences": list(self.differences),
        }


def shifts(rows: Sequence[Row], *, smallest: float) -> list[Shift]:
    """Where the latency of one series changed by more than *smallest* (a share), oldest first. Rows without a latency
    are left out. Raises UsageError without ruptures."""
    from pytest_trt.latency.modes import prior_of
    from pytest_trt.latency.priors import PRIORS

    measured = [row for row in rows if row.median_ms]
    medians = [row.median_ms or 0.0 for row in measured]
    prior = PRIORS.get(prior_of(measured[0].series.clock)) if measured else None
    noise = noise_of(medians, prior.processes if prior else 0.0, prior.weight if prior else 0)
    if prior and prior.lasting:
        # A state of the machine that stays for many runs looks like a level: that neighbours agree is no sign.
        noise = max(noise, prior.processes)
    found = level_shifts(medians, noise=noise, smallest=smallest)
    edges = [0, *(level.index for level in found), len(medians)]
    return [
        Shift(
            before=measured[level.first],
            after=measured[level.last],
            before_ms=level.before,
            after_ms=level.after,
            runs=(level.index - edges[place], edges[place + 2] - level.index),
            differences=tuple(differences(measured[level.first], measured[level.last])),
        )
        for place, level in enumerate(found)
    ]


def noise_of(values: Sequence[float], prior: float = 0.0, weight: int = 0) -> float:
    """The relative standard deviation between runs of one level, from the differences of neighbours, which a change of
    level hardly touches. *prior* stands in with *weight* degrees of freedom, less those that were seen."""
    logs = [math.log(value) for value in values]
    steps = [abs(b - a) for a, b in pairwise(logs)]
    if not steps:
        return prior
    # The median of |N(0, 2σ²)| is 0.954 σ.
    seen = median(steps) / 0.9539
    left = max(0, weight - len(steps))
    return math.sqrt((left * prior**2 + len(steps) * seen**2) / (left + len(steps)))


def level_shifts(values: Sequence[float], *, noise: float, smallest: float = 0.0) -> list[Level]:
    """The boundaries between levels of *values* (positive, in order), where the level changes by more than *smallest*.

    *noise* is the relative standard deviation of a value around its level. Raises UsageError without ruptures.
    """
    if len(values) < 2 * _FEWEST:
        return []
    logs = [math.log(value) for value in values]
    # Without any noise (a simulated clock) the last digits of a figure must not count as changes.
    noise = max(noise, 1e-4)
    cuts = _segment(logs, _PENALTY * noise * math.log(len(logs)))
    while True:
        edges = [0, *cuts, len(logs)]
        levels = [median(logs[a:b]) for a, b in pairwise(edges)]
        steps = [abs(b - a) for a, b in pairwise(levels)]
        if not steps or min(steps) > math.log1p(smallest):
            break
        # The smallest step goes first: what it kept apart is one level for the next look.
        del cuts[steps.index(min(steps))]
    found = []
    for place, cut in enumerate(cuts):
        first, last = _possible(logs, edges[place], cut, edges[place + 2], noise)
        found.append(Level(cut, first - 1, last, math.exp(levels[place]), math.exp(levels[place + 1])))
    return found


def _segment(logs: Sequence[float], penalty: float) -> list[int]:
    try:
        import numpy as np
        import ruptures
    except ImportError as error:
        raise UsageError(
            "change points need the library ruptures, which is not installed", hint='pip install "pytest-trt[history]"'
        ) from error
    search = ruptures.Pelt(model="l1", min_size=_FEWEST, jump=1).fit(np.asarray(logs, dtype=float).reshape(-1, 1))
    return [int(cut) for cut in search.predict(pen=penalty)][:-1]


def _possible(logs: Sequence[float], start: int, cut: int, end: int, noise: float) -> tuple[int, int]:
    """The earliest and the latest place of the cut at which the two levels explain the values nearly as well."""
    old, new = median(logs[start:cut]), median(logs[cut:end])
    # Laplace's scale of noise with this standard deviation: the l1 cost over it is the negative log-likelihood.
    scale = noise / math.sqrt(2)

    def cost(place: int) -> float:
        wrong = [abs(x - old) for x in logs[start:place]] + [abs(x - new) for x in logs[place:end]]
        return sum(wrong) / scale

    best = cost(cut)
    places = [place for place in range(start + 1, end) if cost(place) - best <= _LIKELIHOOD]
    return min([cut, *places]), max([cut, *places])
