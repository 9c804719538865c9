"""int4: weights in blocks of 4-bit integers, and a model that still computes the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from networks import conv_net, find, model, node, ops, run, types_of, weights
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from pytest_trt.backends import BuildRequest, get_backend
from pytest_trt.errors import PrecisionError
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import RecipeResult, apply_recipe, get_precision
from pytest_trt.spec.precision.already import quantized_precisions
from pytest_trt.spec.precision.blocks import block_error, block_quantized, block_scales, pack
from pytest_trt.spec.precision.graph import copy_model
from pytest_trt.spec.shapes import Profile

FEEDS = {"x": weights(9, 4, 256)}
PROFILE = Profile.fixed("p", {"x": (4, 256)})


def network(opset: int = 17) -> onnx.ModelProto:
    """Two products over whole blocks, in both orientations, and one that sums over 100 values."""
    nodes = [
        node("MatMul", ["x", "w1"], ["a"], name="matmul"),
        node("Relu", ["a"], ["r"], name="relu"),
        node("Gemm", ["r", "w2", "b2"], ["g"], name="gemm", transB=1),
        node("MatMul", ["g", "w3"], ["y"], name="odd"),
    ]
    values = {
        "w1": weights(1, 256, 128, scale=0.06),
        "w2": weights(2, 100, 128, scale=0.12),
        "b2": weights(3, 100),
        "w3": weights(4, 100, 6, scale=0.1),
    }
    return model(nodes, {"x": ["N", 256]}, {"y": ["N", 6]}, values, opset=opset)


def int4(proto: onnx.ModelProto, **options) -> RecipeResult:
    before = proto.SerializeToString(deterministic=True)
    result = apply_recipe(get_precision("int4").make_recipe(**options), proto)
    assert proto.SerializeToString(deterministic=True) == before
    return result


def stored(proto: onnx.ModelProto, name: str) -> tuple[onnx.NodeProto, onnx.TensorProto, np.ndarray]:
    """DequantizeLinear, integers and scales of a node's weight."""
    dequantize = next(n for n in proto.graph.node if find(proto, name).input[1] in n.output)
    tensors = {t.name: t for t in proto.graph.initializer}
    return dequantize, tensors[dequantize.input[0]], numpy_helper.to_array(tensors[dequantize.input[1]])


def attributes(of: onnx.NodeProto) -> dict[str, int]:
    return {a.name: a.i for a in of.attribute}


def signal_to_noise_db(expected: np.ndarray, actual: np.ndarray) -> float:
    return float(10 * np.log10(np.square(expected).sum() / np.square(expected - actual).sum()))


def test_a_product_that_was_computed_by_hand():
    """Two blocks of 64 in one column: the first holds 0.7 and -0.26 → scale 0.1 → 7 and -3 (-2.6), the second 14 and
    3.1 → scale 2 → 7 and 2 (1.55). With x = 1 everywhere: y = 0.7 - 0.3 + 14 + 4."""
    weight = np.zeros((128, 1), np.float32)
    weight[0], weight[1], weight[64], weight[65] = 0.7, -0.26, 14.0, 3.1
    proto = model([node("MatMul", ["x", "w"], ["y"], name="mm")], {"x": [1, 128]}, {"y": [1, 1]}, {"w": weight})
    result = int4(proto, block_size=64)
    (actual,) = run(result.proto, {"x": np.ones((1, 128), np.float32)}, session__disable_quant_qdq="1")
    np.testing.assert_allclose(actual, [[18.4]], rtol=1e-6)
    np.testing.assert_allclose(stored(result.proto, "mm")[2], [[0.1], [2.0]], rtol=1e-6)


def test_blocks_lie_along_the_axis_that_is_summed_over():
    result = int4(network())
    dequantize, integers, scales = stored(result.proto, "matmul")
    assert attributes(dequantize) == {"axis": 0, "block_size": 128}
    assert (integers.data_type, list(integers.dims), scales.shape) == (TensorProto.INT4, [256, 128], (2, 128))
    dequantize, integers, scales = stored(result.proto, "gemm")
    assert attributes(dequantize) == {"axis": 1, "block_size": 128}
    assert (list(integers.dims), scales.shape) == ([100, 128], (100, 1))
    assert len(dequantize.input) == 2


def test_what_stays_is_said_with_its_reason():
    result = int4(network())
    assert result.notes["quantized"] == {"Gemm": 1, "MatMul": 1}
    assert result.notes["kept_nodes"] == {"odd": "its weight 'w3' sums over 100 values, no multiple of 128"}
    assert result.notes["weight_tensors"] == 2
    # 256·128 + 100·128 values in half a byte, 2·128 + 100 scales in 4 bytes.
    assert result.notes["weight_bytes"] == {"from": 4 * 45568, "to": 45568 // 2 + 4 * 356}
    assert ops(result.proto) == ["DequantizeLinear", "MatMul", "Relu", "DequantizeLinear", "Gemm", "MatMul"]
    names = {t.name for t in result.proto.graph.initializer}
    assert {"b2", "w3"} <= names
    assert not {"w1", "w2"} & names
    assert types_of(result.proto)["a"] == TensorProto.FLOAT


@pytest.mark.parametrize(("opset", "expected"), [(13, 21), (17, 21), (21, 21), (23, 23)])
def test_the_opset_is_raised_where_int4_is_not_yet_in(opset, expected):
    result = int4(network(opset))
    assert result.proto.opset_import[0].version == expected
    assert ("opset" in result.notes) == (opset < 21)
    onnx.checker.check_model(result.proto, full_check=True)


def test_an_opset_that_cannot_be_raised_is_refused():
    proto = network()
    function = onnx.helper.make_function(
        "own", "F", ["a"], ["b"], [node("Relu", ["a"], ["b"])], [onnx.helper.make_opsetid("", 17)]
    )
    proto.functions.append(function)
    with pytest.raises(PrecisionError, match="from opset 17 to 21: it has local functions") as caught:
        int4(proto)
    assert caught.value.hint == "export it again with opset 21 or newer"


def product() -> onnx.ModelProto:
    """What ONNX Runtime would fuse into an int4 product of its own, which rounds the activations as well."""
    values = {"w": weights(5, 256, 8)}
    return model([node("MatMul", ["x", "w"], ["y"], name="mm")], {"x": ["N", 256]}, {"y": ["N", 8]}, values)


@pytest.mark.parametrize("make", [network, product])
@pytest.mark.parametrize("backend", ["onnxruntime-cpu", "fake"])
def test_cpu_backends_multiply_with_the_rounded_weights(backend, make):
    result = int4(make())
    precision, chosen = get_precision("int4"), get_backend(backend)
    request = BuildRequest(Model.from_proto(result.proto, "net"), precision, PROFILE)
    built = chosen.build(request)
    session = chosen.load(built.plan, request)
    actual = session.run(FEEDS)["y"]
    session.close()

    assert "int4" in built.facts["simulated"]
    assert chosen.support(precision).kind == "simulated"
    (as_written,) = ReferenceEvaluator(result.proto).run(["y"], FEEDS)
    np.testing.assert_allclose(actual, as_written, atol=1e-4 * np.abs(as_written).max())
    (exact,) = run(make(), FEEDS)
    assert 10 < signal_to_noise_db(exact, actual) < 25


def test_smaller_blocks_are_more_exact():
    (exact,) = run(network(), FEEDS)
    noise = [
        signal_to_noise_db(exact, ReferenceEvaluator(int4(network(), block_size=size).proto).run(None, FEEDS)[0])
        for size in (128, 64)
    ]
    assert noise[0] < noise[1]


def test_one_weight_serves_all_that_read_it_alike():
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="first"),
        node("MatMul", ["a", "w"], ["b"], name="second"),
        node("Gemm", ["b", "w"], ["y"], name="turned", transB=1),
    ]
    proto = model(nodes, {"x": [2, 128]}, {"y": [2, 128]}, {"w": weights(1, 128, 128)})
    result = int4(proto)
    assert ops(result.proto).count("DequantizeLinear") == 2
    assert find(result.proto, "first").input[1] == find(result.proto, "second").input[1]
    assert find(result.proto, "first").input[1] != find(result.proto, "turned").input[1]


def test_a_tied_weight_stays_in_the_embedding():
    nodes = [
        node("Gather", ["table", "ids"], ["h"], name="embed"),
        node("Transpose", ["table"], ["turned"], name="turn", perm=[1, 0]),
        node("MatMul", ["h", "turned"], ["y"], name="head"),
    ]
    proto = model(nodes, {"ids": (TensorProto.INT64, [3])}, {"y": [3, 20]}, {"table": weights(1, 20, 128)})
    result = int4(proto)
    assert "Transpose" not in ops(result.proto)
    assert "table" in {t.name for t in result.proto.graph.initializer}
    feeds = {"ids": np.array([0, 7, 19])}
    actual = ReferenceEvaluator(result.proto).run(None, feeds)[0]
    assert signal_to_noise_db(run(proto, feeds)[0], actual) > 15


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"exclude_ops": ["MatMul", "Gemm"]}, "nothing to do in int4", "matmul: op type MatMul is excluded"),
        ({"exclude_nodes": ["matmull"]}, "no node 'matmull'", "did you mean 'matmul'?"),
        ({"block_size": 32}, "recipe int4: block_size=32", "TensorRT takes 64 and 128"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_hint(options, message, hint):
    with pytest.raises(PrecisionError, match=message) as caught:
        int4(network(), **options)
    assert hint in caught.value.hint


def test_operands_without_a_constant_matrix_are_kept():
    nodes = [
        node("MatMul", ["x", "v"], ["a"], name="dynamic"),
        node("MatMul", ["c", "a"], ["b"], name="constant_first"),
        node("MatMul", ["b", "t"], ["d"], name="batched"),
        node("MatMul", ["d", "w"], ["y"], name="quantized"),
    ]
    values = {"c": weights(1, 2, 128, 128), "t": weights(2, 2, 128, 128), "w": weights(3, 128, 128)}
    proto = model(nodes, {"x": [2, 128, 128], "v": [2, 128, 128]}, {"y": [2, 128, 128]}, values)
    assert int4(proto).notes["kept_nodes"] == {
        "dynamic": "its weight 'v' is no constant",
        "constant_first": "its weight 'a' is no constant",
        "batched": "its weight 't' has 3 dimensions, not 2",
    }


def test_a_network_without_whole_blocks_is_refused():
    with pytest.raises(PrecisionError, match="nothing to do in int4") as caught:
        int4(conv_net())
    assert "gemm: its weight 'w3' sums over 8 values" in caught.value.hint


def test_an_int4_model_is_taken_as_it_is_and_by_no_other_name():
    typed = int4(network()).proto
    assert quantized_precisions(typed) == ("int4",)
    again = int4(typed)
    assert again.proto is typed
    assert again.notes == {"already_quantized": True}
    for other in ("fp32", "fp16", "int8", "fp8", "int8-minmax"):
        with pytest.raises(PrecisionError, match=r"quantized|Q/DQ") as caught:
            apply_recipe(get_precision(other).make_recipe(), typed, {})
        assert "ask for int4, which takes it as it is" in caught.value.hint


def test_ensures_sees_wrong_integers_and_scales():
    made, proto = get_precision("int4").make_recipe(), network()
    result = made.call(proto, None)
    made.ensures(proto, result)
    for name, change, message in (
        ("w1_int4", lambda t: setattr(t, "raw_data", bytes(len(t.raw_data))), "'matmul' is off by"),
        ("w2_scale", lambda t: t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(t) * 0, t.name)), "scales"),
    ):
        broken = copy_model(result.proto)
        change(next(t for t in broken.graph.initializer if t.name == name))
        with pytest.raises(PrecisionError, match=message):
            made.ensures(proto, RecipeResult(broken, modified=True))


def test_two_values_lie_in_a_byte_the_first_in_its_low_half():
    assert pack(np.array([[1, -1], [-8, 7]], np.int8)) == bytes([0xF1, 0x78])
    tensor = onnx.TensorProto(name="t", data_type=TensorProto.INT4, dims=[2, 2], raw_data=bytes([0xF1, 0x78]))
    assert numpy_helper.to_array(tensor).astype(int).tolist() == [[1, -1], [-8, 7]]


@given(arrays(np.float32, (8, 6), elements=st.floats(-(2.0**60), 2.0**60, width=32)), st.sampled_from([0, 1]))
def test_no_weight_is_off_by_more_than_half_a_step(weight, axis):
    block = 4 if axis == 0 else 3
    scales = block_scales(weight, axis, block)
    assert scales.shape == ((2, 6) if axis == 0 else (8, 2))
    assert (scales > 0).all()
    integers = block_quantized(weight, scales, axis)
    assert np.abs(integers).max() <= 7
    assert block_error(weight, integers, scales, axis) <= 0.5 + 1e-4
