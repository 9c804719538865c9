"""The points of a profile at which a case is judged: corners, single extremes, odd sizes, seeded random shapes."""

from __future__ import annotations

import ast
import operator
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import isqrt
from typing import TYPE_CHECKING

from pytest_trt.errors import UsageError
from pytest_trt.spec.shapes import Profile, Shape, format_shape

if TYPE_CHECKING:
    from pytest_trt.spec.inputs import InputSet
    from pytest_trt.spec.model import TensorSpec

__all__ = ["MOST_POINTS", "Dimension", "ShapeSpace", "fitted", "left_out", "outside", "points"]

# ``all`` stops here: a model of many free dimensions must not cost hundreds of references and runs.
MOST_POINTS = 64
_ATTEMPTS = 50
_LONGEST_FORMULA = 200


@dataclass(frozen=True)
class Dimension:
    """A size that may vary: a symbol of the model, or an unnamed axis, called ``input[axis]``."""

    name: str
    min: int
    opt: int
    max: int


class ShapeSpace:
    """Every shape that *profile* allows, with one size per dimension.

    Axes of one symbol are one dimension. So are unnamed axes at the same position with equal min, opt and max: of
    those the model does not say whether they must agree, and mostly they must. A symbol that is a sum, difference,
    product or quotient of others (``past + new``) follows them, where min, opt and max do. Without *inputs* every
    axis counts as unnamed.
    """

    def __init__(self, profile: Profile, inputs: Sequence[TensorSpec] = ()) -> None:
        self.profile = profile
        declared = {spec.name: spec.shape for spec in inputs}
        found: dict[str, Dimension] = {}
        unnamed: dict[tuple[int, ...], str] = {}
        self._axes: dict[str, list[str]] = {}
        for name, shapes in profile.ranges.items():
            symbols = declared.get(name, (None,) * len(shapes.opt))
            self._axes[name] = []
            for axis, sizes in enumerate(zip(shapes.min, shapes.opt, shapes.max, strict=True)):
                own, symbol = f"{name}[{axis}]", symbols[axis]
                key = symbol if isinstance(symbol, str) else unnamed.setdefault((axis, *sizes), own)
                found.setdefault(key, Dimension(key, *sizes))
                self._axes[name].append(key)
        self._opt = {name: dimension.opt for name, dimension in found.items()}
        self._derived = {name: tree for name in found if (tree := _formula(name, found)) is not None}
        self.free = tuple(d for d in found.values() if d.min < d.max and d.name not in self._derived)

    def shapes(self, sizes: Mapping[str, int]) -> dict[str, Shape] | None:
        """The shapes at *sizes*, by names of free dimensions (opt where not given); None where they leave the
        profile, as a dimension that follows others can."""
        chosen = {**self._opt, **sizes}
        for name, tree in self._derived.items():
            chosen[name] = _evaluate(tree, chosen)
        shapes = {name: tuple(chosen[key] for key in keys) for name, keys in self._axes.items()}
        return None if outside(self.profile, shapes) else shapes


def points(
    profile: Profile, inputs: Sequence[TensorSpec], mode: str | int, seed: int = 0
) -> dict[str, dict[str, Shape]]:
    """Return named points of *profile*, each with a shape per input; equal ones are left out, opt comes first.

    ============ =================================================================================================
    ``opt``      opt
    ``corners``  opt, min, max
    ``all``      the corners; each free dimension alone at min, max, min + 1, max - 1 and at two primes in between,
                 the others at opt (``N=31``); all dimensions at a prime (``primes``). At most ``MOST_POINTS``.
    N            the corners, and N random points (``random-1`` …): each depends on *seed* and its number alone, and
                 small sizes are likelier than large ones. Fewer where the profile does not hold as many.
    ============ =================================================================================================

    One symbol has one size at a point. Raises UsageError for any other mode.
    """
    if mode == "opt":
        return {"opt": profile.at("opt")}
    found = profile.corners()
    if mode == "all":
        return dict(islice(_all(profile, inputs).items(), MOST_POINTS))
    if isinstance(mode, int) and mode > 0:
        return found | _random(ShapeSpace(profile, inputs), found, mode, seed)
    if mode != "corners":
        raise UsageError(f"{mode!r} names no points of a profile", hint="opt, corners, all, or a number from 1")
    return found


def left_out(profile: Profile, inputs: Sequence[TensorSpec], mode: str | int) -> int:
    """How many points of ``all`` are above ``MOST_POINTS``; 0 in any other mode."""
    return max(0, len(_all(profile, inputs)) - MOST_POINTS) if mode == "all" else 0


def outside(profile: Profile, shapes: Mapping[str, Shape]) -> str | None:
    """Say which input of *shapes* is not within *profile*, or return None where all are."""
    for name, allowed in profile.ranges.items():
        shape = shapes.get(name)
        if shape is None:
            return f"no shape for input {name!r}"
        inside = len(shape) == len(allowed.opt) and all(
            low <= size <= high for low, size, high in zip(allowed.min, shape, allowed.max, strict=True)
        )
        if not inside:
            limits = f"{format_shape(allowed.min)} … {format_shape(allowed.max)}"
            return f"{name!r} {format_shape(shape)} is not within {limits}"
    return None


def fitted(inputs: InputSet, shapes: Mapping[str, Shape]) -> InputSet:
    """Return *inputs* if any of its sets fits *shapes*; else its values, repeated or cut along every axis until they
    do, with that in its notes. Labels and stored outputs, which no longer belong to them, are dropped.

    Where that is impossible (another rank, nothing to repeat), *inputs* is returned: it says so when samples are taken.
    """
    if len(inputs.left_out(shapes)) < len(inputs.sets):
        return inputs
    sets = []
    for stored in inputs.sets:
        arrays = {}
        for name, shape in shapes.items():
            array = stored.get(name)
            if array is not None and array.ndim == len(shape) + 1 and len(array):
                array = array[0]
            if array is None or array.ndim != len(shape) or (0 in array.shape and 0 not in shape):
                return inputs
            for axis, size in enumerate(shape):
                if array.shape[axis] != size:
                    array = array.take(range(size), axis, mode="wrap")
            arrays[name] = array
        sets.append(arrays)
    note = f"{inputs.origin}: values repeated or cut to the shape"
    return replace(inputs, sets=tuple(sets), labels=None, expected=(), notes=(*inputs.notes, note))


def _all(profile: Profile, inputs: Sequence[TensorSpec]) -> dict[str, dict[str, Shape]]:
    space, found = ShapeSpace(profile, inputs), profile.corners()
    # The likeliest to fail first: what is left out comes from the end.
    single = [
        *((d.name, size) for d in space.free for size in (d.min, d.max)),
        *((d.name, size) for d in space.free for size in (d.min + 1, d.max - 1)),
        *((d.name, size) for d in space.free for size in _primes(d)),
    ]
    wanted = [(f"{name}={size}", {name: size}) for name, size in single]
    wanted.append(("primes", {d.name: size for d in space.free for size in _primes(d)[:1]}))
    for name, sizes in wanted:
        shapes = space.shapes(sizes)
        if shapes is not None and shapes not in found.values():
            found[name] = shapes
    return found


def _random(
    space: ShapeSpace, known: Mapping[str, Mapping[str, Shape]], count: int, seed: int
) -> dict[str, dict[str, Shape]]:
    found: dict[str, dict[str, Shape]] = {}
    taken = list(known.values())
    for number in range(1, count + 1):
        rng = random.Random(f"{seed}/{number}")
        for _ in range(_ATTEMPTS):
            # The only method that gives the same in every version of Python is random().
            sizes = {d.name: d.min + _below(rng, _below(rng, d.max - d.min + 1) + 1) for d in space.free}
            shapes = space.shapes(sizes)
            if shapes is not None and shapes not in taken:
                found[f"random-{number}"] = shapes
                taken.append(shapes)
                break
    return found


def _below(rng: random.Random, end: int) -> int:
    return int(rng.random() * end)


def _primes(dimension: Dimension) -> list[int]:
    """A prime near the geometric middle, and the greatest below max: they share no factor with tiles and vectors."""
    if dimension.max >= 2**31:
        return []  # no memory holds it, and looking would take long
    low, high = dimension.min + 1, dimension.max - 1
    middle = next((n for n in range(max(low, isqrt(dimension.min * dimension.max)), high + 1) if _is_prime(n)), None)
    greatest = next((n for n in range(high, low - 1, -1) if _is_prime(n)), None)
    return [n for n in (middle, greatest) if n is not None]


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, isqrt(number) + 1))


_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv}


def _formula(symbol: str, known: Mapping[str, Dimension]) -> ast.expr | None:
    """*symbol* as an expression of other symbols, where it is one and min, opt and max agree with it."""
    if symbol.isidentifier() or len(symbol) > _LONGEST_FORMULA:
        return None
    try:
        tree = ast.parse(symbol, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    for node in ast.walk(tree):
        named = isinstance(node, ast.Name) and node.id in known
        number = isinstance(node, ast.Constant) and type(node.value) is int
        combined = isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS
        if isinstance(node, ast.expr) and not (named or number or combined):
            return None
    for point in ("min", "opt", "max"):
        sizes = {name: getattr(dimension, point) for name, dimension in known.items()}
        if _evaluate(tree, sizes) != sizes[symbol]:
            return None
    return tree


def _evaluate(tree: ast.expr, sizes: Mapping[str, int]) -> int:
    """The value of *tree*; -1, which is no size, where it divides by zero."""
    if isinstance(tree, ast.Name):
        return sizes[tree.id]
    if isinstance(tree, ast.BinOp):
        left, right = _evaluate(tree.left, sizes), _evaluate(tree.right, sizes)
        if isinstance(tree.op, ast.FloorDiv) and not right:
            return -1
        return int(_OPERATORS[type(tree.op)](left, right))
    assert isinstance(tree, ast.Constant)
    assert isinstance(tree.value, int)
    return tree.value
