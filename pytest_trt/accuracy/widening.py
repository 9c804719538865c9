"""Floating-point numbers of 8 and 16 bits as float32, exactly and much faster than a cast makes them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["fits_single", "to_single"]

# The sign, and the exponent and mantissa of a float16 that was sign-extended and moved up to those of a float32.
_SIGN_AND_VALUE = np.int32(-0x70002000)
# Between the biases of the two exponents: 2**(127 - 15).
_REBIAS = np.float32(2.0**112)
# What an exponent of all ones becomes: a float16 that is infinite or NaN.
_NONFINITE = 2.0**16


def fits_single(dtype: np.dtype[Any]) -> bool:
    """Does float32 hold every value of this floating-point type?"""
    return dtype.itemsize < 4 or (dtype.itemsize == 4 and dtype.kind == "f")


def to_single(chunk: NDArray[Any], out: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return *chunk*, one-dimensional, as native float32: itself if it is, or else in *out*, of the same length."""
    if chunk.dtype == np.float32 and chunk.dtype.isnative:
        return chunk
    if chunk.dtype == np.float16 and chunk.dtype.isnative:
        bits = out.view(np.int32)
        np.copyto(bits, chunk.view(np.int16))
        np.left_shift(bits, 13, out=bits)
        np.bitwise_and(bits, _SIGN_AND_VALUE, out=bits)
        np.multiply(out, _REBIAS, out=out)
        if max(np.maximum.reduce(out), -np.minimum.reduce(out)) < _NONFINITE:
            return out
    elif chunk.dtype.itemsize == 1:
        return np.take(_table(chunk.dtype), chunk.view(np.uint8), out=out, mode="wrap")
    np.copyto(out, chunk, casting="unsafe")
    return out


@cache
def _table(dtype: np.dtype[Any]) -> NDArray[np.float32]:
    """Return the values of all 256 bit patterns."""
    with np.errstate(all="ignore"):
        return np.arange(256, dtype=np.uint8).view(dtype).astype(np.float32)
