"""Builders of broken and hostile models and inputs, for every test that wants to see them refused.

``MODELS`` break when the model is loaded, ``INPUTS`` lie beside a sound model and break when the folder's test
data are read. Each builder writes into an empty folder and returns the path of the model file to give to the
loader; ``EXPECTED`` has a pattern of the message. ``UNSAFE`` are those that reach outside their folder.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["EXPECTED", "HOSTILE", "INPUTS", "MODELS", "UNSAFE", "small_model"]

Builder = Callable[[Path], Path]

MODELS: dict[str, Builder] = {}
INPUTS: dict[str, Builder] = {}
EXPECTED: dict[str, str] = {}
UNSAFE = {
    "external_absolute",
    "external_parent",
    "external_windows_drive",
    "external_symlink",
    "external_fifo",
    "model_symlink",
    "model_fifo",
}


def _value(name: str, shape: Iterable[int | str], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def _model(
    nodes: list[onnx.NodeProto], initializers: Iterable[onnx.TensorProto] = (), shape: tuple[int | str, ...] = ("n", 4)
) -> onnx.ModelProto:
    """A model from ``x`` to ``y``, both of *shape*."""
    graph = helper.make_graph(nodes, "graph", [_value("x", shape)], [_value("y", shape)], list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def small_model() -> onnx.ModelProto:
    """A sound model with one of everything that can break: a weight, a shape, an attribute, two nodes."""
    weight = numpy_helper.from_array(np.arange(16, dtype=np.float32).reshape(4, 4), "weight")
    shape = numpy_helper.from_array(np.array([-1, 4], np.int64), "shape")
    nodes = [
        helper.make_node("Gemm", ["x", "weight"], ["hidden"], name="gemm", alpha=0.5),
        helper.make_node("Reshape", ["hidden", "shape"], ["y"], name="reshape"),
    ]
    return _model(nodes, [weight, shape])


def _model_case(expected: str) -> Callable[[Callable[[], onnx.ModelProto]], Callable[[], onnx.ModelProto]]:
    """Register a function that returns a broken model."""

    def register(make: Callable[[], onnx.ModelProto]) -> Callable[[], onnx.ModelProto]:
        def build(folder: Path) -> Path:
            path = folder / "model.onnx"
            path.write_bytes(make().SerializeToString())
            return path

        MODELS[make.__name__] = build
        EXPECTED[make.__name__] = expected
        return make

    return register


def _file_case(expected: str) -> Callable[[Builder], Builder]:
    """Register a builder of files."""

    def register(build: Builder) -> Builder:
        MODELS[build.__name__] = build
        EXPECTED[build.__name__] = expected
        return build

    return register


def _bytes_case(name: str, data: bytes, expected: str) -> None:
    def build(folder: Path) -> Path:
        path = folder / "model.onnx"
        path.write_bytes(data)
        return path

    MODELS[name] = build
    EXPECTED[name] = expected


# Files that are no model.

_sound = small_model().SerializeToString()
_bytes_case("empty_file", b"", r"is empty")
_bytes_case("truncated", _sound[: len(_sound) // 2], r"no readable ONNX .*truncated")
_bytes_case("random_bytes", np.random.default_rng(1).bytes(4096), r"no readable ONNX|no graph")
_bytes_case("text_file", b"pip install onnx\nand then run it\n" * 20, r"text file")
_bytes_case("html_page", b"\n<!DOCTYPE html>\n<html><body>404</body></html>", r"HTML")
_bytes_case(
    "git_lfs_pointer",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 102857600\n",
    r"git-lfs pointer",
)
_bytes_case("zip_archive", b"PK\x03\x04" + bytes(200), r"zip archive")
_bytes_case("gzip_file", b"\x1f\x8b\x08" + bytes(200), r"gzip")
_bytes_case("no_graph", onnx.ModelProto(ir_version=8, producer_name="x").SerializeToString(), r"no graph")


def _field(number: int, body: bytes) -> bytes:
    size, length = b"", len(body)
    while length >= 0x80:
        size += bytes([length & 0x7F | 0x80])
        length >>= 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + body


def _nested(levels: int) -> bytes:
    # GraphProto.node = 1, NodeProto.attribute = 5, AttributeProto.g = 6, ModelProto.graph = 7
    graph = b""
    for _ in range(levels):
        graph = _field(1, _field(5, _field(6, graph)))
    return b"\x08\x08" + _field(7, graph)


_bytes_case("deeply_nested", _nested(60), r"nested too deeply")
_bytes_case("abysmally_nested", _nested(3000), r"nested too deeply")


@_file_case(r"no such model file")
def missing_file(folder: Path) -> Path:
    (folder / "modle.onnx").write_bytes(_sound)
    return folder / "model.onnx"


@_file_case(r"is a folder")
def folder_as_model(folder: Path) -> Path:
    (folder / "model.onnx").mkdir()
    return folder / "model.onnx"


@_file_case(r"outside its folder")
def model_symlink(folder: Path) -> Path:
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "real.onnx").write_bytes(_sound)
    (folder / "here").mkdir()
    (folder / "here" / "model.onnx").symlink_to(folder / "elsewhere" / "real.onnx")
    return folder / "here" / "model.onnx"


@_file_case(r"cannot be opened")
def model_symlink_loop(folder: Path) -> Path:
    (folder / "model.onnx").symlink_to(folder / "model.onnx")
    return folder / "model.onnx"


@_file_case(r"no regular file")
def model_fifo(folder: Path) -> Path:
    os.mkfifo(folder / "model.onnx")
    return folder / "model.onnx"


# Versions.


@_model_case(r"opset 9999 of 'ai.onnx'")
def opset_of_the_future() -> onnx.ModelProto:
    model = small_model()
    model.opset_import[0].version = 9999
    return model


@_model_case(r"IR version 9999")
def ir_of_the_future() -> onnx.ModelProto:
    model = small_model()
    model.ir_version = 9999
    return model


@_model_case(r"IR version 0")
def no_ir_version() -> onnx.ModelProto:
    model = small_model()
    model.ClearField("ir_version")
    return model


@_model_case(r"no opset_import")
def no_opset_import() -> onnx.ModelProto:
    model = small_model()
    del model.opset_import[:]
    return model


# Operators.


@_model_case(r"'soft' \(Sofmax\) is no operator[^\0]*did you mean 'Softmax'")
def unknown_operator() -> onnx.ModelProto:
    return _model([helper.make_node("Sofmax", ["x"], ["y"], name="soft")])


@_model_case(r"exists since opset 20")
def operator_of_a_newer_opset() -> onnx.ModelProto:
    return _model([helper.make_node("Gelu", ["x"], ["y"], name="gelu")])


@_model_case(r"imports no opset of domain 'com.example'")
def domain_not_imported() -> onnx.ModelProto:
    return _model([helper.make_node("Foo", ["x"], ["y"], name="foo", domain="com.example")])


@_model_case(r"'pool' \(MaxPool\): strides is 0")
def stride_of_zero() -> onnx.ModelProto:
    return _model(
        [helper.make_node("MaxPool", ["x"], ["y"], name="pool", kernel_shape=[2, 2], strides=[0, 0])],
        shape=(1, 4, 8, 8),
    )


@_model_case(r"of 50000 characters is not valid")
def endless_einsum() -> onnx.ModelProto:
    return _model([helper.make_node("Einsum", ["x"], ["y"], name="einsum", equation="." * 50_000)])


@_model_case(r"equation b'...i\\x80->...i' of 11 characters is not valid")
def einsum_with_a_stray_byte() -> onnx.ModelProto:
    """onnx never returns from this one."""
    node = helper.make_node("Einsum", ["x"], ["y"], name="einsum", equation="e")
    node.attribute[0].s = b"...i\x80->...i"
    return _model([node])


@_model_case(r"onnx's checker refuses it")
def missing_attribute() -> onnx.ModelProto:
    return _model([helper.make_node("Concat", ["x", "x"], ["y"], name="concat")])


# Structure.


@_model_case(r"node 'a' .*part of a cycle")
def cycle() -> onnx.ModelProto:
    return _model(
        [
            helper.make_node("Add", ["x", "late"], ["early"], name="a"),
            helper.make_node("Relu", ["early"], ["late"], name="b"),
            helper.make_node("Relu", ["late"], ["y"], name="c"),
        ]
    )


@_model_case(r"not sorted: node 'second' .*before node 'first'")
def unsorted() -> onnx.ModelProto:
    return _model(
        [helper.make_node("Relu", ["t"], ["y"], name="second"), helper.make_node("Relu", ["x"], ["t"], name="first")]
    )


@_model_case(r"node 'add' .*uses 'hiden'[^\0]*did you mean 'hidden'")
def dangling_input() -> onnx.ModelProto:
    return _model(
        [helper.make_node("Relu", ["x"], ["hidden"]), helper.make_node("Add", ["x", "hiden"], ["y"], name="add")]
    )


@_model_case(r"nothing produces the output 'y'")
def dangling_output() -> onnx.ModelProto:
    return _model([helper.make_node("Relu", ["x"], ["z"], name="relu")])


@_model_case(r"node 'two' .*produces 'y', which exists already")
def duplicate_producer() -> onnx.ModelProto:
    return _model(
        [helper.make_node("Relu", ["x"], ["y"], name="one"), helper.make_node("Abs", ["x"], ["y"], name="two")]
    )


@_model_case(r"two initializers are named 'weight'")
def duplicate_initializer() -> onnx.ModelProto:
    model = small_model()
    model.graph.initializer.append(model.graph.initializer[0])
    return model


@_model_case(r"not UTF-8")
def name_not_utf8() -> onnx.ModelProto:
    return onnx.ModelProto.FromString(small_model().SerializeToString().replace(b"hidden", b"hid\xff\xfen"))


def _calls(name: str, callees: list[str]) -> onnx.FunctionProto:
    nodes = [helper.make_node(c, ["a"], [f"t{i}"], domain="local") for i, c in enumerate(callees)]
    nodes.append(helper.make_node("Identity", [nodes[-1].output[0] if nodes else "a"], ["b"]))
    return helper.make_function(
        "local", name, ["a"], ["b"], nodes, [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    )


def _with_functions(functions: list[onnx.FunctionProto]) -> onnx.ModelProto:
    model = _model([helper.make_node(functions[0].name, ["x"], ["y"], domain="local")])
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.functions.extend(functions)
    return model


@_model_case(r"cycle: A → B → A")
def recursive_functions() -> onnx.ModelProto:
    return _with_functions([_calls("A", ["B"]), _calls("B", ["A"])])


@_model_case(r"functions expand to \d+ nodes")
def exploding_functions() -> onnx.ModelProto:
    return _with_functions([_calls(f"F{i}", [f"F{i + 1}"] * 2) for i in range(30)] + [_calls("F30", [])])


@_model_case(r"more than 64 levels deep")
def bottomless_functions() -> onnx.ModelProto:
    return _with_functions([_calls(f"F{i}", [f"F{i + 1}"]) for i in range(2000)] + [_calls("F2000", [])])


# Types and shapes.


@_model_case(r"shapes clash: .*add")
def clashing_shapes() -> onnx.ModelProto:
    five = numpy_helper.from_array(np.ones(5, np.float32), "five")
    return _model([helper.make_node("Add", ["x", "five"], ["y"], name="add")], [five])


@_model_case(r"types or shapes clash: .*MatMul|types or shapes clash: .*mm")
def clashing_types() -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.ones((4, 4), np.float64), "weight")
    return _model([helper.make_node("MatMul", ["x", "weight"], ["y"], name="mm")], [weight])


@_model_case(r"input 'x' has a dimension of -1")
def negative_input_dimension() -> onnx.ModelProto:
    return _model([helper.make_node("Relu", ["x"], ["y"])], shape=(-1, 4))


@_model_case(r"input 'x' has element type 999")
def unknown_element_type() -> onnx.ModelProto:
    model = small_model()
    model.graph.input[0].type.tensor_type.elem_type = 999
    return model


@_model_case(r"output 'y' has no shape, and none can be inferred")
def output_without_shape() -> onnx.ModelProto:
    model = _model([helper.make_node("Foo", ["x"], ["y"], domain="com.example")])
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


def _weight(**fields: object) -> onnx.ModelProto:
    """The small model with the payload of ``weight`` replaced."""
    model = small_model()
    model.graph.initializer[0].CopyFrom(TensorProto(name="weight", **{"data_type": TensorProto.FLOAT, **fields}))
    return model


@_model_case(r"'weight': 4x4 float needs 64 bytes, but 63 are there")
def raw_data_short() -> onnx.ModelProto:
    return _weight(dims=[4, 4], raw_data=bytes(63))


@_model_case(r"'weight': 4x4 float needs 16 entries of float_data, but 3 are there")
def typed_data_short() -> onnx.ModelProto:
    return _weight(dims=[4, 4], float_data=[1, 2, 3])


@_model_case(r"holds its data twice")
def data_twice() -> onnx.ModelProto:
    return _weight(dims=[4, 4], raw_data=bytes(64), float_data=[0] * 16)


@_model_case(r"'weight' has shape -4x-4")
def negative_dimensions() -> onnx.ModelProto:
    return _weight(dims=[-4, -4], raw_data=bytes(64))


@_model_case(r"'weight': 4611686018427387904x4611686018427387904 float needs")
def absurd_dimensions() -> onnx.ModelProto:
    return _weight(dims=[2**62, 2**62])


@_model_case(r"'weight' has shape of 100000 dimensions")
def absurd_rank() -> onnx.ModelProto:
    return _weight(dims=[1] * 100_000, raw_data=bytes(4))


@_model_case(r"data type 999")
def unknown_tensor_type() -> onnx.ModelProto:
    return _weight(dims=[4, 4], data_type=999, raw_data=bytes(64))


# External data.


def _external(
    expected: str, location: str = "weight.bin", size: int = 64, **fields: str
) -> Callable[[Builder], Builder]:
    """Register a case whose ``weight`` (64 bytes) is external; the decorated function prepares the folder."""

    def register(prepare: Builder) -> Builder:
        def build(folder: Path) -> Path:
            model = _weight(dims=[4, 4], data_location=TensorProto.EXTERNAL)
            for key, value in {"location": location, **fields}.items():
                model.graph.initializer[0].external_data.add(key=key, value=value)
            home = folder / "home"
            home.mkdir()
            (home / "model.onnx").write_bytes(model.SerializeToString())
            (folder / "secret.bin").write_bytes(bytes(64))
            prepare(home)
            return home / "model.onnx"

        MODELS[prepare.__name__] = build
        EXPECTED[prepare.__name__] = expected
        return build

    return register


@_external(r"external data file 'weight.bin' is missing")
def external_missing(home: Path) -> Path:
    return home


@_external(r"'/etc/passwd', outside the model's folder", location="/etc/passwd")
def external_absolute(home: Path) -> Path:
    return home


@_external(r"'../secret.bin', outside the model's folder", location="../secret.bin")
def external_parent(home: Path) -> Path:
    return home


@_external(r"outside the model's folder", location="C:\\secret.bin")
def external_windows_drive(home: Path) -> Path:
    return home


@_external(r"is a link to .*secret.bin, outside the model's folder")
def external_symlink(home: Path) -> Path:
    (home / "weight.bin").symlink_to(home.parent / "secret.bin")
    return home


@_external(r"cannot reach 'weight.bin'")
def external_symlink_loop(home: Path) -> Path:
    (home / "weight.bin").symlink_to(home / "weight.bin")
    return home


@_external(r"'weight.bin' is no regular file")
def external_fifo(home: Path) -> Path:
    os.mkfifo(home / "weight.bin")
    return home


@_external(r"needs bytes 0 to 64 of 'weight.bin', which has 10")
def external_short(home: Path) -> Path:
    (home / "weight.bin").write_bytes(bytes(10))
    return home


@_external(r"needs bytes 4096 to 4160", offset="4096")
def external_offset_beyond_the_end(home: Path) -> Path:
    (home / "weight.bin").write_bytes(bytes(64))
    return home


@_external(r"has offset '-8'", offset="-8")
def external_negative_offset(home: Path) -> Path:
    (home / "weight.bin").write_bytes(bytes(64))
    return home


@_external(r"needs 64 bytes, but its external length is 32", length="32")
def external_wrong_length(home: Path) -> Path:
    (home / "weight.bin").write_bytes(bytes(64))
    return home


@_external(r"no usable location", location="")
def external_without_location(home: Path) -> Path:
    return home


@_file_case(r"external data are \d+ bytes, but this machine has")
def external_more_than_memory(folder: Path) -> Path:
    """20 000 tensors that all read the same sparse file of 1 GiB."""
    model = small_model()
    for i in range(20_000):
        tensor = model.graph.initializer.add(
            name=f"w{i}", data_type=TensorProto.UINT8, dims=[2**30], data_location=TensorProto.EXTERNAL
        )
        tensor.external_data.add(key="location", value="weight.bin")
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with (folder / "weight.bin").open("wb") as file:
        file.truncate(2**30)
    return folder / "model.onnx"


# Inputs beside a sound model.


def _inputs_case(expected: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Register a function that spoils ``test_data_set_0``, which holds a good input_0.pb before."""

    def register(spoil: Callable[[Path], None]) -> Callable[[Path], None]:
        def build(folder: Path) -> Path:
            (folder / "model.onnx").write_bytes(_sound)
            data = folder / "test_data_set_0"
            data.mkdir()
            (data / "input_0.pb").write_bytes(_tensor(np.ones((2, 4), np.float32)))
            spoil(data)
            return folder / "model.onnx"

        INPUTS[spoil.__name__] = build
        EXPECTED[spoil.__name__] = expected
        return spoil

    return register


def _tensor(array: np.ndarray, name: str = "x") -> bytes:
    return numpy_helper.from_array(array, name).SerializeToString()


@_inputs_case(r"input_0.pb is no TensorProto|input_0.pb.*needs")
def set_truncated(data: Path) -> None:
    whole = (data / "input_0.pb").read_bytes()
    (data / "input_0.pb").write_bytes(whole[:-5])


@_inputs_case(r"input_0.pb")
def set_random_bytes(data: Path) -> None:
    (data / "input_0.pb").write_bytes(np.random.default_rng(2).bytes(500))


@_inputs_case(r"input_0.pb is no TensorProto of 0 bytes")
def set_empty_file(data: Path) -> None:
    (data / "input_0.pb").write_bytes(b"")


@_inputs_case(r"has 2 input files, but the model has 1 inputs")
def set_too_many(data: Path) -> None:
    (data / "input_1.pb").write_bytes(_tensor(np.ones((2, 4), np.float32), "more"))


@_inputs_case(r"has 0 input files")
def set_empty(data: Path) -> None:
    (data / "input_0.pb").unlink()


@_inputs_case(r"numbers are left out")
def set_with_a_gap(data: Path) -> None:
    (data / "input_0.pb").rename(data / "input_7.pb")


@_inputs_case(r"input_last.pb: its name has no number")
def set_file_without_number(data: Path) -> None:
    (data / "input_0.pb").rename(data / "input_last.pb")


@_inputs_case(r"test_data_set_final: a test data set has a number")
def set_folder_without_number(data: Path) -> None:
    data.rename(data.parent / "test_data_set_final")


@_inputs_case(r"holds 'speed' \(float32 3\), but input 0 of the model is 'x'")
def set_unknown_name(data: Path) -> None:
    (data / "input_0.pb").write_bytes(_tensor(np.ones(3, np.float32), "speed"))


@_inputs_case(r"4611686018427387904x4 float needs")
def set_huge_dimensions(data: Path) -> None:
    tensor = TensorProto(name="x", data_type=TensorProto.FLOAT, dims=[2**62, 4], raw_data=bytes(16))
    (data / "input_0.pb").write_bytes(tensor.SerializeToString())


@_inputs_case(r"holds a sequence or an optional")
def set_sequence(data: Path) -> None:
    sequence = numpy_helper.from_list([np.ones((2, 4), np.float32)], "x")
    (data / "input_0.pb").write_bytes(sequence.SerializeToString())


@_inputs_case(r"holds strings")
def set_strings(data: Path) -> None:
    tensor = TensorProto(name="x", data_type=TensorProto.STRING, dims=[2], string_data=[b"a", b"b"])
    (data / "input_0.pb").write_bytes(tensor.SerializeToString())


@_inputs_case(r"is uint8, but the model wants float32")
def set_wrong_type(data: Path) -> None:
    (data / "input_0.pb").write_bytes(_tensor(np.ones((2, 4), np.uint8)))


@_inputs_case(r"1 value of NaN or infinity")
def set_with_nan(data: Path) -> None:
    (data / "input_0.pb").write_bytes(_tensor(np.array([[1, 2, 3, np.nan]], np.float32)))


@_inputs_case(r"its data lie in another file")
def set_external(data: Path) -> None:
    tensor = TensorProto(name="x", data_type=TensorProto.FLOAT, dims=[2, 4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    (data / "input_0.pb").write_bytes(tensor.SerializeToString())


@_inputs_case(r"input_0.pb: cannot be read")
def set_fifo(data: Path) -> None:
    (data / "input_0.pb").unlink()
    os.mkfifo(data / "input_0.pb")


def _npz_case(expected: str) -> Callable[[Callable[[], dict[str, bytes]]], Callable[[], dict[str, bytes]]]:
    """Register a function that returns the members of a broken ``inputs.npz``, by file name."""

    def register(members: Callable[[], dict[str, bytes]]) -> Callable[[], dict[str, bytes]]:
        import zipfile

        def build(folder: Path) -> Path:
            (folder / "model.onnx").write_bytes(_sound)
            with zipfile.ZipFile(folder / "inputs.npz", "w", zipfile.ZIP_DEFLATED) as archive:
                for name, body in members().items():
                    archive.writestr(name, body)
            return folder / "model.onnx"

        INPUTS[members.__name__] = build
        EXPECTED[members.__name__] = expected
        return members

    return register


def _npy_header(text: str) -> bytes:
    body = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(body)) + body


@_npz_case(r"array 'x': shape 4611686018427387904x4 of float32 needs")
def npz_huge_header() -> dict[str, bytes]:
    return {"x.npy": _npy_header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**62}, 4), }}") + bytes(64)}


@_npz_case(r"array 'x' holds Python objects")
def npz_pickle() -> dict[str, bytes]:
    return {
        "x.npy": _npy_header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }") + b"cos\nsystem\n(S'true'\ntR."
    }


@_npz_case(r"array 'x' is no NumPy array")
def npz_nested_header() -> dict[str, bytes]:
    return {"x.npy": _npy_header("(" * 5000)}


@_npz_case(r"no array for input 'x'")
def npz_without_arrays() -> dict[str, bytes]:
    return {}


HOSTILE: dict[str, Builder] = {**MODELS, **INPUTS}
