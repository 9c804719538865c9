"""Data types at the border: TensorRT's names, the model's names, NumPy's types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.errors import RunError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

__all__ = ["cast", "model_dtype", "same_kind", "tensorrt_dtype", "widens"]

# ``tensorrt.nptype`` fails for half of these, and in 8.6 for all of them under some NumPy versions.
_TENSORRT = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "FP8": "float8_e4m3fn",
}

# ONNX's names where NumPy has none -> the name in ml_dtypes.
_MODEL = {"float8e4m3fn": "float8_e4m3fn"}


def tensorrt_dtype(name: str, tensor: str) -> np.dtype[Any]:
    """The NumPy type of a TensorRT DataType, by name. Raises RunError for types below one byte."""
    if name not in _TENSORRT:
        raise RunError(f"tensor {tensor!r} is {name}, which cannot be an engine's input or output here")
    return _dtype(_TENSORRT[name], tensor)


def model_dtype(name: str, tensor: str) -> np.dtype[Any]:
    """The NumPy type of a TensorSpec's dtype."""
    return _dtype(_MODEL.get(name, name), tensor)


def _dtype(name: str, tensor: str) -> np.dtype[Any]:
    try:
        return np.dtype(name)
    except TypeError:  # none of NumPy's own: one of ml_dtypes, which onnx brings along
        pass
    try:
        import ml_dtypes
    except ImportError as error:
        message = f"tensor {tensor!r} is {name}: NumPy needs ml_dtypes for it"
        raise RunError(message, hint="pip install ml_dtypes") from error
    if not hasattr(ml_dtypes, name):
        raise RunError(f"tensor {tensor!r} is {name}, for which there is no NumPy type")
    found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
    return found


def _kind(dtype: np.dtype[Any]) -> str:
    if dtype.kind in "iu":
        return "integer"
    # ml_dtypes' floats call themselves void.
    return "bool" if dtype.kind == "b" else "float"


def same_kind(one: np.dtype[Any], other: np.dtype[Any]) -> bool:
    """Whether both are floats, both integers or both bool. Between kinds the same number means another thing: an
    engine's int8 is quantized, with a scale that it does not tell."""
    return _kind(one) == _kind(other)


def widens(narrow: np.dtype[Any], wide: np.dtype[Any]) -> bool:
    """Whether every value of *narrow* is the same value in *wide*."""
    return same_kind(narrow, wide) and np.can_cast(narrow, wide, "safe")


def cast(array: Array, dtype: np.dtype[Any], tensor: str) -> Array:
    """Cast to the type of the same kind that the engine has where the model says another (8.6 keeps INT64 as INT32).

    Raises RunError for a value that does not fit: a wrapped index, or an infinity that was a number, would give wrong
    results in silence.
    """
    if array.dtype == dtype:
        return array
    if not array.size:
        return array.astype(dtype)
    if _kind(dtype) == "integer":
        limits = np.iinfo(dtype)
        low, high = int(array.min()), int(array.max())
        if low < limits.min or high > limits.max:
            worst = low if low < limits.min else high
            raise RunError(
                f"input {tensor!r} has the value {worst}, which does not fit the engine's {dtype.name}",
                hint="this TensorRT has no 64-bit integers; feed smaller values or use TensorRT 10 or newer",
            )
        return array.astype(dtype)
    with np.errstate(over="ignore"):
        narrowed = array.astype(dtype)
    lost = np.isfinite(array) & ~np.isfinite(narrowed)
    if lost.any():
        raise RunError(
            f"input {tensor!r} has the value {array[lost].flat[0]}, which does not fit the engine's {dtype.name}",
            hint=f"feed smaller values, or build the engine with a wider type for {tensor!r}",
        )
    return narrowed
