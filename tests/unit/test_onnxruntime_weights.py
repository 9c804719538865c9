"""Weights beside the graph: outputs to the last bit those of the whole model, whatever the weights' type."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import FLOAT, Array, model, node, run, weights

import pytest_trt.spec.model
from pytest_trt.backends.onnxruntime import GraphRunner
from pytest_trt.backends.onnxruntime.weights import without_weights
from pytest_trt.spec.model import Model

WIDTH = 96
X = np.random.default_rng(0).standard_normal((4, WIDTH)).astype(np.float32)


def product(weight: Array, *, bias: Array | None = None) -> onnx.ModelProto:
    """``x · weight``, with the weight cast to float32 where it is of another type, and a bias added."""
    nodes = [node("Cast", ["w"], ["c"], to=FLOAT), node("MatMul", ["x", "c"], ["m"]), node("Add", ["m", "b"], ["y"])]
    constants = {"w": weight, "b": np.zeros(WIDTH, np.float32) if bias is None else bias}
    return model(nodes, {"x": ["N", WIDTH]}, {"y": ["N", WIDTH]}, constants)


def square() -> Array:
    return weights(1, WIDTH, WIDTH, scale=0.1)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int8", "uint8", "int32", "int64", "bool"])
def test_outputs_are_those_of_the_whole_model(dtype: str):
    proto = product((square() * 50).astype(dtype))
    runner = GraphRunner(Model.from_proto(proto, "net"), ["m", "y"])
    found = runner.run({"x": X})
    np.testing.assert_array_equal(found["y"], run(proto, {"x": X}, level="ORT_DISABLE_ALL")[0])
    np.testing.assert_array_equal(found["m"], found["y"])


def test_only_what_is_large_leaves_the_graph():
    proto = product(square())
    graph, beside = without_weights(proto)
    assert list(beside) == ["w"]
    np.testing.assert_array_equal(beside["w"], square())
    assert not graph.graph.initializer[0].raw_data
    assert [tensor.name for tensor in graph.graph.initializer] == ["w", "b"]


def test_a_large_weight_of_a_type_that_stays_is_whole():
    proto = product((square() * 50).astype(np.int64))
    graph, beside = without_weights(proto)
    assert not beside
    assert graph.graph.initializer[0] == proto.graph.initializer[0]


def test_a_model_above_what_one_message_holds(monkeypatch: pytest.MonkeyPatch):
    proto = product((square() * 50).astype(np.int64))
    expected = run(proto, {"x": X}, level="ORT_DISABLE_ALL")[0]
    monkeypatch.setattr(pytest_trt.spec.model, "_MAX_MESSAGE_BYTES", 1000)
    for outputs in (None, ["y"]):
        found = GraphRunner(Model.from_proto(proto, "net"), outputs).run({"x": X})
        np.testing.assert_array_equal(found["y"], expected)


def test_a_weight_that_is_an_input_as_well():
    """As models before IR version 4 list them: still no feed is wanted."""
    proto = product(square())
    proto.graph.input.append(onnx.helper.make_tensor_value_info("w", FLOAT, [WIDTH, WIDTH]))
    found = GraphRunner(Model.from_proto(proto, "net"), ["y"]).run({"x": X})
    np.testing.assert_array_equal(found["y"], run(product(square()), {"x": X}, level="ORT_DISABLE_ALL")[0])
