"""The verdict on two latencies. Pure.

Medians are compared on the logarithm. Their uncertainty has two parts: what the samples show, and what they cannot
show, for which a prior stands in (``priors``) until repeats or recorded history show it::

    ln(candidate / baseline) ± t · sqrt(side_c² + side_b²)
    side² = m² · repeat² / repeats      [+ builds² where the plans differ]

``repeat²`` is the variance of one repeat's median: the prior and the noise within the repeat, replaced step by step
by the spread that is seen between repeats. m = 1 for one or two repeats, and up to 1.25 for more: the median of the
repeats' medians is less certain than their mean, but one odd repeat does not move it. t has as many degrees of
freedom as were seen; a prior is taken for known.

FAIL when the whole interval lies above 1 + threshold, PASS when it lies below, INCONCLUSIVE otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, get_args

from pytest_trt.latency.evidence import Evidence, Repeats, Side, of_pairs, of_summary, weigh
from pytest_trt.latency.priors import PRIORS, Prior
from pytest_trt.latency.stats import Summary, as_repeats, summarize
from pytest_trt.latency.student import t_quantile
from pytest_trt.latency.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    Samples: TypeAlias = ArrayLike | Sequence[ArrayLike] | Summary
    Key = TypeVar("Key", bound=Hashable)
    Read = TypeVar("Read")

__all__ = ["Outcome", "Verdict", "decide", "decide_all"]

TAIL = 0.025  # how often a case that is just at the threshold turns red
_Z_POWER = 1.645  # one-sided 95 %


def decide(
    baseline: Samples,
    candidate: Samples,
    *,
    threshold: float,
    clock: str,
    paired: bool = False,
    rebuilt: bool = False,
    repeats: Repeats = "processes",
    history: Sequence[float] = (),
    comparisons: int = 1,
    looks: int = 1,
    prior: Prior | None = None,
) -> Verdict:
    """Judge *candidate* against *baseline*; *threshold* is the share that counts as a regression: 0.03 is 3 %, and 3 is
    300 %, which ``--trt-threshold=300%`` and a waiver may ask for.

    Both are durations in ms: (samples,), (repeats, samples), a list of arrays of different lengths, or a Summary.
    *paired*: the sides were interleaved in one process per repeat; sample i of one is judged against sample i of the
    other. *repeats* says what a repeat is: a fresh process, a ``"loads"`` of the plan within one process that did
    other things before, or another of several ``"builds"``. *rebuilt*: the sides are two plans, one build each.

    *clock* selects the prior (``graph``, ``sync``, ``host``, ``simulated``), *prior* is another one. *history* are
    medians in ms of earlier repeats of the same code (of whole runs with ``"loads"``; the ratios of equal sides with
    *paired*): the prior loses weight with each of them, and in the end has none (from 9 on; 21 on the host clock).
    *comparisons* is the number of cases in this run: FAIL and ``improved`` are corrected for it (Bonferroni). *looks*
    is how often growing data may be judged until a verdict is not INCONCLUSIVE: then the whole interval is.

    Raises ValueError for an unknown clock, a threshold or a count that is not positive, and samples that are none.
    """
    evidence = _evidence(baseline, candidate, clock, paired, rebuilt, repeats, history, prior)
    return _judge(evidence, threshold, clock, rebuilt, comparisons, looks)


def decide_all(
    cases: Mapping[Key, tuple[Samples, Samples]],
    *,
    threshold: float,
    clock: str,
    paired: bool = False,
    rebuilt: bool = False,
    repeats: Repeats = "processes",
    history: Mapping[Key, Sequence[float]] | None = None,
    prior: Prior | None = None,
) -> dict[Key, Verdict]:
    """Judge the cases of one run, each a (baseline, candidate), as ``decide`` does, corrected for their number.

    Holm's procedure: a case turns red when it would as one of all cases, or as one of those that have not turned red
    yet. *history* is per case. With all cases unchanged, 2.5 % of such runs turn red, however many cases there are.
    """
    known = history or {}
    evidence = {
        key: _evidence(*sides, clock, paired, rebuilt, repeats, known.get(key, ()), prior)
        for key, sides in cases.items()
    }
    found: dict[Key, Verdict] = {}
    while left := [key for key in cases if key not in found]:
        verdicts = {key: _judge(evidence[key], threshold, clock, rebuilt, len(left)) for key in left}
        red = {key: verdict for key, verdict in verdicts.items() if verdict.outcome is Outcome.FAIL}
        found |= red or verdicts
    return {key: found[key] for key in cases}


def _evidence(
    baseline: Samples,
    candidate: Samples,
    clock: str,
    paired: bool,
    rebuilt: bool,
    repeats: Repeats,
    history: Sequence[float],
    prior: Prior | None,
) -> Evidence:
    if clock not in PRIORS:
        raise ValueError(f"unknown clock {clock!r}; known: {', '.join(PRIORS)}")
    if repeats not in get_args(Repeats):
        raise ValueError(f"unknown repeats {repeats!r}; known: {', '.join(get_args(Repeats))}")
    earlier = list(history)
    if not all(_is_positive(value) for value in earlier):
        raise ValueError("the medians of history must be finite and positive, one number each")
    how: dict[str, Any] = {"prior": prior or PRIORS[clock], "repeats": repeats, "rebuilt": rebuilt, "history": earlier}
    if paired:
        if isinstance(baseline, Summary) or isinstance(candidate, Summary):
            raise ValueError("paired sides are judged sample by sample: give the samples, not a Summary")
        pair = of_pairs(_read("baseline", as_repeats, baseline), _read("candidate", as_repeats, candidate))
        return weigh([pair], pair.log_median, **how)
    sides = [_read("baseline", _side, baseline), _read("candidate", _side, candidate)]
    return weigh(sides, sides[1].log_median - sides[0].log_median, **how)


def _read(name: str, read: Callable[[Any], Read], samples: Samples) -> Read:
    try:
        return read(samples)
    except ValueError as error:
        raise ValueError(f"the {name}: {error}") from None


def _is_positive(value: object) -> bool:
    return isinstance(value, Real) and 0 < float(value) < math.inf  # nan is not


def _side(samples: Samples) -> Side:
    if isinstance(samples, Summary):
        return of_summary(samples)
    return of_summary(summarize(samples))


def _judge(
    evidence: Evidence, threshold: float, clock: str, rebuilt: bool, comparisons: int, looks: int = 1
) -> Verdict:
    if not _is_positive(threshold):
        raise ValueError(f"threshold must be positive, a share such as 0.03 for 3 %, got {threshold!r}")
    if comparisons < 1:
        raise ValueError(f"comparisons must be at least 1, got {comparisons}")
    if looks < 1:
        raise ValueError(f"looks must be at least 1, got {looks}")
    one = t_quantile(1 - TAIL / looks, evidence.dof) * evidence.sigma
    all_of_them = t_quantile(1 - TAIL / looks / comparisons, evidence.dof) * evidence.sigma
    low, high = _exp(evidence.log_ratio - all_of_them), _exp(evidence.log_ratio + one)
    limit = 1 + float(threshold)
    return Verdict(
        outcome=Outcome.FAIL if low > limit else Outcome.PASS if high < limit else Outcome.INCONCLUSIVE,
        ratio=_exp(evidence.log_ratio),
        low=low,
        high=high,
        threshold=float(threshold),
        detectable=limit * _exp(all_of_them + _Z_POWER * evidence.sigma) - 1,
        clock=clock,
        rebuilt=rebuilt,
        improved=evidence.log_ratio + all_of_them < 0,
        noise=evidence.noise,
        noise_level=evidence.noise_level,
        noise_source=evidence.noise_source,
        comparisons=comparisons,
    )


def _exp(logarithm: float) -> float:
    # Two samples far apart, corrected for many comparisons, leave the range of a float: JSON has no infinity.
    return math.exp(min(logarithm, 600.0))
