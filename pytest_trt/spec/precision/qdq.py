"""Puts QuantizeLinear/DequantizeLinear pairs where a plan says, on the grid of a quantized type."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.errors import PrecisionError
from pytest_trt.spec.precision.constants import constants
from pytest_trt.spec.precision.graph import Names, remove_unread, replace_nodes
from pytest_trt.spec.precision.quantizable import Plan, weight_values
from pytest_trt.spec.precision.scales import activation_scale, quantized, weight_scales

if TYPE_CHECKING:
    import onnx

    from pytest_trt.spec.precision import Ranges

__all__ = ["FP8", "INT8", "Grid", "insert_pairs", "zeros"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Grid:
    """A type that values are quantized to: its ``largest`` value, and the first ``opset`` whose Q/DQ take it (with an
    axis, for a scale per channel)."""

    name: str
    data_type: int  # onnx.TensorProto.DataType, which is part of the file format
    largest: int
    opset: int


INT8 = Grid("int8", 3, 127, 13)
FP8 = Grid("fp8", 17, 448, 19)  # FLOAT8E4M3FN: 4 bits of exponent, 3 of mantissa, no infinity


def insert_pairs(
    model: onnx.ModelProto, plan: Plan, ranges: Ranges, grid: Grid, *, fold_weights: bool = False
) -> dict[str, Any]:
    """Quantize *model* in place as *plan* says and return the notes. Raises PrecisionError for a range that is none.

    ``fold_weights`` (int8 only) stores weights as integers before their DequantizeLinear.
    """
    return _Insertion(model, plan, ranges, grid, fold_weights=fold_weights).run()


def zeros(name: str, shape: tuple[int, ...], data_type: int) -> onnx.TensorProto:
    """Return a tensor of zeros in a type of one byte."""
    import onnx

    return onnx.TensorProto(name=name, data_type=data_type, dims=shape, raw_data=bytes(int(np.prod(shape))))


class _Insertion:
    def __init__(self, model: onnx.ModelProto, plan: Plan, ranges: Ranges, grid: Grid, *, fold_weights: bool) -> None:
        self.graph, self.plan, self.ranges, self.grid = model.graph, plan, ranges, grid
        self.fold_weights = fold_weights
        self.names = Names(model.graph)
        self.values = weight_values(model.graph)
        self.stored = constants(model.graph).keys()
        self.nodes: list[onnx.NodeProto] = []
        self.done: dict[tuple[str, int | None], str] = {}  # (tensor, axis of its scales) -> dequantized tensor
        self.zero_points: dict[int, str] = {}  # number of scales, 0 for a scalar -> initializer
        self.activation_scales: list[float] = []
        self.weight_scales: list[float] = []
        self.empty_ranges: list[str] = []

    def run(self) -> dict[str, Any]:
        """Rewrite the graph and return the notes."""
        ops = Counter(self.graph.node[index].op_type for index in self.plan.nodes)
        weights: set[str] = set()
        for index, node in enumerate(self.graph.node):
            if planned := self.plan.nodes.get(index):
                for position in planned.activations:
                    node.input[position] = self._activation(node.input[position])
                if planned.has_weight:
                    self._say_kernel_shape(node)
                    weights.add(node.input[1])
                    node.input[1] = self._weight(node.input[1], planned.weight_axis)
            self.nodes.append(node)
        replace_nodes(self.graph, self.nodes)
        remove_unread(self.graph, weights)
        return {
            "quantized": dict(sorted(ops.items())),
            "kept_nodes": self.plan.kept,
            "activation_tensors": len(self.activation_scales),
            "weight_tensors": len(weights),
            "activation_scales": _extremes(self.activation_scales),
            "weight_scales": _extremes(self.weight_scales),
            "empty_ranges": self.empty_ranges,
        }

    def _say_kernel_shape(self, node: onnx.NodeProto) -> None:
        # Optional while the weight is a constant; TensorRT 8.6.0's parser does not look for it behind a DQ.
        import onnx

        if node.op_type in ("Conv", "ConvTranspose") and all(a.name != "kernel_shape" for a in node.attribute):
            shape = self.values[node.input[1]].shape[2:]
            node.attribute.append(onnx.helper.make_attribute("kernel_shape", [int(size) for size in shape]))

    def _activation(self, name: str) -> str:
        if (name, None) not in self.done:
            low, high = self.ranges[name]
            if not (np.isfinite(low) and np.isfinite(high) and low <= high):
                raise PrecisionError(
                    f"the range of {name!r} is [{low}, {high}]", hint="calibrate on real samples again"
                )
            if low == high == 0:
                self.empty_ranges.append(name)
            scale = activation_scale(low, high, self.grid.largest)
            self.activation_scales.append(float(scale))
            self.done[name, None] = self._pair(name, scale, None)
        return self.done[name, None]

    def _weight(self, name: str, axis: int | None) -> str:
        if (name, axis) not in self.done:
            weight = self.values[name]
            scales = weight_scales(weight, axis, self.grid.largest)
            self.weight_scales += [float(scales.min()), float(scales.max())]
            if self.fold_weights:
                pair = self._pair(name, scales, axis, quantized(weight, scales, axis))
            else:
                # TensorRT wants a constant before Q, so a tied, transposed weight is stored once more.
                source = name if name in self.stored else self._initializer(f"{name}_constant", weight)
                pair = self._pair(source, scales, axis)
            self.done[name, axis] = pair
        return self.done[name, axis]

    def _pair(self, name: str, scales: Array, axis: int | None, stored: Array | None = None) -> str:
        """Append Q and DQ of tensor *name* (DQ alone after the integers in *stored*); return DQ's output."""
        scale = self._initializer(f"{name}_scale", scales)
        zero_point = self._zero_point(scales)
        attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
        if stored is None:
            integers = self._node("QuantizeLinear", [name, scale, zero_point], f"{name}_quantized", attributes)
        else:
            integers = self._initializer(f"{name}_int8", stored)
        return self._node("DequantizeLinear", [integers, scale, zero_point], f"{name}_dequantized", attributes)

    def _node(self, op_type: str, inputs: list[str], output: str, attributes: dict[str, Any]) -> str:
        import onnx

        output = self.names.fresh(output)
        name = self.names.fresh(f"{output}_{op_type}")
        self.nodes.append(onnx.helper.make_node(op_type, inputs, [output], name=name, **attributes))
        return output

    def _zero_point(self, scales: Array) -> str:
        key = scales.size if scales.ndim else 0
        if key not in self.zero_points:
            self.zero_points[key] = self.names.fresh(f"{self.grid.name}_zero_point")
            self.graph.initializer.append(zeros(self.zero_points[key], scales.shape, self.grid.data_type))
        return self.zero_points[key]

    def _initializer(self, name: str, values: Array) -> str:
        import onnx

        name = self.names.fresh(name)
        self.graph.initializer.append(
            onnx.numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name)
        )
        return name


def _extremes(scales: list[float]) -> list[float]:
    return [min(scales), max(scales)] if scales else []
