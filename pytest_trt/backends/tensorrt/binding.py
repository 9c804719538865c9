"""One input or output of a loaded engine: its types on both sides of the border, and its memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.backends.cuda import DeviceBuffer, PinnedBuffer
from pytest_trt.backends.tensorrt.dtypes import cast, model_dtype, tensorrt_dtype
from pytest_trt.errors import InputsError, RunError
from pytest_trt.spec.shapes import format_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_trt.backends.cuda import Stream
    from pytest_trt.spec.model import TensorSpec

    Array = NDArray[Any]
    Shape = tuple[int, ...]

__all__ = ["Binding", "output_allocator"]


class Binding:
    """A tensor of the engine with a buffer on the device and a pinned one on the host; both grow when needed.

    ``on_host`` tensors (values that decide shapes) are read and written by TensorRT in host memory.
    """

    def __init__(self, trt: Any, engine: Any, name: str, spec: TensorSpec | None) -> None:
        self.name = name
        self.is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        self.on_host = engine.get_tensor_location(name) == trt.TensorLocation.HOST
        self.dtype = tensorrt_dtype(engine.get_tensor_dtype(name).name, name)
        # What the model declares, which is what callers feed and expect.
        self.outer_dtype = model_dtype(spec.dtype, name) if spec else self.dtype
        self.declared = tuple(int(size) for size in engine.get_tensor_shape(name))
        self.low = self.high = self.declared
        if self.is_input and -1 in self.declared:
            low, _, high = engine.get_tensor_profile_shape(name, 0)
            self.low, self.high = tuple(int(s) for s in low), tuple(int(s) for s in high)
        self.shape: Shape | None = None
        self.device = DeviceBuffer()
        self.host = PinnedBuffer()
        self.allocator: Any = None  # set for an output whose shape depends on the data

    @property
    def address(self) -> int:
        """Where TensorRT finds the tensor."""
        return self.host.pointer if self.on_host else self.device.pointer

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape or (), dtype=np.int64)) * self.dtype.itemsize

    def encode(self, array: Array, profile: str) -> Array:
        """Return *array* as the engine wants it. Raises InputsError (type) or RunError (shape, range of values)."""
        array = np.asarray(array)
        if array.dtype != self.outer_dtype:
            raise InputsError(f"input {self.name!r} is {self.outer_dtype.name}, got {array.dtype.name}")
        fits = len(array.shape) == len(self.low) and all(
            low <= size <= high for size, low, high in zip(array.shape, self.low, self.high, strict=True)
        )
        if not fits:
            allowed = format_shape(self.low)
            if self.low != self.high:
                allowed += f" to {format_shape(self.high)}"
            raise RunError(
                f"input {self.name!r}: shape {format_shape(array.shape)} is outside profile {profile!r}, "
                f"which allows {allowed}",
                hint="run with shapes inside the profile, or build with a wider one",
            )
        return cast(array, self.dtype, self.name)

    def reserve(self, shape: Shape) -> None:
        """Have memory for *shape*."""
        self.shape = shape
        self.host.reserve(self.nbytes)
        if not self.on_host:
            self.device.reserve(self.nbytes)

    def fill(self, array: Array) -> None:
        """Put *array* into the host buffer."""
        assert self.shape is not None
        np.copyto(self.host.view(self.dtype, self.shape), array)

    def upload(self, stream: Stream) -> None:
        if not self.on_host:
            stream.upload(self.device, self.host, self.nbytes)

    def download(self, stream: Stream) -> None:
        """Enqueue the copy of an output to the host; its shape is known by now."""
        if self.allocator is not None:
            self.shape = self.allocator.shape
            self.host.reserve(self.nbytes)
            stream.download(self.host, self.allocator.buffer, self.nbytes)
        elif not self.on_host:
            stream.download(self.host, self.device, self.nbytes)

    def decode(self) -> Array:
        """The output as the caller's own array, in the model's type."""
        assert self.shape is not None
        view = self.host.view(self.dtype, self.shape)
        # Only back to the wider type that the model declares; a narrower one would lose what the engine gave.
        lossless = np.can_cast(self.dtype, self.outer_dtype, "safe")
        return np.array(view, dtype=self.outer_dtype if lossless else self.dtype)

    def close(self) -> None:
        self.device.close()
        self.host.close()
        if self.allocator is not None:
            self.allocator.buffer.close()


def output_allocator(trt: Any) -> Any:
    """An allocator for one output: TensorRT asks it for memory once it knows the size, then tells the shape.

    Exceptions cannot cross TensorRT, so the last one is kept in ``error``.
    """

    class Allocator(trt.IOutputAllocator):  # type: ignore[misc]  # a base of an untyped library
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.buffer = DeviceBuffer()
            self.shape: Shape = ()
            self.error: RunError | None = None

        def reallocate_output(self, _tensor_name: str, _memory: Any, size: int, _alignment: int) -> int | None:
            # cudaMalloc aligns to 256 bytes, more than TensorRT asks for.
            self.error = None
            try:
                self.buffer.reserve(size)
            except RunError as error:
                self.error = error
                return None
            return self.buffer.pointer

        def reallocate_output_async(
            self, name: str, memory: Any, size: int, alignment: int, _stream: int
        ) -> int | None:
            return self.reallocate_output(name, memory, size, alignment)

        def notify_shape(self, _tensor_name: str, shape: Any) -> None:
            self.shape = tuple(int(size) for size in shape)

    return Allocator()
