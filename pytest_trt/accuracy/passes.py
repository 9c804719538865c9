"""One pass over two arrays, in chunks: the running totals, and the arithmetic on one chunk.

The arithmetic runs in buffers of one chunk that stay in the processor's cache. That bounds the extra
memory whatever the size of the arrays, and it is what makes the pass fast.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.accuracy.metrics import Extreme, Metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

__all__ = ["CHUNK", "ExactPass", "FloatPass", "chunks", "dot"]

# Elements. The three float64 buffers take 1.5 MB, the second-level cache of a server's core; smaller chunks pay for
# numpy's overhead per call, larger ones for memory.
CHUNK = 1 << 16


def chunks(a: Array, e: Array) -> Iterator[tuple[int, Array, Array]]:
    """Yield the flat offset and both chunks, in C order. A strided array is copied a chunk at a time only."""
    # Slicing `flat` copies the slice; `reshape` of a strided array would copy all of it.
    flat_a, flat_e = (x.reshape(-1) if x.flags.c_contiguous else x.flat for x in (a, e))
    for offset in range(0, a.size, CHUNK):
        yield offset, flat_a[offset : offset + CHUNK], flat_e[offset : offset + CHUNK]


def dot(x: Floats, y: Floats) -> float:
    """Return the sum of products."""
    # einsum and not `@`: BLAS wakes a thread per core for a vector of this length, which costs more than it gains.
    return float(np.einsum("i,i->", x, y))


class Pass:
    """Running totals over chunks: ``add`` every chunk, then take ``metrics``."""

    exact = False

    def __init__(self, a: Array, e: Array) -> None:
        self.a, self.e = a, e
        size = min(CHUNK, a.size)
        self.buffers = [np.empty(size) for _ in range(3)]
        self.mask = np.empty(size, np.bool_)
        self.pairs = self.mismatched = self.rel_undefined = 0
        self.nonfinite_actual = self.nonfinite_expected = self.nonfinite_disagreements = 0
        self.sum_abs = self.sum_square = self.sum_actual_square = self.sum_expected_square = self.sum_product = 0.0
        self.low: float | None = None
        self.high: float | None = None
        self.best: dict[str, tuple[float, int]] = {}  # name of an extreme -> value, flat index

    def add(self, offset: int, a_chunk: Array, e_chunk: Array) -> None:
        raise NotImplementedError  # each kind of pass has its own

    def offer(self, name: str, values: Array, offset: int) -> float:
        """Keep the greatest of *values* if it is greater than all before, and return it.

        Negative values are no candidates.
        """
        i = int(values.argmax())
        value = values[i].item()
        if value > self.best.get(name, (-1.0, 0))[0] and value >= 0:
            self.best[name] = (value, offset + i)
        greatest: float = value
        return greatest

    def offer_range(self, low: float, high: float) -> None:
        self.low = low if self.low is None else min(self.low, low)
        self.high = high if self.high is None else max(self.high, high)

    def offer_relative(self, diff: Floats, abs_e: Floats, ratio: Floats, offset: int) -> float:
        """Offer ``diff / abs_e`` and return the smallest of *abs_e*.

        *diff* is negative where it does not count. Overwrites *ratio* and the mask.
        """
        smallest = float(abs_e.min())
        if smallest > 0:
            np.divide(diff, abs_e, out=ratio)
        else:
            zero = np.equal(abs_e, 0, out=self.mask[: len(diff)])
            # abs_e, and infinity where it is 0. Arithmetic, because a masked copy takes several times as long.
            np.divide(1.0, ~zero, out=ratio)
            ratio -= 1
            ratio += abs_e
            np.divide(diff, ratio, out=ratio)
            undefined = diff > 0
            undefined &= zero
            self.rel_undefined += int(np.count_nonzero(undefined))
            if ratio.max() == 0:  # only then a 0 that stands for no quotient could be taken for the greatest
                ratio[undefined | (diff < 0)] = -1
        self.offer("max_rel", ratio, offset)
        return smallest

    def metrics(self, rtol: float | None, atol: float | None, allow_nonfinite: bool) -> Metrics:
        if self.exact:
            rtol = atol = 0.0
        return Metrics(
            count=self.a.size,
            pairs=self.pairs,
            mismatched=self.mismatched,
            max_abs=self.extreme("max_abs", rtol, atol),
            max_rel=self.extreme("max_rel", rtol, atol),
            max_excess=self.extreme("max_excess", rtol, atol),
            rel_undefined=self.rel_undefined,
            sum_abs=self.sum_abs,
            sum_square=self.sum_square,
            sum_actual_square=self.sum_actual_square,
            sum_expected_square=self.sum_expected_square,
            sum_product=self.sum_product,
            expected_min=self.low,
            expected_max=self.high,
            nonfinite_actual=self.nonfinite_actual,
            nonfinite_expected=self.nonfinite_expected,
            nonfinite_disagreements=self.nonfinite_disagreements,
            rtol=rtol,
            atol=atol,
            allow_nonfinite=allow_nonfinite,
            exact=self.exact,
        )

    def extreme(self, name: str, rtol: float | None, atol: float | None) -> Extreme | None:
        if name not in self.best:
            return None
        value, flat = self.best[name]
        index = tuple(int(i) for i in np.unravel_index(flat, self.a.shape)) if self.a.ndim else ()
        number = int if self.exact else float
        actual, expected = number(self.a[index]), number(self.e[index])
        if name == "max_abs" and self.exact:
            value = abs(actual - expected)
        allowed: float | None = None
        if rtol is not None and atol is not None:
            scale = abs(float(expected))
            allowed = {
                "max_abs": atol + rtol * scale,
                "max_rel": (rtol + atol / scale if atol else rtol) if scale else 0.0,
                "max_excess": 1.0,
            }[name]
        return Extreme(value, index, actual, expected, allowed)


class FloatPass(Pass):
    """Floating-point numbers of any width, in float64."""

    def __init__(self, a: Array, e: Array, rtol: float | None, atol: float | None, allow_nonfinite: bool) -> None:
        super().__init__(a, e)
        self.rtol, self.atol, self.allow_nonfinite = rtol, atol, allow_nonfinite

    def add(self, offset: int, a_chunk: Array, e_chunk: Array) -> None:
        n = len(a_chunk)
        a, e, ratio = (buffer[:n] for buffer in self.buffers)
        np.copyto(a, a_chunk, casting="unsafe")
        np.copyto(e, e_chunk, casting="unsafe")
        aa, ee = dot(a, a), dot(e, e)
        aside: Mask | None = None
        if math.isfinite(aa + ee):  # one NaN or infinity would have spoiled a sum
            self.offer_range(float(e.min()), float(e.max()))
            self.pairs += n
        else:
            aside = self.set_aside(a, e)
            aa, ee = dot(a, a), dot(e, e)
        self.sum_actual_square += aa
        self.sum_expected_square += ee
        self.sum_product += dot(a, e)
        diff = np.subtract(a, e, out=a)
        np.abs(diff, out=diff)
        abs_e = np.abs(e, out=e)
        self.sum_square += dot(diff, diff)
        self.sum_abs += float(diff.sum())
        if aside is not None:
            diff[aside] = -1
        greatest = self.offer("max_abs", diff, offset)
        smallest = self.offer_relative(diff, abs_e, ratio, offset)
        # No allowance of this chunk is below the one of its smallest |expected|: mostly that decides for all of it.
        if self.rtol is not None and self.atol is not None and greatest > self.atol + self.rtol * smallest:
            allowance = np.multiply(abs_e, self.rtol, out=abs_e)
            allowance += self.atol
            over = np.greater(diff, allowance, out=self.mask[:n])
            if found := int(np.count_nonzero(over)):
                self.mismatched += found
                np.divide(diff, allowance, out=ratio)
                # Not above 1: 0/0 is among them, or a quotient was rounded to 1 on both sides of the limit.
                if not ratio.max() > 1:
                    ratio.fill(-1)
                    np.divide(diff, allowance, out=ratio, where=over)
                self.offer("max_excess", ratio, offset)

    def set_aside(self, a: Floats, e: Floats) -> Mask:
        """Count the non-finite elements, zero both sides there, and return where that is."""
        finite_a, finite_e = np.isfinite(a), np.isfinite(e)
        if finite_e.any():
            finite = e[finite_e]
            self.offer_range(float(finite.min()), float(finite.max()))
        aside: Mask = ~(finite_a & finite_e)
        agree = aside & ((a == e) | (np.isnan(a) & np.isnan(e)))
        count = int(np.count_nonzero(aside))
        agreeing = int(np.count_nonzero(agree))
        self.pairs += len(a) - count
        self.nonfinite_actual += len(a) - int(np.count_nonzero(finite_a))
        self.nonfinite_expected += len(e) - int(np.count_nonzero(finite_e))
        self.nonfinite_disagreements += count - agreeing
        self.mismatched += count - agreeing if self.allow_nonfinite else count
        a[aside] = 0
        e[aside] = 0
        return aside


class ExactPass(Pass):
    """Integers and booleans: equal or not. Sums are float64 all the same."""

    exact = True

    def add(self, offset: int, a_chunk: Array, e_chunk: Array) -> None:
        n = len(a_chunk)
        a, e, ratio = (buffer[:n] for buffer in self.buffers)
        a_int, e_int = _integers(a_chunk), _integers(e_chunk)
        different, distance = _distance(a_int, e_int)
        self.pairs += n
        self.mismatched += int(np.count_nonzero(different))
        self.offer_range(int(e_int.min()), int(e_int.max()))
        self.offer("max_abs", distance, offset)
        np.copyto(a, a_int)
        np.copyto(e, e_int)
        self.sum_actual_square += dot(a, a)
        self.sum_expected_square += dot(e, e)
        self.sum_product += dot(a, e)
        np.copyto(a, distance)
        self.sum_square += dot(a, a)
        self.sum_abs += float(a.sum())
        self.offer_relative(a, np.abs(e, out=e), ratio, offset)


def _integers(chunk: Array) -> Array:
    """Return booleans and integers of any width as int64 or uint64."""
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
