"""When is a device warm, and when are there samples enough? Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pytest_trt.latency.stats import median_error

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["STRETCHES", "half_width", "settled"]

STRETCHES = 3  # that must agree before a device counts as warm

_SAME = 0.005
_Z = 1.96


def half_width(values: NDArray[np.float64]) -> float:
    """Half the 95 % confidence interval of the median of *values*, a series in ms, relative to it.

    0 for samples that are all the same, infinity for a median of 0 and for a single sample.
    """
    median = float(np.median(values))
    return _Z * median_error(values) / median if median > 0 and values.size > 1 else math.inf


def settled(stretches: Sequence[NDArray[np.float64]]) -> bool:
    """Whether the medians of the last three *stretches* are the same: within 0.5 %, or within their noise.

    Fewer stretches are not settled.
    """
    last = stretches[-STRETCHES:]
    if len(last) < STRETCHES:
        return False
    medians = [float(np.median(stretch)) for stretch in last]
    if min(medians) <= 0:
        return False
    errors = [median_error(stretch) / median for stretch, median in zip(last, medians, strict=True)]
    pairs = ((0, 1), (1, 2), (0, 2))  # the first and the last as well: a steady drift is no rest
    return all(
        abs(math.log(medians[b] / medians[a])) <= max(_SAME, _Z * math.hypot(errors[a], errors[b])) for a, b in pairs
    )
