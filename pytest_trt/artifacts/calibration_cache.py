"""What TensorRT's own calibration found: one table of scales per model, samples, algorithm, device and version."""

from __future__ import annotations

import re
import struct

from pytest_trt.artifacts.key import Key
from pytest_trt.artifacts.store import Store
from pytest_trt.backends import Backend, BuildRequest
from pytest_trt.errors import ArtifactError

__all__ = [
    "calibration_scales",
    "load_calibration_cache",
    "same_cache",
    "save_calibration_cache",
]

_FILE = "calibration.cache"
# The legacy algorithm writes no version, but a number and two doubles in hexadecimal.
_HEADER = re.compile(r"TRT-|\d+ [0-9a-f]{16} [0-9a-f]{16}$")


def _key(backend: Backend, request: BuildRequest) -> Key:
    calibration = request.calibration
    if calibration is None:
        raise ArtifactError(f"the build of {request.model.name!r} has no calibration, and so no cache of one")
    return Key.make(
        "calibration",
        {
            "model": request.model.fingerprint,
            "inputs": calibration.fingerprint,
            "algorithm": calibration.algorithm,
            "backend": backend.name,
            "identity": backend.identity(),
        },
    )


def load_calibration_cache(store: Store, backend: Backend, request: BuildRequest) -> bytes | None:
    """Return the table that an earlier calibration of *request*'s model and samples left here, or None."""
    entry = store.get(_key(backend, request))
    return entry.files[_FILE] if entry is not None else None


def save_calibration_cache(store: Store, backend: Backend, request: BuildRequest, blob: bytes) -> None:
    """Keep *blob*, in place of an older table: it is the one that an engine was built with. Raises ArtifactError."""
    key = _key(backend, request)
    label = f"calibration cache of {request.model.name} ({key.ingredients['algorithm']})"
    store.put(key, {_FILE: blob}, label=label, replace=True)


def same_cache(one: bytes, other: bytes) -> bool:
    """Whether a calibration was reproduced: bit for bit, the header with the version included."""
    return one == other


def calibration_scales(blob: bytes) -> dict[str, float]:
    """Return the scale of each tensor in the table: real value = scale · int8. Raises ArtifactError."""
    scales = {}
    for number, line in enumerate(_lines(blob)[1:], start=2):
        name, colon, digits = line.rpartition(":")  # names hold colons, too
        try:
            (scale,) = struct.unpack(">f", bytes.fromhex(digits.strip()))
        except (ValueError, struct.error) as error:
            raise ArtifactError(f"line {number} of the calibration cache is no 'tensor: hexadecimal float'") from error
        if not colon or not name:
            raise ArtifactError(f"line {number} of the calibration cache names no tensor")
        scales[name] = float(scale)
    return scales


def _lines(blob: bytes) -> list[str]:
    lines = [line for line in blob.decode("utf-8", "backslashreplace").split("\n") if line.strip()]
    if not lines or not _HEADER.match(lines[0]):
        raise ArtifactError(
            "this is no calibration cache: its first line does not start with 'TRT-'", hint="pytest-trt cache verify"
        )
    return lines
