"""Did the scores get worse? A one-sided test of new scores against old ones. Pure.

| scores  | the same samples                       | other samples        |
|---------|----------------------------------------|----------------------|
| 0 and 1 | McNemar's test, exact                  | Fisher's exact test  |
| others  | sign flips of the differences          | Welch's t-test       |

McNemar's is the test of sign flips for differences of equal size. Both hold whatever the distribution, as long as an
engine that only rounds otherwise moves a sample's score up as readily as down.

A drop is excluded where it would leave what was seen, or less of a drop, a probability of at most 1 - power. For 0
and 1 that is computed from the counts. For other scores it is Student's t, with two imaginary differences of one
standard deviation of the scores, one each way, as Bonett and Price have it for proportions: samples that did not differ
so far do not show that none ever does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.accuracy.drop import Drop
from pytest_trt.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Scores = NDArray[np.float64]

__all__ = ["Known", "judge_drop"]

# All sign flips are tried up to so many differences, else so many are drawn; the normal distribution above.
_ENUMERATED, _DRAWN, _NORMAL = 12, 9999, 5000
_STEPS = 22
_ROUNDING = 1e-6  # differences of scores in float32 that are equal as far as can be told
_FAR = 8.0  # in standard deviations: what lies further off is not summed up


@dataclass(frozen=True)
class Known:
    """Scores of one side: all of them, or only their number, mean and standard deviation."""

    count: int
    mean: float
    deviation: float
    scores: Scores | None = None

    @classmethod
    def of(cls, scores: Scores) -> Known:
        """Raises UsageError for no scores, and for NaN and infinities."""
        values = np.asarray(scores, dtype=np.float64).reshape(-1)
        if not values.size or not np.isfinite(values).all():
            raise UsageError("scores must be finite numbers, at least one")
        deviation = float(np.std(values, ddof=1)) if values.size > 1 else 0.0
        return cls(values.size, float(np.mean(values)), deviation, values)

    @property
    def binary(self) -> bool:
        return self.scores is not None and bool(np.isin(self.scores, (0.0, 1.0)).all())


def judge_drop(
    old: Known,
    new: Known,
    *,
    paired: bool,
    max_drop: float,
    alpha: float = 0.05,
    power: float = 0.8,
    lower_is_better: bool = False,
    continuous: bool = False,
) -> Drop:
    """Judge *new* scores against *old* ones; *max_drop* is the drop of the mean that must not go unseen.

    Scores that are all 0 or 1 are counts of what was right, unless they are *continuous* by their nature.

    *paired*: score i of both sides is of the same sample. Raises UsageError where *paired* sides differ in number,
    without scipy, and for values of *alpha* and *power* that make no test.
    """
    if not (0 < alpha < 0.5 <= power < 1 and max_drop >= 0):
        raise UsageError(f"no test has alpha {alpha}, power {power} and max_drop {max_drop}")
    stats = _statistics()
    sign = -1.0 if lower_is_better else 1.0
    drop = sign * (old.mean - new.mean)
    counts = old.binary and new.binary and not continuous
    if paired:
        if old.scores is None or new.scores is None or old.count != new.count:
            raise UsageError("a paired test needs a score of each sample on both sides")
        falls = sign * (old.scores - new.scores)
        find = _paired_counts if counts else _paired_values
        method, p, upper, detectable = find(stats, falls, (old, new), alpha, power)
    else:
        find_unpaired = _counts if counts else _values
        method, p, upper, detectable = find_unpaired(stats, old, new, sign, alpha, power)
    upper = max(upper, drop)
    outcome = "pass" if upper < max_drop else "fail" if p <= alpha and drop > 0 else "inconclusive"
    return Drop(
        outcome=outcome,  # type: ignore[arg-type]  # the conditional's type is str
        old_mean=old.mean, new_mean=new.mean, old_count=old.count, count=new.count,
        drop=drop, p=p, upper=upper, detectable=detectable, max_drop=max_drop, alpha=alpha, power=power,
        paired=paired, method=method,
    )  # fmt: skip


_Found = tuple[str, float, float, float | None]


def _paired_counts(stats: Any, falls: Scores, sides: tuple[Known, Known], alpha: float, power: float) -> _Found:  # noqa: ARG001 - as its sibling
    count, lost, won = falls.size, int(np.sum(falls > 0)), int(np.sum(falls < 0))
    p = float(stats.binom.sf(lost - 1, lost + won, 0.5))

    def spread(moved: float, drop: float) -> tuple[Any, Any, float]:
        """Numbers of samples that change, their probabilities, and the share of those that are lost."""
        share = min(max(moved, drop), 1.0)
        reach = _FAR * math.sqrt(count * share * (1 - share)) + _FAR**2 / 3
        changed = np.arange(max(0, int(count * share - reach)), min(count, math.ceil(count * share + reach)) + 1)
        return changed, stats.binom.pmf(changed, count, share), (share + drop) / (2 * share)

    def seen(drop: float) -> float:
        changed, weights, share = spread((lost + won) / count, drop)
        least = stats.binom.isf(alpha, changed, 0.5) + 1
        return float(np.sum(weights * stats.binom.sf(least - 1, changed, share)))

    def as_little(drop: float) -> float:
        changed, weights, share = spread((lost + won + 1) / (count + 2), drop)
        return float(np.sum(weights * stats.binom.cdf((lost - won + changed) // 2, changed, share)))

    detectable = _bisect(lambda drop: seen(drop) >= power, 0.0, 1.0) if seen(1.0) >= power else None
    upper = _bisect(lambda drop: as_little(drop) <= 1 - power, max((lost - won) / count, 0.0), 1.0)
    return "McNemar's exact test", p, upper, detectable


def _paired_values(stats: Any, falls: Scores, sides: tuple[Known, Known], alpha: float, power: float) -> _Found:
    count = falls.size
    both = np.concatenate([side.scores for side in sides if side.scores is not None])
    imagined = float(np.std(both))
    drop = float(np.mean(falls))
    square = (float(np.sum((falls - drop) ** 2)) + 2 * imagined**2) / (count + 1)
    error = math.sqrt(square / (count + 2))
    upper = drop + float(stats.t.ppf(power, count + 1)) * error
    reach = float(stats.t.ppf(1 - alpha, count + 1) + stats.t.ppf(power, count + 1))
    return "sign flips", _sign_flips(stats, falls), upper, reach * error if 0.5**count <= alpha else None


def _sign_flips(stats: Any, falls: Scores) -> float:
    """The probability of so great a sum where each difference has either sign."""
    sizes = np.abs(falls[falls != 0])
    total = float(np.sum(falls)) - _ROUNDING * float(np.sum(sizes))
    if not sizes.size:
        return 1.0
    if np.ptp(sizes) <= _ROUNDING * sizes.max():
        return float(stats.binom.sf(int(np.sum(falls > 0)) - 1, sizes.size, 0.5))
    if sizes.size > _NORMAL:
        return float(stats.norm.sf(total / math.sqrt(float(np.sum(sizes**2)))))
    if sizes.size <= _ENUMERATED:
        bits = (np.arange(2**sizes.size)[:, None] >> np.arange(sizes.size)) & 1
        return float(np.mean((2 * bits - 1) @ sizes >= total))
    # Seeded: the same scores come to the same verdict.
    random, reached, left = np.random.default_rng(0), 0, _DRAWN
    while left:
        rows = min(left, max(1, 2**20 // sizes.size))
        signs = 2 * random.integers(0, 2, (rows, sizes.size), dtype=np.int8) - 1
        reached, left = reached + int(np.sum(signs @ sizes >= total)), left - rows
    return (1 + reached) / (1 + _DRAWN)


def _counts(stats: Any, old: Known, new: Known, sign: float, alpha: float, power: float) -> _Found:
    # What is lost counts, whichever of 0 and 1 is the better one.
    good = [round(side.mean * side.count) if sign > 0 else round((1 - side.mean) * side.count) for side in (old, new)]
    sizes = old.count, new.count
    p = float(stats.hypergeom.cdf(good[1], sum(sizes), sum(good), sizes[1]))
    # Agresti and Caffo: one more of each kind on each side.
    shares = [(hits + 1) / (size + 2) for hits, size in zip(good, sizes, strict=True)]
    error = math.sqrt(sum(s * (1 - s) / (n + 2) for s, n in zip(shares, sizes, strict=True)))
    upper = shares[0] - shares[1] + float(stats.norm.ppf(power)) * error
    ends = float(stats.norm.isf(alpha)), float(stats.norm.ppf(power))
    parts = 1 / sizes[0] + 1 / sizes[1]

    def seen(drop: float) -> bool:
        after = shares[0] - drop
        middle = shares[0] - drop * sizes[1] / sum(sizes)
        null, there = (
            middle * (1 - middle) * parts,
            shares[0] * (1 - shares[0]) / sizes[0] + after * (1 - after) / sizes[1],
        )
        # Half a step on each side is what an exact test gives away.
        return drop - parts / 2 >= ends[0] * math.sqrt(null) + ends[1] * math.sqrt(there)

    return "Fisher's exact test", p, upper, _bisect(seen, 0.0, shares[0]) if seen(shares[0]) else None


def _values(stats: Any, old: Known, new: Known, sign: float, alpha: float, power: float) -> _Found:
    squares = [(side.deviation**2) / side.count for side in (old, new)]
    drop, error = sign * (old.mean - new.mean), math.sqrt(sum(squares))
    if min(old.count, new.count) < 2:
        return "Welch's t-test", 1.0, math.inf, None
    parts = zip(squares, (old.count, new.count), strict=True)
    freedom = error**4 / sum(s**2 / (n - 1) for s, n in parts) if error else math.inf
    p = float(stats.t.sf(drop / error, freedom)) if error else float(drop <= 0)
    # No order of the samples is less probable than one of all orders.
    p = max(p, 1 / math.comb(old.count + new.count, old.count)) if old.count + new.count < 1000 else p
    reach = [float(stats.t.ppf(share, freedom)) for share in (1 - alpha, power)]
    return "Welch's t-test", p, drop + reach[1] * error, sum(reach) * error


def _bisect(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The smallest value in *low* … *high* from which on *holds* does, given that it does at *high*."""
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _statistics() -> Any:
    try:
        from scipy import stats
    except ImportError as error:
        raise UsageError(
            f"the test of a metric against its baseline needs scipy: {error}",
            hint='pip install "pytest-trt[metrics]"',
        ) from error
    return stats
