"""Helpers under the recipes: copies, types, names, captures, opsets."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import BOOL, FLOAT, INT64, conv_net, model, node, weights
from onnx import helper, numpy_helper

from pytest_trt.errors import PrecisionError
from pytest_trt.spec.precision import graph
from pytest_trt.spec.precision.checks import check_io_unchanged, check_result


def branch(
    name: str, *nodes: onnx.NodeProto, output: str, weights: tuple[onnx.TensorProto, ...] = ()
) -> onnx.GraphProto:
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(output, FLOAT, [2])], weights)


def nested() -> onnx.NodeProto:
    """An If in an If; reads x, y and z from outside, while own and t are its own."""
    deep = branch("deep", node("Add", ["x", "own"], ["d"]), output="d")
    deep_else = branch("deep_else", node("Neg", ["z"], ["e"]), output="e")
    own = numpy_helper.from_array(np.ones(2, np.float32), "own")
    outer = branch(
        "outer",
        node("Mul", ["y", "own"], ["t"]),
        node("If", ["flag"], ["r"], then_branch=deep, else_branch=deep_else),
        output="r",
        weights=(own,),
    )
    return node(
        "If", ["flag"], ["out"], then_branch=outer, else_branch=branch("o", node("Neg", ["y"], ["n"]), output="n")
    )


def test_captures_are_found_at_any_depth():
    assert graph.captured_names(nested()) == {"x", "y", "z", "flag"}
    assert graph.captured_names(node("Add", ["a", "b"], ["c"])) == set()


def test_captures_are_renamed_at_any_depth_and_nothing_else_is():
    made = nested()
    graph.rename_captures(made, {"x": "x2", "z": "z2", "own": "never", "t": "never"})
    assert graph.captured_names(made) == {"x2", "y", "z2", "flag"}


def test_all_graphs_come_outer_first():
    proto = model([nested()], {"flag": (BOOL, [])}, {"out": [2]})
    names = [g.name for g in graph.all_graphs(proto.graph)]
    assert sorted(names) == ["deep", "deep_else", "network", "o", "outer"]
    assert names[0] == "network"
    assert names.index("outer") < names.index("deep")


def test_a_copy_is_equal_and_independent():
    proto = conv_net()
    proto.metadata_props.add(key="author", value="me")
    proto.doc_string = "hello"
    copy = graph.copy_model(proto)
    assert copy == proto
    copy.graph.node[0].name = "other"
    copy.graph.initializer[0].name = "other"
    assert proto.graph.node[0].name == "conv1"
    assert proto.graph.initializer[0].name == "w1"


def test_types_need_no_weights():
    proto = model(
        [node("MatMul", ["x", "w"], ["h"]), node("Reshape", ["h", "shape"], ["y"]), node("ArgMax", ["y"], ["i"])],
        {"x": [4, 64]},
        {"i": (INT64, None)},
        {"w": weights(1, 64, 64), "shape": np.array([-1, 8], np.int64)},
    )
    skeleton = graph.copy_model(proto, bulk=False)
    assert skeleton.ByteSize() < 1024 < proto.ByteSize()
    types = graph.infer_types(proto)
    assert {n: types[n] for n in ("x", "w", "h", "y", "i", "shape")} == {
        **dict.fromkeys("xwhy", FLOAT),
        "i": INT64,
        "shape": INT64,
    }


def test_low_types_are_found_in_subgraphs():
    proto = conv_net()
    assert graph.low_types_in(proto) == set()
    half = branch("b", output="t", weights=(numpy_helper.from_array(np.ones(2, np.float16), "h"),))
    proto.graph.node.append(node("If", ["flag"], ["z"], then_branch=half, else_branch=half))
    assert graph.low_types_in(proto) == {"float16"}


def test_quantization_is_found_in_subgraphs():
    proto = conv_net()
    assert not graph.has_quantize_nodes(proto)
    inner = branch("b", node("DequantizeLinear", ["q", "s"], ["t"]), output="t")
    proto.graph.node.append(node("If", ["flag"], ["z"], then_branch=inner, else_branch=inner))
    assert graph.has_quantize_nodes(proto)


def test_names_are_fresh_against_subgraphs_too():
    proto = model([nested()], {"flag": (BOOL, [])}, {"out": [2]})
    names = graph.Names(proto.graph)
    assert names.fresh("own") == "own_2"
    assert names.fresh("own") == "own_3"
    assert names.fresh("new") == "new"


def test_a_label_is_the_name_or_says_what_is_made():
    assert graph.node_label(node("Relu", ["a"], ["b"], name="relu")) == "relu"
    assert graph.node_label(node("Relu", ["a"], ["b"])) == "Relu:b"


def test_opsets_by_domain():
    proto = model([], {"x": [1]}, {"x": [1]}, opset=17, domains={"com.example": 3})
    assert graph.opset_of(proto) == graph.opset_of(proto, "ai.onnx") == 17
    assert graph.opset_of(proto, "com.example") == 3
    assert graph.opset_of(proto, "other") is None


def test_conversion_keeps_large_weights():
    weight = weights(1, 64, 64)
    proto = model([node("MatMul", ["x", "w"], ["y"])], {"x": [1, 64]}, {"y": [1, 64]}, {"w": weight}, opset=11)
    converted = graph.convert_opset(proto, 13)
    np.testing.assert_array_equal(numpy_helper.to_array(converted.graph.initializer[0]), weight)
    assert graph.opset_of(proto) == 11


def test_unread_constants_are_removed_and_read_ones_are_not():
    nodes = [node("Constant", [], ["c"], value_float=1.0), node("Add", ["x", "kept"], ["y"])]
    values = {"kept": weights(1, 2), "gone": weights(2, 2), "unnamed": weights(3, 2)}
    proto = model(nodes, {"x": [2]}, {"y": [2]}, values)
    graph.remove_unread(proto.graph, {"kept", "gone", "c"})
    assert [t.name for t in proto.graph.initializer] == ["kept", "unnamed"]
    assert [n.op_type for n in proto.graph.node] == ["Add"]


def test_a_change_of_io_is_seen():
    for change in (
        lambda p: setattr(p.graph.input[0], "name", "z"),
        lambda p: setattr(p.graph.output[0].type.tensor_type, "elem_type", 10),
        lambda p: setattr(p.graph.output[0].type.tensor_type.shape.dim[1], "dim_value", 6),
        lambda p: p.graph.output.pop(),
    ):
        other = conv_net()
        check_io_unchanged(conv_net(), other)
        change(other)
        with pytest.raises(PrecisionError, match=r"the typed model has other (in|out)puts"):
            check_io_unchanged(conv_net(), other)


def test_a_model_that_was_broken_before_is_not_blamed_on_the_recipe():
    broken = conv_net()
    broken.graph.node[0].input[0] = "missing"
    check_result(conv_net(), conv_net())
    with pytest.raises(PrecisionError, match="already fails ONNX's full check before the recipe"):
        check_result(broken, broken)
    with pytest.raises(PrecisionError, match="the typed model fails ONNX's full check"):
        check_result(conv_net(), broken)
