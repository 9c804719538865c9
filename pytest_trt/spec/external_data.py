"""External data: read into the model, from regular files inside its folder and from nowhere else."""

from __future__ import annotations

import re
import stat
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, NamedTuple

from pytest_trt.errors import ModelError, UnsafeModelError
from pytest_trt.spec.payload import TYPED_FIELDS, iter_tensors, memory_limit_bytes, open_regular, tensor_nbytes

if TYPE_CHECKING:
    import onnx

__all__ = ["resolve_external_data"]


class _External(NamedTuple):
    tensor: onnx.TensorProto
    where: str
    file: Path
    offset: int
    nbytes: int


def resolve_external_data(proto: onnx.ModelProto, folder: Path, source: str) -> list[str]:
    """Read all external data of *proto* into it. Only regular files below *folder* (a real path) are read;
    their locations are returned.

    Raises UnsafeModelError for a location outside the folder (absolute, ``..``, through a symlink) or one that
    is no regular file; ModelError for a missing or short file, or when memory cannot hold the sum.
    """
    parts = []
    files: dict[str, tuple[Path, int]] = {}
    for tensor, at in iter_tensors(proto):
        if tensor.data_location == tensor.EXTERNAL:
            parts.append(_locate(tensor, f"{source}: {at}", folder, files))
    total, limit = sum(part.nbytes for part in parts), memory_limit_bytes()
    if total > limit:
        raise ModelError(
            f"{source}: its external data are {total} bytes, but this machine has {limit} bytes of memory",
            hint="check offset and length of its external tensors, or use a larger machine",
        )
    for part in parts:
        _read(part)
    return list(files)


def _locate(tensor: onnx.TensorProto, where: str, folder: Path, files: dict[str, tuple[Path, int]]) -> _External:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if not isinstance(location, str) or not location or "\0" in location:
        raise ModelError(f"{where} is external but has no usable location", hint="export the model again")
    nbytes = tensor_nbytes(tensor, where)
    numbers = {}
    for key, default in (("offset", 0), ("length", nbytes)):
        text = entries.get(key, str(default))
        if not isinstance(text, str) or not re.fullmatch(r"[0-9]{1,19}", text):
            raise ModelError(f"{where} has {key} {text!r}", hint="it must be a number of bytes ≥ 0")
        numbers[key] = int(text)
    if numbers["length"] != nbytes:
        raise ModelError(
            f"{where} needs {nbytes} bytes, but its external length is {numbers['length']}",
            hint="shape and data do not belong together: export the model again",
        )
    if location not in files:
        files[location] = _data_file(location, where, folder)
    file, size = files[location]
    if numbers["offset"] + nbytes > size:
        raise ModelError(
            f"{where} needs bytes {numbers['offset']} to {numbers['offset'] + nbytes} of {location!r}, "
            f"which has {size}",
            hint="the data file is cut off or belongs to another model: copy it again",
        )
    return _External(tensor, where, file, numbers["offset"], nbytes)


def _data_file(location: str, where: str, folder: Path) -> tuple[Path, int]:
    """Return real path and size of a data file that lies below *folder*."""
    # Judge the text by Windows' rules as well: a model must be refused alike on every machine.
    if location[0] in "/\\" or PureWindowsPath(location).drive or ".." in re.split(r"[/\\]", location):
        raise UnsafeModelError(
            f"{where} asks for {location!r}, outside the model's folder",
            hint="put the file beside the model and save it with a relative location",
        )
    try:
        file = (folder / location).resolve(strict=True)
        status = file.stat()
    except FileNotFoundError:
        raise ModelError(
            f"{where}: external data file {location!r} is missing", hint=f"copy it into {folder}"
        ) from None
    except (OSError, RuntimeError) as error:  # RuntimeError: a symlink loop before Python 3.13
        raise ModelError(
            f"{where}: cannot reach {location!r:.200}: {error!s:.200}", hint=f"check it in {folder}"
        ) from None
    if not file.is_relative_to(folder):
        raise UnsafeModelError(
            f"{where}: {location!r} is a link to {file}, outside the model's folder",
            hint=f"copy the file itself into {folder}",
        )
    if not stat.S_ISREG(status.st_mode):
        raise UnsafeModelError(f"{where}: {location!r} is no regular file", hint="external data must be a plain file")
    return file, status.st_size


def _read(part: _External) -> None:
    try:
        with open_regular(part.file) as file:
            file.seek(part.offset)
            data = file.read(part.nbytes)
    except OSError as error:
        raise ModelError(
            f"{part.where}: cannot read {part.file}: {error}", hint="check the file and its rights"
        ) from None
    if len(data) != part.nbytes:
        raise ModelError(f"{part.where}: {part.file} became shorter while it was read", hint="try again")
    for field in (*TYPED_FIELDS, "external_data", "data_location"):
        part.tensor.ClearField(field)
    part.tensor.raw_data = data
