"""How much of a tolerance a comparison uses: a number for a search to climb on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_trt.accuracy.comparison import Comparison, OutputComparison

__all__ = ["used_tolerance"]


def used_tolerance(comparison: Comparison) -> float:
    """The share of the tolerance that the worst output uses: 1 at the limit, more exactly where it is not close;
    infinite where that cannot be said in numbers (shapes, types, NaN on one side)."""
    return max((_used(output) for output in comparison.outputs), default=0.0)


def _used(output: OutputComparison) -> float:
    metrics = output.metrics
    if metrics is None or metrics.nonfinite_disagreements:
        return math.inf
    worst = max((share for share in _shares(output) if not math.isnan(share)), default=0.0)
    if output.ok:
        return min(worst, 1.0)
    return worst if worst > 1 else math.inf


def _shares(output: OutputComparison) -> Iterator[float]:
    metrics, limit, ranking = output.metrics, output.tolerance, output.ranking
    if metrics is None:
        return
    if ranking is not None:
        yield _missing(ranking.top1, limit.top1)
        yield _missing(ranking.topk, limit.topk)
    if metrics.exact:
        share = metrics.mismatched_share / limit.max_mismatched if limit.max_mismatched else float(metrics.mismatched)
        yield share
        return
    if metrics.max_excess is not None:
        yield metrics.max_excess.value
    elif metrics.max_abs is not None and metrics.max_abs.allowed:
        yield metrics.max_abs.value / metrics.max_abs.allowed
    yield _missing(metrics.cosine, limit.cosine)
    if limit.snr_db is not None:
        yield 10 ** min((limit.snr_db - metrics.snr_db) / 20, 300)


def _missing(value: float, least: float | None) -> float:
    """What is missing to 1, in units of what may be missing."""
    if least is None or value >= 1:
        return 0.0
    return (1 - value) / (1 - least) if least < 1 else math.inf
