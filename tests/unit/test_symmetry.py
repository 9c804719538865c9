"""Pairs that ONNX Runtime takes and TensorRT does not, named before a GPU is asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import conv_net
from onnx import TensorProto, helper, numpy_helper

from pytest_trt.backends import BuildRequest
from pytest_trt.backends.onnxruntime import CpuBackend
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import apply_recipe, get_precision
from pytest_trt.spec.precision.ranges import calibration_tensors
from pytest_trt.spec.precision.symmetry import asymmetric_pairs, asymmetry_remark
from pytest_trt.spec.shapes import Profile


def pair(zero: np.ndarray | None, *, constant_node: bool = False, stored: np.ndarray | None = None) -> onnx.ModelProto:
    """x -> q -> dq -> y with *zero* as the zero point of both; with *stored*, that is dequantized and added."""
    inputs = ["scale", "zero"] if zero is not None else ["scale"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", *inputs], ["i"], name="q"),
        helper.make_node("DequantizeLinear", ["i", *inputs], ["r"], name="dq"),
    ]
    filled = [numpy_helper.from_array(np.float32(0.1), "scale")]
    if zero is not None and constant_node:
        nodes.insert(0, helper.make_node("Constant", [], ["zero"], value=numpy_helper.from_array(zero)))
    elif zero is not None:
        filled.append(numpy_helper.from_array(zero, "zero"))
    if stored is not None:
        filled.append(numpy_helper.from_array(stored, "stored"))
        nodes.append(helper.make_node("DequantizeLinear", ["stored", "scale"], ["w"], name="weights"))
        nodes.append(helper.make_node("Add", ["r", "w"], ["y"]))
    else:
        nodes.append(helper.make_node("Relu", ["r"], ["y"]))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], filled)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("constant_node", [False, True])
@pytest.mark.parametrize(
    ("zero", "why"),
    [
        (np.int8(0), None),
        (np.int8(3), "has the zero point 3"),
        (np.asarray([0, -7, 2, 0], np.int8), "has the zero point -7"),
        (np.uint8(0), "has uint8"),
        (np.uint8(128), "has uint8"),
        (np.int16(0), "has int16"),
        (np.uint16(0), "has uint16"),
    ],
    ids=str,
)
def test_a_zero_point_says_the_type_and_must_be_zero(zero: np.ndarray, why: str | None, constant_node: bool):
    found = asymmetric_pairs(pair(np.asarray(zero), constant_node=constant_node))

    assert found == ({} if why is None else {"q": why, "dq": why})


def test_without_a_zero_point_onnx_means_uint8():
    proto = pair(None)
    assert asymmetric_pairs(proto) == {"q": "has uint8"}

    proto.graph.node[0].attribute.append(helper.make_attribute("output_dtype", TensorProto.INT8))
    assert asymmetric_pairs(proto) == {}


@pytest.mark.parametrize(("dtype", "found"), [(np.int8, {}), (np.uint8, {"weights": "has uint8"}), (np.int32, {})])
def test_stored_weights_say_their_type(dtype: type, found: dict[str, str]):
    assert asymmetric_pairs(pair(np.asarray(0, np.int8), stored=np.ones(4, dtype))) == found


def test_pairs_in_subgraphs_count_and_read_outer_constants():
    inner = pair(np.asarray(5, np.int8))
    zero = inner.graph.initializer.pop()
    branch = helper.make_graph(
        list(inner.graph.node), "branch", [], list(inner.graph.output), [inner.graph.initializer[0]]
    )
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)],
        "g",
        [condition, inner.graph.input[0]],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 4])],
        [zero],
    )

    assert asymmetric_pairs(helper.make_model(graph)) == dict.fromkeys(["q", "dq"], "has the zero point 5")


@pytest.mark.parametrize("name", ["int8", "fp8"])
def test_our_own_recipes_are_symmetric(name: str):
    proto, precision = conv_net(), get_precision(name)
    ranges = dict.fromkeys(calibration_tensors(proto, {}), (-4.0, 4.0)) if precision.calibrated else None

    assert asymmetry_remark(apply_recipe(precision.make_recipe(), proto, ranges).proto) is None


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        (1, "'q' has uint8; quantize"),
        (2, "'q' has the zero point 3, 'dq' has the zero point 3; quantize"),
        (3, "'q' has uint8, and 2 more nodes; quantize"),
    ],
)
def test_the_remark_names_the_first_node_and_counts_the_others(nodes: int, said: str):
    stored = np.ones(4, np.uint8) if nodes == 3 else None
    zero = {1: None, 2: np.asarray(3, np.int8), 3: np.asarray(9, np.uint8)}[nodes]

    assert said in str(asymmetry_remark(pair(zero, stored=stored)))


def test_the_cpu_runs_it_and_says_what_the_gpu_will():
    model = Model.from_proto(pair(np.asarray(128, np.uint8)), "m")
    built = CpuBackend().build(BuildRequest(model, get_precision("int8"), Profile.parse("p", "x=1x4")))

    assert built.facts["remarks"] == [asymmetry_remark(model.proto)]


def test_what_onnx_runtime_quantizes_by_default_is_named(tmp_path: Path):
    quantization = pytest.importorskip("onnxruntime.quantization")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # a base of an untyped library
        def __init__(self) -> None:
            self.rows = iter([{"x": np.random.default_rng(0).random((2, 3, 8, 8), np.float32) + 1}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.rows, None)

    onnx.save(conv_net(), tmp_path / "float.onnx")
    quantization.quantize_static(tmp_path / "float.onnx", tmp_path / "int8.onnx", Reader())

    assert any("zero point" in why for why in asymmetric_pairs(onnx.load(tmp_path / "int8.onnx")).values())
