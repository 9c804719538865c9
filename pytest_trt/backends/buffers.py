"""Memory of the device, and page-locked memory of the host. It is freed by ``close``, which may be called twice."""

from __future__ import annotations

import ctypes
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.backends.cuda import check, runtime

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_trt.backends.cuda import Stream

    Array = NDArray[Any]

__all__ = ["DeviceBuffer", "PinnedBuffer"]


class _Buffer:
    """Memory that grows when more is reserved. It always has an address, since TensorRT takes none for null."""

    def __init__(self) -> None:
        self._runtime = runtime()
        self.pointer = 0
        self.nbytes = 0

    def reserve(self, nbytes: int) -> None:
        """Have at least *nbytes* (at least one). The address changes when it grows; the content is then lost."""
        wanted = max(int(nbytes), 1)
        if wanted > self.nbytes:
            self.close()
            self.pointer = int(self._allocate(wanted))
            self.nbytes = wanted

    def close(self) -> None:
        if self.pointer:
            # Not checked: after a failed kernel every call repeats that error, which was raised already.
            self._release(self.pointer)
            self.pointer = self.nbytes = 0

    def _allocate(self, nbytes: int) -> Any:
        raise NotImplementedError  # device and pinned memory have calls of their own

    def _release(self, pointer: int) -> None:
        raise NotImplementedError


class DeviceBuffer(_Buffer):
    """Memory on the device."""

    def clear(self, stream: Stream) -> None:
        """Enqueue writing zeros to all of it."""
        check(self._runtime.cudaMemsetAsync(self.pointer, 0, self.nbytes, stream.raw), "cudaMemsetAsync")

    def _allocate(self, nbytes: int) -> Any:
        answer = self._runtime.cudaMalloc(nbytes)
        if int(answer[0]) != 0:
            self._runtime.cudaGetLastError()  # reset, or a later call that does work would report it
        return check(answer, f"cudaMalloc of {nbytes} bytes")

    def _release(self, pointer: int) -> None:
        self._runtime.cudaFree(pointer)


class PinnedBuffer(_Buffer):
    """Page-locked memory on the host: copies from and to it are asynchronous and run at full speed.

    Arrays from ``view`` keep the memory: it is freed when this buffer has let go of it and the last of them is gone.
    """

    def __init__(self) -> None:
        super().__init__()
        self._memory: Any = None

    def _allocate(self, nbytes: int) -> Any:
        flags = self._runtime.cudaHostAllocDefault
        pointer = check(self._runtime.cudaHostAlloc(nbytes, flags), f"cudaHostAlloc of {nbytes} bytes")
        self._memory = (ctypes.c_ubyte * nbytes).from_address(int(pointer))
        # Not at exit: CUDA may be gone before, and takes the memory with it.
        weakref.finalize(self._memory, self._runtime.cudaFreeHost, int(pointer)).atexit = False
        return pointer

    def _release(self, pointer: int) -> None:  # noqa: ARG002 - the finalizer knows it
        self._memory = None

    def view(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        """The content as an array of *dtype* and *shape*; of this buffer, until that grows or closes."""
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if not nbytes:
            return np.empty(shape, dtype)
        content: Array = np.frombuffer(self._memory, dtype=np.uint8, count=nbytes)
        return content.view(dtype).reshape(shape)

    def starts_at(self, array: Array) -> bool:
        """Whether the first element of *array* is the first byte of this buffer."""
        return bool(array.size) and array.__array_interface__["data"][0] == self.pointer

    def overlaps(self, array: Array) -> bool:
        """Whether *array* begins inside this buffer."""
        return bool(array.size) and 0 <= array.__array_interface__["data"][0] - self.pointer < self.nbytes
