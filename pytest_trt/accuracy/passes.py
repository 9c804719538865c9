"""One pass over two arrays, in chunks: the arithmetic on one chunk, in buffers that stay in the processor's cache.

That bounds the extra memory whatever the size of the arrays, and it is what makes the pass fast. Results do not depend
on the number of threads: chunks lie where they lie, and their totals are merged in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.accuracy.chunks import longest, segment
from pytest_trt.accuracy.relative import beyond, ceiling, few, near, quotients, ratios, surely_within
from pytest_trt.accuracy.sums import Vector, dot
from pytest_trt.accuracy.totals import Totals
from pytest_trt.accuracy.widening import fits_single, to_single

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

__all__ = ["FloatPass"]


class FloatPass:
    """Floating-point numbers of any width, in float64. One thread's own: ``over`` gives the totals of a part.

    ``rtol=None`` or ``atol=None`` judges no finite element.
    """

    exact = False

    def __init__(self, a: Array, e: Array, rtol: float | None, atol: float | None, allow_nonfinite: bool) -> None:
        self.a, self.e = a, e
        self.rtol, self.atol, self.allow_nonfinite = rtol, atol, allow_nonfinite
        self.size = longest(a.size)
        # Together, because NumPy asks for large pages only for what is large: they take less time to be had.
        a_values, e_values = np.empty((2, self.size))
        self.sides = Vector(a_values), Vector(e_values)
        self.squares = np.empty((3, self.sides[0].parts))
        self.single = not self.exact and fits_single(a.dtype) and fits_single(e.dtype)
        widths = [self.size if self.single and x.dtype != np.float32 else 0 for x in (a, e)]
        self.widened = [np.empty(width, np.float32) for width in widths]
        self.totals = Totals()

    @cached_property
    def ratio(self) -> Floats:
        return np.empty(self.size)

    @cached_property
    def quotient(self) -> NDArray[np.float32]:
        return np.empty(self.size, np.float32)

    @cached_property
    def mask(self) -> Mask:
        return np.empty(self.size, np.bool_)

    def over(self, start: int) -> Totals:
        """Measure the segment that begins at the flat index *start*."""
        return self._each(start, self.add)

    def judged(self, start: int) -> Totals:
        """Judge the finite elements of a segment, and nothing else."""
        return self._each(start, self.judge_again)

    def _each(self, start: int, do: Callable[[int, Array, Array], None]) -> Totals:
        self.totals = self.totals.following()
        # Overflow of a float64 to infinity and 0/0 are dealt with where they arise.
        with np.errstate(all="ignore"):
            for offset, a_chunk, e_chunk in segment(self.a, self.e, start):
                do(offset, *self.widen(a_chunk, e_chunk))
        return self.totals

    def vectors(self, length: int) -> tuple[Vector, Vector]:
        """Return the buffers of both sides, as long as a chunk."""
        a, e = self.sides
        return (a, e) if length == self.size else (Vector(a.values[:length]), Vector(e.values[:length]))

    def widen(self, a_chunk: Array, e_chunk: Array) -> tuple[Array, Array]:
        if not self.single:
            return a_chunk, e_chunk
        n = len(a_chunk)
        return to_single(a_chunk, self.widened[0][:n]), to_single(e_chunk, self.widened[1][:n])

    def add(self, offset: int, a_chunk: Array, e_chunk: Array) -> None:
        n, totals = len(a_chunk), self.totals
        a_side, e_side = self.vectors(n)
        a, e = a_side.values, e_side.values
        # One table, so that they are added up at once: threads meet less often.
        squares = self.squares[:, : a_side.parts]
        np.copyto(e, e_chunk, casting="unsafe")
        e_side.square_parts(squares[0])
        # Not all operations are there for the types that are neither float32 nor an integer of NumPy.
        ranged = e_chunk if self.single or self.exact else e
        low, high = np.minimum.reduce(ranged).item(), np.maximum.reduce(ranged).item()
        np.copyto(a, a_chunk, casting="unsafe")
        a_side.square_parts(squares[1])
        diff = np.subtract(a, e, out=a)
        a_side.square_parts(squares[2])
        e_square, a_square, square = np.add.reduce(squares, axis=1).tolist()
        pairs, first = n, offset
        aside: Mask | None = None
        if math.isfinite(a_square + e_square):  # one NaN or infinity would have spoiled it
            totals.offer_range(low, high)
            totals.finite_expected += n
            totals.finite_expected_square += e_square
        else:
            low = high = 0.0
            np.copyto(a, a_chunk, casting="unsafe")
            aside = self.set_aside(a, e)
            pairs -= int(np.count_nonzero(aside))
            first += int(aside.argmin())
            a_square, e_square = a_side.square(), e_side.square()
            np.subtract(a, e, out=diff)
            square = a_side.square()
        # |a - e|² = |a|² - 2·a·e + |e|² saves reading both again, and is as good unless the terms nearly cancel.
        product = (a_square + e_square - square) / 2
        if not a_square + e_square + square <= 8 * product:
            again = self.ratio[:n]
            np.copyto(again, a_chunk, casting="unsafe")
            if aside is not None:
                again[aside] = 0
            product = dot(again, e)
        totals.pairs += pairs
        totals.sum_square += square
        totals.sum_expected_square += e_square
        totals.sum_actual_square += a_square
        totals.sum_product += product
        if square == 0 and not diff.any():  # the squares of float64 may underflow
            for name in ("max_abs", "max_rel") if pairs else ():
                totals.offer(name, 0.0, first)
            return
        np.abs(diff, out=diff)
        totals.sum_abs += a_side.total()
        if aside is not None:
            diff[aside] = -1
        greatest = totals.offer_greatest("max_abs", diff, offset)
        known = totals.greatest("max_rel")
        if aside is not None:
            bound = self.offer_relative(offset, diff, e, known)
        else:
            narrow = e_chunk if self.single else e
            bound = ceiling(greatest, narrow, low, high, known)
            if bound > known or bound == math.inf:
                where = near(narrow, greatest, low, high, known, self.mask[:n])
                hints = quotients(a_chunk, e_chunk, self.quotient[:n]) if self.single and where is None else None
                if hints is not None and hints.bound <= known:
                    bound = hints.bound
                else:
                    where = hints.candidates() if hints is not None else where
                    bound = self.offer_relative(offset, diff, e, known, where)
        totals.reach_abs, totals.reach_rel = max(totals.reach_abs, greatest), max(totals.reach_rel, bound)
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

    def offer_relative(
        self, offset: int, diff: Floats, e: Floats, known: float, where: NDArray[np.intp] | None = None
    ) -> float:
        """Offer the greatest ``diff / |e|``, and return a bound of it: infinite where one is undefined.

        *known* is what it must exceed, which it can only at *where* if that is given. *diff* is negative where it does
        not count. May overwrite *e* with ``|e|``.
        """
        if where is None:
            np.abs(e, out=e)
            if 0 < known < math.inf:
                where = few(beyond(diff, e, known, self.ratio[: len(e)], self.mask[: len(e)]))
        if where is not None:
            if not len(where):
                return known
            diff, e = diff[where], np.abs(e[where])
        abs_e, ratio, mask = e, self.ratio[: len(e)], self.mask[: len(e)]
        undefined = ratios(diff, abs_e, ratio, mask)
        self.totals.rel_undefined += undefined
        greatest: float = np.maximum.reduce(ratio).item()
        if greatest > known:
            i = int(ratio.argmax())
            self.totals.offer("max_rel", greatest, offset + (i if where is None else int(where[i])))
        return math.inf if undefined else max(known, greatest)

    def judge(self, offset: int, diff: Floats, e: Floats, greatest: float, bound: float) -> None:
        """Count the mismatches. No *diff* is above *greatest*, no ``diff / |e|`` above *bound*.

        *e* may be ``|e|``, and is overwritten.
        """
        rtol, atol = self.rtol, self.atol
        if rtol is None or atol is None or greatest <= atol or surely_within(bound, rtol):
            return
        over = np.greater(diff, atol, out=self.mask[: len(diff)])
        where = few(over)
        if where is not None:
            diff, e, over = diff[where], e[where], over[: len(where)]
        allowance = np.abs(e, out=e)
        allowance *= rtol
        allowance += atol
        np.greater(diff, allowance, out=over)
        found = int(np.count_nonzero(over))
        if not found:
            return
        self.totals.mismatched += found
        picks = few(over)
        if picks is not None:
            diff, allowance, over = diff[picks], allowance[picks], over[picks]
        ratio = np.divide(diff, allowance, out=self.ratio[: len(diff)])
        # Not above 1: 0/0 is among them, or a quotient was rounded to 1 on both sides of the limit.
        if not ratio.max() > 1:
            ratio.fill(-1)
            np.divide(diff, allowance, out=ratio, where=over)
        i = int(ratio.argmax())
        at = i if picks is None else int(picks[i])
        self.totals.offer("max_excess", ratio[i].item(), offset + (at if where is None else int(where[at])))

    def judge_again(self, offset: int, a_chunk: Array, e_chunk: Array) -> None:
        """Judge a chunk that was measured before its limit was known."""
        a, e = (side.values[: len(a_chunk)] for side in self.sides)
        np.copyto(a, a_chunk, casting="unsafe")
        np.copyto(e, e_chunk, casting="unsafe")
        diff = np.subtract(a, e, out=a)
        np.abs(diff, out=diff)
        if not math.isfinite(np.maximum.reduce(diff)):
            again = self.ratio[: len(diff)]
            np.copyto(again, a_chunk, casting="unsafe")
            diff[~(np.isfinite(again) & np.isfinite(e))] = -1
        self.judge(offset, diff, e, math.inf, math.inf)
