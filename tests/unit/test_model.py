"""Model: what it says of inputs and outputs, and its fingerprint, which is of the content alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import conv_net, layer_norm, model, node, weights
from onnx import TensorProto, helper, numpy_helper

import pytest_trt.spec.model
from pytest_trt.errors import ModelError
from pytest_trt.spec.model import Model, TensorSpec, dtype_name


def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every model be too large for one protobuf message."""
    monkeypatch.setattr(pytest_trt.spec.model, "_MAX_MESSAGE_BYTES", 10)


def test_inputs_and_outputs_with_their_types_and_dimensions():
    proto = model(
        [node("Identity", [a], [b]) for a, b in zip("abcd", "efgh", strict=True)],
        {
            "a": ["N", 3, None],
            "b": (TensorProto.BFLOAT16, []),
            "c": (TensorProto.INT64, [2]),
            "d": (TensorProto.BOOL, ["N", 0]),
        },
        {
            "e": ["N", 3, None],
            "f": (TensorProto.BFLOAT16, []),
            "g": (TensorProto.INT64, [2]),
            "h": (TensorProto.BOOL, ["N", 0]),
        },
    )
    found = Model.from_proto(proto, "m")

    assert found.inputs == (
        TensorSpec("a", "float32", ("N", 3, None)),
        TensorSpec("b", "bfloat16", ()),
        TensorSpec("c", "int64", (2,)),
        TensorSpec("d", "bool", ("N", 0)),
    )
    assert [(o.name, o.dtype) for o in found.outputs] == [
        ("e", "float32"),
        ("f", "bfloat16"),
        ("g", "int64"),
        ("h", "bool"),
    ]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (TensorProto.FLOAT, "float32"),
        (TensorProto.DOUBLE, "float64"),
        (TensorProto.FLOAT16, "float16"),
        (TensorProto.UINT8, "uint8"),
        (TensorProto.FLOAT8E4M3FN, "float8e4m3fn"),
        (TensorProto.INT4, "int4"),
        (TensorProto.STRING, "string"),
    ],
)
def test_names_of_types(kind: int, name: str):
    assert dtype_name(kind) == name


def test_an_input_that_an_initializer_fills_is_not_fed():
    """As IR version 3 has it: every initializer is an input as well."""
    proto = model([node("Add", ["x", "w"], ["y"])], {"x": [2], "w": [2]}, {"y": [2]}, {"w": np.float32([1, 2])})

    assert [spec.name for spec in Model.from_proto(proto, "m").inputs] == ["x"]


def test_only_tensors_can_be_fed():
    proto = model([node("Identity", ["x"], ["y"])], {"x": [1]}, {"y": [1]})
    proto.graph.input[0].CopyFrom(helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, [1]))

    with pytest.raises(ModelError, match="'x' is a sequence_type; only tensors can be fed and compared"):
        _ = Model.from_proto(proto, "m").inputs


def test_the_fingerprint_does_not_know_name_and_path(tmp_path: Path):
    (tmp_path / "deep").mkdir()
    files = [tmp_path / "a.onnx", tmp_path / "deep" / "b.onnx"]
    for file in files:
        onnx.save(conv_net(), file)
    loaded = [Model.load(files[0]), Model.load(files[1]), Model.load(files[0], name="other")]

    assert [m.name for m in loaded] == ["a", "b", "other"]
    assert len({m.fingerprint for m in loaded}) == 1
    assert len(loaded[0].fingerprint) == 64


def test_the_fingerprint_is_stable_across_versions():
    """A change strands every cache and every baseline's note of it: it must come with a new prefix in the digest."""
    proto = onnx.ModelProto(ir_version=8)
    proto.opset_import.add(domain="", version=17)
    proto.graph.name = "g"

    assert Model.from_proto(proto, "m").fingerprint == (
        "f3b534e9952106a1e837d4ef7e044907864e6cff24968cd30cb7df1abb3de5d7"
    )


def changed(what: str) -> onnx.ModelProto:
    proto = conv_net()
    if what == "weight":
        array = numpy_helper.to_array(proto.graph.initializer[0]).copy()
        array.flat[-1] = np.nextafter(array.flat[-1], np.float32(9))
        proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(array, proto.graph.initializer[0].name))
    elif what == "attribute":
        proto.graph.node[0].attribute[0].ints[0] = 0
    elif what == "wiring":
        proto.graph.node[4].input[0] = "r1"
    elif what == "name":
        proto.graph.output[0].name = "z"
    elif what == "opset":
        proto.opset_import[0].version = 18
    return proto


@pytest.mark.parametrize("what", ["weight", "attribute", "wiring", "name", "opset"])
@pytest.mark.parametrize("large", [False, True], ids=["one-message", "in-parts"])
def test_the_fingerprint_sees_every_change(what: str, large: bool, monkeypatch: pytest.MonkeyPatch):
    if large:
        small_limit(monkeypatch)
    before, after = Model.from_proto(conv_net(), "m"), Model.from_proto(changed(what), "m")

    assert before.fits_in_memory_message is not large
    assert before.fingerprint == Model.from_proto(conv_net(), "m").fingerprint
    assert before.fingerprint != after.fingerprint


def test_one_bit_of_a_large_weight_counts_in_parts(monkeypatch: pytest.MonkeyPatch):
    """Weights that are too large for shape inference are left out of copies: never out of the digest."""
    small_limit(monkeypatch)
    prints = set()
    for flip in (0, 1):
        array = weights(1, 64, 64)
        array.view(np.uint32)[-1, -1] ^= flip
        proto = model([node("MatMul", ["x", "w"], ["y"])], {"x": [1, 64]}, {"y": [1, 64]}, {"w": array})
        prints.add(Model.from_proto(proto, "m").fingerprint)

    assert len(prints) == 2


def test_swapped_weights_are_told_apart_in_parts(monkeypatch: pytest.MonkeyPatch):
    small_limit(monkeypatch)
    a, b = np.float32([1, 2]), np.float32([3, 4])
    nodes = [node("Add", ["x", "a"], ["h"]), node("Mul", ["h", "b"], ["y"])]
    prints = {
        Model.from_proto(model(nodes, {"x": [2]}, {"y": [2]}, values), "m").fingerprint
        for values in ({"a": a, "b": b}, {"a": b, "b": a})
    }

    assert len(prints) == 2


def test_external_data_give_the_fingerprint_of_the_same_model_inline(tmp_path: Path):
    inline, outside = tmp_path / "inline.onnx", tmp_path / "outside.onnx"
    onnx.save(conv_net(), inline)
    onnx.save_model(conv_net(), outside, save_as_external_data=True, location="weights.bin", size_threshold=0)

    assert (tmp_path / "weights.bin").stat().st_size > 0
    assert Model.load(outside).fingerprint == Model.load(inline).fingerprint


def test_external_data_count(tmp_path: Path):
    file, data = tmp_path / "outside.onnx", tmp_path / "weights.bin"
    onnx.save_model(conv_net(), file, save_as_external_data=True, location=data.name, size_threshold=0)
    before = Model.load(file).fingerprint
    content = bytearray(data.read_bytes())
    content[2] ^= 1
    data.write_bytes(content)

    assert Model.load(file).fingerprint != before


def test_a_small_model_is_saved_as_one_file(tmp_path: Path):
    original = Model.from_proto(layer_norm(1e-5), "m")
    path = original.save(tmp_path)

    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx"]
    assert Model.load(path).fingerprint == original.fingerprint
    assert original.serialized() == path.read_bytes()
    assert original.nbytes == path.stat().st_size


def test_a_large_model_is_saved_with_its_weights_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    proto = model([node("MatMul", ["x", "w"], ["y"])], {"x": [1, 64]}, {"y": [1, 64]}, {"w": weights(1, 64, 64)})
    original = Model.from_proto(proto, "m")
    with monkeypatch.context() as patch:
        small_limit(patch)
        path = original.save(tmp_path)

    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert Model.load(path).fingerprint == original.fingerprint
    assert proto.graph.initializer[0].HasField("raw_data")  # the model itself was not touched


def test_a_large_model_is_no_one_message(monkeypatch: pytest.MonkeyPatch):
    small_limit(monkeypatch)
    large = Model.from_proto(conv_net(), "big")

    with pytest.raises(ModelError, match=rf"model 'big' has {large.nbytes} bytes, more than one ONNX message holds"):
        large.serialized()


def test_a_size_that_protobuf_cannot_count_is_never_taken_for_a_small_one():
    """protobuf counts by serializing, and that fails from 2 GiB on."""
    from google.protobuf.message import EncodeError

    class Graph:
        initializer = (onnx.TensorProto(raw_data=b"1234"),)

    class Uncountable:
        graph = Graph()

        def ByteSize(self) -> int:
            raise EncodeError("Failed to serialize proto")

    found = Model("m", Uncountable())  # type: ignore[arg-type]
    assert found.nbytes == 2**31
    assert not found.fits_in_memory_message


def test_load_refuses_what_is_not_there(tmp_path: Path):
    with pytest.raises(ModelError, match="no such model file"):
        Model.load(str(tmp_path / "none.onnx"))
