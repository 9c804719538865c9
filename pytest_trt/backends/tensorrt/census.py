"""What an engine really runs in: the data types of its layers, as the engine inspector shows them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_trt.backends.tensorrt.versions import TYPE_FLAGS

if TYPE_CHECKING:
    from pytest_trt.spec.precision import Precision
    from pytest_trt.spec.shapes import Profile

__all__ = ["Census", "take_census"]

# The inspector writes types in many ways: "Row major linear FP32", "Half", "Thirty-two wide … Int8 format".
_SPELLINGS = {
    "FLOAT": r"FP32|Float32|Float",
    "HALF": r"FP16|Float16|Half",
    "BF16": r"BF16|BFloat16",
    "INT8": r"Int8",
    "FP8": r"FP8|Float8\w*",
    "FP4": r"FP4|Float4\w*",
    "INT4": r"Int4",
    "INT32": r"Int32",
    "INT64": r"Int64",
    "BOOL": r"Bool",
    "UINT8": r"UInt8",
}
_TYPES = {name: re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE) for name, pattern in _SPELLINGS.items()}

# Layers that move data and compute nothing: their types say nothing about the precision of an engine.
_MOVING = ("reformat", "noop", "constant", "shapehosttodevice", "devicetoshapehost", "shuffle")

# Fused by TensorRT's graph compiler: only their borders are visible, not the types inside.
_OPAQUE = ("myelin", "kgen", "foreignnode")

_NOT_VISIBLE = "not visible"


@dataclass(frozen=True)
class Census:
    """Layers that compute, counted by data type, and those that do not show theirs."""

    layers: Mapping[str, int] = field(default_factory=dict)
    hidden: int = 0

    def describe(self) -> dict[str, Any] | str:
        """JSON for the facts: ``{"HALF": 52, "FLOAT": 1, "hidden": 2}``, or ``"not visible"``."""
        if not self.layers:
            return _NOT_VISIBLE
        return {**self.layers, **({"hidden": self.hidden} if self.hidden else {})}

    def not_honoured(self, precision: Precision) -> str | None:
        """Say that no layer runs in the type that was asked; None when one does, or when it may be hidden."""
        wanted = next((TYPE_FLAGS[name] for name in precision.flags_on if name in TYPE_FLAGS), None)
        if wanted is None or wanted in self.layers or self.hidden or not self.layers:
            return None
        found = ", ".join(f"{count} in {name}" for name, count in self.layers.items())
        return f"{precision.name} was asked, but no layer of the engine runs in {wanted}: {found}"


def take_census(trt: Any, engine: Any, profile: Profile) -> Census:
    """Read the layers of *engine*. With dynamic shapes their types are only shown for given shapes: the opt ones."""
    inspector = engine.create_engine_inspector()
    context = None
    if not profile.is_static:
        context = engine.create_execution_context()
        if context is not None:  # without memory for one the types stay hidden, which is then what is said
            for name, shape in profile.at("opt").items():
                context.set_input_shape(name, shape)
            inspector.execution_context = context
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    return count_layers(text)


def count_layers(text: str) -> Census:
    """Count the layers in the inspector's JSON, as written by 8.6 to 11."""
    counts: Counter[str] = Counter()
    hidden = 0
    for layer in _layers(text):
        kind = str(layer.get("LayerType", "")).lower()
        if kind.startswith(_MOVING):
            continue
        name = None if kind.startswith(_OPAQUE) else _type_of(layer)
        if name is None:
            hidden += 1
        else:
            counts[name] += 1
    return Census(dict(counts.most_common()), hidden)


def _layers(text: str) -> Iterator[Mapping[str, Any]]:
    try:
        # Node names may hold raw control characters.
        content = json.loads(text, strict=False)
    except json.JSONDecodeError:
        return
    # Without DETAILED verbosity the layers are plain names.
    for layer in content.get("Layers", []) if isinstance(content, dict) else []:
        yield layer if isinstance(layer, dict) else {}


def _type_of(layer: Mapping[str, Any]) -> str | None:
    """The type of the weights where there are some (it is what the arithmetic is in), else of the first border."""
    weights = layer.get("Weights")
    if isinstance(weights, dict) and (name := _type_in(str(weights.get("Type", "")))):
        return name
    for side in ("Inputs", "Outputs"):
        for tensor in layer.get(side) or []:
            if isinstance(tensor, dict):
                # 11 writes the type and the format apart.
                written = (
                    f"{tensor.get('DataType', '')} {tensor.get('Datatype', '')} {tensor.get('Format/Datatype', '')}"
                )
                if name := _type_in(written):
                    return name
    return None


def _type_in(text: str) -> str | None:
    return next((name for name, pattern in _TYPES.items() if pattern.search(text)), None)
