"""The pass over floating-point numbers, compiled: its arithmetic in one loop, as fast as memory gives the numbers.

It needs Numba, which is optional, and gives what ``FloatPass`` gives: counts, extremes and their places to the last
bit, sums but for rounding. This is the only place that knows Numba, which has no types.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pytest_trt.accuracy import kernels
from pytest_trt.accuracy.passes import FloatPass
from pytest_trt.accuracy.widening import fits_single
from pytest_trt.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

__all__ = ["BLOCK", "LEAST", "CompiledPass", "float_pass"]

# Elements. Both sides take 16 KB in float32 and 32 KB in float64: a first-level cache.
BLOCK = 2048
# Elements from which on it is taken. To import Numba and to load what it keeps took 0.4 s, once per process, to compile
# 3 s, once per installation, and about 1 ns per element is saved. An output of this size wins 16 ms each time: the
# time is back after some 25 of them, as many as the samples of a few cases have. One a tenth as large needs ten times
# as many, which few runs have.
LEAST = 1 << 24

_EXTREMES = (("max_abs", kernels.MAX_ABS), ("max_rel", kernels.MAX_REL), ("max_excess", kernels.MAX_EXCESS))


class Kernels(NamedTuple):
    """The compiled functions for one type of elements."""

    measure_blocks: Callable[..., None]
    search_blocks: Callable[..., None]


def float_pass(a: Array, e: Array, compiled: bool | None) -> type[FloatPass]:
    """Return the pass for floating-point arrays: *compiled* says which, None that it is to be the faster one.

    Raises UsageError where the compiled one is wanted and Numba is missing.
    """
    if compiled is False or (compiled is None and a.size < LEAST):
        return FloatPass
    dtype = _common(a.dtype, e.dtype)
    if dtype is not None and _load(dtype) is not None:
        return CompiledPass
    if compiled and not _numba():
        raise UsageError(
            "the compiled comparison needs numba, which is not installed or switched off",
            hint='pip install "pytest-trt[fast]"',
        )
    return FloatPass


class CompiledPass(FloatPass):
    """What float32 holds, or float64, on both sides. Chunks that are not finite take the way of ``FloatPass``."""

    def __init__(self, a: Array, e: Array, rtol: float | None, atol: float | None, allow_nonfinite: bool) -> None:
        super().__init__(a, e, rtol, atol, allow_nonfinite)
        dtype = _common(a.dtype, e.dtype)
        found = None if dtype is None else _load(dtype)
        if found is None:
            raise TypeError(f"{a.dtype} and {e.dtype} have no compiled pass here")
        self.kernels = found
        self.table = np.empty((-(-self.size // BLOCK), kernels.COLUMNS))
        self.best, self.where = np.empty(4), np.empty(3, np.int64)
        self.counts = np.empty(2, np.int64)

    def add(self, offset: int, a_chunk: Array, e_chunk: Array) -> None:
        table, totals = self.rows(a_chunk, e_chunk), self.totals
        sums = np.add.reduce(table, axis=0).tolist()
        if not math.isfinite(sums[kernels.A_SQUARE] + sums[kernels.E_SQUARE]):
            super().add(offset, a_chunk, e_chunk)
            return
        n = len(a_chunk)
        totals.pairs += n
        totals.finite_expected += n
        totals.finite_expected_square += sums[kernels.E_SQUARE]
        totals.sum_expected_square += sums[kernels.E_SQUARE]
        totals.sum_actual_square += sums[kernels.A_SQUARE]
        totals.sum_product += sums[kernels.PRODUCT]
        totals.sum_square += sums[kernels.SQUARE]
        totals.sum_abs += sums[kernels.SUM_ABS]
        totals.offer_range(table[:, kernels.LOW].min().item(), table[:, kernels.HIGH].max().item())
        totals.reach_abs = max(totals.reach_abs, table[:, kernels.GREATEST].max().item())
        self.search(offset, a_chunk, e_chunk, table, measured=True)

    def judge_again(self, offset: int, a_chunk: Array, e_chunk: Array) -> None:
        table = self.rows(a_chunk, e_chunk)
        if math.isfinite(np.add.reduce(table[:, : kernels.E_SQUARE + 1], axis=None)):
            self.search(offset, a_chunk, e_chunk, table, measured=False)
        else:
            super().judge_again(offset, a_chunk, e_chunk)

    def rows(self, a_chunk: Array, e_chunk: Array) -> NDArray[np.float64]:
        """Return the table of the blocks of a chunk, good until the next one."""
        table = self.table[: -(-len(a_chunk) // BLOCK)]
        self.kernels.measure_blocks(a_chunk, e_chunk, BLOCK, table)
        return table

    def search(
        self, offset: int, a_chunk: Array, e_chunk: Array, table: NDArray[np.float64], *, measured: bool
    ) -> None:
        """Offer the extremes, if *measured*, and judge."""
        totals, best, where, counts = self.totals, self.best, self.where, self.counts
        best[:3] = [totals.greatest(name) for name, _ in _EXTREMES]
        best[kernels.REACH_REL] = totals.reach_rel
        where.fill(-1)
        counts.fill(0)
        judged = self.rtol is not None and self.atol is not None
        self.kernels.search_blocks(
            a_chunk, e_chunk, BLOCK, table, measured, judged, self.rtol or 0.0, self.atol or 0.0, best, where, counts
        )
        for name, i in _EXTREMES:
            if where[i] >= 0:
                totals.offer(name, best[i].item(), offset + int(where[i]))
        totals.reach_rel = best[kernels.REACH_REL].item()
        totals.mismatched += int(counts[kernels.MISMATCHED])
        totals.rel_undefined += int(counts[kernels.UNDEFINED])


def _common(a: np.dtype[Any], e: np.dtype[Any]) -> np.dtype[Any] | None:
    """Return the type in which chunks of both come, None where there is no compiled pass for it."""
    if fits_single(a) and fits_single(e):
        return np.dtype(np.float32)
    return a if a == e == np.float64 else None


@cache
def _numba() -> Any:
    """Return the module, None where it is missing, does not work, or is told not to compile."""
    try:
        import numba
    except (ImportError, OSError):  # it raises ImportError for a NumPy that it does not know, too
        return None
    return None if numba.config.DISABLE_JIT else numba


@cache
def _load(dtype: np.dtype[Any]) -> Kernels | None:
    numba = _numba()
    if numba is None:
        return None
    types = numba.types
    # What is unaligned or read-only needs no code of its own, if what is neither is taken for both.
    values = types.Array(numba.from_dtype(dtype), 1, "C", readonly=True, aligned=False)
    table, floats = types.Array(types.float64, 2, "C"), types.Array(types.float64, 1, "C")
    integers, flag, real = types.Array(types.int64, 1, "C"), types.boolean, types.float64
    blocks = (values, values, types.int64, table)
    search = types.void(*blocks, flag, flag, real, real, floats, integers, integers)
    return Kernels(
        _compile(numba, kernels.measure_blocks, types.void(*blocks), kernels.MEASURE_OPTIONS),
        _compile(numba, kernels.search_blocks, search, kernels.SEARCH_OPTIONS),
    )


def _compile(numba: Any, function: Callable[..., None], signature: Any, options: dict[str, Any]) -> Callable[..., None]:
    try:
        made: Callable[..., None] = numba.njit(signature, cache=True, **options)(function)
    except (RuntimeError, OSError):  # there is no folder that it can write to
        made = numba.njit(signature, **options)(function)
    return made
