"""Which nodes of a graph compute in a 16-bit float type, and why the others do not.

A node is *low* when every float32 operand that its operator lets us retype may take the low type. It is
*kept* in float32, with a reason, when

1. the user excludes it, its operator has no such form at this opset, or its types are unknown;
2. a constant of it overflows in the low type (a mask of -3.4e38), or becomes all zero (an epsilon of 1e-12);
   the same holds for what is computed from it, up to the operator that brings the values back into range;
3. ranges are given and say that one of its tensors overflows;
4. it computes with integers or shapes turned into floats: positions, sizes, scales;
5. it only moves values between kept neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.spec.precision.constants import constants, float_value, round_to
from pytest_trt.spec.precision.exclusions import Exclusions
from pytest_trt.spec.precision.graph import FLOAT, LOW_NAMES, infer_types, node_label, opset_of
from pytest_trt.spec.precision.operators import EXACT_OPS, FLOAT32_OPERANDS, MOVEMENT_OPS, Retyped, retypable

if TYPE_CHECKING:
    import onnx

    from pytest_trt.spec.precision import Ranges

__all__ = ["Selection", "select"]

_ARITHMETIC = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Neg", "Abs", "Floor", "Ceil", "Round", "Sqrt", "Pow", "Sin", "Cos", "Exp"),
        *("Log", "Reciprocal", "Min", "Max", "Sum", "Clip", "Mod", "Sign"),
    }
)
# Operators whose output is as far out of range as their input.
_CARRY = {
    "huge": MOVEMENT_OPS
    | {
        *("Add", "Sub", "Mul", "Div", "Neg", "Abs", "Max", "Min", "Sum", "Mean"),
        *("ReduceMax", "ReduceMin", "ReduceSum", "ReduceMean"),
    },
    "tiny": MOVEMENT_OPS | {"Sqrt"},
}
# uint8 … int64, bool, uint32, uint64
_INTEGERS = frozenset({2, 3, 4, 5, 6, 7, 9, 12, 13})


@dataclass
class Selection:
    """``low``: node index → its operands; ``kept``: node index → reason. A node in neither has no choice to make."""

    low: dict[int, Retyped] = field(default_factory=dict)
    kept: dict[int, str] = field(default_factory=dict)


Array = np.ndarray[Any, Any]


def select(proto: onnx.ModelProto, low: int, exclusions: Exclusions, ranges: Ranges | None) -> Selection:
    """Return which nodes of the main graph of *proto* compute in *low*. *ranges* are known real ranges, by tensor."""
    types = infer_types(proto)
    opset = opset_of(proto)
    nodes = list(proto.graph.node)
    values = constants(proto.graph)
    candidates: dict[int, Retyped] = {}
    selection = Selection()
    for index, node in enumerate(nodes):
        found = retypable(node, types, opset, low)
        if isinstance(found, str):
            selection.kept[index] = found
        elif found is not None:
            candidates[index] = found
            if reason := exclusions.reason(node):
                selection.kept[index] = reason
    for reasons in (
        _out_of_range(nodes, types, values, low, ranges or {}),
        _from_integers(nodes, types, values),
    ):
        for index, reason in reasons.items():
            if index in candidates:
                selection.kept.setdefault(index, reason)
    free = {index: found for index, found in candidates.items() if index not in selection.kept}
    selection.low = _settle(nodes, values, free)
    for index in free.keys() - selection.low.keys():
        selection.kept[index] = "it only moves values between float32 neighbours"
    return selection


def _out_of_range(
    nodes: list[onnx.NodeProto], types: Mapping[str, int], values: Mapping[str, Array], low: int, ranges: Ranges
) -> dict[int, str]:
    """Rules 2 and 3: nodes that hold, or compute from, values that *low* cannot."""
    reasons: dict[int, str] = {}
    limits = {name: limit for name, value in values.items() if (limit := _limit(value, low))}
    overflowing = {n for n, r in ranges.items() if np.isinf(round_to(np.asarray(np.abs(r).max()), low))}
    carried: dict[str, tuple[str, str]] = {name: ("huge", f"the range of {name!r}") for name in overflowing}
    for index, node in enumerate(nodes):
        kind, origin = None, ""
        for name in node.input:
            if name in carried:
                kind, origin = carried[name]
                reasons[index] = f"its input may {_TOO[kind]} {LOW_NAMES[low]}, because of {origin}"
        carries = kind is not None and (node.op_type in _CARRY[kind] or node.op_type == "Cast")
        for name, limit in _seeds(node, limits, low):
            kind, origin, carries = limit, f"the constant {name!r} of {node_label(node)!r}", True
            reasons[index] = f"its constant {name!r} would {_BECOMES[limit]} in {LOW_NAMES[low]}"
        for name in node.output:
            if name in overflowing:
                low_end, high_end = ranges[name]
                reasons[index] = f"its output {name!r} ranges from {low_end:.4g} to {high_end:.4g}"
            elif kind and carries and types.get(name) == FLOAT and not (kind == "huge" and name in ranges):
                carried[name] = (kind, origin)
    return reasons


_TOO = {"huge": "overflow", "tiny": "vanish in"}
_BECOMES = {"huge": "overflow", "tiny": "become 0"}


def _seeds(node: onnx.NodeProto, limits: Mapping[str, str], low: int) -> Iterator[tuple[str, str]]:
    if node.op_type == "ConstantOfShape" and node.attribute:
        value = float_value(node.attribute[0].t)
        if value is not None and (limit := _limit(value, low)):
            yield "value", limit
    fixed = FLOAT32_OPERANDS.get(node.op_type, set())
    for position, name in enumerate(node.input):
        # A bound of Clip beyond the type's range bounds nothing: it may become infinite.
        if name in limits and position not in fixed and not (node.op_type == "Clip" and limits[name] == "huge"):
            yield name, limits[name]


def _limit(value: Array, low: int) -> str | None:
    rounded = round_to(value, low)
    if bool(np.any(np.isinf(rounded) & np.isfinite(value))):
        return "huge"
    return "tiny" if bool(np.any(value != 0)) and not bool(np.any(rounded != 0)) else None


def _from_integers(
    nodes: list[onnx.NodeProto], types: Mapping[str, int], values: Mapping[str, Array]
) -> dict[int, str]:
    """Rule 4. A position of 4097 is no float16 value, and the angle of a rotary embedding would be off by radians."""
    fixed, derived = set(values), set[str]()
    found: dict[int, str] = {}
    for index, node in enumerate(nodes):
        floats = [n for n in node.input if n and types.get(n) == FLOAT]
        if node.op_type == "Cast":
            source = types.get(node.input[0])
            is_derived = source in _INTEGERS or node.input[0] in derived
        elif node.op_type in ("Range", "ConstantOfShape"):
            is_derived = node.op_type == "Range"
            fixed.update(() if is_derived else node.output)
        elif node.op_type in MOVEMENT_OPS and floats and node.op_type != "Gather" and set(floats) <= fixed:
            fixed.update(node.output)
            continue
        else:
            computes = node.op_type in _ARITHMETIC or node.op_type in MOVEMENT_OPS or _is_outer_product(node, values)
            is_derived = computes and set(floats) <= fixed | derived and not derived.isdisjoint(floats)
        if is_derived:
            derived.update(name for name in node.output if types.get(name) == FLOAT)
            found[index] = "it computes with integers turned into floats, which 16 bits do not hold exactly"
    return found


def _is_outer_product(node: onnx.NodeProto, values: Mapping[str, Array]) -> bool:
    """Positions times frequencies is often a MatMul over a dimension of 1; one over weights is the network itself."""
    if node.op_type != "MatMul":
        return False
    left, right = (values.get(name) for name in node.input)
    return (left is None or left.shape[-1] == 1) and (right is None or (right.ndim > 1 and right.shape[-2] == 1))


def _settle(
    nodes: list[onnx.NodeProto], values: Mapping[str, Array], free: Mapping[int, Retyped]
) -> dict[int, Retyped]:
    """Rule 5: nodes that round nothing take the type of their neighbours, so that no value is rounded for nothing."""
    following = {i for i, found in free.items() if not found.outputs or nodes[i].op_type in EXACT_OPS}
    if following == set(free):
        return dict(free)
    wanted: set[str] = set()
    for index in sorted(free, reverse=True):
        if index not in following or not wanted.isdisjoint(nodes[index].output):
            wanted.update(nodes[index].input[position] for position in free[index].inputs)
    low_tensors: set[str] = set()
    low: dict[int, Retyped] = {}
    for index in sorted(free):
        node, found = nodes[index], free[index]
        sources = {node.input[position] for position in found.inputs} - values.keys()
        takes = index not in following or not wanted.isdisjoint(node.output) or (sources and sources <= low_tensors)
        if takes:
            low[index] = found
            low_tensors.update(node.output[position] for position in found.outputs)
    return low
