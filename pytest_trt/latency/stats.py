"""Samples in, frozen summary out. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["Summary", "summarize"]

_BATCHES = 20


@dataclass(frozen=True)
class Summary:
    """Durations in ms. ``cov`` is standard deviation over mean; ``median_se`` is the relative standard error of
    the median *within this run* (batch medians, so that slow drift widens it); 0 when there is one sample."""

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

    def to_json(self) -> dict[str, Any]:
        """Rounded to 5 significant digits: noise below that only makes diffs."""
        return {k: v if isinstance(v, int) else float(f"{v:.5g}") for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Summary:
        return cls(**{name: data[name] for name in cls.__dataclass_fields__})


def summarize(samples: ArrayLike) -> Summary:
    """Summarize durations in ms, in the order in which they were taken.

    Percentiles are linear interpolations. Raises ValueError for no samples, and for durations that are not
    finite and positive.
    """
    values = np.asarray(samples, dtype=np.float64).ravel()
    if values.size == 0:
        raise ValueError("there are no samples")
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError("durations must be finite and positive")
    median, p90, p95, p99 = np.percentile(values, [50, 90, 95, 99])
    mean = values.mean()
    return Summary(
        count=int(values.size),
        median_ms=float(median),
        mean_ms=float(mean),
        min_ms=float(values.min()),
        max_ms=float(values.max()),
        p90_ms=float(p90),
        p95_ms=float(p95),
        p99_ms=float(p99),
        cov=float(values.std() / mean),
        median_se=_median_standard_error(values) / float(median),
    )


def _median_standard_error(values: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    # Neighbouring samples are correlated (clocks, caches): medians of whole stretches show that, single
    # samples do not. With few samples the stretches are single samples, and 1.2533 σ/√n is the textbook value.
    batches = np.array_split(values, min(_BATCHES, values.size))
    medians = np.array([np.median(batch) for batch in batches])
    if medians.size < 2:
        return 0.0
    factor = 1.2533 if values.size <= _BATCHES else 1.0
    return float(factor * medians.std(ddof=1) / np.sqrt(medians.size))
