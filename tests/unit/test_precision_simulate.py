"""Simulated 16-bit rounding: bit for bit what NumPy rounds, at every optimization level of ONNX Runtime."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from networks import (
    BOOL,
    FLOAT,
    FLOAT16,
    INT64,
    attention,
    conv_net,
    layer_norm,
    model,
    node,
    ops,
    run,
    types_of,
    weights,
)
from onnx import helper

from pytest_trt.errors import PrecisionError
from pytest_trt.spec.precision import apply_recipe, get_precision
from pytest_trt.spec.precision.constants import make_tensor, round_to, widened
from pytest_trt.spec.precision.graph import BFLOAT16
from pytest_trt.spec.precision.simulate import simulate

LOW = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
RECIPES = {"float16": "fp16", "bfloat16": "bf16"}
LEVELS = ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"]
# Relative distance of 1 to the next number.
EPSILON = {"float16": 2.0**-10, "bfloat16": 2.0**-7}

both = pytest.mark.parametrize("low", ["float16", "bfloat16"])


def rounded(values: np.ndarray, low: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        return values.astype(LOW[low]).astype(np.float32)


def simulated(proto, low: str, **options):
    typed = apply_recipe(get_precision(RECIPES[low]).make_recipe(**options), proto).proto
    before = typed.SerializeToString(deterministic=True)
    result = simulate(typed, low)
    assert typed.SerializeToString(deterministic=True) == before
    return result


@both
@given(values=arrays(np.float32, st.integers(0, 8), elements=st.floats(width=32)))
@settings(max_examples=300)
def test_rounding_agrees_with_numpy_and_ml_dtypes(low, values):
    data_type = {"float16": FLOAT16, "bfloat16": BFLOAT16}[low]
    expected = rounded(values, low)
    np.testing.assert_array_equal(round_to(values, data_type), expected)
    np.testing.assert_array_equal(widened(make_tensor("t", values, data_type)), expected)


@both
@pytest.mark.parametrize("level", LEVELS)
def test_onnx_runtime_keeps_every_rounding_at_every_level(low, level):
    """x → MatMul → Relu → Mul: an output that differs in one bit means that a pair of casts was removed."""
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Relu", ["a"], ["b"]),
        node("Mul", ["b", "c"], ["y"]),
    ]
    w, c, x = weights(1, 64, 64, scale=0.125), np.array([1.1], np.float32), weights(2, 8, 64)
    proto = model(nodes, {"x": [8, 64]}, {"y": [8, 64]}, {"w": w, "c": c})
    (actual,) = run(simulated(proto, low), {"x": x}, level=level)

    product = rounded(rounded(x, low) @ rounded(w, low), low)
    expected = rounded(np.maximum(product, 0) * rounded(c, low), low)
    # The sum of 64 products may take another order here than there, which can move a value over a rounding border.
    assert np.mean(actual == expected) > 0.99
    assert np.array_equal(actual, rounded(actual, low))
    assert not np.array_equal(actual, np.maximum(x @ w, 0) * c)


@both
@pytest.mark.parametrize("level", LEVELS)
def test_elementwise_chains_round_after_every_step(low, level):
    """No sums here, so every bit must agree."""
    nodes = [node("Add", ["x", "c"], ["a"]), node("Sub", ["a", "c"], ["b"]), node("Mul", ["b", "c"], ["y"])]
    c, x = np.array([3.3], np.float32), weights(2, 1000)
    proto = model(nodes, {"x": [1000]}, {"y": [1000]}, {"c": c})
    (actual,) = run(simulated(proto, low), {"x": x}, level=level)
    lx, lc = rounded(x, low), rounded(c, low)
    expected = rounded(rounded(rounded(lx + lc, low) - lc, low) * lc, low)
    np.testing.assert_array_equal(actual, expected)


@both
@pytest.mark.parametrize(
    ("make", "feeds"),
    [
        (conv_net, {"x": weights(9, 2, 3, 8, 8)}),
        (lambda: layer_norm(1e-5), {"x": weights(9, 4, 16)}),
        (
            lambda: attention(-10000.0),
            {"x": weights(9, 2, 6, 16), "keep": np.array([[[1, 1, 1, 1, 0, 0]], [[1, 0, 1, 1, 1, 1]]])},
        ),
        (
            lambda: attention(float(np.finfo(np.float32).min)),
            {"x": weights(9, 2, 6, 16), "keep": np.array([[[1, 1, 1, 1, 0, 0]], [[0, 0, 0, 0, 0, 0]]])},
        ),
    ],
    ids=["conv", "layer_norm", "attention", "attention_float32_min"],
)
def test_networks_lose_a_few_ulps_and_never_none(low, make, feeds):
    proto = make()
    (expected,) = run(proto, feeds)
    (actual,) = run(simulated(proto, low), feeds)
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert EPSILON[low] / 16 < error < EPSILON[low] * 4


@both
def test_the_result_is_float32_with_the_same_inputs_and_outputs(low):
    result = simulated(conv_net(), low)
    original = conv_net()
    assert list(result.graph.input) == list(original.graph.input)
    assert list(result.graph.output) == list(original.graph.output)
    assert {t.data_type for t in result.graph.initializer} == {FLOAT}
    low_tensors = {name for name, t in types_of(result).items() if t != FLOAT}
    readers = [n.op_type for n in result.graph.node if low_tensors & set(n.input)]
    assert set(readers) == {"Cast"}


def test_operators_that_round_nothing_get_no_casts():
    nodes = [node("Sigmoid", ["x"], ["a"]), node("Transpose", ["a"], ["b"]), node("Relu", ["b"], ["y"])]
    result = simulated(model(nodes, {"x": [2, 3]}, {"y": [3, 2]}), "float16")
    # In: a pair for x; Sigmoid: a pair; out: the former Cast to float32.
    assert ops(result) == ["Cast", "Cast", "Sigmoid", "Cast", "Cast", "Transpose", "Relu", "Cast"]


def test_float16_inputs_and_outputs_stay_float16():
    result = simulated(conv_net(), "float16", keep_io=False)
    x = weights(9, 2, 3, 8, 8).astype(np.float16)
    (actual,) = run(result, {"x": x})
    (expected,) = run(conv_net(), {"x": x.astype(np.float32)})
    assert actual.dtype == np.float16
    np.testing.assert_allclose(actual, expected, atol=4e-3 * np.abs(expected).max())


def test_integers_cast_to_the_low_type_are_rounded_too():
    nodes = [
        node("Cast", ["i"], ["h"], to=FLOAT16),
        node("Add", ["h", "h"], ["s"]),
        node("Cast", ["s"], ["y"], to=FLOAT),
    ]
    proto = model(nodes, {"i": (INT64, [2])}, {"y": [2]})
    np.testing.assert_array_equal(run(simulate(proto, "float16"), {"i": np.array([2049, 7])})[0], [4096, 14])


def test_what_cannot_be_simulated_is_refused():
    with pytest.raises(PrecisionError, match="cannot simulate 'float8'") as caught:
        simulate(conv_net(), "float8")
    assert caught.value.hint == "known: bfloat16, float16"
    with pytest.raises(PrecisionError, match="has no float16 tensor"):
        simulate(conv_net(), "float16")


def test_low_types_in_subgraphs_are_refused():
    branch = helper.make_graph(
        [node("Cast", ["x"], ["h"], to=FLOAT16), node("Cast", ["h"], ["t"], to=FLOAT)],
        "branch",
        [],
        [helper.make_tensor_value_info("t", FLOAT, [2])],
    )
    nodes = [
        node("Cast", ["x"], ["h16"], to=FLOAT16),
        node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch),
    ]
    proto = model(nodes, {"x": [2], "flag": (BOOL, [])}, {"y": [2]})
    with pytest.raises(PrecisionError, match="in the subgraph 'branch'"):
        simulate(proto, "float16")
    reading = helper.make_graph(
        [node("Cast", ["h16"], ["t"], to=FLOAT)], "reading", [], [helper.make_tensor_value_info("t", FLOAT, [2])]
    )
    nodes[1] = node("If", ["flag"], ["y"], then_branch=reading, else_branch=reading)
    with pytest.raises(PrecisionError, match="where a subgraph reads it"):
        simulate(model(nodes, {"x": [2], "flag": (BOOL, [])}, {"y": [2]}), "float16")
