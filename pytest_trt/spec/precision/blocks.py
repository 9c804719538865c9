"""Symmetric int4 in blocks: real value = scale of the block · integer, integers from -7 to 7, two in a byte."""

from __future__ import annotations

from typing import Any

import numpy as np

from pytest_trt.spec.precision.scales import weight_scales

__all__ = ["block_error", "block_quantized", "block_scales", "pack"]

Array = np.ndarray[Any, Any]

_LARGEST = 7


def block_scales(weight: Array, axis: int, block_size: int) -> Array:
    """Return float32 scales in the shape of the matrix *weight*, with *axis* divided by *block_size*.

    A block of zeros takes the matrix' largest scale.
    """
    rows = weight if axis == 1 else weight.T
    flat = weight_scales(rows.reshape(-1, block_size), 0, _LARGEST)
    scales = flat.reshape(rows.shape[0], -1)
    return np.ascontiguousarray(scales if axis == 1 else scales.T)


def block_quantized(weight: Array, scales: Array, axis: int) -> Array:
    """Return *weight* as int8 values that fit 4 bits, rounded to nearest (ties to even), then saturated."""
    scaled = np.asarray(weight, dtype=np.float32) / _spread(scales, weight, axis)
    return np.clip(np.rint(scaled), -8, 7).astype(np.int8)


def block_error(weight: Array, integers: Array, scales: Array, axis: int) -> float:
    """Return the largest error of *weight* stored as *integers*, in scales: at most 0.5 where nothing is clipped."""
    spread = _spread(scales, weight, axis).astype(np.float64)
    return float(np.max(np.abs(integers * spread - weight) / spread, initial=0.0))


def _spread(scales: Array, weight: Array, axis: int) -> Array:
    return np.repeat(scales, weight.shape[axis] // scales.shape[axis], axis=axis)


def pack(integers: Array) -> bytes:
    """Return an even number of 4-bit values as ONNX stores them: in memory order, the first of two in the low half."""
    halves = integers.ravel().astype(np.uint8) & 0x0F
    return bytes(halves[0::2] | (halves[1::2] << 4))
