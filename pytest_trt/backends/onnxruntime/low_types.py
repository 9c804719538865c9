"""Calling a session of ONNX Runtime with bfloat16 and float8, which its NumPy bridge neither takes nor gives."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.spec.dtypes import numpy_dtype

if TYPE_CHECKING:
    import onnxruntime

    from pytest_trt.backends import Array

__all__ = ["Caller"]

# Of one or two whole bytes an element; what is packed more tightly (int4) ONNX Runtime does not take either way.
_LOW = ("bfloat16", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz")


class Caller:
    """Runs *session*; where a low type goes in or out, through OrtValues, else by the direct and faster way."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._direct = not any(_low(value.type) for value in (*session.get_inputs(), *session.get_outputs()))

    def stage(self, feeds: Mapping[str, Array]) -> dict[str, Any]:
        """Return *feeds* as ``call`` takes them."""
        # np.ascontiguousarray would give a scalar a dimension.
        arrays = {name: np.asarray(array, order="C") for name, array in feeds.items()}
        return arrays if self._direct else {name: _value(array) for name, array in arrays.items()}

    def call(self, names: Sequence[str], staged: Mapping[str, Any]) -> list[Array]:
        """Run once; return the outputs *names*. Raises what ONNX Runtime raises."""
        if self._direct:
            outputs: list[Array] = self._session.run(names, staged)
            return outputs
        return [_array(value) for value in self._session.run_with_ort_values(names, staged)]


def _low(type_name: str) -> str | None:
    """The ONNX name of the low type in *type_name*, ``tensor(bfloat16)``."""
    name = type_name.removeprefix("tensor(").removesuffix(")")
    return name if name in _LOW else None


def _value(array: Array) -> Any:
    import onnx
    import onnxruntime as ort

    for name in _LOW:
        if array.dtype == numpy_dtype(name):
            stored = array.view(np.uint8 if array.itemsize == 1 else np.uint16)
            kind = onnx.TensorProto.DataType.Value(name.upper())
            return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(stored, kind)
    return ort.OrtValue.ortvalue_from_numpy(array)


def _array(value: Any) -> Array:
    name = _low(value.data_type())
    if name is None:
        array: Array = value.numpy()
        return array
    dtype, shape = numpy_dtype(name), tuple(value.shape())
    content = ctypes.string_at(value.data_ptr(), math.prod(shape) * dtype.itemsize)
    return np.frombuffer(content, dtype).reshape(shape)
