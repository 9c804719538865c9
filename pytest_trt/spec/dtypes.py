"""Types of stored arrays against types of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pytest_trt.errors import InputsError

if TYPE_CHECKING:
    from pytest_trt.spec.model import TensorSpec

__all__ = ["fit_dtype", "numpy_dtype"]

Array = NDArray[Any]

# ONNX's lowercase names -> ml_dtypes' (the package comes with onnx).
_ML_DTYPES = {
    "bfloat16": "bfloat16",
    "float8e4m3fn": "float8_e4m3fn",
    "float8e4m3fnuz": "float8_e4m3fnuz",
    "float8e5m2": "float8_e5m2",
    "float8e5m2fnuz": "float8_e5m2fnuz",
    "float8e8m0": "float8_e8m0fnu",
    "float4e2m1": "float4_e2m1fn",
    "int4": "int4",
    "uint4": "uint4",
    "int2": "int2",
    "uint2": "uint2",
}


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the NumPy type of a TensorSpec's dtype, from ml_dtypes where NumPy has none.

    Raises InputsError for strings, and for types that the installed ml_dtypes lacks.
    """
    if name in _ML_DTYPES:
        import ml_dtypes

        kind = getattr(ml_dtypes, _ML_DTYPES[name], None)
        if kind is not None:
            dtype: np.dtype[Any] = np.dtype(kind)
            return dtype
    elif name != "string":
        try:
            return np.dtype(name)
        except TypeError:
            pass
    raise InputsError(
        f"inputs of type {name} cannot be fed", hint="upgrade ml_dtypes, or move that input into the model"
    )


def fit_dtype(array: Array, spec: TensorSpec, where: str) -> tuple[Array, str | None]:
    """Return *array* in *spec*'s type, and a note when that took a conversion.

    Only conversions of one kind that keep every value are made: int32 → int64, float16 → float32, and float64 →
    float32 or int64 → int32 where nothing is lost. Raises InputsError for all others.
    """
    wanted = numpy_dtype(spec.dtype)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype == wanted:
        return array, None
    if (
        array.dtype.kind == "V"
        and array.dtype.names is None
        and spec.dtype in _ML_DTYPES
        and array.dtype.itemsize == wanted.itemsize
    ):
        return array.view(wanted), None  # np.save writes ml_dtypes' types as raw bytes
    kinds = (_kind(array.dtype), _kind(wanted))
    if kinds[0] == kinds[1] and kinds[0] in ("float", "int"):
        with np.errstate(over="ignore", invalid="ignore"):
            converted = array.astype(wanted)
            same = np.array_equal(converted.astype(array.dtype), array, equal_nan=kinds[0] == "float")
        # A round trip through the other signedness returns to the same bits: compare signs as well.
        if same and not (kinds[0] == "int" and np.any((converted < 0) != (array < 0))):
            return converted, f"{where} was converted from {array.dtype} to {spec.dtype}, without loss"
    raise InputsError(
        f"{where} is {array.dtype}, but the model wants {spec.dtype}, and converting would change values",
        hint=f"store it as {spec.dtype}, scaled as the model expects (NumPy: .astype({spec.dtype!r}))",
    )


def _kind(dtype: np.dtype[Any]) -> str:
    if dtype.kind in "iu" or dtype.name in ("int4", "uint4", "int2", "uint2"):
        return "int"
    return "float" if dtype.kind == "f" or "float" in dtype.name else dtype.kind
