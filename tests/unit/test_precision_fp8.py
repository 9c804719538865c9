"""fp8: where its Q/DQ pairs stand, what their scales are, and that every CPU backend computes them as written."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import conv_net, find, model, node, ops, run, types_of, weights
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from pytest_trt.backends import BuildRequest, get_backend
from pytest_trt.errors import PrecisionError
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import RecipeResult, apply_recipe, get_precision
from pytest_trt.spec.precision.already import quantized_precisions
from pytest_trt.spec.precision.graph import copy_model
from pytest_trt.spec.precision.ranges import calibration_tensors
from pytest_trt.spec.shapes import Profile

E4M3 = TensorProto.FLOAT8E4M3FN
FEEDS = {"x": weights(9, 4, 3, 8, 8)}
PROFILE = Profile.fixed("p", {"x": (4, 3, 8, 8)})
RANGES = {"r0": (0.0, 5.0), "f": (0.0, 4.0), "g": (-4.0, 4.0)}


def network(opset: int = 17) -> onnx.ModelProto:
    """A stem of 3 channels, a convolution of 32, a Gemm and a MatMul. Relu stands right before two of them."""
    nodes = [
        node("Conv", ["x", "w0"], ["c0"], name="stem", pads=[1, 1, 1, 1]),
        node("Relu", ["c0"], ["r0"], name="relu"),
        node("Conv", ["r0", "w1", "b1"], ["c1"], name="conv", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"], name="relu1"),
        node("GlobalAveragePool", ["r1"], ["p"], name="pool"),
        node("Flatten", ["p"], ["f"], name="flatten"),
        node("Gemm", ["f", "w2", "b2"], ["g"], name="gemm", transB=1),
        node("MatMul", ["g", "w3"], ["y"], name="matmul"),
    ]
    values = {
        "w0": weights(1, 32, 3, 3, 3, scale=0.2),
        "w1": weights(2, 64, 32, 3, 3, scale=0.06),
        "b1": weights(3, 64),
        "w2": weights(4, 256, 64, scale=0.12),
        "b2": weights(5, 256),
        "w3": weights(6, 256, 10, scale=0.06),
    }
    return model(nodes, {"x": ["N", 3, 8, 8]}, {"y": ["N", 10]}, values, opset=opset)


def fp8(proto: onnx.ModelProto, ranges, **options) -> RecipeResult:
    before = proto.SerializeToString(deterministic=True)
    result = apply_recipe(get_precision("fp8").make_recipe(**options), proto, ranges)
    assert proto.SerializeToString(deterministic=True) == before
    return result


def signal_to_noise_db(expected: np.ndarray, actual: np.ndarray) -> float:
    return float(10 * np.log10(np.square(expected).sum() / np.square(expected - actual).sum()))


def scale_of(proto: onnx.ModelProto, name: str, position: int) -> np.ndarray:
    """The scale behind one operand."""
    dequantize = next(n for n in proto.graph.node if find(proto, name).input[position] in n.output)
    assert dequantize.op_type == "DequantizeLinear"
    return next(numpy_helper.to_array(t) for t in proto.graph.initializer if t.name == dequantize.input[1])


def test_a_product_that_was_computed_by_hand():
    """Scales: x 44.8/448 = 0.1, w 4.48/448 = 0.01.

    e4m3 has 3 bits of mantissa: x = [2.11, 44.8] → [21.1, 448] → 22 and 448 (steps of 2 from 16 to 32).
    w = [4.48, 0.07] → [448, 7] → both exact.  y = 2.2 · 4.48 + 44.8 · 0.07 = 12.992.
    """
    proto = model(
        [node("MatMul", ["x", "w"], ["y"], name="mm")],
        {"x": [1, 2]},
        {"y": [1, 1]},
        {"w": np.array([[4.48], [0.07]], np.float32)},
    )
    result = fp8(proto, {"x": (-44.8, 3.0)})
    # Without this, ONNX Runtime puts float8 into integer products and then refuses its own graph.
    (actual,) = run(result.proto, {"x": np.array([[2.11, 44.8]], np.float32)}, session__disable_quant_qdq="1")
    np.testing.assert_allclose(actual, [[12.992]], rtol=1e-6)


def test_all_scales_are_per_tensor_and_reach_448():
    proto = network()
    result = fp8(proto, RANGES)
    for name, activation, weight in (("conv", 5.0, "w1"), ("gemm", 4.0, "w2"), ("matmul", 4.0, "w3")):
        values = next(numpy_helper.to_array(t) for t in proto.graph.initializer if t.name == weight)
        assert scale_of(result.proto, name, 0) == pytest.approx(activation / 448)
        assert scale_of(result.proto, name, 1).shape == ()
        assert scale_of(result.proto, name, 1) == pytest.approx(np.abs(values).max() / 448)
    quantized = {n.output[0] for n in result.proto.graph.node if n.op_type == "QuantizeLinear"}
    assert {types_of(result.proto)[name] for name in quantized} == {E4M3}


@pytest.mark.parametrize(("opset", "expected"), [(13, 19), (17, 19), (19, 19), (21, 21)])
def test_the_opset_is_raised_where_float8_is_not_yet_in(opset, expected):
    result = fp8(network(opset), RANGES)
    assert result.proto.opset_import[0].version == expected
    assert ("opset" in result.notes) == (opset < 19)
    assert result.proto.ir_version == (9 if opset < 19 else network(opset).ir_version)
    onnx.checker.check_model(result.proto, full_check=True)


def test_an_opset_that_cannot_be_raised_is_refused():
    proto = network()
    sparse = onnx.helper.make_sparse_tensor(
        numpy_helper.from_array(np.ones(1, np.float32), "s"), numpy_helper.from_array(np.zeros(1, np.int64), "i"), [4]
    )
    proto.graph.sparse_initializer.append(sparse)
    with pytest.raises(PrecisionError, match="from opset 17 to 19: it has sparse initializers") as caught:
        fp8(proto, RANGES)
    assert caught.value.hint == "export it again with opset 19 or newer"


@pytest.mark.parametrize("backend", ["onnxruntime-cpu", "fake"])
def test_cpu_backends_compute_the_pairs_as_they_are_written(backend):
    """Also behind a Relu, which ONNX Runtime's optimizer would drop before a QuantizeLinear to float8."""
    result = fp8(network(), RANGES)
    precision, chosen = get_precision("fp8"), get_backend(backend)
    request = BuildRequest(Model.from_proto(result.proto, "net"), precision, PROFILE)
    built = chosen.build(request)
    session = chosen.load(built.plan, request)
    actual = session.run(FEEDS)["y"]
    session.close()

    assert "fp8" in built.facts["simulated"]
    assert chosen.support(precision).kind == "simulated"
    (as_written,) = ReferenceEvaluator(result.proto).run(["y"], FEEDS)
    np.testing.assert_allclose(actual, as_written, atol=1e-4 * np.abs(as_written).max())
    (exact,) = run(network(), FEEDS)
    assert 20 < signal_to_noise_db(exact, actual) < 40


def test_fp8_rounds_coarser_than_int8():
    """A simulation that rounded nothing would pass every accuracy test."""
    proto = network()
    exact = run(proto, FEEDS)[0]
    ranges = {**RANGES, "x": (-5.0, 5.0)}
    recipes = {name: apply_recipe(get_precision(name).make_recipe(), proto, ranges).proto for name in ("fp8", "int8")}
    noise = {
        name: signal_to_noise_db(exact, ReferenceEvaluator(to_19(p)).run(None, FEEDS)[0]) for name, p in recipes.items()
    }
    assert noise["fp8"] < noise["int8"]


def to_19(proto: onnx.ModelProto) -> onnx.ModelProto:
    from onnx.version_converter import convert_version

    return proto if proto.opset_import[0].version >= 19 else convert_version(proto, 19)


@pytest.mark.parametrize(
    ("weight", "attributes", "reason"),
    [
        (weights(1, 32, 3, 3, 3), {}, "multiples of 16 channels, not 3 and 32"),
        (weights(1, 24, 32, 3, 3), {}, "multiples of 16 channels, not 32 and 24"),
        (weights(1, 32, 16, 3, 3), {"group": 2}, "it has 2 groups"),
        (weights(1, 32, 32, 7, 7), {"pads": [3, 3, 3, 3]}, "window of 7x7 is beyond the 32 taps"),
    ],
)
def test_convolutions_without_a_kernel_stay_float32(weight, attributes, reason):
    channels = weight.shape[1] * attributes.get("group", 1)
    nodes = [
        node("Conv", ["x", "w"], ["c"], name="conv", **attributes),
        node("Conv", ["c", "v"], ["y"], name="other"),
    ]
    inner = weights(2, 16, weight.shape[0], 1, 1)
    proto = model(nodes, {"x": [1, channels, 8, 8]}, {"y": [1, 16, None, None]}, {"w": weight, "v": inner})
    if weight.shape[0] % 16:
        with pytest.raises(PrecisionError, match="nothing to do in fp8") as caught:
            fp8(proto, {})
        assert reason in caught.value.hint
        return
    result = fp8(proto, {"c": (-9, 9)})
    assert list(result.notes["kept_nodes"]) == ["conv"]
    assert reason in result.notes["kept_nodes"]["conv"]
    assert result.notes["quantized"] == {"Conv": 1}


def test_transposed_convolutions_are_not_offered():
    with pytest.raises(PrecisionError, match="'ConvTranspose', which it cannot quantize"):
        get_precision("fp8").make_recipe(op_types=["ConvTranspose"])


def test_excluded_nodes_stay_float32():
    result = fp8(network(), {"f": (0, 4), "g": (-4, 4)}, exclude_nodes=["conv"])
    assert result.notes["quantized"] == {"Gemm": 1, "MatMul": 1}
    assert result.notes["kept_nodes"]["conv"] == "excluded by name"
    assert list(find(result.proto, "conv").input) == ["r0", "w1", "b1"]


def test_ranges_are_asked_for_what_fp8_quantizes():
    assert calibration_tensors(network(), {}, "fp8") == ["r0", "f", "g"]
    assert calibration_tensors(network(), {}) == ["x", "r0", "f", "g"]
    with pytest.raises(PrecisionError, match="no range for 2 activations, 'r0' first"):
        fp8(network(), {"f": (0, 1)})


def test_ranges_are_the_largest_magnitudes_unless_said_otherwise():
    assert get_precision("fp8").calibration == "minmax"
    assert get_precision("int8").calibration == "entropy"


def test_an_fp8_model_is_taken_as_it_is_and_by_no_other_name():
    typed = fp8(network(), RANGES).proto
    assert quantized_precisions(typed) == ("fp8",)
    again = fp8(typed, None)
    assert again.proto is typed
    assert again.notes == {"already_quantized": True}
    for other, message, start in (
        ("fp32", "it has float8e4m3fn tensors", "ask for fp8"),
        ("fp16", "casts would part its Q/DQ pairs", "ask for fp8"),
        ("bf16", "casts would part its Q/DQ pairs", "ask for fp8"),
        ("int8", "it has float8e4m3fn tensors", "start from the float32 model"),
        ("int4", "already quantized, to fp8", "ask for fp8"),
        ("int8-entropy2", "TensorRT calibrates no model that says its scales", "ask for fp8"),
    ):
        with pytest.raises(PrecisionError, match=message) as caught:
            apply_recipe(get_precision(other).make_recipe(), typed, {})
        assert (caught.value.hint or "").startswith(start)


@pytest.mark.parametrize("other", ["int8", "fp16"])
def test_models_of_other_types_are_refused(other):
    proto = network() if other == "int8" else conv_net()
    ranges = {**RANGES, "x": (-5.0, 5.0)} if other == "int8" else None
    typed = apply_recipe(get_precision(other).make_recipe(), proto, ranges).proto
    with pytest.raises(PrecisionError, match="recipe fp8: the model is already"):
        fp8(typed, {})


def test_ensures_sees_a_weight_that_saturates():
    made, proto = get_precision("fp8").make_recipe(), network()
    result = made.call(proto, RANGES)
    made.ensures(proto, result)
    small = copy_model(result.proto)
    tensor = next(t for t in small.graph.initializer if t.name == "w1_scale")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) / np.float32(2), tensor.name))
    with pytest.raises(PrecisionError, match="the weight of 'conv' saturates: 896 in fp8"):
        made.ensures(proto, RecipeResult(small, modified=True))


def test_pairs_are_shared_and_the_rest_is_untouched():
    result = fp8(network(), RANGES)
    assert ops(result.proto).count("QuantizeLinear") == 6
    assert ops(result.proto).count("DequantizeLinear") == 6
    assert find(result.proto, "gemm").input[2] == "b2"
