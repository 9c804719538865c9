"""One input or output of a loaded engine: its types and formats on both sides of the border, and its memory."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.backends.buffers import DeviceBuffer, PinnedBuffer
from pytest_trt.backends.feeds import check_shape
from pytest_trt.backends.tensorrt.dtypes import cast, model_dtype, same_kind, tensorrt_dtype, widens
from pytest_trt.backends.tensorrt.versions.runtime import io_layout, is_on_host
from pytest_trt.errors import InputsError, RunError, UnsupportedError
from pytest_trt.spec.shapes import format_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_trt.backends.cuda import Stream
    from pytest_trt.spec.model import TensorSpec

    Array = NDArray[Any]
    Shape = tuple[int, ...]

__all__ = ["Binding", "declared_shape", "output_allocator"]


def declared_shape(engine: Any, name: str) -> Shape:
    """The shape that the engine declares, -1 where a profile decides. Raises RunError where it declares none."""
    try:
        sizes = tuple(engine.get_tensor_shape(name))
    except ValueError as error:  # what has a rank of -1 has a length of -1
        raise RunError(
            f"the engine knows no shape of its tensor {name!r}, so nothing can be fed to it",
            hint="seen with NonMaxSuppression in TensorRT 8.6.0, which itself cannot run such an engine: leave the node"
            " out of the model and run it after the engine",
        ) from error
    return tuple(int(size) for size in sizes)


class Binding:
    """A tensor of the engine with a buffer on the device and a pinned one on the host; both grow when needed.

    ``on_host`` tensors (values that decide shapes) are read and written by TensorRT in host memory. ``layout`` is how
    the engine wants the elements to lie in both buffers; callers see row-major arrays.
    """

    def __init__(self, trt: Any, engine: Any, name: str, spec: TensorSpec | None, profile: int = 0) -> None:
        self.name = name
        self.is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        self.on_host = is_on_host(trt, engine, name)
        self.dtype = tensorrt_dtype(engine.get_tensor_dtype(name).name, name)
        # What the model declares, which is what callers feed and expect.
        self.outer_dtype = model_dtype(spec.dtype, name) if spec else self.dtype
        self.layout = io_layout(trt, engine, name, profile)
        self.declared = declared_shape(engine, name)
        self.low = self.high = self.declared
        if self.is_input and -1 in self.declared:
            low, _, high = engine.get_tensor_profile_shape(name, profile)
            self.low, self.high = tuple(int(s) for s in low), tuple(int(s) for s in high)
        self.shape: Shape | None = None
        self.device = DeviceBuffer()
        self.host = PinnedBuffer()
        self.allocator: Any = None  # set for an output whose shape depends on the data

    @property
    def address(self) -> int:
        """Where TensorRT finds the tensor; 0 for an output that has no memory before TensorRT asks for it."""
        if self.allocator is not None:
            return int(self.allocator.buffer.pointer)
        return self.host.pointer if self.on_host else self.device.pointer

    @property
    def nbytes(self) -> int:
        """What a transfer copies, padding of the layout included."""
        return self._nbytes_of(self.shape or ())

    def encode(self, array: Array, profile: str) -> Array:
        """Return *array* in the engine's type. Raises InputsError (type) or RunError (shape, range of values).

        Where the engine's input is quantized and the model's is not, the caller quantizes: the engine does not tell
        its scale.
        """
        array = np.asarray(array)
        wanted = self.outer_dtype if same_kind(self.dtype, self.outer_dtype) else self.dtype
        if array.dtype != wanted:
            hint = None
            if wanted != self.outer_dtype:
                hint = f"the model says {self.outer_dtype.name}; the engine was built to take it quantized already"
            raise InputsError(f"input {self.name!r} is {wanted.name}, got {array.dtype.name}", hint=hint)
        self._check(array.shape, profile)
        return cast(array, self.dtype, self.name)

    def pinned(self, shape: Shape, profile: str) -> Array:
        """The pinned buffer as an array of *shape*, to be filled by the caller: ``fill`` has nothing to copy then.

        Raises UnsupportedError where the engine wants another type or format than the model, RunError for the shape.
        """
        self._check(shape, profile)
        if self.dtype != self.outer_dtype or not self.layout.is_row_major or self.on_host:
            engine = "values that decide shapes" if self.on_host else f"{self.dtype.name} as {self.layout.name}"
            raise UnsupportedError(
                f"input {self.name!r} is {self.outer_dtype.name} in the model and {engine} in the engine: it has to be"
                " converted",
                hint="feed an array of your own; run() converts and copies it",
            )
        self.host.reserve(self._nbytes_of(shape))
        return self.host.view(self.dtype, shape)

    def reserve(self, shape: Shape) -> None:
        """Have memory for *shape*."""
        self.shape = shape
        self.host.reserve(self.nbytes)
        if not self.on_host:
            self.device.reserve(self.nbytes)

    def fill(self, array: Array) -> None:
        """Put *array* into the host buffer, unless it is that buffer's content already."""
        assert self.shape is not None
        if self.layout.is_row_major and array.flags.c_contiguous and self.host.starts_at(array):
            return
        target = self.host.view(self.dtype, self.layout.stored(self.shape))
        np.copyto(target, array if self.layout.is_row_major else self.layout.pack(array))

    def upload(self, stream: Stream) -> None:
        if not self.on_host:
            stream.upload(self.device, self.host, self.nbytes)

    def download(self, stream: Stream) -> None:
        """Enqueue the copy of an output to the host; its shape is known by now."""
        if self.allocator is not None:
            self.shape = self.allocator.shape
            if self.nbytes > self.allocator.buffer.nbytes:
                raise RunError(
                    f"output {self.name!r}: TensorRT says the shape {format_shape(self.allocator.shape)},"
                    f" {self.nbytes} bytes, and asked for {self.allocator.asked or 'none'};"
                    f" there are {self.allocator.buffer.nbytes}"
                )
            self.host.reserve(self.nbytes)
            stream.download(self.host, self.allocator.buffer, self.nbytes)
        elif not self.on_host:
            stream.download(self.host, self.device, self.nbytes)

    def decode(self, *, copy: bool = True) -> Array:
        """The output in the model's type: the caller's own array, or a view of the buffer where none is needed."""
        assert self.shape is not None
        view = self.layout.unpack(self.host.view(self.dtype, self.layout.stored(self.shape)), self.shape)
        # Only back to the wider type that the model declares; a narrower one would lose what the engine gave.
        dtype = self.outer_dtype if widens(self.dtype, self.outer_dtype) else self.dtype
        return np.array(view, dtype=dtype, order="C") if copy else np.asarray(view, dtype=dtype)

    def close(self) -> None:
        self.device.close()
        self.host.close()
        if self.allocator is not None:
            self.allocator.buffer.close()

    def _nbytes_of(self, shape: Shape) -> int:
        return int(np.prod(self.layout.stored(shape), dtype=np.int64)) * self.dtype.itemsize

    def _check(self, shape: Shape, profile: str) -> None:
        check_shape(self.name, shape, self.low, self.high, profile)


def output_allocator(trt: Any) -> Any:
    """An allocator for one output: TensorRT asks it for memory once it knows the size, then tells the shape.

    Exceptions cannot cross TensorRT, so the last one is kept in ``error``. ``asked`` is the size in bytes that it last
    asked for, None where it has not since ``prepare``.
    """

    class Allocator(trt.IOutputAllocator):  # type: ignore[misc]  # a base of an untyped library
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.buffer = DeviceBuffer()
            self.shape: Shape = ()
            self.error: RunError | None = None
            self.asked: int | None = None

        def prepare(self, size: int) -> None:
            """Have memory for *size*, the most that the next run can need, unless that is more than the device has.

            So a run does not depend on being asked in time: with two contexts of 8.6 that took turns, copying such an
            output failed once as it does where there is too little memory.
            """
            self.asked = None
            with suppress(RunError):
                self.buffer.reserve(size)

        def reallocate_output(self, _tensor_name: str, _memory: Any, size: int, _alignment: int) -> int | None:
            # cudaMalloc aligns to 256 bytes, more than TensorRT asks for.
            self.error = None
            self.asked = size
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
