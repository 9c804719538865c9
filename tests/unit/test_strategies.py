"""Strategies: what is drawn fits the model, shrinks to the simplest that fails, and costs few choices."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument
from onnx import TensorProto, helper

from pytest_trt import compare, strategies
from pytest_trt.accuracy.usage import used_tolerance
from pytest_trt.errors import InputsError, ProfileError, UnsupportedModelError, UsageError
from pytest_trt.spec.dtypes import numpy_dtype
from pytest_trt.spec.model import Model
from pytest_trt.spec.shape_points import outside
from pytest_trt.spec.shapes import Profile

TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "float64": TensorProto.DOUBLE,
    "bfloat16": TensorProto.BFLOAT16,
    "float8e4m3fn": TensorProto.FLOAT8E4M3FN,
    "int64": TensorProto.INT64,
    "uint64": TensorProto.UINT64,
    "int8": TensorProto.INT8,
    "int4": TensorProto.INT4,
    "bool": TensorProto.BOOL,
    "complex64": TensorProto.COMPLEX64,
    "string": TensorProto.STRING,
}


def model(**inputs: tuple[str, list[int | str | None]]) -> Model:
    """A model of which only the inputs matter."""
    values = [helper.make_tensor_value_info(name, TYPES[kind], shape) for name, (kind, shape) in inputs.items()]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in inputs]
    outputs = [helper.make_tensor_value_info(f"{n}_out", TYPES[kind], shape) for n, (kind, shape) in inputs.items()]
    return Model.from_proto(helper.make_model(helper.make_graph(nodes, "g", values, outputs)), "m")


TWO = model(x=("float32", ["N", 3]), ids=("int64", ["N", "L"]))
PROFILE = Profile.parse("p", "x=1x3:8x3:32x3,ids=1x2:8x16:32x64")


def smallest(strategy: st.SearchStrategy[Any], fails: Callable[[Any], bool]) -> Any:
    """The simplest draw that *fails*, as a failing test would show it."""
    return find(
        strategy,
        fails,
        settings=settings(
            max_examples=300,
            database=None,
            phases=[Phase.generate, Phase.shrink],  # nobody reads the explanation, which takes most of the time
            suppress_health_check=list(HealthCheck),
        ),
        random=__import__("random").Random(0),
    )


# Shapes.


@given(strategies.shapes(PROFILE, TWO))
def test_shapes_lie_within_the_profile_with_one_size_per_symbol(shapes: dict[str, tuple[int, ...]]) -> None:
    assert outside(PROFILE, shapes) is None
    assert shapes["x"][0] == shapes["ids"][0]


def test_shapes_shrink_towards_min() -> None:
    drawn = strategies.shapes(PROFILE, TWO)

    assert smallest(drawn, lambda shapes: True) == PROFILE.at("min")
    assert smallest(drawn, lambda s: s["x"][0] % 2 == 1 and s["x"][0] >= 5 and s["ids"][1] > 9) == {
        "x": (5, 3),
        "ids": (5, 10),
    }


def test_without_a_model_equal_axes_move_together() -> None:
    profile = Profile.parse("p", "a=1x4:2x8:4x16,b=1x4:2x8:4x16")

    @given(strategies.shapes(profile))
    def check(shapes: dict[str, tuple[int, ...]]) -> None:
        assert shapes["a"] == shapes["b"]

    check()


def test_a_profile_of_another_model_is_refused() -> None:
    with pytest.raises(ProfileError, match="no input 'z'"):
        strategies.shapes(Profile.parse("p", "z=1"), TWO)


# Inputs.


@pytest.mark.parametrize("kind", [name for name in TYPES if name != "string"])
@pytest.mark.parametrize("special", [False, True])
def test_arrays_have_their_type_and_lie_in_their_range(kind: str, special: bool) -> None:
    one = model(x=(kind, ["N", 2]))
    ranged = kind not in ("bool", "complex64")
    profile = Profile.parse("p", "x=0x2:3x2:6x2")

    @settings(max_examples=60)
    @given(strategies.inputs(one, profile, ranges={"x": (1, 6)} if ranged else None, special_values=special))
    def check(feeds: dict[str, np.ndarray]) -> None:
        x = feeds["x"]
        assert x.dtype == numpy_dtype(kind)
        assert outside(profile, {"x": x.shape}) is None
        if ranged and not (special and "float" in kind):
            values = x.astype(np.float64)
            assert np.all((values >= 1) & (values <= 6))

    check()


def test_64_bit_integers_keep_their_last_bits() -> None:
    one, profile = model(x=("uint64", [4])), Profile.parse("p", "x=4")

    @given(strategies.inputs(one, profile, ranges={"x": (2**64 - 2**11, 2**64 - 2**11)}))
    def check(feeds: dict[str, np.ndarray]) -> None:
        assert feeds["x"].tolist() == [2**64 - 2**11] * 4

    check()


def test_the_simplest_input_is_zeros_of_the_smallest_shape() -> None:
    found = smallest(strategies.inputs(TWO, PROFILE, ranges={"ids": (5, 9)}), lambda feeds: True)

    assert {n: (a.shape, set(a.reshape(-1).tolist())) for n, a in found.items()} == {
        "x": ((1, 3), {0.0}),
        "ids": ((1, 2), {5}),
    }


def test_noise_is_reached_and_a_single_large_value_is_left_of_it() -> None:
    drawn = strategies.inputs(TWO, PROFILE, ranges={"x": (-500, 500)})

    assert len(np.unique(smallest(drawn, lambda feeds: len(np.unique(feeds["x"])) > 20)["x"])) > 20
    found = smallest(drawn, lambda f: f["x"].shape[0] % 2 == 1 and f["x"].shape[0] >= 5 and f["x"].max() > 100)
    assert found["x"].shape == (5, 3)
    # Which of the small ones it is, 101.0 or 100.5, depends on hypothesis, which also draws constants of the modules
    # that are loaded.
    (large,) = set(found["x"].reshape(-1).tolist()) - {0.0}
    assert 100 < large <= 101
    assert set(found["ids"].reshape(-1).tolist()) == {0}


def test_one_element_among_zeros_is_reached() -> None:
    found = smallest(strategies.inputs(TWO, PROFILE), lambda feeds: (feeds["x"] == 0).sum() == feeds["x"].size - 1)

    assert found["x"].shape == (1, 3)
    assert np.abs(found["x"]).max() == 1


FLOAT = np.finfo(np.float32)
BFLOAT = ml_dtypes.finfo(ml_dtypes.bfloat16)


@pytest.mark.parametrize(
    ("special", "values"),
    [
        (True, [0, np.inf, np.nan, FLOAT.max, FLOAT.tiny, FLOAT.smallest_subnormal, 65504, 448, float(BFLOAT.max)]),
        ("fp16", [0, np.inf, np.nan, FLOAT.max, 65504, 65520, 2.0**-24, 2.0**-14]),
    ],
)
def test_special_values_come_on_demand(special: bool | str, values: list[float]) -> None:
    one, seen = model(x=("float32", [1])), set()

    @settings(max_examples=1500, derandomize=True, database=None)
    @given(strategies.inputs(one, Profile.parse("p", "x=1"), special_values=special))
    def collect(feeds: dict[str, np.ndarray]) -> None:
        seen.add(feeds["x"].tobytes())

    collect()
    assert {np.float32(sign * value).tobytes() for value in values for sign in (1, -1)} <= seen


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_without_demand_there_are_no_special_values(kind: str) -> None:
    one, profile = model(x=(kind, [3])), Profile.parse("p", "x=3")
    least = float(np.finfo(kind).tiny)

    @settings(max_examples=300)
    @given(strategies.inputs(one, profile, ranges={"x": (-1e-3, 1e-3)}))
    def check(feeds: dict[str, np.ndarray]) -> None:
        x = feeds["x"]
        assert np.all(np.isfinite(x))
        assert not np.any(np.signbit(x) & (x == 0))
        assert np.all((x == 0) | (np.abs(x) >= least))

    check()


def test_a_large_array_costs_few_choices() -> None:
    """Drawn element by element, so many elements would overrun what an example may hold."""
    one, profile = model(x=("float32", ["N", 100])), Profile.parse("p", "x=1000x100")

    found = smallest(strategies.inputs(one, profile), lambda feeds: float(np.std(feeds["x"])) > 0.5)

    assert found["x"].shape == (1000, 100)


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"z": (0, 1)}, "no input of the model"),
        ({"x": (1, 0)}, "no interval"),
        ({"ids": (0, 1.5)}, "not made of integers"),
        ({"x": (0, 1e39)}, "does not fit the type"),
    ],
)
def test_ranges_that_cannot_be_drawn_are_refused(ranges: dict[str, tuple[float, float]], message: str) -> None:
    with pytest.raises(InputsError, match=message):
        strategies.inputs(TWO, PROFILE, ranges=ranges)


def test_types_and_precisions_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="holds strings"):
        strategies.inputs(model(x=("string", [1])), Profile.parse("p", "x=1"))
    with pytest.raises(UsageError, match="special_values='fp61'"):
        strategies.inputs(TWO, PROFILE, special_values="fp61")


def test_ranges_of_real_samples() -> None:
    sets = [
        {"x": np.array([1.5, np.nan, -2]), "ids": np.array([3, 2**60 + 1]), "m": np.array([True])},
        {"x": np.array([np.inf, 4], ml_dtypes.bfloat16), "ids": np.array([], np.int64)},
    ]

    assert strategies.value_ranges(sets) == {"x": (-2.0, 4.0), "ids": (3, 2**60 + 1)}


# Without hypothesis.


def climbed(test: Callable[[dict[str, Any]], object]) -> None:
    given(strategies.inputs(TWO, PROFILE, ranges={"x": (0, 1)}))(test)()


def test_the_error_of_a_test_of_one_s_own_is_climbed_on() -> None:
    """It grows with the rows up to some number, and is 0 beyond: the climb ends there, drawing alone does not."""
    most, rows = sum(range(3600)), Profile.parse("p", "x=1x4:8x4:10000000x4")

    def worst(seeded: int, *, climbs: bool) -> float:
        shares = []

        @settings(max_examples=300, database=None, deadline=None, phases=[Phase.generate, Phase.target])
        @seed(seeded)
        @given(strategies.shapes(rows))
        def test(drawn: dict[str, tuple[int, ...]]) -> None:
            error = drawn["x"][0] / most if drawn["x"][0] <= most else 0.0
            comparison = compare({"y": np.array([error])}, {"y": np.zeros(1)}, rtol=0.0, atol=1.0)
            shares.append(strategies.target(comparison) if climbs else used_tolerance(comparison))

        test()
        return max(shares)

    assert sorted(worst(n, climbs=True) for n in range(4))[1] == 1.0
    assert sorted(worst(n, climbs=False) for n in range(4))[-2] < 1.0


def test_an_infinite_error_is_no_reason_to_stop() -> None:
    seen = []

    @settings(max_examples=20, database=None)
    def test(feeds: dict[str, Any]) -> None:
        comparison = compare({"y": np.array([np.nan])}, {"y": np.array([0.0])})
        seen.append(strategies.target(comparison))

    climbed(test)

    assert set(seen) == {np.inf}


def test_two_comparisons_of_one_input_need_a_label_each() -> None:
    comparison = compare({"y": np.array([1.0])}, {"y": np.array([1.0])})

    @settings(max_examples=5, database=None)
    def labelled(feeds: dict[str, Any]) -> None:
        strategies.target(comparison, label="fp16")
        strategies.target(comparison, label="int8")

    @settings(max_examples=5, database=None)
    def unlabelled(feeds: dict[str, Any]) -> None:
        strategies.target(comparison)
        strategies.target(comparison)

    climbed(labelled)
    with pytest.raises(InvalidArgument, match="would overwrite"):
        climbed(unlabelled)


def test_outside_of_a_search_there_is_nothing_to_steer() -> None:
    with pytest.raises(UsageError, match="steers a search of Hypothesis"):
        strategies.target(compare({"y": np.array([1.0])}, {"y": np.array([1.0])}))


def test_the_module_loads_without_hypothesis_and_says_what_is_missing() -> None:
    code = """
import sys
sys.modules["hypothesis"] = None
from pytest_trt import strategies
from pytest_trt.errors import UsageError
from pytest_trt.spec.shapes import Profile
try:
    strategies.shapes(Profile.parse("p", "x=1"))
except UsageError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert "needs hypothesis, which is not installed" in done.stdout
    assert 'pip install "hypothesis' in done.stdout
