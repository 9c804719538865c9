"""What an array holds, whatever its shape, and how Hypothesis draws that: in few choices, the simplest first."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pytest_trt.spec.dtypes import numpy_dtype

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

    from pytest_trt.spec.model import TensorSpec
    from pytest_trt.spec.shapes import Shape

__all__ = ["Content", "contents", "limits_of"]

# What floats lie in where nothing is known: about all of a standard normal distribution.
_DEFAULT_RANGE = (-4.0, 4.0)
_MOST_ELEMENTS = 4
_STEPS = 1000


@dataclass(frozen=True)
class Content:
    """What an array holds, whatever its shape: *fill* or, where *percent* is not 0, noise that goes so far to both ends
    of the range; and some elements that are set one by one."""

    spec: TensorSpec
    limits: tuple[float, float]
    fill: Any
    elements: tuple[tuple[int, Any], ...] = ()
    percent: int = 0
    seed: int = 0

    def array(self, shape: Shape) -> NDArray[Any]:
        dtype = numpy_dtype(self.spec.dtype)
        found: NDArray[Any] = np.full(shape, self.fill, dtype)
        if self.percent:
            found = np.asarray(self._noise(np.random.Generator(np.random.PCG64(self.seed)), shape)).astype(dtype)
        for position, value in self.elements if found.size else ():
            found.reshape(-1)[position % found.size] = value
        return found

    def _noise(self, rng: np.random.Generator, shape: Shape) -> NDArray[Any]:
        low, high = self.limits
        centre = max(low, min(high, 0))
        if self.spec.dtype == "bool":
            return rng.random(shape) * 200 < self.percent
        if _is_integer(self.spec):
            # In whole numbers: floats would round 64-bit ones.
            low, high = (int(centre + (int(end) - int(centre)) * self.percent // 100) for end in (low, high))
            return rng.integers(low, high, shape, dtype=np.uint64 if high >= 2**63 else np.int64, endpoint=True)
        # As products: a difference overflows where the range is all of the type.
        share, amplitude = rng.random(shape), self.percent / 100
        noise: NDArray[Any] = (low * (1 - share) + high * share) * amplitude + centre * (1 - amplitude)
        if self.spec.dtype.startswith("complex"):
            return noise * (1 + 1j)
        return np.where(np.abs(noise) < _least(numpy_dtype(self.spec.dtype)), centre, noise)


def contents(
    st: Any, spec: TensorSpec, limits: tuple[float, float], targets: tuple[str, ...]
) -> SearchStrategy[Content]:
    """Draw what an array of *spec* holds; *targets* are the types whose limits are special values."""
    value = _values(st, spec, limits, targets)
    simplest = False if spec.dtype == "bool" else max(limits[0], min(limits[1], 0))
    elements = st.tuples(st.integers(0, 2**31 - 1), value)
    content = functools.partial(st.builds, Content, st.just(spec), st.just(limits))
    # From the simplest to the least simple, which is the way that Hypothesis shrinks alternatives.
    found: SearchStrategy[Content] = st.one_of(
        content(value),
        content(st.just(simplest), st.lists(elements, min_size=1, max_size=_MOST_ELEMENTS).map(tuple)),
        content(
            st.just(simplest),
            st.lists(elements, max_size=_MOST_ELEMENTS).map(tuple),
            st.integers(1, 100),
            st.integers(0, 2**32 - 1),
        ),
    )
    return found


def _values(st: Any, spec: TensorSpec, limits: tuple[float, float], targets: tuple[str, ...]) -> Any:
    low, high = limits
    if spec.dtype == "bool":
        return st.booleans()
    if _is_integer(spec):
        return st.integers(int(low), int(high))
    if spec.dtype.startswith("complex"):
        return st.builds(complex, st.floats(low, high), st.floats(low, high))
    dtype = numpy_dtype(spec.dtype)
    value = _floats(st, dtype, float(low), float(high))
    if not targets:
        return value
    # Drawn by position, so that the simplest is 0 and each keeps its bits.
    special = _special(dtype, targets)
    return st.one_of(value, st.integers(0, len(special) - 1).map(lambda index: special[index]))


def _is_integer(spec: TensorSpec) -> bool:
    return spec.dtype.startswith(("int", "uint"))


def _floats(st: Any, dtype: np.dtype[Any], low: float, high: float) -> SearchStrategy[float]:
    least, centre = _least(dtype), max(low, min(high, 0.0)) + 0.0

    def step(count: int) -> float:
        share, end = abs(count) / _STEPS, high if count > 0 else low
        return end * share + centre * (1 - share)

    # Floats shrink to round numbers; target() can climb on whole ones only, of whatever range.
    either = st.one_of(st.floats(low, high), st.integers(-_STEPS, _STEPS).map(step))
    found: SearchStrategy[float] = either.map(lambda value: centre if abs(value) < least else value)
    return found


def _least(dtype: np.dtype[Any]) -> float:
    """What is nearer to 0 is a denormal or -0: a special value, which comes on demand only."""
    import ml_dtypes

    return float(ml_dtypes.finfo(dtype).smallest_normal)


def _special(dtype: np.dtype[Any], targets: tuple[str, ...]) -> NDArray[Any]:
    """The special values of *dtype*, the simplest first, and the limits of the *targets* that it can express."""
    import ml_dtypes

    found: list[float] = [0.0]
    for kind in (dtype, *map(numpy_dtype, targets)):
        info: Any = ml_dtypes.finfo(kind)
        greatest = float(info.max)
        step = math.ldexp(float(info.eps), math.frexp(greatest)[1] - 1)
        found += [greatest, float(info.smallest_normal), float(info.smallest_subnormal)]
        if kind != dtype:
            found.append(greatest + step / 2)  # the first value that is rounded to infinity
    found += [math.inf, math.nan]
    signed = np.array([s * value for value in dict.fromkeys(found) for s in (1.0, -1.0)])
    with np.errstate(all="ignore"):
        special: NDArray[Any] = signed.astype(dtype)
        # What another type made of itself, a 0 of a denormal say, is there already.
        same = (special.astype(np.float64) == signed) | np.isnan(signed)
    kept: NDArray[Any] = special[same]
    return kept


def limits_of(spec: TensorSpec, given: tuple[float, float] | None) -> tuple[float, float]:
    """The least and greatest value of an input: those that are *given*, or usual ones of its type."""
    import ml_dtypes

    if given is not None:
        return given
    if spec.dtype == "bool" or _is_integer(spec):
        return 0, 1
    if spec.dtype.startswith("complex"):
        return _DEFAULT_RANGE
    info = ml_dtypes.finfo(numpy_dtype(spec.dtype))
    return max(_DEFAULT_RANGE[0], float(info.min)), min(_DEFAULT_RANGE[1], float(info.max))
