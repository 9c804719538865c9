"""fp16 and bf16 recipes: what they make is well typed, computes the same, and leaves the input alone."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import (
    BFLOAT16,
    BOOL,
    FLOAT,
    FLOAT16,
    INT64,
    attention,
    conv_net,
    find,
    layer_norm,
    model,
    node,
    ops,
    run,
    types_of,
    weights,
)
from onnx import helper, numpy_helper

from pytest_trt.errors import PrecisionError
from pytest_trt.spec.precision import apply_recipe, get_precision

LOWEST = float(np.finfo(np.float32).min)
TYPES = {"fp16": FLOAT16, "bf16": BFLOAT16}


def recipe(precision: str, proto: onnx.ModelProto, **options):
    """The recipe's result, after a check that the input did not change."""
    before = proto.SerializeToString(deterministic=True)
    result = apply_recipe(get_precision(precision).make_recipe(**options), proto)
    assert proto.SerializeToString(deterministic=True) == before
    return result


def typed_inputs(proto: onnx.ModelProto, name: str) -> list[int]:
    types = types_of(proto)
    return [types[i] for i in find(proto, name).input if i]


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_a_float32_model_is_itself(precision):
    proto = conv_net()
    result = recipe(precision, proto)
    assert result.proto is proto
    assert not result.modified


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_whole_network_is_lowered_with_casts_at_its_borders_only(precision):
    result = recipe(precision, conv_net())
    assert ops(result.proto).count("Cast") == result.notes["casts"] == 2
    assert result.notes["low_nodes"] == 7
    assert result.notes["low_ops"] == {"Add": 1, "Conv": 2, "Flatten": 1, "Gemm": 1, "GlobalAveragePool": 1, "Relu": 1}
    assert result.notes["kept_nodes"] == {}
    for name in ("conv1", "relu1", "conv2", "add", "pool", "flatten", "gemm"):
        assert set(typed_inputs(result.proto, name)) == {TYPES[precision]}
    types = types_of(result.proto)
    assert (types["x"], types["y"]) == (FLOAT, FLOAT)


def test_a_float16_model_computes_what_the_float32_one_does():
    x = weights(9, 2, 3, 8, 8)
    (expected,) = run(conv_net(), {"x": x})
    (actual,) = run(recipe("fp16", conv_net()).proto, {"x": x})
    difference = np.abs(actual - expected).max()
    assert 0 < difference < 2.0**-10 * np.abs(expected).max() * 4


def test_bfloat16_raises_the_opset_where_conv_needs_it():
    result = recipe("bf16", conv_net())
    assert result.notes["opset"] == {"from": 17, "to": 22}
    assert result.proto.opset_import[0].version == 22
    assert result.proto.ir_version >= 10


def test_bfloat16_leaves_the_opset_where_nothing_needs_another():
    result = recipe("bf16", attention(-10000.0))
    assert "opset" not in result.notes
    assert result.proto.opset_import[0].version == 17


def test_a_fixed_opset_keeps_what_has_no_form_there():
    result = recipe("bf16", conv_net(), opset=17)
    assert result.notes["kept_nodes"]["conv1"] == "Conv takes bfloat16 from opset 22 on; the model has 17"
    assert typed_inputs(result.proto, "conv1") == [FLOAT] * 3
    assert set(typed_inputs(result.proto, "gemm")) == {BFLOAT16}


def test_an_opset_that_cannot_be_reached_is_noted_not_fatal():
    proto = conv_net()
    function = helper.make_function(
        "com.example", "Twice", ["a"], ["b"], [node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    proto.functions.append(function)
    proto.opset_import.append(helper.make_opsetid("com.example", 1))
    result = recipe("bf16", proto)
    assert result.notes["opset_refused"].endswith("from opset 17 to 22: it has local functions")
    assert result.notes["kept_nodes"]["conv1"] == "Conv takes bfloat16 from opset 22 on; the model has 17"
    assert set(typed_inputs(result.proto, "gemm")) == {BFLOAT16}
    assert len(result.proto.functions) == 1


def test_the_converters_own_reason_is_passed_on():
    nodes = [node("Add", ["x", "b"], ["y"], axis=1, broadcast=1)]
    proto = model(nodes, {"x": [2, 3, 4]}, {"y": [2, 3, 4]}, {"b": weights(1, 3)}, opset=6)
    with pytest.raises(PrecisionError, match="from opset 6 to 13: Dimension 0 of input 2 does not match"):
        recipe("bf16", proto, opset=13)


def test_a_mask_that_float16_holds_is_lowered():
    result = recipe("fp16", attention(-10000.0))
    assert set(typed_inputs(result.proto, "add_mask")) == {FLOAT16}
    assert set(typed_inputs(result.proto, "softmax")) == {FLOAT16}


@pytest.mark.parametrize("as_where", [False, True])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_mask_beyond_the_range_stays_float32_up_to_the_softmax(precision, as_where):
    result = recipe(precision, attention(LOWEST, as_where=as_where))
    add = "where" if as_where else "add_mask"
    assert set(typed_inputs(result.proto, add)) <= {FLOAT, BOOL}
    assert typed_inputs(result.proto, "softmax") == [FLOAT]
    assert set(typed_inputs(result.proto, "context")) == {TYPES[precision]}
    assert "overflow" in result.notes["kept_nodes"]["softmax"]
    assert "'mask'" in result.notes["kept_nodes"]["softmax"]


@pytest.mark.parametrize("as_where", [False, True])
@pytest.mark.parametrize("overflow", ["keep", "saturate"])
def test_masked_attention_in_float16_is_close(overflow, as_where):
    proto = attention(LOWEST, as_where=as_where)
    feeds = {"x": weights(3, 2, 4, 16), "keep": np.array([[[1, 1, 0, 0]], [[0, 1, 1, 1]]], np.int64)}
    (expected,) = run(proto, feeds)
    (actual,) = run(recipe("fp16", proto, overflow=overflow).proto, feeds)
    np.testing.assert_allclose(actual, expected, atol=4e-3)


@pytest.mark.parametrize("as_where", [False, True])
def test_a_fully_masked_row_gives_the_same_numbers_in_float16(as_where):
    """With -inf in place of the mask it would be NaN."""
    proto = attention(LOWEST, as_where=as_where)
    feeds = {"x": weights(3, 1, 4, 16), "keep": np.zeros((1, 1, 4), np.int64)}
    (expected,) = run(proto, feeds)
    (actual,) = run(recipe("fp16", proto).proto, feeds)
    np.testing.assert_allclose(actual, expected, atol=4e-3)


def test_saturation_lowers_the_softmax_and_says_what_it_clamped():
    result = recipe("fp16", attention(LOWEST, as_where=True), overflow="saturate")
    assert typed_inputs(result.proto, "softmax") == [FLOAT16]
    assert result.notes["saturated_constants"] == ["mask"]
    mask = next(t for t in result.proto.graph.initializer if t.name == "mask")
    assert numpy_helper.to_array(mask) == np.float16(-65504)


def test_infinite_masks_are_exact_in_every_type():
    result = recipe("fp16", attention(-np.inf, as_where=True))
    assert result.notes["kept_nodes"] == {}


def test_an_epsilon_that_vanishes_keeps_the_division_in_float32():
    proto = layer_norm(1e-12)
    result = recipe("fp16", proto)
    assert set(result.notes["kept_nodes"]) == {"add_epsilon", "sqrt", "div"}
    assert "would become 0 in float16" in result.notes["kept_nodes"]["add_epsilon"]
    assert set(typed_inputs(result.proto, "after")) == {FLOAT16}
    # A row of equal values has no variance: only epsilon stands between it and a division by zero.
    (actual,) = run(result.proto, {"x": np.zeros((2, 16), np.float32)})
    assert np.isfinite(actual).all()


@pytest.mark.parametrize(("precision", "epsilon"), [("fp16", 1e-5), ("bf16", 1e-12)])
def test_an_epsilon_that_the_type_holds_is_lowered(precision, epsilon):
    assert recipe(precision, layer_norm(epsilon)).notes["kept_nodes"] == {}


def test_known_ranges_keep_what_overflows():
    proto = layer_norm(1e-5)
    wide = apply_recipe(get_precision("fp16").make_recipe(), proto, {"d2": (0.0, 9e4), "v": (0.0, 1e3)})
    assert set(wide.notes["kept_nodes"]) == {"pow", "variance"}
    assert "from 0 to 9e+04" in wide.notes["kept_nodes"]["pow"]
    narrow = apply_recipe(get_precision("fp16").make_recipe(), proto, {"d2": (0.0, 6e4)})
    assert narrow.notes["kept_nodes"] == {}


def test_a_constant_that_both_types_read_is_stored_twice():
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="low"),
        node("MatMul", ["a", "w"], ["y"], name="kept"),
    ]
    proto = model(nodes, {"x": [2, 4]}, {"y": [2, 4]}, {"w": weights(1, 4, 4)})
    result = recipe("fp16", proto, exclude_nodes=["kept"])
    assert {t.name: t.data_type for t in result.proto.graph.initializer} == {"w": FLOAT, "w_float16": FLOAT16}
    shared = recipe("fp16", proto)
    assert {t.name: t.data_type for t in shared.proto.graph.initializer} == {"w": FLOAT16}


@pytest.mark.parametrize(
    "constant",
    [
        {"value": numpy_helper.from_array(np.array([1.5, -2.25], np.float32))},
        {"value_floats": [1.5, -2.25]},
        {"value_float": 1.5},
    ],
    ids=lambda c: next(iter(c)),
)
def test_constant_nodes_of_every_form_take_the_low_type(constant):
    nodes = [node("Constant", [], ["c"], **constant), node("Mul", ["x", "c"], ["y"], name="mul")]
    proto = model(nodes, {"x": [3, 2]}, {"y": [3, 2]})
    result = recipe("fp16", proto)
    assert typed_inputs(result.proto, "mul") == [FLOAT16, FLOAT16]
    x = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    np.testing.assert_array_equal(run(result.proto, {"x": x})[0], run(proto, {"x": x})[0])


def test_one_cast_serves_all_consumers():
    nodes = [node("Sigmoid", ["x"], ["a"]), node("Tanh", ["x"], ["b"]), node("Mul", ["a", "b"], ["y"])]
    result = recipe("fp16", model(nodes, {"x": [4]}, {"y": [4]}))
    assert result.notes["casts"] == 2


def test_an_output_that_is_read_inside_as_well_keeps_its_name_and_type():
    nodes = [node("Sigmoid", ["x"], ["y"], name="a"), node("Tanh", ["y"], ["z"], name="b")]
    proto = model(nodes, {"x": [4]}, {"y": [4], "z": [4]})
    result = recipe("fp16", proto)
    assert typed_inputs(result.proto, "b") == [FLOAT16]
    assert [(v.name, v.type.tensor_type.elem_type) for v in result.proto.graph.output] == [("y", FLOAT), ("z", FLOAT)]
    x = np.linspace(-2, 2, 4, dtype=np.float32)
    for actual, expected in zip(run(result.proto, {"x": x}), run(proto, {"x": x}), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-3)


def test_outputs_that_are_an_input_or_a_constant_stay():
    nodes = [node("Mul", ["x", "w"], ["y"], name="mul")]
    proto = model(nodes, {"x": [4]}, {"y": [4], "x": [4], "w": [4]}, {"w": weights(1, 4)})
    result = recipe("fp16", proto)
    assert typed_inputs(result.proto, "mul") == [FLOAT16, FLOAT16]
    x = weights(2, 4)
    _, same_x, same_w = run(result.proto, {"x": x})
    np.testing.assert_array_equal(same_x, x)
    np.testing.assert_array_equal(same_w, weights(1, 4))


def test_io_takes_the_low_type_on_request():
    result = recipe("fp16", conv_net(), keep_io=False)
    assert result.notes["casts"] == 0
    assert [v.type.tensor_type.elem_type for v in (*result.proto.graph.input, *result.proto.graph.output)] == [10, 10]
    (actual,) = run(result.proto, {"x": weights(9, 2, 3, 8, 8).astype(np.float16)})
    assert actual.dtype == np.float16


def if_model() -> onnx.ModelProto:
    """Both branches read a tensor, and one of them a weight, from outside."""
    then = helper.make_graph([node("Add", ["h", "w"], ["t"])], "then", [], [helper.make_tensor_value_info("t", 1, [2])])
    other = helper.make_graph([node("Neg", ["h"], ["e"])], "else", [], [helper.make_tensor_value_info("e", 1, [2])])
    nodes = [
        node("Mul", ["x", "w"], ["h"], name="before"),
        node("If", ["flag"], ["i"], name="if", then_branch=then, else_branch=other),
        node("Mul", ["i", "w"], ["y"], name="after"),
    ]
    return model(nodes, {"x": [2], "flag": (BOOL, [])}, {"y": [2]}, {"w": np.array([1.5, -0.5], np.float32)})


@pytest.mark.parametrize("flag", [True, False])
def test_subgraphs_stay_float32_and_read_float32_from_outside(flag):
    proto = if_model()
    result = recipe("fp16", proto)
    assert typed_inputs(result.proto, "before") == [FLOAT16, FLOAT16]
    assert typed_inputs(result.proto, "after") == [FLOAT16, FLOAT16]
    assert result.notes["kept_nodes"]["if"] == "control flow stays float32, subgraphs included"
    feeds = {"x": np.array([0.5, 2.0], np.float32), "flag": np.array(flag)}
    np.testing.assert_array_equal(run(result.proto, feeds)[0], run(proto, feeds)[0])


def test_resize_keeps_its_scales_in_float32():
    nodes = [
        node("Conv", ["x", "w"], ["c"], name="conv"),
        node("Resize", ["c", "", "scales"], ["y"], name="resize", mode="nearest"),
    ]
    values = {"scales": np.array([1, 1, 2, 2], np.float32), "w": weights(1, 2, 2, 1, 1)}
    proto = model(nodes, {"x": [1, 2, 4, 4]}, {"y": [1, 2, 8, 8]}, values)
    result = recipe("fp16", proto)
    assert typed_inputs(result.proto, "resize") == [FLOAT16, FLOAT]
    x = weights(2, 1, 2, 4, 4)
    np.testing.assert_allclose(run(result.proto, {"x": x})[0], run(proto, {"x": x})[0], atol=8e-3)


def test_integer_paths_are_untouched():
    nodes = [
        node("Shape", ["x"], ["s"], name="shape"),
        node("Gather", ["s", "zero"], ["n"], name="pick"),
        node("Add", ["ids", "one"], ["next"], name="next"),
        node("Gather", ["table", "next"], ["rows"], name="embed"),
        node("Unsqueeze", ["n", "axes"], ["n1"], name="unsqueeze"),
        node("Concat", ["n1", "minus"], ["target"], name="concat", axis=0),
        node("MatMul", ["rows", "w"], ["h"], name="matmul"),
        node("Reshape", ["h", "target"], ["y"], name="reshape"),
    ]
    values = {
        "zero": np.array(0, np.int64),
        "axes": np.array([0], np.int64),
        "one": np.array(1, np.int64),
        "minus": np.array([-1], np.int64),
        "table": weights(1, 6, 4),
        "w": weights(2, 4, 4),
    }
    proto = model(nodes, {"x": [2, 3], "ids": (INT64, [4])}, {"y": [None, None]}, values)
    result = recipe("fp16", proto)
    assert typed_inputs(result.proto, "embed") == [FLOAT16, INT64]
    assert typed_inputs(result.proto, "reshape") == [FLOAT16, INT64]
    for name in ("pick", "next", "unsqueeze", "concat"):
        assert find(result.proto, name) == find(proto, name)
    feeds = {"x": weights(3, 2, 3), "ids": np.array([0, 1, 2, 3], np.int64)}
    np.testing.assert_allclose(run(result.proto, feeds)[0], run(proto, feeds)[0], atol=8e-3)


def test_positions_are_computed_in_float32():
    """At position 4001 a float16 angle would be wrong by up to 2 radians."""
    nodes = [
        node("Cast", ["ids"], ["p"], name="cast", to=FLOAT),
        node("Unsqueeze", ["p", "last"], ["p1"], name="column"),
        node("MatMul", ["p1", "freq"], ["angle"], name="angle"),
        node("Cos", ["angle"], ["c"], name="cos"),
        node("MatMul", ["c", "w"], ["y"], name="project"),
    ]
    values = {"last": np.array([-1], np.int64), "freq": np.array([[1.0, 0.1]], np.float32), "w": weights(1, 2, 3)}
    proto = model(nodes, {"ids": (INT64, [5])}, {"y": [5, 3]}, values)
    result = recipe("fp16", proto)
    assert set(result.notes["kept_nodes"]) == {"column", "angle", "cos"}
    assert set(typed_inputs(result.proto, "project")) == {FLOAT16}
    feeds = {"ids": np.array([0, 1, 100, 4001, 8191], np.int64)}
    np.testing.assert_allclose(run(result.proto, feeds)[0], run(proto, feeds)[0], atol=4e-3)


def test_an_image_of_integers_does_not_make_a_network_of_float32():
    nodes = [
        node("Cast", ["x"], ["f"], name="cast", to=FLOAT),
        node("Mul", ["f", "scale"], ["n"], name="normalize"),
        node("Conv", ["n", "w"], ["c"], name="conv"),
        node("Relu", ["c"], ["y"], name="relu"),
    ]
    values = {"scale": np.float32(1 / 255), "w": weights(1, 4, 3, 3, 3)}
    proto = model(nodes, {"x": (2, [1, 3, 8, 8])}, {"y": [1, 4, 6, 6]}, values)
    result = recipe("fp16", proto)
    assert set(result.notes["kept_nodes"]) == {"normalize"}
    assert set(typed_inputs(result.proto, "conv")) == {FLOAT16}


def test_movement_between_kept_nodes_stays_with_them():
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="first"),
        node("Transpose", ["a"], ["t"], name="turn"),
        node("MatMul", ["t", "w"], ["b"], name="second"),
        node("MatMul", ["b", "w"], ["y"], name="third"),
    ]
    proto = model(nodes, {"x": [4, 4]}, {"y": [4, 4]}, {"w": weights(1, 4, 4)})
    result = recipe("fp16", proto, exclude_nodes=["first", "second"])
    assert result.notes["kept_nodes"]["turn"] == "it only moves values between float32 neighbours"
    assert result.notes["casts"] == 2


def test_the_position_of_the_largest_value_is_not_rounded_away():
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="low"),
        node("Softmax", ["a"], ["p"], name="softmax"),
        node("ArgMax", ["p"], ["y"], name="argmax", axis=-1),
    ]
    proto = model(nodes, {"x": [4, 4]}, {"y": (INT64, [4, 1])}, {"w": weights(1, 4, 4)})
    kept = recipe("fp16", proto, exclude_ops=["Softmax"])
    assert typed_inputs(kept.proto, "argmax") == [FLOAT]
    assert typed_inputs(recipe("fp16", proto).proto, "argmax") == [FLOAT16]


def test_a_graph_that_only_moves_values_is_lowered_all_the_same():
    proto = model([node("Relu", ["x"], ["y"])], {"x": [4]}, {"y": [4]})
    assert recipe("fp16", proto).notes["low_nodes"] == 1


def test_exclusions_take_names_outputs_globs_and_ops():
    for options in (
        {"exclude_nodes": ["conv1"]},
        {"exclude_nodes": ["c1"]},
        {"exclude_nodes": ["conv[1]"]},
        {"exclude_nodes": ["con*1"]},
    ):
        kept = recipe("fp16", conv_net(), **options).notes["kept_nodes"]
        assert kept == {"conv1": "excluded by name"}
    kept = recipe("fp16", conv_net(), exclude_ops=["Gemm"]).notes["kept_nodes"]
    assert kept == {"gemm": "op type Gemm is excluded"}


def test_a_name_with_brackets_excludes_as_it_is():
    proto = conv_net()
    proto.graph.node[0].name = "layer[0]/conv"

    assert recipe("fp16", proto, exclude_nodes=["layer[0]/conv"]).notes["kept_nodes"] == {
        "layer[0]/conv": "excluded by name"
    }


def test_an_operator_that_this_model_lacks_may_be_excluded():
    assert recipe("fp16", conv_net(), exclude_ops=["Softmax"]).notes["kept_nodes"] == {}


def test_layer_normalization_as_one_node_keeps_its_statistics_in_float32():
    nodes = [node("LayerNormalization", ["x", "g", "b"], ["y", "mean"], name="ln")]
    proto = model(nodes, {"x": [2, 8]}, {"y": [2, 8], "mean": [2, 1]}, {"g": weights(1, 8), "b": weights(2, 8)})
    result = recipe("fp16", proto)
    assert typed_inputs(result.proto, "ln") == [FLOAT16] * 3
    assert types_of(result.proto)["mean"] == FLOAT


def test_nodes_of_other_domains_stay_float32_with_their_declared_types():
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="before"),
        node("Magic", ["a"], ["m"], name="magic", domain="com.example"),
        node("MatMul", ["m", "w"], ["y"], name="after"),
    ]
    proto = model(nodes, {"x": [4, 4]}, {"y": [4, 4]}, {"w": weights(1, 4, 4)}, domains={"com.example": 1})
    untyped = recipe("fp16", proto)
    assert "'com.example'" in untyped.notes["kept_nodes"]["magic"]
    assert untyped.notes["kept_nodes"]["after"] == "the type of 'm' is unknown"
    proto.graph.value_info.append(helper.make_tensor_value_info("m", FLOAT, [4, 4]))
    typed = recipe("fp16", proto)
    assert set(typed.notes["kept_nodes"]) == {"magic"}
    assert typed_inputs(typed.proto, "magic") == [FLOAT]
    assert typed_inputs(typed.proto, "after") == [FLOAT16, FLOAT16]


def test_weights_that_lose_digits_are_counted():
    w = np.array([[1.0, 1e-9], [1e-6, 0.0]], np.float32)
    proto = model([node("MatMul", ["x", "w"], ["y"])], {"x": [2, 2]}, {"y": [2, 2]}, {"w": w})
    assert recipe("fp16", proto).notes["constants"] == {"values": 4, "to_zero": 0.25, "to_subnormal": 0.25}


def test_initializers_that_are_listed_as_inputs_are_constants():
    proto = conv_net()
    proto.ir_version = 3
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    result = recipe("fp16", proto)
    assert [v.name for v in result.proto.graph.input] == ["x"]
    assert set(typed_inputs(result.proto, "conv1")) == {FLOAT16}


def test_declared_types_of_inner_tensors_follow():
    proto = onnx.shape_inference.infer_shapes(conv_net())
    assert any(v.name == "c1" for v in proto.graph.value_info)
    result = recipe("fp16", proto)
    declared = {v.name: v.type.tensor_type.elem_type for v in result.proto.graph.value_info}
    assert declared["c1"] == FLOAT16


def test_a_model_that_is_typed_already_is_taken_as_it_is_by_its_own_precision_only():
    typed = recipe("fp16", conv_net()).proto
    again = recipe("fp16", typed)
    assert again.proto is typed
    assert again.notes["already_typed"]
    for other, hint in (("fp32", "ask for fp16"), ("tf32", "ask for fp16"), ("bf16", "float32 model")):
        with pytest.raises(PrecisionError, match="already typed: it has float16") as caught:
            recipe(other, typed)
        assert hint in caught.value.hint
        assert caught.value.message.startswith(f"recipe {other}: ")


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"exclude_nodes": ["conv3"]}, "no node 'conv3'", "did you mean 'conv"),
        ({"exclude_ops": ["Cnv"]}, "'Cnv' is no ONNX operator", "did you mean 'Conv'?"),
        ({"overflow": "ignore"}, "overflow='ignore'", "keep, saturate"),
        ({"exclude_ops": ["Conv", "Relu", "Add", "GlobalAveragePool", "Gemm", "Flatten"]}, "nothing to do", "conv1"),
        ({"opset": 3}, "cannot be converted from opset 17 to 3", "export it again"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_hint(options, message, hint):
    with pytest.raises(PrecisionError, match=message) as caught:
        recipe("fp16", conv_net(), **options)
    assert hint in caught.value.hint


def test_a_model_without_floats_has_nothing_to_do():
    proto = model([node("Add", ["x", "x"], ["y"])], {"x": (INT64, [2])}, {"y": (INT64, [2])})
    with pytest.raises(PrecisionError, match="nothing to do in float16") as caught:
        recipe("fp16", proto)
    assert caught.value.hint == "it computes nothing in float32"
    assert recipe("fp32", proto).proto is proto


def test_ensures_sees_a_node_that_is_not_what_the_notes_say():
    from dataclasses import replace

    made = get_precision("fp16").make_recipe()
    proto = conv_net()
    result = made.call(proto, None)
    wrong = replace(result, notes={**result.notes, "low_nodes": 6})
    with pytest.raises(PrecisionError, match="7 nodes take float16, not 6"):
        made.ensures(proto, wrong)
    lost = onnx.ModelProto()
    lost.CopyFrom(result.proto)
    lost.graph.node.remove(find(lost, "relu1"))
    with pytest.raises(PrecisionError, match="fails ONNX's full check"):
        made.ensures(proto, replace(result, proto=lost))
