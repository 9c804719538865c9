"""Ranges of activations, gathered sample by sample."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pytest_trt.errors import PrecisionError, UsageError, nearest

if TYPE_CHECKING:
    import onnx

__all__ = ["METHODS", "Collector", "Histogram", "MinMax", "calibration_tensors", "make_collector"]

METHODS = ("minmax", "percentile", "entropy")

_BINS = 2048
# int8 without its sign: what a clipped histogram is squeezed into by the entropy method.
_LEVELS = 128
# Counts of a last level that holds none: P without any Q would be an infinite divergence.
_EMPTY_LEVEL = 1e-4

Array = np.ndarray[Any, Any]


class Collector(Protocol):
    """Takes a tensor's values, sample by sample, and gives a symmetric range for them."""

    def update(self, array: Array) -> None:
        """Take in one sample, of any shape. Raises PrecisionError for NaN or infinity."""
        ...

    def range(self) -> tuple[float, float]:
        """Return (-t, t). Raises PrecisionError when no value was taken in."""
        ...


class MinMax:
    """t is the largest magnitude seen: nothing is clipped, and one outlier costs everybody else's resolution."""

    def __init__(self, tensor: str = "") -> None:
        self.tensor = tensor
        self._largest: float | None = None

    def update(self, array: Array) -> None:
        magnitudes = _magnitudes(array, self.tensor)
        if magnitudes.size:
            self._largest = max(self._largest or 0.0, float(magnitudes.max()))

    def range(self) -> tuple[float, float]:
        if self._largest is None:
            raise _no_values(self.tensor)
        return -self._largest, self._largest


class Histogram:
    """Counts magnitudes in 2048 equal bins from 0; the bins double in width when a larger value arrives.

    ``method="percentile"``: t leaves (100 - *percentile*) % of the values outside. ``method="entropy"``: t
    has the smallest Kullback-Leibler divergence between the clipped values and their int8 form.
    Memory stays the same however many samples are seen, and t is exact to one bin: at worst 1/1024 of the
    largest magnitude.
    """

    def __init__(self, method: str = "entropy", *, percentile: float = 99.99, tensor: str = "") -> None:
        if method not in ("percentile", "entropy"):
            raise UsageError(f"unknown histogram method {method!r}", hint="known: percentile, entropy")
        if not 0 < percentile <= 100:
            raise UsageError(f"percentile must be above 0 and at most 100, not {percentile}")
        self.method = method
        self.percentile = percentile
        self.tensor = tensor
        self.zeros = 0
        self.counts = np.zeros(_BINS, dtype=np.int64)
        self.bin_width = 0.0
        self.largest = 0.0

    def update(self, array: Array) -> None:
        magnitudes = _magnitudes(array, self.tensor)
        # Zeros are kept apart. int8 holds 0 exactly at any scale, so they must not pull the entropy's choice.
        nonzero = magnitudes[magnitudes > 0]
        self.zeros += magnitudes.size - nonzero.size
        if not nonzero.size:
            return
        self.largest = max(self.largest, float(nonzero.max()))
        self._widen()
        bins = np.minimum((nonzero / self.bin_width).astype(np.int64), _BINS - 1)
        self.counts += np.bincount(bins, minlength=_BINS)

    def _widen(self) -> None:
        if self.bin_width == 0:
            self.bin_width = max(self.largest / _BINS, sys.float_info.min)
        while self.largest > self.bin_width * _BINS:
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([pairs, np.zeros(_BINS // 2, dtype=np.int64)])
            self.bin_width *= 2

    def range(self) -> tuple[float, float]:
        if self.zeros == 0 and not self.counts.any():
            raise _no_values(self.tensor)
        if not self.counts.any():
            return 0.0, 0.0
        threshold = self._percentile() if self.method == "percentile" else self._entropy()
        threshold = min(threshold, self.largest)
        return -threshold, threshold

    def _percentile(self) -> float:
        nonzero = int(self.counts.sum())
        wanted = min((self.zeros + nonzero) * self.percentile / 100 - self.zeros, nonzero)
        if wanted <= 0:
            # So many zeros that the percentile is one of them: cutting everything else off helps nobody.
            return self.largest
        cumulative = np.cumsum(self.counts)
        index = int(np.searchsorted(cumulative, wanted))
        below = int(cumulative[index - 1]) if index else 0
        return self.bin_width * (index + (wanted - below) / int(self.counts[index]))

    def _entropy(self) -> float:
        used = int(np.flatnonzero(self.counts)[-1]) + 1
        if used <= _LEVELS:
            return self.largest
        sizes = np.arange(_LEVELS, used + 1)
        best = int(sizes[np.argmin(_divergences(self.counts.astype(np.float64), sizes))])
        return self.bin_width * (best + 0.5)


def _divergences(counts: Array, sizes: Array) -> Array:
    """Return KL(P || Q) for each clipping of the histogram *counts* to its first ``sizes[i]`` bins.

    P is the histogram clipped to those bins, with everything outside added to the last of them. Q is the
    clipped histogram without that, squeezed into 128 levels and spread back evenly over those bins of a
    level that P fills. Q is not scaled up to a sum of 1: what is cut off must count against it, or a
    histogram with gaps (an image of 16 grey levels) would look best with nearly everything cut off.
    Both are constant within a level apart from P's own shape, so sums over bins become differences of
    cumulative sums: 128 terms for each size, for all sizes at once.
    """
    total = counts.sum()
    sums = np.concatenate([[0.0], np.cumsum(counts)])
    filled = np.concatenate([[0], np.cumsum(counts > 0)])
    entropies = np.concatenate([[0.0], np.cumsum(_xlogx(counts))])
    outside = total - sums[sizes]
    last = counts[sizes - 1]
    p_log_p = entropies[sizes - 1] + _xlogx(last + outside)

    edges = sizes[:, None] * np.arange(_LEVELS + 1) // _LEVELS
    level_sums = np.diff(sums[edges], axis=1)
    level_bins = np.diff(filled[edges], axis=1)
    p_levels = level_sums.copy()
    p_levels[:, -1] += outside
    # Outliers fill the last bin of P where the histogram itself leaves it empty.
    level_bins[:, -1] += (last == 0) & (outside > 0)
    # Without this, no threshold inside a gap of the histogram could ever be chosen.
    level_sums[(level_sums[:, -1] == 0) & (outside > 0), -1] = _EMPTY_LEVEL
    log_q = np.log(np.where(level_sums > 0, level_sums, 1.0) / np.maximum(level_bins, 1))
    p_log_q = np.einsum("ij,ij->i", p_levels, log_q)
    return np.asarray((p_log_p - p_log_q) / total)


def _xlogx(values: Array) -> Array:
    return values * np.log(np.where(values > 0, values, 1.0))


def _magnitudes(array: Array, tensor: str) -> Array:
    magnitudes = np.abs(np.asarray(array, dtype=np.float64)).ravel()
    bad = magnitudes.size - int(np.count_nonzero(np.isfinite(magnitudes)))
    if bad:
        raise PrecisionError(
            f"tensor {tensor!r} has {bad} NaN or infinite of {magnitudes.size} values; a range needs finite ones",
            hint="look at the samples, or exclude the nodes that read this tensor (exclude_nodes)",
        )
    return magnitudes


def _no_values(tensor: str) -> PrecisionError:
    return PrecisionError(
        f"tensor {tensor!r}: no values were seen, so it has no range", hint="give at least one sample"
    )


def make_collector(method: str, *, percentile: float = 99.99, tensor: str = "") -> Collector:
    """Return an empty collector: ``minmax``, ``percentile`` or ``entropy``. *tensor* is named in its errors."""
    if method == "minmax":
        return MinMax(tensor)
    if method not in METHODS:
        raise UsageError(f"unknown calibration method {method!r}", hint=nearest(method, METHODS))
    return Histogram(method, percentile=percentile, tensor=tensor)


def calibration_tensors(proto: onnx.ModelProto, options: Mapping[str, Any], precision: str = "int8") -> list[str]:
    """Return the float32 activations of *proto* whose ranges the recipe of *precision* needs, in graph order.

    Graph inputs among them. *options* are the recipe's. Empty for a model that is quantized already.
    """
    from pytest_trt.spec.precision.quantize import Fp8Recipe, Int8Recipe

    recipes: dict[str, type[Fp8Recipe | Int8Recipe]] = {"int8": Int8Recipe, "fp8": Fp8Recipe}
    return recipes[precision](**options).tensors(proto)
