"""The engine inspector's JSON as plain values. Pure: 8.6, 10 and 11 write it differently, and this reads them all."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Layer", "read_layers"]

# Types are spelled in many ways: "Row major linear FP32", "Half", "Thirty-two wide … Int8 format". Those that hold
# indices and sizes come last: a layer that reads indices too computes in its other type.
_SPELLINGS = {
    "FLOAT": r"FP32|Float32|Float",
    "HALF": r"FP16|Float16|Half",
    "BF16": r"BF16|BFloat16",
    "INT8": r"Int8",
    "FP8": r"FP8\w*|Float8\w*",
    "FP4": r"FP4\w*|Float4\w*",
    "INT4": r"Int4",
    "UINT8": r"UInt8",
    "INT32": r"Int32",
    "INT64": r"Int64",
    "BOOL": r"Bool",
}
_TYPES = {name: re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE) for name, pattern in _SPELLINGS.items()}
_INDICES = ("INT32", "INT64", "BOOL")

# Layers that move or retype data and compute nothing. 8.6 writes a QuantizeLinear as a Reformat, too.
_MOVING = (
    "cast",
    "constant",
    "dequantize",
    "devicetoshapehost",
    "noop",
    "quantize",
    "reformat",
    "shapehosttodevice",
    "shuffle",
    "signal",
    "trainstation",
    "wait",
)
# The same by name, where names are all that is shown.
_REFORMAT_NAME = "Reformatting CopyNode"
_MOVING_NAMES = (_REFORMAT_NAME, "[trainStation")
_MULTIPLYING = re.compile(r"conv|gemm|matmul|matrixmultiply|fullyconnected|mha", re.IGNORECASE)
_REGION = re.compile(r"_myl(\d+)_\d+$")
_OTHER_PROFILE = re.compile(r"\[profile [1-9]\d*\]$", re.IGNORECASE)
_ONNX_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")


@dataclass(frozen=True)
class Layer:
    """One layer of an engine.

    ``kind`` is its LayerType in lowercase, empty where only names are shown. ``dtype`` is the DataType's name that it
    computes in: that of its weights, else of its first border that is not an index; None where that is not shown.
    ``weights`` counts elements. ``tactic`` is the kernel's name and its number, as far as they are shown. ``parts``
    counts what was fused into it.
    """

    name: str
    kind: str = ""
    dtype: str | None = None
    weights: int = 0
    tactic: str | None = None
    parts: int = 1
    origin: str = ""

    @property
    def moves(self) -> bool:
        """Whether it only moves data, so that its types say nothing about the precision of the engine."""
        return self.kind.startswith(_MOVING) or self.name.startswith(_MOVING_NAMES)

    @property
    def reformats(self) -> bool:
        """Whether it was put in to change a layout; not a copy of a Concat and not a QuantizeLinear."""
        kind = self.kind or ("reformat" if self.name.startswith(_REFORMAT_NAME) else "")
        return kind.startswith("reformat") and self.origin in ("", "REFORMAT")

    @property
    def whole_region(self) -> bool:
        """Whether it is a region of the graph compiler (Myelin) that shows its borders alone, as in 8.6."""
        return not self.moves and (self.kind.startswith("myelin") or self.name.startswith("{ForeignNode["))

    @property
    def region(self) -> str | None:
        """The region of the graph compiler that it is, or (from 10 on) one kernel of; None: it is none."""
        if self.whole_region:
            return self.name
        found = _REGION.search(self.name)
        return found.group(1) if found else None

    @property
    def generated(self) -> bool:
        """Whether the graph compiler wrote its kernel, in which several operations, products too, may hide."""
        return self.kind == "kgen"

    @property
    def multiplies(self) -> bool:
        """Whether its work is products of matrices: what a precision is asked for."""
        return not self.moves and bool(self.weights or _MULTIPLYING.search(self.kind))


def read_layers(text: str) -> list[Layer]:
    """The layers in the inspector's JSON *text*, without those of an engine's second and later profiles, which repeat
    them; empty where it cannot be read."""
    try:
        # Names of nodes may hold raw control characters.
        content = json.loads(text, strict=False)
    except json.JSONDecodeError:
        return []
    entries = content.get("Layers") if isinstance(content, dict) else None
    layers = [_layer(entry) for entry in entries] if isinstance(entries, list) else []
    return [layer for layer in layers if not _OTHER_PROFILE.search(layer.name.rstrip())]


def _layer(entry: Any) -> Layer:
    # Without DETAILED verbosity the layers are plain names.
    if not isinstance(entry, dict):
        return Layer(str(entry), parts=_parts(str(entry), ""))
    name = str(entry.get("Name", ""))
    kind = str(entry.get("LayerType", "")).lower()
    weights = entry.get("Weights")
    known = weights if isinstance(weights, dict) else {}
    count = known.get("Count")
    return Layer(
        name,
        kind,
        _type_in(str(known.get("Type", ""))) or _border_type(entry),
        count if isinstance(count, int) else 0,
        _tactic(entry),
        _parts(name, str(entry.get("Metadata") or "")),
        str(entry.get("Origin") or "").upper(),
    )


def _border_type(entry: Mapping[str, Any]) -> str | None:
    found = []
    for side in ("Inputs", "Outputs"):
        tensors = entry.get(side)
        for tensor in tensors if isinstance(tensors, list) else []:
            if isinstance(tensor, dict):
                # 11 writes the type and the format apart.
                written = (tensor.get(key) for key in ("DataType", "Datatype", "Format/Datatype"))
                found.append(next((t for text in written if (t := _type_in(str(text or "")))), None))
    shown = [name for name in found if name]
    return next((name for name in shown if name not in _INDICES), shown[0] if shown else None)


def _type_in(text: str) -> str | None:
    return next((name for name, pattern in _TYPES.items() if pattern.search(text)), None)


def _tactic(entry: Mapping[str, Any]) -> str | None:
    name, value = str(entry.get("TacticName") or ""), str(entry.get("TacticValue") or "")
    # Zero stands for "there was nothing to choose", as in a region of the graph compiler.
    number = value if value.strip("0xX") else ""
    return " ".join(part for part in (name, number) if part) or None


def _parts(name: str, metadata: str) -> int:
    """How many nodes were fused: those that the metadata lists, or, where it lists none, that the name joins."""
    nodes = set(_ONNX_NODE.findall(metadata))
    if nodes:
        return len(nodes)
    return name.count(" + ") + (name.count(", ") if "PWN(" in name else 0) + 1
