"""int8: where Q/DQ pairs stand, what their scales are, and that the model still computes the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from networks import INT64, attention, conv_net, find, model, node, ops, run, weights
from onnx import numpy_helper

from pytest_trt.errors import PrecisionError
from pytest_trt.spec.precision import apply_recipe, get_precision
from pytest_trt.spec.precision.graph import copy_model
from pytest_trt.spec.precision.ranges import calibration_tensors
from pytest_trt.spec.precision.scales import activation_scale, quantization_error, quantized, weight_scales

QDQ = ["QuantizeLinear", "DequantizeLinear"]


def run_quantized(proto: onnx.ModelProto, feeds) -> list[np.ndarray]:
    """Without ONNX Runtime's integer kernels, whose sums of two products saturate on CPUs that have no VNNI."""
    return run(proto, feeds, session__disable_quant_qdq="1")


def observed(proto: onnx.ModelProto, feeds, options) -> dict[str, tuple[float, float]]:
    """Min-max ranges of what the recipe asks for."""
    names = calibration_tensors(proto, options)
    tapped = copy_model(proto)
    inner = [n for n in names if n not in feeds and n not in {o.name for o in proto.graph.output}]
    tapped.graph.output.extend(onnx.ValueInfoProto(name=n) for n in inner)
    outputs = [o.name for o in tapped.graph.output]
    values = {**dict(zip(outputs, run(tapped, feeds), strict=True)), **feeds}
    return {n: (float(values[n].min()), float(values[n].max())) for n in names}


def int8(proto: onnx.ModelProto, ranges, **options):
    before = proto.SerializeToString(deterministic=True)
    result = apply_recipe(get_precision("int8").make_recipe(**options), proto, ranges)
    assert proto.SerializeToString(deterministic=True) == before
    return result


def constants_of(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}


def dequantizer(proto: onnx.ModelProto, name: str, position: int) -> onnx.NodeProto:
    """The DequantizeLinear behind one operand."""
    return next(n for n in proto.graph.node if find(proto, name).input[position] in n.output)


def quantizer(proto: onnx.ModelProto, name: str, position: int) -> onnx.NodeProto:
    return next(n for n in proto.graph.node if dequantizer(proto, name, position).input[0] in n.output)


def signal_to_noise_db(expected: np.ndarray, actual: np.ndarray) -> float:
    return float(10 * np.log10(np.square(expected).sum() / np.square(expected - actual).sum()))


CONV_FEEDS = {"x": weights(9, 4, 3, 8, 8)}


def linear(weight: np.ndarray, **attributes) -> onnx.ModelProto:
    return model(
        [node("Gemm", ["x", "w"], ["y"], name="gemm", **attributes)], {"x": [1, 2]}, {"y": [1, None]}, {"w": weight}
    )


@pytest.mark.parametrize("fold_weights", [False, True])
def test_a_product_that_was_computed_by_hand(fold_weights):
    """Scales: x 2.54/127 = 0.02; w 1.27/127 = 0.01 and 0.635/127 = 0.005 per column.

    x = [1.009, -2.54] → [50, -127] → [1.0, -2.54].
    w = [[1.27, -0.635], [0.004, 0.3174]] → [[127, -127], [0, 63]] → [[1.27, -0.635], [0, 0.315]].
    y = [1.27, -0.635 - 2.54 · 0.315] = [1.27, -1.4351].
    """
    proto = linear(np.array([[1.27, -0.635], [0.004, 0.3174]], np.float32))
    result = int8(proto, {"x": (-1.0, 2.54)}, fold_weights=fold_weights)
    (actual,) = run_quantized(result.proto, {"x": np.array([[1.009, -2.54]], np.float32)})
    np.testing.assert_allclose(actual, [[1.27, -1.4351]], rtol=1e-6)


@pytest.mark.parametrize("fold_weights", [False, True])
def test_a_network_stays_close_to_float32(fold_weights):
    proto = conv_net()
    result = int8(proto, observed(proto, CONV_FEEDS, {}), fold_weights=fold_weights)
    (expected,) = run(proto, CONV_FEEDS)
    (actual,) = run_quantized(result.proto, CONV_FEEDS)
    assert 20 < signal_to_noise_db(expected, actual) < 80


def test_attention_stays_close_to_float32_and_is_quantized_on_request():
    proto = attention(-10000.0)
    feeds = {"x": weights(9, 2, 6, 16), "keep": np.array([[[1, 1, 1, 1, 0, 0]], [[1, 0, 1, 1, 1, 1]]])}
    (expected,) = run(proto, feeds)
    for options, quantized_nodes in (({}, 3), ({"attention": True}, 5)):
        result = int8(proto, observed(proto, feeds, options), **options)
        assert result.notes["quantized"] == {"MatMul": quantized_nodes}
        (actual,) = run_quantized(result.proto, feeds)
        assert signal_to_noise_db(expected, actual) > 20
    without = int8(proto, observed(proto, feeds, {}))
    assert without.notes["kept_nodes"] == dict.fromkeys(
        ("scores", "context"), "both operands are activations (attention=True quantizes them)"
    )


def test_the_notes_count_what_was_done():
    notes = int8(conv_net(), {"x": (-1, 1), "r1": (0, 2.54), "f": (0, 1.27)}).notes
    assert notes["quantized"] == {"Conv": 2, "Gemm": 1}
    assert (notes["activation_tensors"], notes["weight_tensors"]) == (3, 3)
    assert notes["activation_scales"] == pytest.approx([1 / 127, 0.02])
    assert notes["kept_nodes"] == {}
    assert notes["empty_ranges"] == []


def test_biases_and_residuals_stay_float32():
    result = int8(conv_net(), {"x": (-1, 1), "r1": (0, 2), "f": (0, 1)})
    assert find(result.proto, "conv1").input[2] == "b1"
    assert list(find(result.proto, "add").input) == ["c2", "r1"]


def test_one_pair_serves_all_consumers_of_an_activation_and_of_a_weight():
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="first"),
        node("MatMul", ["x", "w"], ["b"], name="second"),
        node("Add", ["a", "b"], ["y"]),
    ]
    result = int8(model(nodes, {"x": [2, 4]}, {"y": [2, 4]}, {"w": weights(1, 4, 4)}), {"x": (-1, 1)})
    assert sorted(ops(result.proto)) == sorted(["MatMul", "MatMul", "Add", *QDQ, *QDQ])
    assert find(result.proto, "first").input == find(result.proto, "second").input


def one_node(op: str, weight: np.ndarray, inputs: list[int], rank: int, **attributes) -> onnx.ModelProto:
    nodes = [node(op, ["x", "w"], ["y"], name="n", **attributes)]
    return model(nodes, {"x": inputs}, {"y": [None] * rank}, {"w": weight})


def conv(op: str, weight: np.ndarray, **attributes) -> onnx.ModelProto:
    return one_node(op, weight, [1, 4, 5, 5], 4, **attributes)


def matmul(weight: np.ndarray, rank: int) -> onnx.ModelProto:
    return one_node("MatMul", weight, [3, 4], rank)


@pytest.mark.parametrize(
    ("proto", "axis", "scales"),
    [
        (conv("Conv", weights(1, 6, 4, 3, 3)), 0, 6),
        (conv("Conv", weights(1, 4, 1, 3, 3), group=4), 0, 4),
        (conv("ConvTranspose", weights(1, 4, 6, 3, 3)), 1, 6),
        (conv("ConvTranspose", weights(1, 4, 2, 3, 3), group=2), None, 1),
        (matmul(weights(1, 4, 7), 2), 1, 7),
        (matmul(weights(1, 4), 1), None, 1),
        (matmul(weights(1, 2, 4, 7), 3), None, 1),
    ],
    ids=["conv", "depthwise", "transposed", "transposed_grouped", "matmul", "vector", "batched"],
)
def test_weights_have_a_scale_per_output_channel(proto, axis, scales):
    result = int8(proto, {"x": (-3, 3)})
    dequantize = dequantizer(result.proto, "n", 1)
    assert [a.i for a in dequantize.attribute] == ([] if axis is None else [axis])
    values = constants_of(result.proto)
    assert values[dequantize.input[1]].size == scales
    assert values[dequantize.input[1]].shape == values[dequantize.input[2]].shape
    assert values[dequantize.input[2]].dtype == np.int8
    (expected,), (actual,) = (run_quantized(p, {"x": weights(2, *_shape(proto))}) for p in (proto, result.proto))
    assert signal_to_noise_db(expected, actual) > 20


def _shape(proto: onnx.ModelProto) -> list[int]:
    return [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]


@pytest.mark.parametrize(("transposed", "axis"), [(0, 1), (1, 0)])
def test_the_axis_of_gemm_follows_its_transposition(transposed, axis):
    result = int8(linear(weights(1, 2, 2), transB=transposed), {"x": (-1, 1)})
    assert [a.i for a in dequantizer(result.proto, "gemm", 1).attribute] == [axis]


def test_a_tied_transposed_weight_is_quantized_as_a_constant():
    nodes = [
        node("Gather", ["table", "ids"], ["h"], name="embed"),
        node("Transpose", ["table"], ["turned"], name="turn", perm=[1, 0]),
        node("MatMul", ["h", "turned"], ["y"], name="head"),
    ]
    table = weights(1, 11, 4)
    proto = model(nodes, {"ids": (INT64, [3])}, {"y": [3, 11]}, {"table": table})
    for fold_weights in (False, True):
        result = int8(proto, {"h": (-3, 3)}, fold_weights=fold_weights)
        assert result.notes["quantized"] == {"MatMul": 1}
        assert "Transpose" not in ops(result.proto)
        feeds = {"ids": np.array([1, 5, 10])}
        assert signal_to_noise_db(run(proto, feeds)[0], run_quantized(result.proto, feeds)[0]) > 20
        source = dequantizer(result.proto, "head", 1).input[0]
        values = constants_of(result.proto)
        if fold_weights:
            assert values[source].dtype == np.int8
        else:
            np.testing.assert_array_equal(values[quantizer(result.proto, "head", 1).input[0]], table.T)


def test_folded_weights_replace_the_float_ones():
    result = int8(linear(weights(1, 2, 2)), {"x": (-1, 1)}, fold_weights=True)
    assert "w" not in constants_of(result.proto)
    assert constants_of(result.proto)["w_int8"].dtype == np.int8


def test_a_channel_of_zeros_takes_the_largest_scale():
    weight = np.array([[1.27, 0.0], [0.0, 0.0]], np.float32)
    np.testing.assert_allclose(weight_scales(weight, 1), [0.01, 0.01])
    np.testing.assert_allclose(weight_scales(weight * 0, 1), [1 / 127, 1 / 127])
    result = int8(linear(weight), {"x": (-1, 1)})
    (actual,) = run_quantized(result.proto, {"x": np.array([[1.0, 1.0]], np.float32)})
    np.testing.assert_allclose(actual, [[1.27, 0.0]])


def test_an_empty_range_is_noted_and_gives_a_usable_scale():
    result = int8(linear(weights(1, 2, 2)), {"x": (0.0, 0.0)})
    assert result.notes["empty_ranges"] == ["x"]
    assert result.notes["activation_scales"] == pytest.approx([1 / 127, 1 / 127])
    np.testing.assert_array_equal(run_quantized(result.proto, {"x": np.zeros((1, 2), np.float32)})[0], np.zeros((1, 2)))


@given(arrays(np.float32, (5, 4), elements=st.floats(-(2.0**60), 2.0**60, width=32)), st.sampled_from([0, 1, None]))
def test_no_weight_is_off_by_more_than_half_a_step(weight, axis):
    scales = weight_scales(weight, axis)
    assert np.isfinite(scales).all()
    assert (scales > 0).all()
    integers = quantized(weight, scales, axis)
    assert integers.min() >= -127
    assert quantization_error(weight, integers, scales, axis) <= 0.5 + 1e-4


def test_activation_scales_are_symmetric():
    assert activation_scale(-2.54, 1.0) == pytest.approx(0.02)
    assert activation_scale(0.0, 2.54) == pytest.approx(0.02)
    assert activation_scale(-1e-45, 0.0) == pytest.approx(1 / 127)


def test_an_older_opset_is_raised_for_scales_per_channel():
    nodes = [node("Conv", ["x", "w"], ["y"], name="conv")]
    proto = model(nodes, {"x": [1, 3, 4, 4]}, {"y": [1, 2, 4, 4]}, {"w": weights(1, 2, 3, 1, 1)}, opset=11)
    result = int8(proto, {"x": (-1, 1)})
    assert result.notes["opset"] == {"from": 11, "to": 13}
    assert result.proto.opset_import[0].version == 13


def test_an_opset_that_cannot_be_raised_is_refused():
    nodes = [node("Conv", ["x", "w"], ["y"], name="conv")]
    proto = model(nodes, {"x": [1, 3, 4, 4]}, {"y": [1, 2, 4, 4]}, {"w": weights(1, 2, 3, 1, 1)}, opset=11)
    sparse = onnx.helper.make_sparse_tensor(
        numpy_helper.from_array(np.ones(1, np.float32), "s"), numpy_helper.from_array(np.zeros(1, np.int64), "i"), [4]
    )
    proto.graph.sparse_initializer.append(sparse)
    with pytest.raises(PrecisionError, match="from opset 11 to 13: it has sparse initializers") as caught:
        int8(proto, {"x": (-1, 1)})
    assert caught.value.hint == "export it again with opset 13 or newer"


def test_a_model_that_is_quantized_already_is_taken_as_it_is():
    typed = int8(conv_net(), {"x": (-1, 1), "r1": (0, 2), "f": (0, 1)}).proto
    assert calibration_tensors(typed, {}) == []
    again = int8(typed, None)
    assert again.proto is typed
    assert again.notes == {"already_quantized": True}
    for other in ("fp32", "fp16", "bf16"):
        with pytest.raises(PrecisionError, match="quantized") as caught:
            apply_recipe(get_precision(other).make_recipe(), typed)
        assert "ask for int8, which takes it as it is" in caught.value.hint


@pytest.mark.parametrize(
    ("options", "ranges", "message", "hint"),
    [
        ({}, {"x": (-1, 1)}, "no range for 2 activations, 'r1' first", "calibrate"),
        ({}, None, "no range for 3 activations, 'x' first", "calibrate"),
        ({}, {"x": (-1, float("nan")), "r1": (0, 1), "f": (0, 1)}, "range of 'x' is", "calibrate"),
        ({}, {"x": (float("-inf"), 1), "r1": (0, 1), "f": (0, 1)}, "range of 'x' is", "calibrate"),
        ({}, {"x": (-1, float("inf")), "r1": (0, 1), "f": (0, 1)}, "range of 'x' is", "calibrate"),
        ({}, {"x": (1, -1), "r1": (0, 1), "f": (0, 1)}, "range of 'x' is", "calibrate"),
        ({"op_types": ["Convv"]}, {}, "'Convv', which it cannot quantize", "did you mean 'Conv'?"),
        ({"op_types": ["MatMul"]}, {}, "nothing to do in int8", "no such node"),
        ({"exclude_ops": ["Conv", "Gemm"]}, {}, "nothing to do in int8", "conv1: op type Conv is excluded"),
        ({"exclude_nodes": ["conv9"]}, {}, "no node 'conv9'", "did you mean"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_hint(options, ranges, message, hint):
    with pytest.raises(PrecisionError, match=message) as caught:
        int8(conv_net(), ranges, **options)
    assert hint in caught.value.hint


def test_integer_operators_are_no_pairs_and_the_hint_says_so():
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["i", "s", "z"]),
        node("MatMulInteger", ["i", "w", "z"], ["a"]),
        node("Cast", ["a"], ["y"], to=1),
    ]
    with pytest.raises(PrecisionError, match="nothing to do in int8") as caught:
        int8(model(nodes, {"x": ["N", 4]}, {"y": ["N", 4]}, {"w": np.ones((4, 4), np.uint8)}), {})
    assert "quantized already, to DynamicQuantizeLinear, MatMulInteger and not to Q/DQ" in caught.value.hint


def test_a_float16_model_is_refused():
    typed = apply_recipe(get_precision("fp16").make_recipe(), conv_net()).proto
    with pytest.raises(PrecisionError, match="recipe int8: the model is already typed: it has float16"):
        int8(typed, {})


def test_operands_without_a_constant_are_kept_with_a_reason():
    nodes = [
        node("Conv", ["x", "v"], ["a"], name="dynamic"),
        node("MatMul", ["c", "a"], ["b"], name="constant_first"),
        node("MatMul", ["b", "w"], ["y"], name="quantized"),
    ]
    values = {"c": weights(1, 4, 4), "w": weights(2, 4, 4)}
    proto = model(nodes, {"x": [1, 2, 4, 4], "v": [2, 2, 1, 1]}, {"y": [1, 2, 4, 4]}, values)
    assert int8(proto, {"b": (-1, 1)}).notes["kept_nodes"] == {
        "dynamic": "its weight 'v' is no constant",
        "constant_first": "its first operand 'c' is a constant",
    }


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_a_weight_without_values_is_kept_with_a_reason(precision: str):
    nodes = [node("MatMul", ["x", "e"], ["y"], name="empty"), node("MatMul", ["x", "w"], ["z"], name="quantized")]
    values = {"e": np.zeros((4, 0), np.float32), "w": weights(2, 4, 4)}
    proto = model(nodes, {"x": [1, 4]}, {"y": [1, 0], "z": [1, 4]}, values, opset=19)
    result = apply_recipe(get_precision(precision).make_recipe(), proto, {"x": (-1, 1)})

    assert result.notes["kept_nodes"] == {"empty": "its weight 'e' is empty"}


def test_ensures_sees_what_the_recipe_must_not_make():
    made = get_precision("int8").make_recipe()
    proto = conv_net()
    ranges = {"x": (-1, 1), "r1": (0, 2), "f": (0, 1)}
    result = made.call(proto, ranges)

    def changed(change) -> onnx.ModelProto:
        copy = copy_model(result.proto)
        change(copy)
        return copy

    def set_scale(value: float):
        def change(copy: onnx.ModelProto) -> None:
            tensor = next(t for t in copy.graph.initializer if t.name == "w1_scale")
            tensor.CopyFrom(numpy_helper.from_array(np.full(8, value, np.float32), "w1_scale"))

        return change

    def swap_scale(copy: onnx.ModelProto) -> None:
        dequantizer(copy, "conv1", 0).input[1] = "r1_scale"

    def rename_output(copy: onnx.ModelProto) -> None:
        find(copy, "gemm").output[0] = copy.graph.output[0].name = "z"

    for change, message in (
        (set_scale(0.0), "scales that are not positive and finite"),
        (set_scale(1e-4), "off by .* steps of int8"),
        (swap_scale, "not followed by its DequantizeLinear"),
        (rename_output, "other outputs"),
    ):
        with pytest.raises(PrecisionError, match=message):
            made.ensures(proto, replace(result, proto=changed(change)))
