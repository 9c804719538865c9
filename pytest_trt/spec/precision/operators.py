"""Which operands of an ONNX operator may take a 16-bit float type, by its schema at the model's opset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_trt.spec.precision.graph import FLOAT, LOW_NAMES, infer_types, opset_of

if TYPE_CHECKING:
    import onnx

__all__ = ["EXACT_OPS", "FLOAT32_OPERANDS", "MOVEMENT_OPS", "NEUTRAL_OPS", "Retyped", "opset_needed", "retypable"]

MOVEMENT_OPS = frozenset(
    {
        *("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Tile", "Concat", "Split"),
        *("Slice", "Gather", "GatherElements", "GatherND", "DepthToSpace", "SpaceToDepth", "Pad", "Compress"),
        *("ReverseSequence", "Where", "Trilu"),
    }
)
# Their outputs are among their inputs' values (up to the sign) and constants: nothing is rounded in them.
EXACT_OPS = MOVEMENT_OPS | {
    *("Relu", "Abs", "Neg", "Max", "Min", "Clip", "MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin", "Dropout"),
}
# They take any type and give another one, so they read a tensor in whatever type it has.
NEUTRAL_OPS = frozenset({"Cast", "Shape", "Size", "Constant"})

_FLOAT32_OPS = {
    **dict.fromkeys(("If", "Loop", "Scan"), "control flow stays float32, subgraphs included"),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"), "its scales are float32"),
    **dict.fromkeys(
        ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"),
        "random numbers would differ from the float32 model's",
    ),
    "Range": "positions must be exact",
    "CumSum": "a running sum grows beyond what 16 bits hold exactly",
    "NonMaxSuppression": "it takes float32 boxes only",
    "ConstantOfShape": "it is made in float32",
    "EyeLike": "it is made in float32",
}
# Operands that stay float32 although the operator's types would allow another one.
FLOAT32_OPERANDS = {"Resize": {1, 2}, "Upsample": {1}}


@dataclass(frozen=True)
class Retyped:
    """The operands of one node that take the low type, by position."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def opset_needed(proto: onnx.ModelProto, low: int, limit: int) -> int:
    """Return the lowest opset up to *limit* at which the most nodes of *proto* have a form in *low*."""
    types, needed = infer_types(proto), opset_of(proto) or limit
    opset = needed
    for node in proto.graph.node:
        if isinstance(retypable(node, types, opset, low), str) and _is_own(node) and node.op_type not in _FLOAT32_OPS:
            first = _first_opset(node, types, low, above=opset)
            if first is not None and first <= limit:
                needed = max(needed, first)
    return needed


def retypable(node: onnx.NodeProto, types: Mapping[str, int], opset: int | None, low: int) -> Retyped | str | None:
    """Return the operands of *node* that may take *low*, the reason why none may, or None: there are none."""
    touched = [t for t in (*node.input, *node.output) if t]
    unknown = [t for t in touched if t not in types]
    if node.op_type in NEUTRAL_OPS or not (unknown or any(types[t] == FLOAT for t in touched)):
        return None
    if node.op_type in _FLOAT32_OPS:
        return _FLOAT32_OPS[node.op_type]
    if not _is_own(node) or opset is None:
        return f"domain {node.domain!r} is not ONNX's own"
    if unknown:
        return f"the type of {unknown[0]!r} is unknown"
    operands = _operands(node, types, opset)
    if operands is None:
        return f"opset {opset} has no operator {node.op_type}"
    if not operands.inputs:
        return None
    if not operands.accept(low):
        first = _first_opset(node, types, low, above=opset)
        if first is None:
            return f"{node.op_type} has no {LOW_NAMES[low]} form"
        return f"{node.op_type} takes {LOW_NAMES[low]} from opset {first} on; the model has {opset}"
    return Retyped(tuple(operands.inputs), operands.outputs)


def _is_own(node: onnx.NodeProto) -> bool:
    return node.domain in ("", "ai.onnx")


@dataclass(frozen=True)
class _Operands:
    """The float32 operands whose type the operator leaves open: input position → allowed types; outputs."""

    inputs: dict[int, frozenset[str]]
    outputs: tuple[int, ...]

    def accept(self, low: int) -> bool:
        return all(f"tensor({LOW_NAMES[low]})" in allowed for allowed in self.inputs.values())


def _operands(node: onnx.NodeProto, types: Mapping[str, int], opset: int) -> _Operands | None:
    import onnx

    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        return None
    allowed = {c.type_param_str: frozenset(c.allowed_type_strs) for c in schema.type_constraints}
    fixed = FLOAT32_OPERANDS.get(node.op_type, set())
    inputs, bound = {}, set()
    for position, name in enumerate(node.input):
        # The last parameter of a variadic operator stands for all the rest.
        variable = schema.inputs[min(position, len(schema.inputs) - 1)].type_str
        if name and types[name] == FLOAT and variable in allowed and position not in fixed:
            inputs[position] = allowed[variable]
            bound.add(variable)
    outputs = tuple(
        position
        for position, name in enumerate(node.output)
        if name and types[name] == FLOAT and schema.outputs[min(position, len(schema.outputs) - 1)].type_str in bound
    )
    return _Operands(inputs, outputs)


def _first_opset(node: onnx.NodeProto, types: Mapping[str, int], low: int, *, above: int) -> int | None:
    import onnx

    if any(t not in types for t in (*node.input, *node.output) if t):
        return None
    for version in range(above + 1, onnx.defs.onnx_opset_version() + 1):
        operands = _operands(node, types, version)
        if operands is not None and operands.inputs and operands.accept(low):
            return version
    return None
