"""Hypothesis strategies for engines: shapes within a profile, inputs of a model, and the search for the worst input.

They need ``hypothesis``, which this package does not: it is imported when a strategy is made.

::

    @given(strategies.inputs(model, profile, ranges={"ids": (0, 30521)}))
    def test_engine(feeds):
        comparison = compare(engine(feeds), reference(feeds), tolerance=Tolerance(rtol=1e-2, atol=1e-3))
        strategies.target(comparison)
        assert comparison.ok, comparison.detail
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pytest_trt.errors import UsageError, nearest
from pytest_trt.spec.shape_points import ShapeSpace
from pytest_trt.spec.synthetic import synthetic_inputs
from pytest_trt.strategies.contents import Content, contents, limits_of

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

    from pytest_trt.accuracy.comparison import Comparison
    from pytest_trt.spec.model import Model
    from pytest_trt.spec.shapes import Profile, Shape

__all__ = ["Feeds", "inputs", "required", "shapes", "target", "value_ranges"]

Feeds = dict[str, NDArray[Any]]

# Precision -> the type whose limits are special values of its inputs.
_TARGETS = {"fp16": "float16", "bf16": "bfloat16", "fp8": "float8e4m3fn"}
# Hypothesis climbs on finite numbers only.
_MOST = 1e9


def required() -> ModuleType:
    """Return the ``hypothesis`` module. Raises UsageError that says how to get it."""
    try:
        import hypothesis
    except ImportError as error:
        raise UsageError(
            "pytest_trt.strategies needs hypothesis, which is not installed", hint='pip install "hypothesis>=6.125"'
        ) from error
    return hypothesis


def shapes(profile: Profile, model: Model | None = None) -> SearchStrategy[dict[str, Shape]]:
    """Draw a shape for every input, within min … max of *profile*; shrinks towards min.

    Axes of one symbol of *model* get one size. Unnamed axes (all of them, without *model*) move together where their
    position, min, opt and max are equal. Raises ProfileError when *profile* does not fit *model*.
    """
    specs = () if model is None else model.inputs
    if model is not None:
        profile.validate(specs)
    st, space = required().strategies, ShapeSpace(profile, specs)
    sizes = st.fixed_dictionaries({d.name: st.integers(d.min, d.max) for d in space.free})
    drawn: SearchStrategy[dict[str, Shape]] = sizes.map(space.shapes).filter(lambda found: found is not None)
    return drawn


def inputs(
    model: Model,
    profile: Profile,
    *,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    special_values: bool | str = False,
) -> SearchStrategy[Feeds]:
    """Draw an array for every input, of its type and a shape within *profile*; shrinks to the smallest shape, and to
    zeros (or what is nearest to them) with as few other elements as still matter.

    An array is one value everywhere, or zeros with up to four other elements, or noise of a drawn seed and amplitude
    with up to four elements set one by one: few choices, however large it is.

    :param ranges: least and greatest value by input, both included; see ``value_ranges``. Without one, floats lie
        within -4 … 4, integers are 0 and 1 (valid as mask, token and index alike).
    :param special_values: also draw, for floats and outside of their range: ±0, denormals, the least normal and the
        greatest finite value, ±Inf and NaN of the input's type, and the limits of the types an engine may compute in:
        of all of them (True), or of one precision (``"fp16"``).

    Raises InputsError for a range that is unknown or does not fit its type, or a type that cannot be fed; ProfileError;
    UsageError.
    """
    st, targets = required().strategies, _targets(special_values)
    drawn_shapes = shapes(profile, model)
    ranges = ranges or {}
    # It draws one value of each, and refuses what cannot be drawn.
    synthetic_inputs(model.inputs, {spec.name: (1,) * len(spec.shape) for spec in model.inputs}, ranges=ranges)
    fills = st.fixed_dictionaries(
        {spec.name: contents(st, spec, limits_of(spec, ranges.get(spec.name)), targets) for spec in model.inputs}
    )

    def build(drawn: tuple[dict[str, Shape], dict[str, Content]]) -> Feeds:
        return {spec.name: drawn[1][spec.name].array(drawn[0][spec.name]) for spec in model.inputs}

    return st.tuples(drawn_shapes, fills).map(build)  # type: ignore[no-any-return]  # hypothesis is imported late


def target(comparison: Comparison, *, label: str = "share of the tolerance") -> float:
    """Let Hypothesis climb towards inputs with a greater error: call it in a test with ``@given``, before what asserts.

    Returns the number that is climbed on: the share of the tolerance that the worst output uses, 1 at its limit. What
    is compared twice for one input, in two precisions say, needs a *label* each. Raises UsageError outside of a test
    that Hypothesis runs.
    """
    from pytest_trt.accuracy.usage import used_tolerance

    hypothesis = required()
    if not hypothesis.currently_in_test_context():
        raise UsageError(
            "strategies.target() steers a search of Hypothesis, and there is none",
            hint="call it in a test with @given, for each input that is drawn",
        )
    share = used_tolerance(comparison)
    hypothesis.target(min(share, _MOST), label=label)
    return share


def value_ranges(sets: Iterable[Mapping[str, NDArray[Any]]]) -> dict[str, tuple[float, float]]:
    """Return the least and greatest finite value of each input over real samples, for ``ranges``; booleans and complex
    numbers have none."""
    found: dict[str, tuple[float, float]] = {}
    for name, array in ((name, np.asarray(array)) for arrays in sets for name, array in arrays.items()):
        if array.dtype.kind in "bc":
            continue
        integer = array.dtype.kind in "iu"
        finite = array if integer else array[np.isfinite(array)]
        if finite.size:
            kind: type[float] = int if integer else float
            low, high = found.get(name, (math.inf, -math.inf))
            found[name] = min(low, kind(finite.min())), max(high, kind(finite.max()))
    return found


def _targets(special_values: bool | str) -> tuple[str, ...]:
    if isinstance(special_values, str):
        if special_values not in _TARGETS:
            raise UsageError(
                f"special_values={special_values!r}: no precision with limits of its own",
                hint=nearest(special_values, _TARGETS),
            )
        return (_TARGETS[special_values],)
    return tuple(_TARGETS.values()) if special_values else ()
