"""Sums of float64 vectors at the speed of BLAS, on one thread, the same for any number of processors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["Vector", "dot"]

# Elements of one call of BLAS, which would wake threads of its own for more than 9 000: that costs more than it gains,
# stands in the way of our threads, and lets the result depend on the number of cores. Shorter, because NumPy lets go
# of the interpreter only when it makes more than 500 calls at once: a whole chunk is 512.
_BLOCK = 1 << 9


class Vector:
    """Contiguous memory whose sums are taken again and again, of whatever ``values`` holds then."""

    def __init__(self, values: Floats) -> None:
        whole = len(values) - len(values) % _BLOCK
        blocks = values[:whole]
        self.values, self._rest = values, values[whole:]
        # A row times a column: one product of vectors per block.
        self._rows, self._columns = blocks.reshape(-1, 1, _BLOCK), blocks.reshape(-1, _BLOCK, 1)
        self.parts = len(self._rows) + 1

    def square_parts(self, out: Floats) -> None:
        """Write sums of squares to *out*, ``parts`` of them, that together are the sum of squares."""
        np.matmul(self._rows, self._columns, out=out[:-1].reshape(-1, 1, 1))
        out[-1] = np.dot(self._rest, self._rest)

    def square(self) -> float:
        """Return the sum of squares."""
        parts = np.empty(self.parts)
        self.square_parts(parts)
        return _added(parts)

    def total(self) -> float:
        """Return the sum."""
        return _added(self.values)


def dot(x: Floats, y: Floats) -> float:
    """Return the sum of products of two contiguous vectors."""
    whole = len(x) - len(x) % _BLOCK
    found = float(np.dot(x[whole:], y[whole:])) if whole < len(x) else 0.0
    return found + _added(np.matmul(x[:whole].reshape(-1, 1, _BLOCK), y[:whole].reshape(-1, _BLOCK, 1)))


def _added(parts: Floats) -> float:
    # Pairwise, in NumPy: errors do not pile up.
    return float(np.add.reduce(parts.reshape(-1)))
