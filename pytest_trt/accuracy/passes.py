"""One pass over two arrays, in chunks: the arithmetic on one chunk, and the threads that share the chunks.

The arithmetic runs in buffers of one chunk that stay in the processor's cache. That bounds the extra
memory whatever the size of the arrays, and it is what makes the pass fast. Results do not depend on the number
of threads: chunks lie where they lie, and their totals are merged in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.accuracy.sums import dot, total
from pytest_trt.accuracy.totals import Totals
from pytest_trt.accuracy.widening import fits_single, to_single

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

__all__ = ["CHUNK", "FloatPass", "chunks", "segments", "surely_within"]

# Elements. Two float64 buffers take 2 MB, and about as much is read: the second-level cache of a server's core, and
# a little of the third. Smaller chunks pay for the interpreter between operations, and threads pay twice.
CHUNK = 1 << 17
# Chunks that one thread does in a row.
SEGMENT = 8
# The quotient of two float32 is off by half a unit in the last place; this is one.
_SINGLE_EPS = 2.0**-23
# Room for the rounding of a few float64 operations.
_NEARLY_1 = 1 - 2.0**-50


def surely_within(relative: float, rtol: float) -> bool:
    """Is every element close whose relative difference, as computed, is at most *relative*?"""
    return relative < rtol * _NEARLY_1


def chunks(a: Array, e: Array, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, Array, Array]]:
    """Yield the flat offset and both chunks, in C order. A strided array is copied a chunk at a time only."""
    # Slicing `flat` copies the slice; `reshape` of a strided array would copy all of it.
    flat_a, flat_e = (x.reshape(-1) if x.flags.c_contiguous else x.flat for x in (a, e))
    stop = a.size if stop is None else min(stop, a.size)
    for offset in range(start, stop, CHUNK):
        end = min(offset + CHUNK, stop)
        yield offset, flat_a[offset:end], flat_e[offset:end]


def segments(size: int) -> Sequence[int]:
    """Return the flat offsets at which the parts begin that threads take one by one."""
    return range(0, size, CHUNK * SEGMENT)


class FloatPass:
    """Floating-point numbers of any width, in float64. One thread's own: ``over`` gives the totals of a part.

    ``rtol=None`` or ``atol=None`` judges no finite element.
    """

    exact = False

    def __init__(self, a: Array, e: Array, rtol: float | None, atol: float | None, allow_nonfinite: bool) -> None:
        self.a, self.e = a, e
        self.rtol, self.atol, self.allow_nonfinite = rtol, atol, allow_nonfinite
        size = min(CHUNK, a.size)
        self.buffers = [np.empty(size) for _ in range(3)]
        self.mask = np.empty(size, np.bool_)
        self.quotient = np.empty(size, np.float32)
        self.single = not self.exact and fits_single(a.dtype) and fits_single(e.dtype)
        self.widened = [np.empty(size if self.single and x.dtype != np.float32 else 0, np.float32) for x in (a, e)]
        self.totals = Totals()

    def over(self, start: int) -> Totals:
        """Measure the segment that begins at the flat index *start*."""
        return self._each(start, self.add)

    def judged(self, start: int) -> Totals:
        """Judge the finite elements of a segment, and nothing else."""
        return self._each(start, self.judge_again)

    def _each(self, start: int, do: Callable[[int, Array, Array], None]) -> Totals:
        self.totals = Totals()
        # Overflow of a float64 to infinity and 0/0 are dealt with where they arise.
        with np.errstate(all="ignore"):
            for offset, a_chunk, e_chunk in chunks(self.a, self.e, start, start + CHUNK * SEGMENT):
                do(offset, *self.widen(a_chunk, e_chunk))
        return self.totals

    def widen(self, a_chunk: Array, e_chunk: Array) -> tuple[Array, Array]:
        if not self.single:
            return a_chunk, e_chunk
        n = len(a_chunk)
        return to_single(a_chunk, self.widened[0][:n]), to_single(e_chunk, self.widened[1][:n])

    def add(self, offset: int, a_chunk: Array, e_chunk: Array) -> None:
        n, totals = len(a_chunk), self.totals
        a, e, ratio = (buffer[:n] for buffer in self.buffers)
        # First of all, while both chunks are in the cache.
        low, high = np.minimum.reduce(e_chunk), np.maximum.reduce(e_chunk)
        quotients = self.quotients(a_chunk, e_chunk) if self.single else None
        np.copyto(a, a_chunk, casting="unsafe")
        np.copyto(e, e_chunk, casting="unsafe")
        diff = np.subtract(a, e, out=a)
        square = dot(diff, diff)
        aside: Mask | None = None
        pairs = n
        if math.isfinite(square):  # one NaN or infinity would have spoiled it
            totals.offer_range(low.item(), high.item())
        else:
            np.copyto(a, a_chunk, casting="unsafe")
            aside = self.set_aside(a, e)
            pairs -= int(np.count_nonzero(aside))
            diff = np.subtract(a, e, out=a)
            square = dot(diff, diff)
        same = square == 0 and not diff.any()  # the squares of float64 may underflow
        e_square = dot(e, e)
        e_diff = 0.0 if same else dot(e, diff)
        # a = e + diff saves a dot product, and is as good unless the terms nearly cancel.
        a_square, product = e_square + 2 * e_diff + square, e_square + e_diff
        if not e_square + square <= 8 * min(a_square, product):
            np.copyto(ratio, a_chunk, casting="unsafe")
            if aside is not None:
                ratio[aside] = 0
            a_square, product = dot(ratio, ratio), dot(ratio, e)
        totals.pairs += pairs
        totals.sum_square += square
        totals.sum_expected_square += e_square
        totals.sum_actual_square += a_square
        totals.sum_product += product
        if aside is None:
            totals.finite_expected += n
            totals.finite_expected_square += e_square
        if same:
            first = offset if aside is None else offset + int(aside.argmin())
            for name in ("max_abs", "max_rel") if pairs else ():
                totals.offer(name, 0.0, first)
            return
        np.abs(diff, out=diff)
        totals.sum_abs += total(diff)
        if aside is not None:
            diff[aside] = -1
        greatest = totals.offer_greatest("max_abs", diff, offset)
        if quotients is not None and aside is None:
            bound = self.relative_of_singles(offset, diff, e, *quotients)
        else:
            bound = self.relative(offset, diff, e, ratio)
        self.judge(offset, diff, e, greatest, bound)

    def set_aside(self, a: Floats, e: Floats) -> Mask:
        """Count the non-finite elements, zero both sides there, and return where that is."""
        totals = self.totals
        finite_a, finite_e = np.isfinite(a), np.isfinite(e)
        aside: Mask = ~(finite_a & finite_e)
        agree = aside & ((a == e) | (np.isnan(a) & np.isnan(e)))
        count, agreeing = int(np.count_nonzero(aside)), int(np.count_nonzero(agree))
        totals.nonfinite_actual += len(a) - int(np.count_nonzero(finite_a))
        totals.nonfinite_expected += len(e) - int(np.count_nonzero(finite_e))
        totals.nonfinite_disagreements += count - agreeing
        totals.mismatched += count - agreeing if self.allow_nonfinite else count
        finite = e[finite_e]
        if len(finite):
            totals.offer_range(finite.min().item(), finite.max().item())
        totals.finite_expected += len(finite)
        totals.finite_expected_square += dot(finite, finite)
        a[aside] = 0
        e[aside] = 0
        return aside

    def quotients(self, a: Array, e: Array) -> tuple[Array, float, float] | None:
        """Return ``a/e`` in float32, how far it is from 1 at most, and how far off that may be.

        None where it cannot tell which elements have the greatest relative difference: next to a division by
        zero, and when all differences are minute. 0/0 is NaN, which is passed over.
        """
        quotient = np.divide(a, e, out=self.quotient[: len(a)])
        high, low = float(np.fmax.reduce(quotient)), float(np.fmin.reduce(quotient))
        slack = _SINGLE_EPS * max(1.0, abs(high), abs(low))
        greatest = max(high - 1, 1 - low)
        if not (math.isfinite(high) and math.isfinite(low) and greatest > 4 * slack):
            return None
        return quotient, greatest, slack

    def relative_of_singles(
        self, offset: int, diff: Floats, e: Floats, quotient: Array, greatest: float, slack: float
    ) -> float:
        """Offer the greatest ``diff / |e|`` of finite float32, and return a bound of it.

        The quotients tell which few elements can have it; these are done in float64, as all are elsewhere.
        """
        if greatest + slack > self.totals.greatest("max_rel"):
            enough = greatest - 4 * slack
            found = quotient >= np.float32(1 + enough)
            found |= quotient <= np.float32(1 - enough)
            where = np.flatnonzero(found)
            values = diff[where] / np.abs(e[where])
            i = int(values.argmax())
            self.totals.offer("max_rel", values[i].item(), offset + int(where[i]))
        return greatest + slack

    def relative(self, offset: int, diff: Floats, e: Floats, ratio: Floats) -> float:
        """Offer the greatest ``diff / |e|`` in float64, and return a bound of it: infinite next to ``e == 0``.

        *diff* is negative where it does not count. Overwrites *e* with ``|e|``, *ratio* and the mask.
        """
        abs_e = np.abs(e, out=e)
        bound = 0.0
        if np.minimum.reduce(abs_e) > 0:
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
            if count := int(np.count_nonzero(undefined)):
                self.totals.rel_undefined += count
                bound = math.inf
            if ratio.max() == 0:  # only then a 0 that stands for no quotient could be taken for the greatest
                ratio[undefined | (diff < 0)] = -1
        return max(bound, self.totals.offer_greatest("max_rel", ratio, offset))

    def judge(self, offset: int, diff: Floats, e: Floats, greatest: float, bound: float) -> None:
        """Count the mismatches. No *diff* is above *greatest*, no ``diff / |e|`` above *bound*.

        *e* may be ``|e|``, and is overwritten.
        """
        rtol, atol = self.rtol, self.atol
        if rtol is None or atol is None or greatest <= atol or surely_within(bound, rtol):
            return
        over = np.greater(diff, atol, out=self.mask[: len(diff)])
        beyond = int(np.count_nonzero(over))
        # Few elements are better taken out, many are better computed where they are.
        where = np.flatnonzero(over) if beyond < len(diff) >> 4 else None
        if where is not None:
            diff, e, over = diff[where], e[where], over[:beyond]
        allowance = np.abs(e, out=e)
        allowance *= rtol
        allowance += atol
        np.greater(diff, allowance, out=over)
        found = int(np.count_nonzero(over))
        if not found:
            return
        self.totals.mismatched += found
        ratio = np.divide(diff, allowance, out=self.buffers[2][: len(diff)])
        # Not above 1: 0/0 is among them, or a quotient was rounded to 1 on both sides of the limit.
        if not ratio.max() > 1:
            ratio.fill(-1)
            np.divide(diff, allowance, out=ratio, where=over)
        i = int(ratio.argmax())
        self.totals.offer("max_excess", ratio[i].item(), offset + (i if where is None else int(where[i])))

    def judge_again(self, offset: int, a_chunk: Array, e_chunk: Array) -> None:
        """Judge a chunk that was measured before its limit was known."""
        a, e = (buffer[: len(a_chunk)] for buffer in self.buffers[:2])
        np.copyto(a, a_chunk, casting="unsafe")
        np.copyto(e, e_chunk, casting="unsafe")
        diff = np.subtract(a, e, out=self.buffers[2][: len(a_chunk)])
        np.abs(diff, out=diff)
        if not math.isfinite(np.maximum.reduce(diff)):
            diff[~(np.isfinite(a) & np.isfinite(e))] = -1
        np.copyto(a, diff)
        self.judge(offset, a, e, math.inf, math.inf)
