"""Samples in, frozen summary out. Pure."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = ["Summary", "as_repeats", "batch_count", "median_error", "summarize"]

_MAX_BATCHES = 20
_MIN_PER_BATCH = 4
_FEWEST_FOR_BATCHES = 20
_FEWEST_FOR_RANKS = 6
_Z = 1.96
_WANTED = "samples are durations in ms, (samples,), or repeats of them, (repeats, samples)"


@dataclass(frozen=True)
class Summary:
    """Durations in ms, of one repeat or of several: loads of an engine, processes, builds.

    ``median_ms`` is the median of the repeats' medians, which one odd repeat does not move; the other figures are of
    all samples together. ``cov`` is standard deviation over mean. ``loads`` is the number of repeats.

    Relative errors, as far as these samples show them: ``within_se`` of the median of one repeat (drift and
    autocorrelation included), ``between_sd`` the spread of the repeats' medians, ``median_se`` of ``median_ms`` from
    both, whichever is larger. They are 0 where there is one sample, or one repeat.
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
    within_se: float = 0.0
    between_sd: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Rounded to 5 significant digits: noise below that only makes diffs."""
        return {k: v if isinstance(v, int) else float(f"{v:.5g}") for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Summary:
        """Read what ``to_json`` wrote; other keys are ignored."""
        found = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        if "within_se" not in found and "median_se" in found:
            # Written before the two were kept apart: all of it counts as noise within the repeats.
            found["within_se"] = found["median_se"] * math.sqrt(found.get("loads", 1))
        return cls(**found)


def summarize(*samples: ArrayLike | Sequence[ArrayLike]) -> Summary:
    """Summarize durations in ms, each repeat in the order in which it was taken.

    ``summarize(array)`` takes one repeat, shape (samples,), or several, shape (repeats, samples); a list of arrays of
    different lengths is several. ``summarize(*arrays)`` is the same, one argument per repeat. Percentiles are linear
    interpolations. Raises ValueError for no samples, and for durations that are not finite and positive.
    """
    repeats = [repeat for argument in samples for repeat in as_repeats(argument)]
    if not repeats:
        raise ValueError("there are no samples")
    values = np.concatenate(repeats)
    logs = np.log([np.median(repeat) for repeat in repeats])
    p90, p95, p99 = np.percentile(values, [90, 95, 99])
    count, scale = len(repeats), np.exp(logs.mean())  # figures near 1, whose squares no unit makes too large or small
    mean = (values / scale).mean()
    within = math.sqrt(sum(median_error(np.log(repeat)) ** 2 for repeat in repeats) / count)
    between = float(logs.std(ddof=1)) if count > 1 else 0.0
    return Summary(
        count=int(values.size),
        median_ms=float(np.median([np.median(repeat) for repeat in repeats])),
        mean_ms=float(mean * scale),
        min_ms=float(values.min()),
        max_ms=float(values.max()),
        p90_ms=float(p90),
        p95_ms=float(p95),
        p99_ms=float(p99),
        cov=float((values / scale).std() / mean),
        median_se=max(within, between) / math.sqrt(count),
        loads=count,
        within_se=within,
        between_sd=between,
    )


def as_repeats(samples: ArrayLike | Sequence[ArrayLike]) -> list[NDArray[np.float64]]:
    """The repeats in *samples*: shape (samples,), (repeats, samples), or a sequence of 1-d arrays of any lengths.

    Raises ValueError for no samples, more dimensions, and durations that are not finite and positive.
    """
    array = samples if isinstance(samples, (list, tuple)) else np.asarray(samples)
    if isinstance(array, np.ndarray) and array.ndim == 0:
        raise ValueError(f"{_WANTED}, not {type(samples).__name__}")
    if len(array) == 0:
        raise ValueError("there are no samples")
    several = isinstance(array[0], (list, tuple)) or np.ndim(array[0]) > 0
    parts = array if several else [array]
    return [_repeat(part, f" of repeat {number}" if len(parts) > 1 else "") for number, part in enumerate(parts)]


def _repeat(values: Any, place: str) -> NDArray[np.float64]:
    try:
        found = np.asarray(values)
    except ValueError:  # numbers beside sequences
        raise ValueError(_WANTED) from None
    if found.ndim != 1:
        raise ValueError(_WANTED)
    if found.size == 0:
        raise ValueError("there are no samples")
    if found.dtype.kind not in "fiu":
        raise ValueError(f"{found.dtype} is no duration: {_WANTED}")
    repeat = found.astype(np.float64)
    wrong = np.flatnonzero(~(np.isfinite(repeat) & (repeat > 0)))
    if wrong.size:
        raise ValueError(f"sample {wrong[0]}{place} is {repeat[wrong[0]]:g}: durations must be finite and positive")
    return repeat


def batch_count(count: int) -> int:
    """In how many stretches a series of *count* samples is cut to see drift; 0 where it is too short for that."""
    return min(_MAX_BATCHES, count // _MIN_PER_BATCH) if count >= _FEWEST_FOR_BATCHES else 0


def median_error(values: NDArray[np.float64]) -> float:
    """The standard error of the median of *values*, a series in the order in which it was taken; 0 for one value.

    How uncertain the median's *rank* is comes from which samples lie above it. Two methods look at that series, and the
    larger answer counts: batch means (the share above scatters between stretches, by more than chance if samples hang
    together or drift) and the sum of its autocorrelations, which also sees a memory that is longer than a stretch.
    What that rank interval is worth is read from the sorted samples. So an outlier counts as one sample above,
    however far off it is, and a second mode counts as soon as the interval reaches it.
    """
    count = values.size
    if count < _FEWEST_FOR_RANKS:
        # No rank interval holds the median of so few with 95 %. 1.2533 σ/√n is the textbook value for a normal.
        return float(1.2533 * values.std(ddof=1) / math.sqrt(count)) if count > 1 else 0.0
    variance = 0.25 / count
    batches = batch_count(count)
    if batches:
        above = 0.5 + 0.5 * np.sign(values - np.median(values))
        shares = np.array([batch.mean() for batch in np.array_split(above, batches)])
        variance = max(variance, float(shares.var(ddof=1)) / batches, _variance_of_mean(above))
    reach = _Z * math.sqrt(variance)
    low, high = np.quantile(values, [max(0.0, 0.5 - reach), min(1.0, 0.5 + reach)])
    return float((high - low) / (2 * _Z))


def _variance_of_mean(series: NDArray[np.float64]) -> float:
    """The variance of the mean of *series*, whose values hang together: its variance times the sum of its
    autocorrelations, over the count; 0 where all values are the same.

    That sum ends by Geyer's initial monotone sequence (1992, Statistical Science 7): sums of two neighbouring
    autocorrelations are taken while they are positive, and none counts as larger than the one before it.
    """
    count, around = series.size, series - series.mean()
    variance = float((around**2).mean())
    if not variance:
        return 0.0
    # At least twice as long, since the end of a series is no neighbour of its beginning; powers of two are quick.
    spectrum = np.fft.rfft(around, 1 << (2 * count - 1).bit_length())
    correlations = np.fft.irfft(np.abs(spectrum) ** 2)[:count] / (count * variance)
    pairs = correlations[: count // 2 * 2].reshape(-1, 2).sum(axis=1)
    noise = np.flatnonzero(pairs <= 0)
    monotone = np.minimum.accumulate(pairs[: noise[0]] if noise.size else pairs)
    return variance * max(0.0, 2 * float(monotone.sum()) - 1) / count
