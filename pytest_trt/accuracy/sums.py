"""Sums of float64 vectors at the speed of BLAS, on one thread, the same for any number of processors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["Vector", "dot"]

# Elements of one call of BLAS. It would wake a thread of its own per core for more than 9 000, which costs more than
# it gains, stands in the way of our threads, and lets the result depend on the number of cores.
_BLOCK = 1 << 13
_SPLIT = 4
_ONES = np.ones((_BLOCK // _SPLIT, 1))


class Vector:
    """Contiguous memory whose sums are taken again and again, of whatever ``values`` holds then."""

    def __init__(self, values: Floats) -> None:
        whole = len(values) - len(values) % _BLOCK
        blocks = values[:whole]
        self.values, self._rest = values, values[whole:]
        # A row times a column: one product of vectors per block. Split blocks times ones: a sum at the same speed,
        # where NumPy's own takes longer.
        self._rows, self._columns = blocks.reshape(-1, 1, _BLOCK), blocks.reshape(-1, _BLOCK, 1)
        self._split = blocks.reshape(-1, _SPLIT, _BLOCK // _SPLIT)
        self._squares, self._sums = np.empty((len(self._rows), 1, 1)), np.empty((len(self._rows), _SPLIT, 1))

    def square(self) -> float:
        """Return the sum of squares."""
        found = float(np.dot(self._rest, self._rest)) if len(self._rest) else 0.0
        return found + _added(np.matmul(self._rows, self._columns, out=self._squares))

    def total(self) -> float:
        """Return the sum."""
        found = float(np.add.reduce(self._rest)) if len(self._rest) else 0.0
        return found + _added(np.matmul(self._split, _ONES, out=self._sums))


def dot(x: Floats, y: Floats) -> float:
    """Return the sum of products of two contiguous vectors."""
    whole = len(x) - len(x) % _BLOCK
    found = float(np.dot(x[whole:], y[whole:])) if whole < len(x) else 0.0
    return found + _added(np.matmul(x[:whole].reshape(-1, 1, _BLOCK), y[:whole].reshape(-1, _BLOCK, 1)))


def _added(parts: Floats) -> float:
    # They are few: NumPy would think longer than it adds.
    found: float = sum(parts.ravel().tolist())
    return found
