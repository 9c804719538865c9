"""Synthetic inputs: seeded, the same for an input whatever stands beside it, and labelled as synthetic."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.errors import InputsError, nearest
from pytest_trt.spec.dtypes import numpy_dtype
from pytest_trt.spec.inputs import Array, InputSet
from pytest_trt.spec.payload import memory_limit_bytes
from pytest_trt.spec.shapes import Shape, format_shape

if TYPE_CHECKING:
    from pytest_trt.spec.model import TensorSpec

__all__ = ["synthetic_inputs"]


def synthetic_inputs(
    model_inputs: tuple[TensorSpec, ...],
    shapes: Mapping[str, Shape],
    *,
    seed: int = 0,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    count: int = 1,
) -> InputSet:
    """Return *count* samples of random inputs with exactly *shapes*.

    Floats are standard normal, or uniform between the two ends of their range; integers are uniform in
    their range, both ends included. An integer input without a range gets zeros and ones, which are valid as
    mask, token and index alike, and a note says so. Sample k of an input depends on *seed*, its name and k alone.

    Raises InputsError: an unknown input in *ranges*, a range that its type cannot hold, a shape that is
    missing or larger than memory, a type that cannot be fed.
    """
    ranges = ranges or {}
    names = [spec.name for spec in model_inputs]
    for name in ranges:
        if name not in names:
            raise InputsError(
                f"a range is given for {name!r}, which is no input of the model", hint=nearest(name, names)
            )
    if seed < 0 or count < 1:
        raise InputsError(f"seed {seed} and count {count} are not possible", hint="take a seed ≥ 0 and a count ≥ 1")
    notes = []
    needed = 0
    for spec in model_inputs:
        if spec.name not in shapes:
            raise InputsError(
                f"no shape is given for input {spec.name!r}", hint=f"the model declares {format_shape(spec.shape)}"
            )
        shape = shapes[spec.name]
        if any(d < 0 for d in shape):
            raise InputsError(f"input {spec.name!r} cannot have shape {format_shape(shape)}", hint="sizes are ≥ 0")
        # The draw may be float64 or int64 before it becomes the input's type.
        needed += count * math.prod(shape) * max(8, numpy_dtype(spec.dtype).itemsize)
        if spec.name in ranges:
            _check_range(spec, ranges[spec.name])
        elif _is_integer(spec):
            notes.append(f"input {spec.name!r} ({spec.dtype}) is zeros and ones: no range is given for it")
    if needed > memory_limit_bytes():
        sizes = ", ".join(f"{n!r} {format_shape(shapes[n])}" for n in names)
        raise InputsError(
            f"synthetic inputs ({sizes}) need {needed} bytes, more than memory holds", hint="use a smaller profile"
        )
    sets = tuple(
        {s.name: _draw(s, shapes[s.name], seed, k, ranges.get(s.name)) for s in model_inputs} for k in range(count)
    )
    titles = tuple(f"synthetic seed {seed}, sample {k}" for k in range(count))
    return InputSet(sets, f"synthetic seed {seed}", synthetic=True, notes=tuple(notes), titles=titles)


def _is_integer(spec: TensorSpec) -> bool:
    return spec.dtype.startswith(("int", "uint"))


def _bounds(spec: TensorSpec) -> tuple[float, float]:
    """Return the least and greatest finite value of an integer or float type."""
    import ml_dtypes

    dtype = numpy_dtype(spec.dtype)
    info: Any = ml_dtypes.iinfo(dtype) if _is_integer(spec) else ml_dtypes.finfo(dtype)
    return (int(info.min), int(info.max)) if _is_integer(spec) else (float(info.min), float(info.max))


def _check_range(spec: TensorSpec, between: tuple[float, float]) -> None:
    low, high = between
    where = f"range {low:g} to {high:g} of input {spec.name!r} ({spec.dtype})"
    if spec.dtype == "bool" or spec.dtype.startswith("complex"):
        raise InputsError(f"{where}: this type takes no range", hint="leave it out")
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise InputsError(f"{where} is no interval", hint="give two finite numbers, the smaller one first")
    if _is_integer(spec) and (low != int(low) or high != int(high)):
        raise InputsError(f"{where} is not made of integers", hint="give whole numbers")
    least, greatest = _bounds(spec)
    if low < least or high > greatest:
        raise InputsError(f"{where} does not fit the type", hint=f"{spec.dtype} holds {least:g} to {greatest:g}")


def _draw(spec: TensorSpec, shape: Shape, seed: int, k: int, between: tuple[float, float] | None) -> Array:
    key = int.from_bytes(hashlib.sha256(spec.name.encode()).digest()[:8], "little")
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, key, k])))
    dtype = numpy_dtype(spec.dtype)
    drawn: Array
    if spec.dtype == "bool":
        drawn = rng.integers(0, 2, shape)
    elif _is_integer(spec):
        low, high = between or (0, 1)
        drawn = rng.integers(int(low), int(high), shape, dtype=np.uint64 if high >= 2**63 else np.int64, endpoint=True)
    elif spec.dtype.startswith("complex"):
        drawn = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    elif between is not None:
        drawn = rng.uniform(between[0], between[1], shape)
    else:
        drawn = rng.standard_normal(shape)
    return np.asarray(drawn).astype(dtype)
