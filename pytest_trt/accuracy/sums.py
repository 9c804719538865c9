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
    # A row times a column: one product of vectors per block.
    return found + _added(np.matmul(x[:whole].reshape(-1, 1, _BLOCK), y[:whole].reshape(-1, _BLOCK, 1)))


def total(x: Floats) -> float:
    """Return the sum of a contiguous vector."""
    whole = len(x) - len(x) % _BLOCK
    found = float(np.add.reduce(x[whole:])) if whole < len(x) else 0.0
    # The sum of products with ones: NumPy's own sum takes longer.
    return found + _added(np.matmul(x[:whole].reshape(-1, 1, _BLOCK), _ONES))


def _added(parts: Floats) -> float:
    # They are few: NumPy would think longer than it adds.
    found: float = sum(parts.ravel().tolist())
    return found
