"""Integers and booleans: equal or not, exactly. Sums are float64 all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.accuracy.passes import FloatPass
from pytest_trt.accuracy.sums import dot

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Mask = NDArray[np.bool_]

__all__ = ["ExactPass"]

# float64 holds every integer up to this magnitude, and the difference of any two of them.
_HELD = 2**53 // 2
# Elements that are measured at once where it does not.
_WIDE = 1 << 16


class ExactPass(FloatPass):
    """Integers of any width. Those that float64 holds take the way of floating-point numbers."""

    exact = True

    def __init__(self, a: Array, e: Array) -> None:
        super().__init__(a, e, None, None, False)

    def add(self, offset: int, a_chunk: Array, e_chunk: Array) -> None:
        a_int, e_int = _integers(a_chunk), _integers(e_chunk)
        if _held(a_int) and _held(e_int):
            super().add(offset, a_int, e_int)
        else:
            for start in range(0, len(a_int), _WIDE):  # in parts, because it takes more memory
                part = slice(start, start + _WIDE)
                self.add_wide(offset + start, _wide(a_int[part]), _wide(e_int[part]))

    def judge(self, offset: int, diff: Array, e: Array, greatest: float, bound: float) -> None:  # noqa: ARG002 - of floats
        self.totals.mismatched += int(np.count_nonzero(diff))

    def add_wide(self, offset: int, a_int: Array, e_int: Array) -> None:
        """Measure int64 and uint64 whose differences float64 may miss."""
        n, totals = len(a_int), self.totals
        a_side, e_side = self.vectors(n)
        a, e = a_side.values, e_side.values
        different, distance = _distance(a_int, e_int)
        totals.pairs += n
        totals.mismatched += int(np.count_nonzero(different))
        totals.offer_range(int(e_int.min()), int(e_int.max()))
        totals.offer_greatest("max_abs", distance, offset)
        np.copyto(a, a_int)
        np.copyto(e, e_int)
        totals.sum_actual_square += a_side.square()
        totals.sum_expected_square += e_side.square()
        totals.sum_product += dot(a, e)
        np.copyto(a, distance)
        totals.sum_square += a_side.square()
        totals.sum_abs += a_side.total()
        self.offer_relative(offset, a, e, totals.greatest("max_rel"))


def _integers(chunk: Array) -> Array:
    """Return booleans and the narrow integers of ml_dtypes as an integer of NumPy, and others as they are."""
    return chunk if chunk.dtype.kind in "iu" else chunk.astype(np.int8)


def _held(chunk: Array) -> bool:
    if chunk.dtype.itemsize < 8:
        return True
    return int(np.minimum.reduce(chunk)) >= -_HELD and int(np.maximum.reduce(chunk)) <= _HELD


def _wide(chunk: Array) -> Array:
    """Return integers of any width as int64 or uint64."""
    wide = np.uint64 if chunk.dtype.kind == "u" and chunk.dtype.itemsize == 8 else np.int64
    return chunk.astype(wide, copy=False)


def _distance(a: Array, e: Array) -> tuple[Mask, Array]:
    """Return where int64 or uint64 arrays differ, exactly, and ``|a - e|``.

    The distance is exact as uint64. Only between negative int64 and uint64 it may exceed that, and is float64.
    """
    if a.dtype == e.dtype:
        # Modulo 2**64 the difference of two int64 is right as uint64, also where int64 would overflow.
        distance = np.maximum(a, e).view(np.uint64)
        distance -= np.minimum(a, e).view(np.uint64)
        return a != e, distance
    signed, unsigned = (a, e) if a.dtype == np.int64 else (e, a)
    if signed.min() >= 0:
        return _distance(signed.astype(np.uint64), unsigned)
    # numpy would compare the two kinds in float64, where 2**53 equals 2**53 + 1.
    different: Mask = (signed < 0) | (signed.astype(np.uint64) != unsigned)
    apart = np.abs(unsigned.astype(np.float64) - signed.astype(np.float64))
    return different, np.where(different, np.maximum(apart, 1.0), 0.0)
