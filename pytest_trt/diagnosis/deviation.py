"""One number for how far outputs are apart: squared error in units of the reference's own energy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_trt.accuracy.measurement import measure, root_mean_square
from pytest_trt.errors import InputsError

if TYPE_CHECKING:
    import numpy as np

    from pytest_trt.accuracy.comparison import Comparison

__all__ = ["comparison_error", "squared_error", "worst_cosine"]

# One mapping of output names to arrays for each sample.
Results = Sequence[Mapping[str, "np.ndarray[Any, Any]"]]


def squared_error(actual: Results, expected: Results, scale: Results) -> float:
    """Return Σ (actual - expected)² / Σ scale², the mean over the outputs of *scale*; all samples together.

    Outputs of different scales count alike so. Where *scale* is all zeros its energy is taken for 1. Infinite where one
    side is NaN or infinite and the other is not, or where outputs cannot be compared at all.
    """
    shares = [_output_error(name, actual, expected, scale) for name in scale[0]]
    return sum(shares) / len(shares)


def _output_error(name: str, actual: Results, expected: Results, scale: Results) -> float:
    noise = energy = 0.0
    for found, wanted, unit in zip(actual, expected, scale, strict=True):
        if name not in found or name not in wanted:
            return math.inf
        try:
            metrics = measure(found[name], wanted[name], rtol=None, atol=None, allow_nonfinite=True)
        except InputsError:
            return math.inf
        if metrics.nonfinite_disagreements:
            return math.inf
        noise += metrics.sum_square
        energy += root_mean_square(unit[name]) ** 2 * unit[name].size
    return noise / (energy or 1.0)


def comparison_error(comparison: Comparison) -> float:
    """Return the relative rms error of a comparison's outputs together; infinite where values could not be compared."""
    shares = []
    for output in comparison.outputs:
        metrics = output.metrics
        if metrics is None or metrics.nonfinite_disagreements:
            return math.inf
        shares.append(metrics.sum_square / (metrics.sum_expected_square or 1.0))
    return math.sqrt(sum(shares) / len(shares))


def worst_cosine(comparison: Comparison) -> float | None:
    """Return the smallest cosine among the outputs; None where none has one."""
    found = [o.metrics.cosine for o in comparison.outputs if o.metrics is not None and o.metrics.pairs]
    return min((value for value in found if not math.isnan(value)), default=None)
