"""The profile of a model whose manifest gives none: from the user's inputs, else from the model's own shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_trt.spec.shapes import Profile, Shape, ShapeRange

if TYPE_CHECKING:
    from pytest_trt.spec.model import TensorSpec

__all__ = ["DEFAULT_PROFILE", "default_profile"]

DEFAULT_PROFILE = "default"


def default_profile(inputs: Sequence[TensorSpec], sets: Iterable[Mapping[str, Any]], *, rows: bool) -> Profile:
    """Return a profile that accepts every one of *sets* (arrays by input name), with the first as opt.

    With *rows*, arrays hold rows of single samples: a symbolic first dimension becomes 1. Without any sets, every
    dimension that the model leaves open becomes 1.
    """
    stored = list(sets)
    ranges = {}
    for spec in inputs:
        shapes = [_shape(spec, arrays[spec.name].shape, rows) for arrays in stored if spec.name in arrays]
        shapes = [shape for shape in shapes if len(shape) == len(spec.shape)]
        if not shapes:
            shapes = [tuple(d if isinstance(d, int) else 1 for d in spec.shape)]
        columns = list(zip(*shapes, strict=True))
        ranges[spec.name] = ShapeRange(tuple(map(min, columns)), shapes[0], tuple(map(max, columns)))
    return Profile(DEFAULT_PROFILE, ranges)


def _shape(spec: TensorSpec, stored: Shape, rows: bool) -> Shape:
    if len(stored) == len(spec.shape) + 1:
        return stored[1:]
    if rows and stored and spec.shape and not isinstance(spec.shape[0], int):
        return (1, *stored[1:])
    return stored
