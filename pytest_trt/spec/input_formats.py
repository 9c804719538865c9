"""Readers of stored arrays: ``.npy``, ``.npz``, a folder of ``NAME.npy``, ONNX ``TensorProto``, Polygraphy's JSON.

Nothing is unpickled, and a header is believed only when the bytes behind it are really there.
"""

from __future__ import annotations

import base64
import io
import json
import math
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np

from pytest_trt.errors import InputsError, ModelError
from pytest_trt.spec.inputs import Array
from pytest_trt.spec.payload import check_payload, memory_limit_bytes, open_regular

__all__ = ["read_file", "read_json", "read_npy_file", "read_npy_folder", "read_npz", "read_tensor_proto"]

_AGAIN = "the file is damaged or is something else: write it again"


def read_file(path: Path) -> bytes:
    """Return the bytes of the regular file at *path*. Raises InputsError, also when memory cannot hold them."""
    try:
        with open_regular(path.resolve(strict=True)) as stream:
            size = stream.seek(0, io.SEEK_END)
            stream.seek(0)
            if size > memory_limit_bytes():
                raise InputsError(f"{path} has {size} bytes, more than memory holds", hint="split it")
            data = stream.read(size)
    except FileNotFoundError:
        raise InputsError(f"{path}: no such file", hint="check the path; it counts from the model's folder") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise InputsError(f"{path}: cannot be read: {error}", hint="check the file and its rights") from None
    if data.startswith(b"version https://git-lfs"):
        raise InputsError(f"{path} is a git-lfs pointer, not the file", hint="run `git lfs pull` in its repository")
    return data


def read_npy_file(path: Path) -> Array:
    """Return the array in one ``.npy`` file. Raises InputsError."""
    data = read_file(path)
    return _npy(io.BytesIO(data), len(data), str(path))


def read_npz(path: Path) -> dict[str, Array]:
    """Return the arrays in an ``.npz`` archive by name. Raises InputsError."""
    arrays: dict[str, Array] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(read_file(path))) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if total > memory_limit_bytes():
                raise InputsError(f"{path} unpacks to {total} bytes, more than memory holds", hint="split it")
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name in arrays:
                    raise InputsError(f"{path} holds {name!r} twice", hint=_AGAIN)
                with archive.open(member) as stream:
                    arrays[name] = _npy(stream, member.file_size, f"{path}: array {name!r}")
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        # RuntimeError and NotImplementedError: encrypted members and unknown compressions.
        raise InputsError(f"{path} is no readable .npz: {error}", hint=_AGAIN) from None
    return arrays


def read_npy_folder(folder: Path) -> dict[str, Array]:
    """Return the arrays of a folder of ``NAME.npy`` files. Raises InputsError."""
    return {path.stem: read_npy_file(path) for path in sorted(folder.glob("*.npy"))}


def _npy(stream: IO[bytes], size: int, where: str) -> Array:
    """Read one array in NumPy's format from *stream*, which holds *size* bytes."""
    try:
        version = np.lib.format.read_magic(stream)
        reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if reader is None:
            raise InputsError(f"{where} is in .npy format {version[0]}.{version[1]}", hint="save it with numpy.save")
        shape, fortran, dtype = reader(stream)
        consumed = stream.tell()
    except (
        ValueError,
        TypeError,
        KeyError,
        SyntaxError,
        TokenError,
        EOFError,
        OSError,
        MemoryError,
        RecursionError,
    ) as error:
        # NumPy parses the header as Python text, and lets through what Python's parser raises.
        raise InputsError(f"{where} is no NumPy array: {' '.join(str(error).split())[:200]}", hint=_AGAIN) from None
    if dtype.hasobject:
        raise InputsError(
            f"{where} holds Python objects, which are not loaded", hint="store numbers: .astype('float32')"
        )
    if dtype.names is not None or dtype.kind not in "biufcV" or not dtype.itemsize:
        raise InputsError(f"{where} is of type {dtype}, which is not numeric", hint="store plain numbers")
    needed = math.prod(shape) * dtype.itemsize
    if any(d < 0 for d in shape) or len(shape) > 32 or needed != size - consumed:
        raise InputsError(
            f"{where}: shape {'x'.join(map(str, shape))} of {dtype} needs {needed} bytes, "
            f"but {size - consumed} are there",
            hint=_AGAIN,
        )
    data = stream.read(needed)
    if len(data) != needed:
        raise InputsError(f"{where} is cut off", hint=_AGAIN)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def read_tensor_proto(path: Path) -> tuple[str, Array]:
    """Return name and array of an ONNX ``TensorProto`` file. Raises InputsError; sequences are refused."""
    import onnx
    from google.protobuf.message import DecodeError

    data = read_file(path)
    tensor = onnx.TensorProto()
    try:
        tensor.ParseFromString(data)
        if tensor.data_location == tensor.EXTERNAL:
            raise InputsError(f"{path}: its data lie in another file", hint="store the tensor with its data")
        if not tensor.data_type:
            raise InputsError(f"{path} is no TensorProto of {len(data)} bytes", hint=_AGAIN)
        check_payload(tensor, str(path))
        if tensor.data_type == tensor.STRING:
            raise InputsError(
                f"{path} holds strings, which no engine takes", hint="move the string part out of the model"
            )
        array = np.asarray(onnx.numpy_helper.to_array(tensor))
    except (DecodeError, ModelError, InputsError, ValueError, TypeError, RecursionError) as error:
        if _is_sequence(data):
            raise InputsError(
                f"{path} holds a sequence or an optional", hint="only tensors can be fed and compared"
            ) from None
        if isinstance(error, InputsError):
            raise
        what, hint = (
            (error.message, error.hint)
            if isinstance(error, ModelError)
            else (f"{path} is no TensorProto: {error}", None)
        )
        raise InputsError(what, hint=hint or _AGAIN) from None
    name = tensor.name if isinstance(tensor.name, str) else ""  # protobuf gives bytes where it is not UTF-8
    return name, array


def _is_sequence(data: bytes) -> bool:
    """Whether *data* parse as a SequenceProto or OptionalProto that holds something of its own kind."""
    import onnx
    from google.protobuf.message import DecodeError

    for proto, fields in (
        (onnx.SequenceProto(), {1: "tensor_values", 2: "sparse_tensor_values", 3: "sequence_values", 4: "map_values"}),
        (onnx.OptionalProto(), {1: "tensor_value", 2: "sparse_tensor_value", 3: "sequence_value", 4: "map_value"}),
    ):
        try:
            proto.ParseFromString(data)
        except (DecodeError, RecursionError):
            continue
        if any(
            proto.elem_type == kind and field.name == name
            for kind, name in fields.items()
            for field, _ in proto.ListFields()
        ):
            return True
    return False


def read_json(path: Path) -> tuple[str, list[dict[str, Array]]]:
    """Return ``("feeds" | "results", one mapping of name to array per iteration)`` of a Polygraphy JSON file.

    Reads what ``--save-inputs`` writes (one feed mapping, or a list of them) and what ``--save-outputs`` writes
    (RunResults, of one runner). Raises InputsError.
    """
    try:
        document = json.loads(read_file(path))
    except (ValueError, RecursionError) as error:
        raise InputsError(f"{path} is no readable JSON: {error}", hint=_AGAIN) from None
    if isinstance(document, dict) and isinstance(document.get("lst"), list):
        return "results", [_arrays(outputs, str(path)) for outputs in _run_results(document["lst"], path)]
    feeds = document if isinstance(document, list) else [document]
    return "feeds", [_arrays(feed, str(path)) for feed in feeds]


def _run_results(runners: list[Any], path: Path) -> Iterator[Any]:
    if (
        len(runners) != 1
        or not isinstance(runners[0], list)
        or len(runners[0]) != 2
        or not isinstance(runners[0][1], list)
    ):
        raise InputsError(
            f"{path} holds the results of {len(runners)} runners, or something else; expected are those of one",
            hint="save one runner's outputs: polygraphy run --onnxrt --save-outputs FILE",
        )
    for result in runners[0][1]:
        yield result.get("outputs") if isinstance(result, dict) else None


def _arrays(mapping: Any, where: str) -> dict[str, Array]:
    if not isinstance(mapping, dict):
        raise InputsError(
            f"{where} holds no mapping of names to arrays", hint="save it with Polygraphy's --save-inputs"
        )
    return {name: _encoded(value, f"{where}: array {name!r}") for name, value in mapping.items()}


def _encoded(value: Any, where: str) -> Array:
    """Decode ``{"array": BASE64 of a .npy}``, also inside the LazyArray of stored results."""
    if isinstance(value, dict) and "values" in value:
        value = value["values"]
    text = value.get("array") if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise InputsError(f"{where} is no array as Polygraphy stores it", hint="save NumPy arrays, not torch tensors")
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise InputsError(f"{where} is not base64: {error}", hint=_AGAIN) from None
    return _npy(io.BytesIO(data), len(data), where)
