"""Which nodes TensorRT runs in int8 and fp8, and which of their operands are quantized how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.spec.precision.constants import constants
from pytest_trt.spec.precision.exclusions import Exclusions
from pytest_trt.spec.precision.graph import FLOAT, infer_types, node_label

if TYPE_CHECKING:
    import onnx

__all__ = ["QUANTIZABLE_OPS", "NodePlan", "Plan", "fp8_limit", "make_plan", "weight_values"]

Array = np.ndarray[Any, Any]

QUANTIZABLE_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class NodePlan:
    """``activations``: input positions with one scale per tensor. ``weight_axis``: of input 1, None for one scale."""

    activations: tuple[int, ...]
    has_weight: bool
    weight_axis: int | None = None


@dataclass
class Plan:
    """``nodes``: index → what to quantize; ``kept``: label → reason."""

    nodes: dict[int, NodePlan] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)

    def tensors(self, graph: onnx.GraphProto) -> list[str]:
        """Return the activations that need a range, each once, in graph order."""
        names = (graph.node[i].input[p] for i, planned in self.nodes.items() for p in planned.activations)
        return list(dict.fromkeys(names))


# Why a node with this weight cannot be quantized; None where it can.
Limit = Callable[["onnx.NodeProto", Array], "str | None"]


def make_plan(
    proto: onnx.ModelProto,
    op_types: tuple[str, ...],
    exclusions: Exclusions,
    *,
    attention: bool = False,
    per_channel: bool = True,
    limit: Limit | None = None,
) -> Plan:
    """Return what to quantize in the main graph of *proto*; a node of *op_types* that is left out has a reason."""
    types, values = infer_types(proto), weight_values(proto.graph)
    plan = Plan()
    for index, node in enumerate(proto.graph.node):
        if node.op_type not in op_types or node.domain not in ("", "ai.onnx"):
            continue
        found = exclusions.reason(node) or _plan_node(node, types, values, attention=attention)
        if limit is not None and isinstance(found, NodePlan) and found.has_weight:
            found = limit(node, values[node.input[1]]) or found
        if isinstance(found, str):
            plan.kept[node_label(node)] = found
        else:
            plan.nodes[index] = found if per_channel else replace(found, weight_axis=None)
    return plan


# TensorRT has no fp8 kernels for grouped convolutions (its release notes) and failed to build a first layer of 3
# channels (NVIDIA/TensorRT#3987); NVIDIA's own quantizer leaves out fewer than 16 channels and more than 32 taps.
_FP8_CHANNELS = 16
_FP8_WINDOW = 32


def fp8_limit(node: onnx.NodeProto, weight: Array) -> str | None:
    """Say why TensorRT cannot run this Conv in fp8. Products of matrices have no limit."""
    if node.op_type != "Conv":
        return None
    group = next((int(a.i) for a in node.attribute if a.name == "group"), 1)
    if group != 1:
        return f"it has {group} groups, and TensorRT has no fp8 kernel for grouped convolutions"
    outputs, inputs, *window = weight.shape
    if outputs % _FP8_CHANNELS or inputs % _FP8_CHANNELS:
        return f"fp8 convolutions need multiples of {_FP8_CHANNELS} channels, not {inputs} and {outputs}"
    if int(np.prod(window)) > _FP8_WINDOW:
        taps = "x".join(map(str, window))
        return f"its window of {taps} is beyond the {_FP8_WINDOW} taps of fp8 convolutions"
    return None


def weight_values(graph: onnx.GraphProto) -> dict[str, Array]:
    """Return the float32 constants of *graph*, and what Identity and Transpose nodes make of them (tied weights)."""
    values = constants(graph)
    for node in graph.node:
        if node.op_type not in ("Identity", "Transpose") or node.input[0] not in values:
            continue
        permutation = next((tuple(a.ints) for a in node.attribute if a.name == "perm"), None)
        value = values[node.input[0]]
        values[node.output[0]] = value if node.op_type == "Identity" else np.transpose(value, permutation)
    return values


def _plan_node(
    node: onnx.NodeProto, types: Mapping[str, int], values: Mapping[str, Array], *, attention: bool
) -> NodePlan | str:
    data, weight = node.input[0], node.input[1]
    if wrong := [name for name in (data, weight) if types.get(name) != FLOAT]:
        return f"{wrong[0]!r} is not known to be float32"
    if data in values:
        return f"its first operand {data!r} is a constant"
    if weight in values and not values[weight].size:
        return f"its weight {weight!r} is empty"
    if weight in values:
        return NodePlan((0,), has_weight=True, weight_axis=_weight_axis(node, values[weight].ndim))
    if node.op_type != "MatMul":
        return f"its weight {weight!r} is no constant"
    if not attention:
        return "both operands are activations (attention=True quantizes them)"
    return NodePlan((0, 1), has_weight=False)


def _weight_axis(node: onnx.NodeProto, ndim: int) -> int | None:
    """Return the output channels' axis in the weight; None where TensorRT takes one scale for all of it."""
    attributes = {a.name: a.i for a in node.attribute}
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        # With groups, this axis counts the channels of one group, and a scale would serve several channels.
        return 1 if attributes.get("group", 1) == 1 else None
    if node.op_type == "Gemm":
        return 0 if attributes.get("transB", 0) else 1
    return 1 if ndim == 2 else None
