"""How a tensor lies in memory when TensorRT's format is not row-major: channels last, or channels in vectors.

TensorRT names the formats after the order of the innermost dimensions, with the vector's length behind: ``CHW4`` of
a tensor N×C×H×W is an array N×⌈C/4⌉×H×W×4, ``HWC8`` is N×H×W×(⌈C/8⌉·8). What lies between C and the next multiple
is padding. Pure NumPy; the tests show the formats element by element.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.errors import RunError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Shape = tuple[int, ...]

__all__ = ["ROW_MAJOR", "Layout", "layout_of"]

# Depth counts as a spatial dimension: the channels lie before D, H and W, or after them.
_NAME = re.compile(r"(?P<order>C(?P<inner>D?HW)|(?P<outer>D?HW)C)(?P<components>\d*)")


@dataclass(frozen=True)
class Layout:
    """Where the elements of a tensor lie. ``axis`` is that of the channels, None where there is nothing special;
    ``components`` of them lie side by side, as a dimension of their own (vectors) or as the last one."""

    name: str
    axis: int | None = None
    components: int = 1
    channels_last: bool = False

    @property
    def is_row_major(self) -> bool:
        return self.axis is None

    def stored(self, shape: Shape) -> Shape:
        """The shape of the array in memory that holds a tensor of *shape*, padding included."""
        if self.axis is None:
            return shape
        before, channels, after = shape[: self.axis], shape[self.axis], shape[self.axis + 1 :]
        vectors = -(-channels // self.components)
        if self.channels_last:
            return (*before, *after, vectors * self.components)
        return (*before, vectors, *after, self.components)

    def pack(self, array: Array) -> Array:
        """*array* as it lies in memory: contiguous, of shape ``stored(array.shape)``, zeros where it is padded."""
        if self.axis is None:
            return np.asarray(array, order="C")  # np.ascontiguousarray would give a scalar a dimension
        padding = [(0, 0)] * array.ndim
        padding[self.axis] = (0, -array.shape[self.axis] % self.components)
        padded = np.pad(array, padding)
        if not self.channels_last:
            padded = padded.reshape(self._in_vectors(padded.shape))
        return np.ascontiguousarray(np.moveaxis(padded, self._innermost, -1))

    def unpack(self, stored: Array, shape: Shape) -> Array:
        """The tensor of *shape* in *stored*, an array of shape ``stored(shape)``; may be a view of it."""
        if self.axis is None:
            return stored.reshape(shape)
        array = np.moveaxis(stored, -1, self._innermost)
        if not self.channels_last:
            merged = array.shape[self.axis] * self.components
            array = array.reshape(*array.shape[: self.axis], merged, *array.shape[self.axis + 2 :])
        return array[(slice(None),) * self.axis + (slice(shape[self.axis]),)]

    @property
    def _innermost(self) -> int:
        """Which axis moves to the end: that of the channels, or that inside the vectors, which follows it."""
        assert self.axis is not None
        return self.axis if self.channels_last else self.axis + 1

    def _in_vectors(self, shape: Shape) -> Shape:
        assert self.axis is not None
        vectors = shape[self.axis] // self.components
        return (*shape[: self.axis], vectors, self.components, *shape[self.axis + 1 :])


ROW_MAJOR = Layout("LINEAR")


def layout_of(name: str, rank: int, tensor: str, *, axis: int = -1, components: int = -1) -> Layout:
    """The layout that TensorRT calls *name* (``LINEAR``, ``CHW32``, ``DHWC8``) for a tensor of *rank* dimensions.

    *axis* and *components* are what the engine says of its vectors, negative where it says nothing. Raises RunError
    for formats that only special hardware knows, and for a tensor that has too few dimensions.
    """
    if name == ROW_MAJOR.name:
        return ROW_MAJOR
    match = _NAME.fullmatch(name)
    if match is None:
        raise RunError(
            f"tensor {tensor!r} has the format {name}, which cannot be read or written here",
            hint="build without --trt-io-formats for it, or with one of LINEAR, CHW*, HWC*, CDHW32, DHWC*",
        )
    found = axis if axis >= 0 else rank - 1 - len(match["inner"] or match["outer"])
    if not 0 <= found < rank:
        raise RunError(f"tensor {tensor!r} has the format {name}, which does not fit its {rank} dimensions")
    size = components if components > 0 else int(match["components"] or 1)
    return Layout(name, found, size, channels_last=match["outer"] is not None)
