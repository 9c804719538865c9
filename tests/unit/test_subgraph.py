"""Pieces of models as models of their own, on recorded activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from networks import INT64, attention, conv_net, model, node, run, weights

from pytest_trt.diagnosis.subgraph import Cut, Whole
from pytest_trt.errors import PrecisionError
from pytest_trt.spec.loading import check_proto
from pytest_trt.spec.model import Model


def whole(proto: onnx.ModelProto, *feeds: dict[str, Any]) -> Whole:
    return Whole(Model.from_proto(proto, "whole"), feeds)


def piece(found: Whole, *names: str, suspect: str | None = None) -> Cut:
    numbers = frozenset(found.number(name) for name in names)
    assert None not in numbers
    return found.cut(numbers, found.number(suspect) if suspect else None)  # type: ignore[arg-type]


def rerun(cut: Cut) -> None:
    """A cut is a valid model, and gives on its inputs what the whole gave there."""
    check_proto(cut.model.proto, "cut")
    for feeds, expected in zip(cut.feeds, cut.expected, strict=True):
        for found, wanted in zip(run(cut.model.proto, feeds, level="ORT_DISABLE_ALL"), expected.values(), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


IMAGES = [{"x": weights(i, 2, 3, 8, 8)} for i in (7, 8)]


@pytest.mark.parametrize(
    ("names", "suspect", "inputs", "outputs"),
    [
        (["conv2"], "conv2", ["r1"], ["c2"]),
        (["conv2", "add"], "conv2", ["r1"], ["a"]),
        (["conv1", "relu1"], "conv1", ["x"], ["r1"]),
        (["relu1", "conv2"], "relu1", ["c1"], ["r1", "c2"]),
        (["conv2", "add", "pool", "flatten", "gemm"], None, ["r1"], ["y"]),
        (["gemm"], None, ["f"], ["y"]),
    ],
)
def test_a_piece_reads_and_gives_what_the_whole_has_there(
    names: list[str], suspect: str | None, inputs: list[str], outputs: list[str]
) -> None:
    cut = piece(whole(conv_net(), *IMAGES), *names, suspect=suspect)

    assert [spec.name for spec in cut.model.inputs] == inputs
    assert [spec.name for spec in cut.model.outputs] == outputs
    assert cut.inner == set(outputs) - {"y"}
    assert cut.nodes == tuple(names)
    assert len(cut.feeds) == 2
    rerun(cut)


def test_only_the_weights_of_its_nodes_go_along() -> None:
    cut = piece(whole(conv_net(), IMAGES[0]), "conv2", suspect="conv2")

    assert [tensor.name for tensor in cut.model.proto.graph.initializer] == ["w2"]


def test_integer_inputs_of_the_whole_stay_inputs() -> None:
    feeds = {"x": weights(9, 2, 4, 16), "keep": np.ones((2, 1, 4), np.int64)}
    cut = piece(whole(attention(-100.0), feeds), "cast", "drop", "bias", suspect="drop")

    assert [spec.name for spec in cut.model.inputs] == ["keep"]
    rerun(cut)


def reshaping() -> onnx.ModelProto:
    nodes = [
        node("Shape", ["x"], ["s"], name="shape"),
        node("Constant", [], ["zero"], value=onnx.numpy_helper.from_array(np.array([0], np.int64))),
        node("Gather", ["s", "zero"], ["rows"], name="gather"),
        node("Constant", [], ["rest"], value=onnx.numpy_helper.from_array(np.array([-1], np.int64))),
        node("Concat", ["rows", "rest"], ["target"], name="concat", axis=0),
        node("Relu", ["x"], ["r"], name="relu"),
        node("Reshape", ["r", "target"], ["f"], name="reshape"),
        node("MatMul", ["f", "w"], ["y"], name="matmul"),
    ]
    return model(nodes, {"x": ["N", 2, 3]}, {"y": ["N", 4]}, {"w": weights(1, 6, 4)})


def test_sizes_that_the_cut_leaves_behind_become_constants() -> None:
    cut = piece(whole(reshaping(), {"x": weights(2, 5, 2, 3)}), "reshape", "matmul", suspect="reshape")

    assert [spec.name for spec in cut.model.inputs] == ["r"]
    assert {t.name for t in cut.model.proto.graph.initializer} == {"target", "w"}
    rerun(cut)


def test_constant_nodes_go_along_and_do_not_count() -> None:
    found = whole(reshaping(), {"x": weights(2, 5, 2, 3)})
    cut = piece(found, "shape", "gather", "concat", "reshape", suspect="concat")

    assert len(found.nodes) == 6
    assert cut.nodes == ("shape", "gather", "concat", "reshape")
    assert [n.op_type for n in cut.model.proto.graph.node].count("Constant") == 2
    rerun(cut)


def test_integers_that_differ_between_samples_stay_inputs() -> None:
    nodes = [
        node("ArgMax", ["x"], ["best"], name="argmax", axis=1, keepdims=0),
        node("Gather", ["w", "best"], ["y"], name="gather"),
    ]
    proto = model(nodes, {"x": [4, 3]}, {"y": [4, 2]}, {"w": weights(1, 3, 2)})
    cut = piece(whole(proto, {"x": weights(2, 4, 3)}, {"x": weights(3, 4, 3)}), "gather")

    assert [(spec.name, spec.dtype) for spec in cut.model.inputs] == [("best", "int64")]
    rerun(cut)


def test_what_a_subgraph_captures_is_an_input() -> None:
    branches = {
        name: onnx.helper.make_graph(
            [node(op, ["h"], [f"{name}_out"])], name, [], [onnx.ValueInfoProto(name=f"{name}_out")]
        )
        for name, op in (("then_branch", "Relu"), ("else_branch", "Neg"))
    }
    nodes = [
        node("Exp", ["x"], ["h"], name="exp"),
        node("If", ["flag"], ["y"], name="if", **branches),
    ]
    proto = model(nodes, {"x": [4], "flag": (9, [])}, {"y": [4]})
    cut = piece(whole(proto, {"x": weights(2, 4), "flag": np.array(True)}), "if")

    assert {spec.name for spec in cut.model.inputs} == {"flag", "h"}


@pytest.mark.parametrize(
    ("names", "suspect"),
    [(["shape"], "shape"), (["gather", "concat"], "gather")],
    ids=["only integers come out", "nothing goes in"],
)
def test_what_is_no_model_is_refused(names: list[str], suspect: str) -> None:
    with pytest.raises(PrecisionError, match="no model: it has no inputs or no outputs"):
        piece(whole(reshaping(), {"x": weights(2, 5, 2, 3)}), *names, suspect=suspect)


def test_shapes_that_depend_on_values_are_refused() -> None:
    nodes = [
        node("NonZero", ["x"], ["where"], name="nonzero"),
        node("Cast", ["where"], ["f"], name="cast", to=1),
        node("Exp", ["f"], ["e"], name="exp"),
        node("ReduceSum", ["e"], ["y"], name="sum", keepdims=0),
    ]
    proto = model(nodes, {"x": [4]}, {"y": []})
    feeds = [{"x": np.array(x, np.float32)} for x in ([0, 1, 0, 1], [1, 1, 1, 0])]

    with pytest.raises(PrecisionError, match="the shape of 'f' depends on the values"):
        piece(whole(proto, *feeds), "exp", "sum")
    assert piece(whole(proto, feeds[0]), "exp", "sum").feeds[0]["f"].shape == (1, 2)


def test_nodes_are_found_by_name_label_and_output() -> None:
    nodes = [node("Exp", ["x"], ["h"]), node("Relu", ["h"], ["y"], name="relu")]
    found = whole(
        model(nodes, {"x": [2], "n": (INT64, [1])}, {"y": [2]}), {"x": weights(1, 2), "n": np.zeros(1, np.int64)}
    )

    assert [found.number(name) for name in ("h", "Exp:h", "relu", "y", "n")] == [0, 0, 1, 1, None]
