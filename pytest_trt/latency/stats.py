"""Samples in, frozen summary out. Pure."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Summary", "summarize"]

_BATCHES = 20


@dataclass(frozen=True)
class Summary:
    """Durations in ms, of one load of the engine or of several.

    ``median_ms`` is the median of the loads' medians, which one odd load does not move; the other figures are of
    all samples together. ``cov`` is standard deviation over mean. ``median_se`` is the relative standard error of
    the median as far as *this run* shows it: drift within a load (medians of stretches) and the spread between its
    loads, whichever is larger; 0 when there is one sample.
    """

    count: int
    median_ms: float
    mean_ms: float
    min_ms: float
    max_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    cov: float
    median_se: float
    loads: int = 1

    def to_json(self) -> dict[str, Any]:
        """Rounded to 5 significant digits: noise below that only makes diffs."""
        return {k: v if isinstance(v, int) else float(f"{v:.5g}") for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Summary:
        """Read what ``to_json`` wrote; other keys are ignored."""
        return cls(**{name: data[name] for name in cls.__dataclass_fields__ if name in data})


def summarize(*loads: ArrayLike) -> Summary:
    """Summarize durations in ms: one array per load of the engine, each in the order in which it was taken.

    Percentiles are linear interpolations. Raises ValueError for no samples, and for durations that are not
    finite and positive.
    """
    arrays = [np.asarray(samples, dtype=np.float64).ravel() for samples in loads]
    if not arrays or any(array.size == 0 for array in arrays):
        raise ValueError("there are no samples")
    values = np.concatenate(arrays)
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError("durations must be finite and positive")
    medians = np.array([np.median(array) for array in arrays])
    median = float(np.median(medians))
    p90, p95, p99 = np.percentile(values, [90, 95, 99])
    mean = values.mean()
    within = math.sqrt(sum(_median_standard_error(array) ** 2 for array in arrays)) / len(arrays)
    between = float(medians.std(ddof=1)) / math.sqrt(len(medians)) if len(medians) > 1 else 0.0
    return Summary(
        count=int(values.size),
        median_ms=median,
        mean_ms=float(mean),
        min_ms=float(values.min()),
        max_ms=float(values.max()),
        p90_ms=float(p90),
        p95_ms=float(p95),
        p99_ms=float(p99),
        cov=float(values.std() / mean),
        median_se=max(within, between) / median,
        loads=len(arrays),
    )


def _median_standard_error(values: NDArray[np.float64]) -> float:
    # Neighbouring samples are correlated (clocks, caches): medians of whole stretches show that, single
    # samples do not. A median of few samples is less certain than their mean: 1.2533 σ/√n is the textbook value,
    # which medians of stretches of three or fewer do not contain yet.
    batches = np.array_split(values, min(_BATCHES, values.size))
    medians = np.array([np.median(batch) for batch in batches])
    if medians.size < 2:
        return 0.0
    factor = 1.2533 if values.size <= 3 * _BATCHES else 1.0
    return float(factor * medians.std(ddof=1) / np.sqrt(medians.size))
