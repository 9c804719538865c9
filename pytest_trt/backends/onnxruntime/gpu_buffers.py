"""Memory of a GPU session: what it owns for the inputs, and what ONNX Runtime owns of the outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.backends.buffers import DeviceBuffer, PinnedBuffer
from pytest_trt.errors import InputsError
from pytest_trt.spec.dtypes import numpy_dtype

if TYPE_CHECKING:
    from pytest_trt.backends import Array
    from pytest_trt.spec.model import TensorSpec

__all__ = ["BorrowedBuffer", "InputBuffer"]


class BorrowedBuffer(DeviceBuffer):
    """Device memory that belongs to ONNX Runtime."""

    def __init__(self, pointer: int, nbytes: int) -> None:
        super().__init__()
        self.pointer, self.nbytes = pointer, nbytes

    def _release(self, pointer: int) -> None:
        """Not ours to free."""


class InputBuffer:
    """One input: its pinned copy and its place on the device."""

    def __init__(self, spec: TensorSpec) -> None:
        self.name, self.dtype = spec.name, numpy_dtype(spec.dtype)
        self.element_type = _element_type(spec, self.dtype)
        self.host, self.device = PinnedBuffer(), DeviceBuffer()
        self.shape: tuple[int, ...] = ()
        self.nbytes = 0

    def fill(self, array: Array) -> None:
        """Take *array*. Raises InputsError for another type."""
        if array.dtype != self.dtype:
            raise InputsError(f"input {self.name!r} is {array.dtype}, but the model wants {self.dtype}")
        self.shape, self.nbytes = array.shape, array.nbytes
        self.host.reserve(array.nbytes)
        self.device.reserve(array.nbytes)
        self.host.view(self.dtype, array.shape)[...] = array

    def close(self) -> None:
        self.host.close()
        self.device.close()


def _element_type(spec: TensorSpec, dtype: np.dtype[Any]) -> Any:
    """The type as ``bind_input`` takes it: NumPy's, or ONNX's number where NumPy has none."""
    if dtype.isbuiltin == 1:
        return dtype.type
    import onnx

    return onnx.TensorProto.DataType.Value(spec.dtype.upper())
