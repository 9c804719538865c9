"""Shape profiles: min, opt and max shape per input, and the points in between that are tested."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_trt.errors import ProfileError, nearest

if TYPE_CHECKING:
    from pytest_trt.spec.model import TensorSpec

__all__ = ["Profile", "Shape", "ShapeRange", "format_shape"]

Shape = tuple[int, ...]


def format_shape(shape: tuple[int | str | None, ...]) -> str:
    """Write a shape as ``8x3x224x224``; ``scalar`` when it has no dimensions."""
    return "x".join("?" if d is None else str(d) for d in shape) if shape else "scalar"


@dataclass(frozen=True)
class ShapeRange:
    """The min, opt and max shape of one input."""

    min: Shape
    opt: Shape
    max: Shape

    @classmethod
    def fixed(cls, shape: Shape) -> ShapeRange:
        return cls(shape, shape, shape)


@dataclass(frozen=True)
class Profile:
    """Named shape ranges, one per input that the engine must accept."""

    name: str
    ranges: Mapping[str, ShapeRange]

    @classmethod
    def fixed(cls, name: str, shapes: Mapping[str, Shape]) -> Profile:
        """A profile whose min, opt and max are all *shapes*."""
        return cls(name, {k: ShapeRange.fixed(tuple(v)) for k, v in shapes.items()})

    @classmethod
    def parse(cls, name: str, text: str) -> Profile:
        """Parse ``x=1x3x224x224`` or ``x=1x3x224x224:8x3x224x224:32x3x224x224`` (min:opt:max), inputs split by ``,``.

        Raises ProfileError that names the part it cannot read.
        """
        ranges = {}
        for part in text.split(","):
            key, _, value = part.strip().rpartition("=")
            shapes = value.split(":")
            if not key or len(shapes) not in (1, 3) or not all(re.fullmatch(r"\d+(x\d+)*|scalar", s) for s in shapes):
                raise ProfileError(
                    f"profile {name!r}: cannot read {part.strip()!r}",
                    hint="write NAME=1x3x224x224, or NAME=MIN:OPT:MAX with three such shapes",
                )
            if key in ranges:
                raise ProfileError(f"profile {name!r}: input {key!r} is given twice")
            points = [tuple(int(d) for d in s.split("x")) if s != "scalar" else () for s in shapes]
            ranges[key] = ShapeRange(*points) if len(points) == 3 else ShapeRange.fixed(points[0])
        return cls(name, ranges)

    @property
    def is_static(self) -> bool:
        return all(r.min == r.opt == r.max for r in self.ranges.values())

    def at(self, point: str) -> dict[str, Shape]:
        """Return the shapes at ``min``, ``opt`` or ``max``."""
        return {name: getattr(r, point) for name, r in self.ranges.items()}

    def corners(self) -> dict[str, dict[str, Shape]]:
        """Return the distinct points ``opt``, ``min``, ``max``, in this order; equal ones are left out."""
        points: dict[str, dict[str, Shape]] = {}
        for point in ("opt", "min", "max"):
            shapes = self.at(point)
            if shapes not in points.values():
                points[point] = shapes
        return points

    def validate(self, inputs: tuple[TensorSpec, ...]) -> None:
        """Check this profile against a model's inputs.

        Raises ProfileError for: an unknown or missing input, a wrong rank, min ≤ opt ≤ max broken, a fixed
        dimension changed, one symbolic dimension given two sizes at one point.
        """
        known = {spec.name: spec for spec in inputs}
        for name in self.ranges:
            if name not in known:
                raise ProfileError(f"profile {self.name!r}: the model has no input {name!r}", hint=nearest(name, known))
        for spec in inputs:
            if spec.name not in self.ranges:
                raise ProfileError(
                    f"profile {self.name!r}: no shape for input {spec.name!r}",
                    hint=f"the model declares it as {format_shape(spec.shape)}",
                )
            self._validate_input(spec)
        for point in ("min", "opt", "max"):
            self._validate_symbols(inputs, point)

    def _validate_input(self, spec: TensorSpec) -> None:
        shapes = self.ranges[spec.name]
        where = f"profile {self.name!r}, input {spec.name!r}"
        for point in ("min", "opt", "max"):
            shape: Shape = getattr(shapes, point)
            if len(shape) != len(spec.shape):
                raise ProfileError(
                    f"{where}: {point} {format_shape(shape)} has rank {len(shape)}, not {len(spec.shape)}",
                    hint=f"the model declares {format_shape(spec.shape)}",
                )
            for axis, (size, declared) in enumerate(zip(shape, spec.shape, strict=True)):
                if isinstance(declared, int) and size != declared:
                    raise ProfileError(
                        f"{where}: {point} {format_shape(shape)} changes axis {axis}, fixed at {declared}",
                        hint=f"the model declares {format_shape(spec.shape)}",
                    )
        for axis, (low, mid, high) in enumerate(zip(shapes.min, shapes.opt, shapes.max, strict=True)):
            if not 0 <= low <= mid <= high:
                raise ProfileError(f"{where}: axis {axis} needs 0 ≤ min ≤ opt ≤ max, got {low}, {mid}, {high}")

    def _validate_symbols(self, inputs: tuple[TensorSpec, ...], point: str) -> None:
        sizes: dict[str, tuple[int, str]] = {}
        shapes = self.at(point)
        for spec in inputs:
            for size, declared in zip(shapes[spec.name], spec.shape, strict=True):
                if not isinstance(declared, str):
                    continue
                seen = sizes.setdefault(declared, (size, spec.name))
                if seen[0] != size:
                    raise ProfileError(
                        f"profile {self.name!r}: at {point}, dimension {declared!r} is {seen[0]} in {seen[1]!r}"
                        f" but {size} in {spec.name!r}",
                        hint="dimensions of one name must agree",
                    )

    def describe(self) -> dict[str, list[list[int]]]:
        """Return the profile as JSON: input name to [min, opt, max]."""
        return {n: [list(r.min), list(r.opt), list(r.max)] for n, r in sorted(self.ranges.items())}
