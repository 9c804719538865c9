"""Measure two arrays against each other: in float64, or exactly where both hold integers or booleans."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pytest_trt.accuracy.metrics import Metrics
from pytest_trt.accuracy.passes import CHUNK, ExactPass, FloatPass, chunks, dot
from pytest_trt.errors import InputsError, UsageError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["DtypeClass", "dtype_class", "measure", "root_mean_square"]

DtypeClass = Literal["bool", "int", "float"]


def dtype_class(dtype: np.dtype[Any]) -> DtypeClass:
    """Return ``bool``, ``int`` or ``float``; bfloat16, float8 and int4 of ml_dtypes are told by their names.

    Raises InputsError for what cannot be compared: complex numbers, strings, objects.
    """
    if dtype.kind == "b":
        return "bool"
    if dtype.kind in "iu":
        return "int"
    if dtype.kind == "f":
        return "float"
    if dtype.type.__module__.partition(".")[0] == "ml_dtypes":  # numpy gives most of them the kind of raw bytes
        if dtype.name.startswith(("float", "bfloat")):
            return "float"
        if dtype.name.startswith(("int", "uint")):
            return "int"
    raise InputsError(
        f"arrays of dtype {dtype} cannot be compared", hint="compare real floating-point, integer or boolean outputs"
    )


def measure(
    actual: ArrayLike,
    expected: ArrayLike,
    *,
    rtol: float | None,
    atol: float | None,
    allow_nonfinite: bool = False,
) -> Metrics:
    """Measure *actual* against *expected*, arrays of one shape, in a single pass.

    An element is mismatched when ``|actual - expected| > atol + rtol·|expected|``, evaluated in float64.
    ``rtol=None, atol=None`` judges no finite element. Integers and booleans are compared exactly, whatever
    their widths, and a difference is a mismatch.

    Where one side is NaN or infinite, both agree only if both are NaN or both the same infinity. What
    disagrees is mismatched. What agrees is mismatched too, unless *allow_nonfinite*: a reference that is
    not finite cannot vouch for anything. Such elements take no part in sums and extremes.

    Raises InputsError when the shapes differ, when one side is floating-point and the other is not, or when
    a dtype cannot be compared; UsageError for a negative or half-given tolerance.
    """
    a, e = np.asarray(actual), np.asarray(expected)
    if a.shape != e.shape:
        raise InputsError(f"arrays of shapes {a.shape} and {e.shape} cannot be measured element by element")
    floating = [dtype_class(x.dtype) == "float" for x in (a, e)]
    if floating[0] != floating[1]:
        raise InputsError(f"dtype {a.dtype} cannot be measured against {e.dtype}: only one is floating-point")
    if (rtol is None) != (atol is None):
        raise UsageError("give both rtol and atol, or neither")
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value is not None and not (value >= 0 and math.isfinite(value)):
            raise UsageError(f"{name} must be finite and not negative, not {value!r}")
    run = FloatPass(a, e, rtol, atol, allow_nonfinite) if floating[0] else ExactPass(a, e)
    # Overflow of a float64 to infinity and 0/0 are dealt with where they arise.
    with np.errstate(all="ignore"):
        for offset, a_chunk, e_chunk in chunks(a, e):
            run.add(offset, a_chunk, e_chunk)
    return run.metrics(rtol, atol, allow_nonfinite)


def root_mean_square(array: ArrayLike) -> float:
    """Return the root mean square of the finite values of *array*, in float64; 0 when there is none."""
    total, count = 0.0, 0
    values = np.asarray(array)
    buffer = np.empty(min(CHUNK, values.size))
    with np.errstate(all="ignore"):
        for _, chunk, _ in chunks(values, values):
            part = buffer[: len(chunk)]
            np.copyto(part, chunk, casting="unsafe")
            square = dot(part, part)
            if not math.isfinite(square):
                part = part[np.isfinite(part)]
                square = dot(part, part)
            total += square
            count += len(part)
    return math.sqrt(total / count) if count else 0.0
