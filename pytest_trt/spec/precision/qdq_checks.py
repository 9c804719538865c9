"""What a model with Q/DQ pairs must hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pytest_trt.errors import PrecisionError
from pytest_trt.spec.precision.constants import constants
from pytest_trt.spec.precision.graph import node_label
from pytest_trt.spec.precision.qdq import INT8
from pytest_trt.spec.precision.quantizable import QUANTIZABLE_OPS, weight_values
from pytest_trt.spec.precision.scales import per_channel, quantization_error, quantized

if TYPE_CHECKING:
    import onnx

    from pytest_trt.spec.precision.qdq import Grid

__all__ = ["check_pairs", "check_weights"]


def check_pairs(graph: onnx.GraphProto) -> None:
    """Raise PrecisionError unless each Q is read by a DQ with its scale, and all scales are positive and finite."""
    values = constants(graph)
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scales = values[node.input[1]]
        if not (np.isfinite(scales).all() and (scales > 0).all()):
            raise PrecisionError(f"{node_label(node)!r} has scales that are not positive and finite: {scales}")
        if node.op_type == "QuantizeLinear":
            after = readers.get(node.output[0], [])
            if not after or any(n.op_type != "DequantizeLinear" or n.input[1] != node.input[1] for n in after):
                raise PrecisionError(f"{node_label(node)!r} is not followed by its DequantizeLinear")


def check_weights(before: onnx.GraphProto, after: onnx.GraphProto, grid: Grid) -> None:
    """Raise PrecisionError where a weight goes through *grid* with a scale that is too small for it, or, in integers,
    is off by more than half a step."""
    import onnx

    values, new_values = weight_values(before), constants(after)
    integers = {t.name: t for t in after.initializer if t.data_type == onnx.TensorProto.INT8}
    makers = {name: node for node in after.node for name in node.output}
    weights = {node.output[0]: node.input[1] for node in before.node if node.op_type in QUANTIZABLE_OPS}
    for node in after.node:
        weight = values.get(weights.get(node.output[0], ""))
        if weight is None or (maker := makers.get(node.input[1])) is None or maker.op_type != "DequantizeLinear":
            continue
        axis = next((int(a.i) for a in maker.attribute if a.name == "axis"), None)
        scales = new_values[maker.input[1]]
        if grid is not INT8:
            top = float(np.max(np.abs(weight) / per_channel(scales, weight.ndim, axis), initial=0.0))
            if top > grid.largest * (1 + _ROUNDING):
                raise PrecisionError(f"the weight of {node_label(node)!r} saturates: {top:.5g} in {grid.name}")
            continue
        stored = integers.get(maker.input[0])
        found = quantized(weight, scales, axis) if stored is None else onnx.numpy_helper.to_array(stored)
        if (error := quantization_error(weight, found, scales, axis)) > 0.5 + _ROUNDING:
            raise PrecisionError(f"the weight of {node_label(node)!r} is off by {error:.3f} steps of int8")


# The float32 rounding of a quotient.
_ROUNDING = 1e-4
