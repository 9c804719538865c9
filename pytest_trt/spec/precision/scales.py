"""Scales of symmetric quantization: real value = scale · stored value, stored values from -largest to largest, zero
point 0. ``largest`` is 127 for int8, 448 for fp8 (e4m3) and 7 for int4."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["activation_scale", "per_channel", "quantization_error", "quantized", "weight_scales"]

Array = np.ndarray[Any, Any]

# A subnormal scale would be flushed to 0 on a GPU.
_SMALLEST = float(np.finfo(np.float32).tiny)


def activation_scale(low: float, high: float, largest: int = 127) -> Array:
    """Return the scale for a tensor with values in [*low*, *high*].

    1/largest where the range is empty: every scale holds 0, and a scale must be above 0.
    """
    threshold = np.float32(max(abs(low), abs(high)))
    scale = threshold / np.float32(largest)
    return np.asarray(scale if scale >= _SMALLEST else 1 / largest, dtype=np.float32)


def weight_scales(weight: Array, axis: int | None, largest: int = 127) -> Array:
    """Return one float32 scale per index of *axis*, or a single one (shape ``()``) for ``axis=None``.

    A channel of zeros takes the tensor's largest scale: any scale holds it, and a tiny one would make the
    bias enormous in units of (input scale · weight scale).
    """
    magnitudes = np.abs(np.asarray(weight, dtype=np.float32))
    others = tuple(d for d in range(magnitudes.ndim) if d != axis)
    tops = magnitudes.max(axis=None if axis is None else others, initial=0.0)
    scales = np.asarray(tops, dtype=np.float32) / np.float32(largest)
    usable = scales >= _SMALLEST
    top = scales.max() if usable.any() else np.float32(1 / largest)
    return np.asarray(np.where(usable, scales, top), dtype=np.float32)


def per_channel(scales: Array, ndim: int, axis: int | None) -> Array:
    """Return *scales* shaped to broadcast along *axis* of a tensor with *ndim* dimensions."""
    return scales if axis is None else scales.reshape([-1 if d == axis else 1 for d in range(ndim)])


def quantized(weight: Array, scales: Array, axis: int | None) -> Array:
    """Return *weight* as int8, as QuantizeLinear makes it: rounded to nearest (ties to even), then saturated."""
    scaled = np.asarray(weight, dtype=np.float32) / per_channel(scales, weight.ndim, axis)
    return np.clip(np.rint(scaled), -128, 127).astype(np.int8)


def quantization_error(weight: Array, integers: Array, scales: Array, axis: int | None) -> float:
    """Return the largest error of *weight* stored as *integers*, in scales: at most 0.5 where nothing is clipped."""
    spread = per_channel(scales, weight.ndim, axis).astype(np.float64)
    return float(np.max(np.abs(integers * spread - weight) / spread, initial=0.0))
