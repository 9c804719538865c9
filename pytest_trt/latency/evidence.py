"""How far two medians are apart, and how uncertain that is. Pure; the method is told in ``gate``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from pytest_trt.latency.priors import Prior
from pytest_trt.latency.stats import Summary, batch_count, median_error
from pytest_trt.latency.student import chi_square_quantile

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Evidence", "Repeats", "Side", "of_pairs", "of_summary", "weigh"]

Repeats = Literal["processes", "loads", "builds"]

# Repeats that spread this improbably under the noise between processes are taken for builds.
_SURPRISE = 0.999
# A single sample may be off by any factor: the variance of its logarithm leaves every verdict open.
_ANY = 1e4


@dataclass(frozen=True)
class Side:
    """One side, or the ratio of two that were interleaved: the logarithm of its median in *repeats* repeats.

    ``within`` is the variance of one repeat's median as its samples show it, with ``within_dof`` degrees of freedom;
    ``between`` the variance of the repeats' medians, 0 for one repeat.
    """

    log_median: float
    repeats: int
    within: float
    within_dof: float
    between: float

    @property
    def share(self) -> float:
        """The variance of the median of all repeats, over that of one repeat; exact to 1 % for normal noise and an
        odd number of them, on the safe side for an even one."""
        n = self.repeats
        return (1.0 if n < 3 else math.pi / 2 * (1 - 0.43 / n)) / n


@dataclass(frozen=True)
class Evidence:
    """``log_ratio`` with its standard error ``sigma`` and degrees of freedom; the rest says what it was judged on."""

    log_ratio: float
    sigma: float
    dof: float
    noise: float
    noise_level: str
    noise_source: str


def of_summary(summary: Summary) -> Side:
    """The side that *summary* describes."""
    dof = _within_dof(summary.count // summary.loads) * summary.loads
    within = _ANY if summary.count == 1 else summary.within_se**2
    return Side(math.log(summary.median_ms), summary.loads, within, dof, summary.between_sd**2)


def of_pairs(baseline: Sequence[NDArray[np.float64]], candidate: Sequence[NDArray[np.float64]]) -> Side:
    """The ratio candidate / baseline, sample by sample: what slows both sides at a time cancels.

    Raises ValueError unless both have as many repeats, and as many samples in each.
    """
    sizes = [[repeat.size for repeat in side] for side in (baseline, candidate)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"paired sides need as many samples in every repeat, got {sizes[0]} and {sizes[1]}")
    series = [np.log(c) - np.log(b) for b, c in zip(baseline, candidate, strict=True)]
    medians = [float(np.median(each)) for each in series]
    count = len(series)
    return Side(
        log_median=float(np.median(medians)),
        repeats=count,
        within=_ANY if sum(sizes[0]) == 1 else sum(median_error(each) ** 2 for each in series) / count,
        within_dof=sum(_within_dof(each.size) for each in series),
        between=float(np.var(medians, ddof=1)) if count > 1 else 0.0,
    )


@dataclass(frozen=True)
class _Unit:
    """What is drawn anew: a repeat, or a run with all its repeats. Its variance is ``prior`` + ``within``, unless a
    spread was seen that says otherwise; ``share`` of it is the variance of the side's median. It is never below
    ``floor`` (with ``floor_dof``), which this very data shows."""

    prior: float
    within: float
    within_dof: float
    share: float
    floor: float
    floor_dof: float


def weigh(
    sides: Sequence[Side], log_ratio: float, *, prior: Prior, repeats: Repeats, rebuilt: bool, history: Sequence[float]
) -> Evidence:
    """Put what was seen and what is known beforehand together. One of *sides* is a pair, two are not."""
    paired = len(sides) == 1
    engines = 2 if paired else 1  # the ratio of a pair has the noise of two loads and of two builds
    known, loads, builds = (prior.pairs if paired else prior.processes) ** 2, prior.loads**2, engines * prior.builds**2
    seen, words, level, odd = [], [], "between processes", ""
    if len(history) > 1:
        seen.append((float(np.var(np.log(history), ddof=1)), len(history) - 1))
        words.append(f"{len(history)} recorded {'ratios' if paired else 'medians'}")
    if repeats == "loads" or (prior.lasting and not paired):
        # What repeats of one run have in common does not become less with their number, and that they agree is no sign
        # that another run would: here they may add noise, but take none away.
        spreads = [max(engines * loads * (repeats == "loads"), side.between - side.within) for side in sides]
        units = [
            _Unit(
                known + side.share * spread,
                side.share * side.within,
                side.within_dof,
                1.0,
                *(
                    (side.share * side.between, side.repeats - 1.0)
                    if side.between > side.within
                    else (side.share * side.within, side.within_dof)
                ),
            )
            for side, spread in zip(sides, spreads, strict=True)
        ]
        level = "between loads of one plan" if repeats == "loads" and loads else level
    else:
        if repeats == "builds":
            known, level = known + builds, "between builds"
        elif builds and not paired and _too_far_apart(sides, known):
            known, level = known + builds, "between builds"
            odd = ", which differ more than processes of one plan do"
        units = [_Unit(known, side.within, side.within_dof, side.share, side.within, side.within_dof) for side in sides]
        if own := [(side.between, side.repeats - 1) for side in sides if side.repeats > 1]:
            seen += own
            words.append(f"the repeats{odd}")
    parts, variances, prior_counts = _replace(units, seen, prior.weight)
    if rebuilt and repeats != "builds" and builds:
        parts.append((builds * len(sides), math.inf))
        variances, level = [variance + builds for variance in variances], "between builds"
    elif level == "between processes" and sum(unit.within for unit in units) > sum(variances) / 2:
        level = "within process"
    return Evidence(
        log_ratio,
        math.sqrt(sum(value for value, _ in parts)),
        _degrees_of_freedom(parts),
        noise=math.sqrt(sum(variances) / len(variances)),
        noise_level=level,
        noise_source=" and ".join((["the clock's prior"] if prior_counts else []) + words),
    )


def _replace(
    units: Sequence[_Unit], seen: Sequence[tuple[float, float]], weight: float
) -> tuple[list[tuple[float, float]], list[float], bool]:
    """The parts of the ratio's variance with their degrees of freedom, the variance of each unit, and whether the
    prior has a part in it. *seen* are variances between units, with their degrees of freedom.

    The prior's weight falls by one with every degree of freedom that was seen; a prior of 0 has none.
    """
    dof = sum(n for _, n in seen)
    weight = max(0.0, weight - dof) if any(unit.prior for unit in units) else 0.0 if dof else 1.0
    total = weight + dof
    spread = sum(variance * n for variance, n in seen) / total
    parts, variances, share_of_spread = [], [], 0.0
    for unit in units:
        prior, within = unit.prior * weight / total, unit.within * weight / total
        variance, dof_within = prior + within + spread, unit.within_dof
        if variance < unit.floor:  # the samples know better: their medians cannot agree that well
            prior, within, variance, dof_within = 0.0, unit.floor, unit.floor, unit.floor_dof
        else:
            share_of_spread += unit.share
        parts += [(unit.share * prior, math.inf), (unit.share * within, dof_within)]
        variances.append(variance)
    return [*parts, (share_of_spread * spread, dof or math.inf)], variances, weight > 0


def _too_far_apart(sides: Sequence[Side], known: float) -> bool:
    dof = sum(side.repeats - 1 for side in sides)
    if not dof or not known:
        return False
    expected = known + sum(side.within for side in sides) / len(sides)
    return sum(side.between * (side.repeats - 1) for side in sides) > chi_square_quantile(_SURPRISE, dof) * expected


def _degrees_of_freedom(parts: Sequence[tuple[float, float]]) -> float:
    """Welch and Satterthwaite's, of a sum of variances that are known to different degrees."""
    variance, uncertain = sum(value for value, _ in parts), sum(value**2 / dof for value, dof in parts)
    return variance**2 / uncertain if uncertain else math.inf


def _within_dof(samples: int) -> float:
    return float(max(1, (batch_count(samples) or samples) - 1))
