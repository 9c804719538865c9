"""The arithmetic of a comparison on one chunk, fused: plain functions for Numba to compile, which ``compiled`` does.

A chunk is measured in blocks that stay in the first-level cache. ``measure_blocks`` reads each once, and knows only how
much; ``search_blocks`` looks again at those where something of interest can be, for where it is.

The two are apart because what the compiler may do is said per function: sums may be taken in another order, and
products be added without rounding between; a limit or a quotient must be what is written. The greatest of floats that
are not negative is that of the integers that their bits spell, which needs no leave to disregard NaN.

Numba keeps what it compiled until this file changes: whatever the code depends on is in here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[np.float32] | NDArray[np.float64]
    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

__all__ = [
    "A_SQUARE",
    "COLUMNS",
    "E_SQUARE",
    "GREATEST",
    "HIGH",
    "LEAST",
    "LOW",
    "MAX_ABS",
    "MAX_EXCESS",
    "MAX_REL",
    "MEASURE_OPTIONS",
    "MISMATCHED",
    "PRODUCT",
    "REACH_REL",
    "SEARCH_OPTIONS",
    "SQUARE",
    "SUM_ABS",
    "UNDEFINED",
    "measure_blocks",
    "search_blocks",
]

# Division by zero as in NumPy: a check for it would keep loops from being vectorized.
SEARCH_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
# NaN and infinities stay what they are, or sums would not show them.
MEASURE_OPTIONS = {**SEARCH_OPTIONS, "fastmath": {"reassoc", "contract"}}

# Columns of the table of blocks.
A_SQUARE, E_SQUARE, PRODUCT, SQUARE, SUM_ABS, GREATEST, LEAST, LOW, HIGH = range(9)
COLUMNS = 9
# Places in `best`, and those up to MAX_EXCESS in `where`, for the index of each.
MAX_ABS, MAX_REL, MAX_EXCESS, REACH_REL = range(4)
# Places in `counts`.
MISMATCHED, UNDEFINED = range(2)

# Room for the rounding of a few float64 operations, as in `relative`.
_NEARLY_1 = 1 - 2.0**-50
_LEAST_SIGNED, _GREATEST_SIGNED = np.int64(-(2**63)), np.int64(2**63 - 1)
_GREATEST_UNSIGNED = np.uint64(2**64 - 1)


def measure_blocks(a: Values, e: Values, block: int, table: Floats) -> None:
    """Write a row of *table* for each *block* elements: sums, the greatest ``|a - e|``, and the range of *e*.

    A row holds for finite elements only. Whatever is not makes a sum of squares infinite or NaN, and is the end: later
    rows are left as they are.
    """
    for row in range(len(table)):
        # Slices, because a loop from 0 needs no look at the sign of its index.
        a_block, e_block = a[row * block : (row + 1) * block], e[row * block : (row + 1) * block]
        a_square = e_square = product = square = sum_abs = 0.0
        greatest = np.int64(0)
        # Of finite numbers the greatest signed integer is the greatest positive one, the least signed one the negative
        # one nearest to 0, and so on: four of them tell the range and the least magnitude.
        high, near_below = _LEAST_SIGNED, _GREATEST_SIGNED
        low, near_above = np.uint64(0), _GREATEST_UNSIGNED
        for i in range(len(a_block)):
            x, y = np.float64(a_block[i]), np.float64(e_block[i])
            diff = abs(x - y)
            a_square += x * x
            e_square += y * y
            product += x * y
            square += diff * diff
            sum_abs += diff
            greatest = max(greatest, np.float64(diff).view(np.int64))
            signed, unsigned = np.float64(y).view(np.int64), np.float64(y).view(np.uint64)
            high, near_below = max(high, signed), min(near_below, signed)
            low, near_above = max(low, unsigned), min(near_above, unsigned)
        table[row, A_SQUARE], table[row, E_SQUARE], table[row, PRODUCT] = a_square, e_square, product
        if not a_square + e_square < np.inf:
            return
        table[row, SQUARE], table[row, SUM_ABS] = square, sum_abs
        table[row, GREATEST] = np.int64(greatest).view(np.float64)
        nearest_below = abs(np.int64(near_below).view(np.float64))
        nearest_above = abs(np.uint64(near_above).view(np.float64))
        if high < 0:  # all are negative
            table[row, LOW], table[row, HIGH] = np.uint64(low).view(np.float64), -nearest_below
            table[row, LEAST] = nearest_below
        elif near_below >= 0:  # none is
            table[row, LOW], table[row, HIGH] = nearest_above, np.int64(high).view(np.float64)
            table[row, LEAST] = nearest_above
        else:
            table[row, LOW] = np.uint64(low).view(np.float64)
            table[row, HIGH] = np.int64(high).view(np.float64)
            table[row, LEAST] = min(nearest_below, nearest_above)


def search_blocks(
    a: Values,
    e: Values,
    block: int,
    table: Floats,
    measured: bool,
    judged: bool,
    rtol: float,
    atol: float,
    best: Floats,
    where: Integers,
    counts: Integers,
) -> None:
    """Raise *best* to what is greater in these finite elements, with its first index in *where*; add to *counts*.

    Extremes other than the excess only if *measured*, mismatches and the excess only if *judged*. The last of *best*
    is raised to a bound of the relative differences.
    """
    for row in range(len(table)):
        start = row * block
        a_block, e_block = a[start : start + block], e[start : start + block]
        greatest = table[row, GREATEST]
        # Rounding keeps the order: no relative difference, as computed, is above this quotient.
        bound = greatest / table[row, LEAST] if greatest > 0 else 0.0
        if measured:
            if greatest > best[MAX_ABS]:
                best[MAX_ABS] = greatest
                for i in range(len(a_block)):
                    if abs(np.float64(a_block[i]) - np.float64(e_block[i])) == greatest:
                        where[MAX_ABS] = start + i
                        break
            if bound > best[MAX_REL] or bound == np.inf:
                undefined = 0
                most = np.int64(-1)
                for i in range(len(a_block)):
                    y = abs(np.float64(e_block[i]))
                    diff = abs(np.float64(a_block[i]) - np.float64(e_block[i]))
                    bits = np.float64(diff / y).view(np.int64)
                    if diff == 0:
                        bits = np.int64(0)
                    elif y == 0:
                        bits = np.int64(-1)
                    undefined += (diff > 0) & (y == 0)
                    most = max(most, bits)
                if most >= 0 and np.int64(most).view(np.float64) > best[MAX_REL]:
                    best[MAX_REL] = np.int64(most).view(np.float64)
                    for i in range(len(a_block)):
                        y = abs(np.float64(e_block[i]))
                        diff = abs(np.float64(a_block[i]) - np.float64(e_block[i]))
                        if (y > 0 or diff == 0) and (0.0 if diff == 0 else diff / y) == best[MAX_REL]:
                            where[MAX_REL] = start + i
                            break
                counts[UNDEFINED] += undefined
                bound = np.inf if undefined else np.int64(most).view(np.float64)
            best[REACH_REL] = max(best[REACH_REL], bound)
        if not judged or greatest <= atol or bound < rtol * _NEARLY_1:
            continue
        mismatched = candidates = 0
        for i in range(len(a_block)):
            diff = abs(np.float64(a_block[i]) - np.float64(e_block[i]))
            allowance = atol + rtol * abs(np.float64(e_block[i]))
            over = diff > allowance
            mismatched += over
            # A quotient above the best has a product with it that is not above the difference.
            candidates += over & (diff >= best[MAX_EXCESS] * allowance)
        counts[MISMATCHED] += mismatched
        if not candidates:
            continue
        most = np.int64(-1)
        for i in range(len(a_block)):
            diff = abs(np.float64(a_block[i]) - np.float64(e_block[i]))
            allowance = atol + rtol * abs(np.float64(e_block[i]))
            bits = np.float64(diff / allowance).view(np.int64)
            most = max(most, bits if diff > allowance else np.int64(-1))
        if np.int64(most).view(np.float64) > best[MAX_EXCESS]:
            best[MAX_EXCESS] = np.int64(most).view(np.float64)
            for i in range(len(a_block)):
                diff = abs(np.float64(a_block[i]) - np.float64(e_block[i]))
                allowance = atol + rtol * abs(np.float64(e_block[i]))
                if diff > allowance and diff / allowance == best[MAX_EXCESS]:
                    where[MAX_EXCESS] = start + i
                    break
