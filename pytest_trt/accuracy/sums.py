"""Sums of float64 vectors at the speed of BLAS, on one thread, the same for any number of processors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["dot", "total"]

# Elements of one call of BLAS. It would wake a thread of its own per core for more than 10 000, which costs more than
# it gains, stands in the way of our threads, and lets the result depend on the number of cores.
_BLOCK = 1 << 13
_ONES = np.ones((_BLOCK, 1))


def dot(x: Floats, y: Floats) -> float:
    """Return the sum of products of two contiguous vectors."""
    whole = len(x) - len(x) % _BLOCK
    found = float(np.dot(x[whole:], y[whole:])) if whole < len(x) else 0.0
    if whole:
        # A row times a column: one product of vectors per block.
        parts = np.matmul(x[:whole].reshape(-1, 1, _BLOCK), y[:whole].reshape(-1, _BLOCK, 1))
        found += float(np.add.reduce(parts, axis=None))
    return found


def total(x: Floats) -> float:
    """Return the sum of a contiguous vector."""
    # The sum of products with ones: NumPy's own sum takes longer.
    whole = len(x) - len(x) % _BLOCK
    found = float(np.add.reduce(x[whole:]))
    if whole:
        found += float(np.add.reduce(np.matmul(x[:whole].reshape(-1, 1, _BLOCK), _ONES), axis=None))
    return found
