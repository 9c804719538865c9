"""Two arrays in pieces: chunks that stay in the processor's cache, and segments of them, each for one thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

__all__ = ["chunks", "longest", "segment", "segments"]

# Elements. Two float64 buffers take 4 MB. Smaller chunks are nearer to the processor, but pay for the interpreter
# between operations, and for threads that wait for it: they took longer.
CHUNK = 1 << 18
# Chunks that one thread does in a row.
SEGMENT = 4


def longest(size: int) -> int:
    """Return the greatest length of a chunk of arrays of *size* elements."""
    return min(CHUNK, size)


def segments(size: int) -> Sequence[int]:
    """Return the flat offsets at which segments begin."""
    return range(0, size, CHUNK * SEGMENT)


def segment(a: Array, e: Array, start: int) -> Iterator[tuple[int, Array, Array]]:
    """Yield the chunks of the segment that begins at the flat offset *start*."""
    return chunks(a, e, start, min(start + CHUNK * SEGMENT, a.size))


def chunks(a: Array, e: Array, start: int, stop: int) -> Iterator[tuple[int, Array, Array]]:
    """Yield the flat offset and both chunks from *start* to *stop*, in C order. They hold until the next ones.

    A strided array is copied a chunk at a time; its chunks may be shorter, as its rows fit.
    """
    if a.flags.c_contiguous and e.flags.c_contiguous:
        a, e = a.reshape(-1), e.reshape(-1)
        for offset in range(start, stop, CHUNK):
            end = min(offset + CHUNK, stop)
            yield offset, a[offset:end], e[offset:end]
    else:
        # Several times as fast as slices of `flat`; `reshape` would copy all of it.
        flags: Any = (["readonly", "contig", "aligned"],) * 2
        both = np.nditer((a, e), ["buffered", "external_loop", "ranged"], flags, order="C", buffersize=CHUNK)
        both.iterrange = start, stop  # type: ignore[misc]  # it can be set while "ranged"
        for a_chunk, e_chunk in both:
            yield start, a_chunk, e_chunk
            start += len(a_chunk)
