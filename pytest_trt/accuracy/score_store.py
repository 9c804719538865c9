"""Scores as a baseline file keeps them: one line of text that a paired test can be made from. Pure."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.accuracy.drop_test import Known
from pytest_trt.errors import BaselineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MOST_KEPT", "as_kept", "pack", "unpack"]

# Of more scores than these only number, mean and deviation are kept, unless each is 0 or 1: a bit.
MOST_KEPT = 20_000


def as_kept(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """*scores* as a file gives them back, in float32: both sides of a test must be rounded alike, or an engine that did
    not change would differ from itself."""
    return np.asarray(scores, dtype=np.float32).astype(np.float64)


def pack(known: Known) -> dict[str, Any]:
    """``count``, ``mean``, ``deviation``, and where they are kept the scores: as ``bits`` or as ``float32``, compressed
    and in base64."""
    found: dict[str, Any] = {
        "count": known.count,
        "mean": float(f"{known.mean:.9g}"),
        "deviation": float(f"{known.deviation:.9g}"),
    }
    if known.scores is None:
        return found
    if known.binary:
        return {**found, "bits": _text(np.packbits(known.scores.astype(bool)).tobytes())}
    if known.count <= MOST_KEPT:
        found["float32"] = _text(known.scores.astype("<f4").tobytes())
    return found


def unpack(stored: Mapping[str, Any]) -> Known:
    """What ``pack`` made. Raises BaselineError for text that holds other than ``count`` scores."""
    try:
        count, mean, deviation = int(stored["count"]), float(stored["mean"]), float(stored["deviation"])
        if "bits" in stored:
            raw = np.frombuffer(_bytes(stored["bits"], -(-count // 8)), dtype=np.uint8)
            return Known.of(np.unpackbits(raw, count=count).astype(np.float64))
        if "float32" in stored:
            return Known.of(np.frombuffer(_bytes(stored["float32"], 4 * count), dtype="<f4").astype(np.float64))
    except (KeyError, TypeError, ValueError, binascii.Error, zlib.error) as error:
        raise BaselineError(
            f"scores of a baseline cannot be read: {error}", hint="restore the file, or accept the case anew"
        ) from error
    return Known(count, mean, deviation)


def _text(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 9)).decode("ascii")


def _bytes(text: str, size: int) -> bytes:
    # A damaged file must not expand without measure.
    data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), size + 1)
    if len(data) != size:
        raise ValueError(f"{len(data)} bytes where {size} are wanted")
    return data
