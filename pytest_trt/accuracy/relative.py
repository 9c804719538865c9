"""Relative differences of one chunk, and the ways to know that none is of interest without a division."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

__all__ = ["Quotients", "beyond", "ceiling", "few", "near", "quotients", "ratios", "surely_within"]

# A quotient of two float32 is off by half a unit in the last place; this is one.
_SINGLE_EPS = 2.0**-23
# Room for the rounding of a few float64 operations.
_NEARLY_1 = 1 - 2.0**-50
# Among values around 0 the one of a chunk that is nearest is hardly ever further than this from it, next to the others.
_NEAR = 2.0**-12


def surely_within(relative: float, rtol: float) -> bool:
    """Is every element close whose relative difference, as computed, is at most *relative*?"""
    return relative < rtol * _NEARLY_1


def few(mask: Mask) -> NDArray[np.intp] | None:
    """Return where *mask* is set, None if that is in many places: these are better computed where they are."""
    return np.flatnonzero(mask) if np.count_nonzero(mask) < len(mask) >> 4 else None


def ceiling(greatest: float, e: Array, low: float, high: float, known: float) -> float:
    """Return a bound of ``|a - e| / |e|`` that takes no division: the *greatest* difference by the least ``|e|``.

    *e* is finite, native and lies between *low* and *high*. Infinite where it is not worth to look for a bound that is
    not above *known*.
    """
    if low > 0 or high < 0:
        least = max(low, -high)
    elif _few_are_near(greatest, low, high, known):
        least = least_magnitude(e)
    else:
        return math.inf
    return greatest / least if least else math.inf


def near(e: Array, greatest: float, low: float, high: float, known: float, out: Mask) -> NDArray[np.intp] | None:
    """Return where *e* is so near to 0 that ``|a - e| / |e|`` can be above *known*, or is undefined; None if in many
    places. *out* is scratch. Arguments as of ``ceiling``.
    """
    if not _few_are_near(greatest, low, high, known):
        return None
    # Twice, so that rounding to the type of e leaves nothing out.
    reach = e.dtype.type(2 * greatest / known)
    np.less_equal(e, reach, out=out)
    out &= e >= -reach
    return few(out)


def _few_are_near(greatest: float, low: float, high: float, known: float) -> bool:
    return greatest < known * _NEAR * max(high, -low)


def least_magnitude(values: Array) -> float:
    """Return the least magnitude of native float32 or float64, none of them NaN."""
    width = values.dtype.itemsize
    # The bits of a float are a sign and, after it, a magnitude that grows with the integer that they spell.
    # The least unsigned one is the nearest of what is positive, the least signed one the nearest of what is negative.
    positive = np.minimum.reduce(values.view(f"u{width}")).item()
    negative = np.minimum.reduce(values.view(f"i{width}")).item()
    bits: int = min(positive, negative + (1 << 8 * width - 1))
    return float(np.array(bits, f"u{width}").view(values.dtype))


class Quotients(NamedTuple):
    """``a/e`` in float32, and how far from 1 it is at most; *slack* is above the error of any of them."""

    values: NDArray[np.float32]
    furthest: float
    slack: float

    @property
    def bound(self) -> float:
        """No relative difference is greater."""
        return self.furthest + self.slack

    def candidates(self) -> NDArray[np.intp] | None:
        """Return the indices of the elements that can have the greatest relative difference, in order, if few."""
        # An element that has it lies within 2 slacks of the furthest quotient; the thresholds are rounded too.
        enough = self.furthest - 4 * self.slack
        found = self.values >= np.float32(1 + enough)
        found |= self.values <= np.float32(1 - enough)
        return few(found)


def quotients(a: Array, e: Array, out: NDArray[np.float32]) -> Quotients | None:
    """Return the quotients of float32, in *out*; 0/0 is NaN there.

    None where they do not tell the greatest ``|a/e - 1|``: with NaN and infinities, next to a division by zero, and
    when all differences are minute.
    """
    values = np.divide(a, e, out=out)
    high, low = float(np.fmax.reduce(values)), float(np.fmin.reduce(values))
    slack = _SINGLE_EPS * max(1.0, abs(high), abs(low))
    furthest = max(high - 1, 1 - low)
    if not (math.isfinite(high) and math.isfinite(low) and furthest > 4 * slack):
        return None
    return Quotients(values, furthest, slack)


def beyond(diff: Floats, abs_e: Floats, known: float, scratch: Floats, out: Mask) -> Mask:
    """Return where ``diff / abs_e``, as computed, can be above *known*, which is; that is where only *abs_e* is 0 too.

    Never where *diff* is 0, or negative because it does not count.
    """
    # Rounding keeps the order: a quotient above *known* has a product with it that is not above *diff*.
    np.multiply(abs_e, known, out=scratch)
    np.less_equal(scratch, diff, out=out)
    out &= diff > 0
    return out


def ratios(diff: Floats, abs_e: Floats, out: Floats, zero: Mask) -> int:
    """Write ``diff / abs_e`` to *out*, 0 where both are 0, and return how often only *abs_e* is.

    There, and where *diff* is negative because it does not count, *out* is 0 or less, and less than 0 if nothing
    else is greater. *zero* is scratch.
    """
    if np.minimum.reduce(abs_e) > 0:
        np.divide(diff, abs_e, out=out)
        return 0
    np.equal(abs_e, 0, out=zero)
    # abs_e, and infinity where it is 0. Arithmetic, because a masked copy takes several times as long.
    np.divide(1.0, ~zero, out=out)
    out -= 1
    out += abs_e
    np.divide(diff, out, out=out)
    undefined = diff > 0
    undefined &= zero
    if out.max() == 0:  # only then a 0 that stands for no quotient could be taken for the greatest
        out[undefined | (diff < 0)] = -1
    return int(np.count_nonzero(undefined))
