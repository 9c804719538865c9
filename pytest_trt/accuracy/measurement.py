"""Measure two arrays against each other: in float64, or exactly where both hold integers or booleans."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pytest_trt.accuracy.chunks import chunks, longest, segments
from pytest_trt.accuracy.compiled import float_pass
from pytest_trt.accuracy.integers import ExactPass
from pytest_trt.accuracy.metrics import Metrics
from pytest_trt.accuracy.passes import FloatPass
from pytest_trt.accuracy.relative import surely_within
from pytest_trt.accuracy.sums import dot
from pytest_trt.accuracy.totals import Totals
from pytest_trt.accuracy.workers import in_order
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
    atol_scale: float = 0.0,
    allow_nonfinite: bool = False,
    compiled: bool | None = None,
) -> Metrics:
    """Measure *actual* against *expected*, arrays of one shape, in a single pass on all processors.

    An element is mismatched when ``|actual - expected| > atol + rtol·|expected|``, evaluated in float64.
    *atol_scale* adds its multiple of rms(expected), over the finite values, to *atol*. That is known at the end
    only: stretches that could hold a mismatch are read again. ``rtol=None, atol=None`` judges no finite element.
    Integers and booleans are compared exactly, whatever their widths, and a difference is a mismatch.

    Where one side is NaN or infinite, both agree only if both are NaN or both the same infinity. What
    disagrees is mismatched. What agrees is mismatched too, unless *allow_nonfinite*: a reference that is
    not finite cannot vouch for anything. Such elements take no part in sums and extremes.

    *compiled* does floating-point numbers by compiled code (extra ``fast``): None where the arrays are so large that it
    is worth it and Numba is installed, True whatever their size, False never. The result is the same but for the
    rounding of sums.

    Raises InputsError when the shapes differ, when one side is floating-point and the other is not, or when
    a dtype cannot be compared; UsageError for a negative or half-given tolerance, for an *atol_scale* times a rms that
    float64 cannot hold, and for ``compiled=True`` without Numba.
    """
    a, e = np.asarray(actual), np.asarray(expected)
    if a.shape != e.shape:
        raise InputsError(f"arrays of shapes {a.shape} and {e.shape} cannot be measured element by element")
    floating = [dtype_class(x.dtype) == "float" for x in (a, e)]
    if floating[0] != floating[1]:
        raise InputsError(f"dtype {a.dtype} cannot be measured against {e.dtype}: only one is floating-point")
    if (rtol is None) != (atol is None):
        raise UsageError("give both rtol and atol, or neither")
    for name, value in (("rtol", rtol), ("atol", atol), ("atol_scale", atol_scale)):
        _check_limit(name, value)
    starts = segments(a.size)
    if not floating[0]:
        totals = _merged(_spread(lambda: ExactPass(a, e), ExactPass.over, starts))
        return totals.metrics(a, e, rtol=rtol, atol=atol, allow_nonfinite=allow_nonfinite, exact=True)
    late, by = bool(atol_scale), float_pass(a, e, compiled)
    first = _spread(lambda: by(a, e, None if late else rtol, atol, allow_nonfinite), FloatPass.over, starts)
    totals = _merged(first)
    if late and rtol is not None and atol is not None:
        limits = rtol, atol + atol_scale * _rms(totals.finite_expected_square, totals.finite_expected)
        atol = limits[1]
        _check_limit("atol with its share of rms(expected)", atol)
        again = [start for start, part in zip(starts, first, strict=True) if _doubtful(part, *limits)]
        for part in _spread(lambda: by(a, e, *limits, allow_nonfinite), FloatPass.judged, again):
            totals.merge(part)
    return totals.metrics(a, e, rtol=rtol, atol=atol, allow_nonfinite=allow_nonfinite, exact=False)


def _check_limit(name: str, value: float | None) -> None:
    if value is not None and not (value >= 0 and math.isfinite(value)):
        raise UsageError(f"{name} must be finite and not negative, not {value!r}")


def _spread(
    make: Callable[[], FloatPass], do: Callable[[FloatPass, int], Totals], starts: Sequence[int]
) -> list[Totals]:
    """Return what *do* finds in the segments that begin at *starts*; *make* gives each thread its own pass."""

    def worker() -> Callable[[int], Totals]:
        run = make()
        return lambda job: do(run, starts[job])

    return in_order(len(starts), worker)


def _doubtful(part: Totals, rtol: float, atol: float) -> bool:
    """Can a segment that was measured without a limit hold a mismatch?"""
    return part.reach_abs > atol and not surely_within(part.reach_rel, rtol)


def _merged(parts: Sequence[Totals]) -> Totals:
    if len(parts) == 1:
        return parts[0]
    whole = Totals()
    for part in parts:
        whole.merge(part)
    return whole


def _rms(square: float, count: int) -> float:
    return math.sqrt(square / count) if count else 0.0


def root_mean_square(array: ArrayLike) -> float:
    """Return the root mean square of the finite values of *array*, in float64; 0 when there is none."""
    total, count = 0.0, 0
    values = np.asarray(array)
    buffer = np.empty(longest(values.size))
    with np.errstate(all="ignore"):
        for _, chunk, _ in chunks(values, values, 0, values.size):
            part = buffer[: len(chunk)]
            np.copyto(part, chunk, casting="unsafe")
            square = dot(part, part)
            if not math.isfinite(square):
                part = part[np.isfinite(part)]
                square = dot(part, part)
            total += square
            count += len(part)
    return _rms(total, count)
