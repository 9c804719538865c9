"""Loading an ONNX file that nobody vouches for.

In this order, so that nothing later meets what an earlier step refuses: the file (a regular one, inside its
folder, not a git-lfs pointer), protobuf, IR and opsets, the graph's rules, external data, the payload of every
tensor, then onnx's checker and strict shape inference. These two get a copy without the large tensors, so they
cost the same for 100 MB and for 10 GB.

A domain that the model imports is accepted even when onnx does not know it (contrib operators, TensorRT
plugins): whether it runs is the backend's answer. A domain that is not imported is an error.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pytest_trt.errors import ModelError, UnsafeModelError, nearest
from pytest_trt.spec.external_data import resolve_external_data
from pytest_trt.spec.graph_rules import check_graphs
from pytest_trt.spec.payload import check_payload, iter_tensors, open_regular
from pytest_trt.spec.skeleton import fill_function_defaults, light_copy

if TYPE_CHECKING:
    import onnx

__all__ = ["check_proto", "load_proto"]

T = TypeVar("T")

_MAX_MESSAGE_BYTES = 2**31 - 1
_MAX_DETAIL = 600

# How a file that is no ONNX starts -> what it is, and what to do.
_IMPOSTORS = (
    (b"version https://git-lfs", "a git-lfs pointer, not the model", "run `git lfs pull` in its repository"),
    (b"PK\x03\x04", "a zip archive (a PyTorch checkpoint is one)", "unpack it, or export the model to ONNX"),
    (b"\x1f\x8b", "gzip-compressed", "unpack it"),
    (b"\x89HDF", "an HDF5 file (a Keras model is one)", "convert the model with tf2onnx"),
    (b"<", "an HTML or XML page, as a failed download leaves it", "download the model again"),
)


def load_proto(path: Path, external: list[str] | None = None) -> onnx.ModelProto:
    """Read the ONNX model at *path*, check it, and return it with external data in memory.

    Needs about the model's size in memory, twice that while a file without external data is parsed.
    An output whose type or shape the file leaves open gets the inferred one. The locations of external data, relative
    to the file's folder, are added to *external*.

    Raises ModelError (missing, damaged, invalid, too new) or UnsafeModelError (a symlink or external data
    that leave the model's folder); see the module for what is checked.
    """
    file = _locate(path)
    proto = _parse(_read(file, path), path)
    _check_versions(proto, str(path))
    check_graphs(proto, str(path))
    locations = resolve_external_data(proto, file.parent, str(path))
    if external is not None:
        external += locations
    _check_native(proto, str(path))
    return proto


def check_proto(proto: onnx.ModelProto, source: str) -> None:
    """Check a model that is in memory already, its external data resolved; *source* leads every message.

    Raises ModelError. As in ``load_proto``, outputs without a shape get the inferred one.
    """
    _check_versions(proto, source)
    check_graphs(proto, source)
    _check_native(proto, source)


def _locate(path: Path) -> Path:
    """Return the real path of the regular file that *path* names."""
    try:
        folder = path.parent.resolve(strict=True)
        file = path.resolve(strict=True)
        mode = file.stat().st_mode
    except FileNotFoundError:
        raise ModelError(f"{path}: no such model file", hint=_neighbours(path)) from None
    except (OSError, RuntimeError, ValueError) as error:  # a symlink loop, a name too long, a NUL in it
        raise ModelError(f"{path!s:.300}: cannot be opened: {error!s:.300}", hint="check the path") from None
    if not file.is_relative_to(folder):
        raise UnsafeModelError(f"{path} is a link to {file}, outside its folder", hint="name the real file, or copy it")
    if stat.S_ISDIR(mode):
        raise ModelError(f"{path} is a folder, not an ONNX file", hint=_neighbours(path / "model.onnx"))
    if not stat.S_ISREG(mode):
        raise UnsafeModelError(f"{path} is no regular file (a device, FIFO or socket)", hint="name an .onnx file")
    return file


def _neighbours(path: Path) -> str:
    try:
        known = sorted(p.name for p in path.parent.glob("*.onnx"))
    except OSError:
        known = []
    return nearest(path.name, known) if known else f"there is no .onnx file in {path.parent}; check the path"


def _read(file: Path, path: Path) -> bytes:
    try:
        with open_regular(file) as stream:
            data = stream.read(_MAX_MESSAGE_BYTES + 1)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error}", hint="check the file and its rights") from None
    except MemoryError:
        raise ModelError(f"{path}: memory cannot hold it", hint="use a larger machine") from None
    if not data:
        raise ModelError(f"{path} is empty", hint="download or export the model again")
    if len(data) > _MAX_MESSAGE_BYTES:
        raise ModelError(f"{path} has more than 2 GiB, which protobuf cannot hold", hint="save it with external data")
    for start, what, todo in _IMPOSTORS:
        if data[:1024].lstrip().startswith(start):
            raise ModelError(f"{path} is {what}", hint=todo)
    return data


def _parse(data: bytes, path: Path) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except (DecodeError, RecursionError) as error:
        text = re.fullmatch(rb"[\t\r\n\x20-\x7e]+", data[:512])
        raise ModelError(
            f"{path} is a text file, not ONNX"
            if text
            else f"{path} is no readable ONNX ({len(data)} bytes: truncated, damaged, or nested too deeply): {error}",
            hint="download or export the model again",
        ) from None
    except MemoryError:
        raise ModelError(f"{path}: memory cannot hold it", hint="use a larger machine") from None
    if not proto.HasField("graph"):
        raise ModelError(f"{path} holds no graph: it is no ONNX model", hint="download or export the model again")
    return proto


def _check_versions(proto: onnx.ModelProto, source: str) -> None:
    import onnx

    if proto.ir_version > onnx.IR_VERSION:
        raise ModelError(
            f"{source} has IR version {proto.ir_version}; onnx {onnx.__version__} reads up to {onnx.IR_VERSION}",
            hint="upgrade onnx, or save the model with an older IR version",
        )
    if proto.ir_version < 3:
        raise ModelError(
            f"{source} has IR version {proto.ir_version}; 3 (of 2017) is the oldest that names its opsets",
            hint="the file is damaged, or must be exported again",
        )
    if not proto.opset_import:
        raise ModelError(f"{source} has no opset_import", hint="it may be truncated: download or export it again")


def _check_native(proto: onnx.ModelProto, source: str) -> None:
    """Check every tensor's payload, then run onnx's checker and strict shape inference on the light copy."""
    import onnx

    for tensor, where in iter_tensors(proto):
        if tensor.data_location == tensor.EXTERNAL:
            raise ModelError(f"{source}: {where} has external data that were not loaded", hint="load it from its file")
        check_payload(tensor, f"{source}: {where}")
    open_outputs = [value for value in proto.graph.output if not _has_shape(value)]
    light = _run_native(lambda: light_copy(proto), f"{source}: it cannot be copied")
    without = onnx.ModelProto()
    without.CopyFrom(light)
    del without.graph.output[:]
    without.graph.output.extend(value for value in light.graph.output if _has_shape(value))
    _run_native(lambda: onnx.checker.check_model(without), f"{source}: onnx's checker refuses it")
    fill_function_defaults(light)
    inferred = _run_native(
        lambda: onnx.shape_inference.infer_shapes(light, check_type=True, strict_mode=True),
        f"{source}: types or shapes clash",
    )
    types = {value.name: value.type for value in inferred.graph.output}
    for value in open_outputs:
        value.type.CopyFrom(types[value.name])
        if not _has_shape(value):
            raise ModelError(
                f"{source}: output {value.name!r} has no shape, and none can be inferred",
                hint="declare it in the model; dimensions may be symbolic",
            )


def _has_shape(value: onnx.ValueInfoProto) -> bool:
    kind = value.type.WhichOneof("value")
    return kind is not None and (kind != "tensor_type" or value.type.tensor_type.HasField("shape"))


def _run_native(check: Callable[[], T], what: str) -> T:
    """Run one of onnx's C++ checks; whatever it is known to raise becomes one ModelError."""
    import onnx
    from google.protobuf.message import DecodeError, EncodeError

    try:
        return check()
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        onnx.defs.SchemaError,
        DecodeError,
        EncodeError,
        RuntimeError,  # pybind11's default for a C++ exception; the next ones are its translations of std:: types
        ValueError,
        IndexError,
        OverflowError,
        MemoryError,
    ) as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        if len(detail) > _MAX_DETAIL:
            detail = detail[:_MAX_DETAIL] + " …"
        raise ModelError(f"{what}: {detail}", hint="correct that node, or export the model again") from None
