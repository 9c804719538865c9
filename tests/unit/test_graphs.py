"""Graph variants: other nodes, the same function, made once."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import FLOAT, INT64, attention, conv_net, layer_norm, model, node, ops, run, weights

from pytest_trt.artifacts.directory import DirectoryStore
from pytest_trt.artifacts.graphs import obtain_graph
from pytest_trt.artifacts.store import NullStore
from pytest_trt.errors import ModelError, UsageError
from pytest_trt.spec.model import Model

DIGITS = Path(__file__).parents[2] / "models" / "digits" / "model.onnx"
VARIANTS = ("ort-basic", "ort-extended", "simplified", "opset=19")


def folding() -> onnx.ModelProto:
    """y = relu(x) + (2 + 3), with an Identity in between: work for every optimizer."""
    nodes = [
        node("Add", ["two", "three"], ["five"], name="fold"),
        node("Relu", ["x"], ["r"], name="relu"),
        node("Identity", ["r"], ["i"], name="identity"),
        node("Add", ["i", "five"], ["y"], name="add"),
    ]
    return model(nodes, {"x": ["N", 4]}, {"y": ["N", 4]}, {"two": np.float32(2), "three": np.float32(3)})


def make(proto: onnx.ModelProto, graph: str) -> onnx.ModelProto:
    return obtain_graph(NullStore(), Model.from_proto(proto, "net"), graph).proto


@pytest.mark.parametrize("graph", VARIANTS)
@pytest.mark.parametrize(
    ("proto", "feeds"),
    [
        (folding(), {"x": weights(1, 3, 4)}),
        (conv_net(), {"x": weights(9, 2, 3, 8, 8)}),
        (layer_norm(1e-5), {"x": weights(2, 3, 16)}),
        (attention(-1e4), {"x": weights(3, 2, 5, 16), "keep": np.array([[[1, 1, 0, 1, 0]]] * 2, np.int64)}),
    ],
    ids=["folding", "conv", "layer-norm", "attention"],
)
def test_a_variant_computes_what_the_model_computes(proto: onnx.ModelProto, feeds: dict, graph: str):
    before, after = run(proto, feeds, level="ORT_DISABLE_ALL"), run(make(proto, graph), feeds, level="ORT_DISABLE_ALL")

    np.testing.assert_allclose(after[0], before[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("graph", VARIANTS)
def test_the_digits_model_has_every_variant(graph: str):
    digits = Model.load(DIGITS)
    made = obtain_graph(NullStore(), digits, graph)
    feeds = {digits.inputs[0].name: weights(5, 4, *(int(size) for size in digits.inputs[0].shape[1:]))}

    assert (made.inputs, made.outputs) == (digits.inputs, digits.outputs)
    np.testing.assert_allclose(run(made.proto, feeds)[0], run(digits.proto, feeds)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("graph", ["ort-basic", "simplified"])
def test_constants_are_folded_and_idle_nodes_removed(graph: str):
    assert ops(make(folding(), graph)) == ["Relu", "Add"]


def test_basic_stays_standard_onnx_and_extended_need_not():
    basic, extended = make(conv_net(), "ort-basic"), make(conv_net(), "ort-extended")

    assert [(entry.domain, entry.version) for entry in basic.opset_import] == [("", 17)]
    assert {n.domain for n in basic.graph.node} == {""}
    assert {n.domain for n in extended.graph.node} == {"", "com.microsoft"}
    assert {entry.domain for entry in extended.opset_import} == {"", "com.microsoft"}


def test_an_opset_is_the_one_asked_for_with_an_ir_version_that_knows_it():
    made = make(conv_net(), "opset=21")

    assert made.opset_import[0].version == 21
    assert made.ir_version == 10


def test_as_is_is_the_very_model():
    untouched = Model.from_proto(conv_net(), "net")

    assert obtain_graph(NullStore(), untouched, "as-is") is untouched


@pytest.mark.parametrize("graph", VARIANTS)
def test_the_model_itself_is_left_alone(graph: str):
    before = Model.from_proto(folding(), "net")
    content = before.proto.SerializeToString(deterministic=True)
    obtain_graph(NullStore(), before, graph)

    assert before.proto.SerializeToString(deterministic=True) == content


def test_declared_shapes_survive():
    proto = model([node("Relu", ["x"], ["y"])], {"x": ["batch", 4]}, {"y": [None, 4]})

    for graph in VARIANTS:
        made = obtain_graph(NullStore(), Model.from_proto(proto, "net"), graph)
        assert (made.inputs[0].shape, made.outputs[0].shape) == (("batch", 4), (None, 4)), graph


def test_a_variant_is_made_once_and_anew_for_another_model_or_variant(tmp_path: Path):
    store, said = DirectoryStore(tmp_path), []
    first, other = Model.from_proto(conv_net(), "net"), Model.from_proto(folding(), "net")
    made = [
        obtain_graph(store, which, graph, said.append)
        for which, graph in ((first, "ort-basic"), (first, "ort-basic"), (other, "ort-basic"), (first, "ort-extended"))
    ]

    assert len(said) == 3
    assert made[0].fingerprint == made[1].fingerprint
    assert len({one.fingerprint for one in made}) == 3


@pytest.mark.parametrize(
    ("graph", "hint"),
    [
        ("ort-bassic", "ort-basic"),
        ("opset=", "opset=17"),
        ("opset=x", "opset=17"),
        ("opset=-1", "opset=17"),
        ("", "as-is"),
    ],
)
def test_an_unknown_variant_is_named(graph: str, hint: str):
    with pytest.raises(UsageError, match="there is no graph variant") as caught:
        make(conv_net(), graph)

    assert hint in (caught.value.hint or "")


def test_an_opset_that_onnx_does_not_have_yet():
    with pytest.raises(UsageError, match="opset=999 does not exist") as caught:
        make(conv_net(), "opset=999")

    assert f"1 to {onnx.defs.onnx_opset_version()}" in (caught.value.hint or "")


def test_what_the_converter_cannot_do_comes_in_its_words():
    with pytest.raises(ModelError, match=r"net: onnx cannot convert it to opset 13: .*No Adapter.* for Relu"):
        make(conv_net(), "opset=13")


def test_what_onnxruntime_cannot_open_comes_in_its_words():
    foreign = model([node("Mystery", ["x"], ["y"], domain="acme")], {"x": ["N"]}, {"y": ["N"]}, domains={"acme": 1})
    with pytest.raises(ModelError, match=r"net: ort-basic: .*Mystery"):
        make(foreign, "ort-basic")


def test_without_onnxslim_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pytest_trt.artifacts.graphs.version_of", lambda *names: None)
    with pytest.raises(UsageError, match="needs onnxslim") as caught:
        make(conv_net(), "simplified")

    assert "pytest-trt[graph]" in (caught.value.hint or "")


class Slim:
    """An onnxslim that returns or raises what it is told."""

    def __init__(self, result: onnx.ModelProto | Exception | None) -> None:
        self.result = result

    def slim(self, proto: onnx.ModelProto) -> onnx.ModelProto | None:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def test_a_simplifier_that_works_in_place_changes_a_copy(monkeypatch: pytest.MonkeyPatch):
    class InPlace(Slim):
        def slim(self, proto: onnx.ModelProto) -> onnx.ModelProto:
            proto.producer_name = "slim"
            return proto

    monkeypatch.setitem(sys.modules, "onnxslim", InPlace(None))
    proto = folding()

    assert make(proto, "simplified").producer_name == "slim"
    assert proto.producer_name == ""


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (KeyError("shape"), "onnxslim failed: KeyError: 'shape'"),
        (None, "onnxslim returned no model"),
        (model([node("Relu", ["z"], ["y"])], {"z": ["N", 4]}, {"y": ["N", 4]}), r"other inputs: z \(float32\)"),
        (
            model([node("Relu", ["x"], ["y"])], {"x": ["N", 4]}, {"y": ["N", 4], "x2": ["N", 4]}),
            r"other outputs: y \(float32\), x2 \(float32\) instead of y \(float32\)",
        ),
        (
            model([node("Cast", ["x"], ["y"], to=INT64)], {"x": (FLOAT, ["N", 4])}, {"y": (INT64, ["N", 4])}),
            r"other outputs: y \(int64\) instead of y \(float32\)",
        ),
        (model([node("Relu", ["nowhere"], ["y"])], {"x": ["N", 4]}, {"y": ["N", 4]}), "what simplified made of it"),
    ],
    ids=["raises", "nothing", "input", "output", "type", "broken"],
)
def test_a_variant_that_is_not_the_same_model_outside_is_refused(
    monkeypatch: pytest.MonkeyPatch, result: onnx.ModelProto | Exception | None, said: str
):
    monkeypatch.setitem(sys.modules, "onnxslim", Slim(result))
    with pytest.raises(ModelError, match=said):
        make(folding(), "simplified")
