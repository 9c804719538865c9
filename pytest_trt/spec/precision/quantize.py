"""int8: QuantizeLinear/DequantizeLinear pairs from given ranges, as TensorRT's explicit quantization wants them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.errors import PrecisionError, nearest
from pytest_trt.spec.precision import RecipeResult
from pytest_trt.spec.precision.checks import check_io_unchanged, check_result
from pytest_trt.spec.precision.constants import constants
from pytest_trt.spec.precision.exclusions import Exclusions
from pytest_trt.spec.precision.graph import (
    Names,
    convert_opset,
    copy_model,
    has_quantize_nodes,
    low_types_in,
    node_label,
    opset_of,
    remove_unread,
    replace_nodes,
)
from pytest_trt.spec.precision.quantizable import QUANTIZABLE_OPS, Plan, make_plan, weight_values
from pytest_trt.spec.precision.scales import activation_scale, quantization_error, quantized, weight_scales

if TYPE_CHECKING:
    import onnx

    from pytest_trt.spec.precision import Ranges

__all__ = ["Int8Recipe"]

Array = np.ndarray[Any, Any]

# QuantizeLinear has an axis, for a scale per channel, from this opset on.
_OLDEST_OPSET = 13


class Int8Recipe:
    """Symmetric int8 with zero point 0: activations with one scale per tensor, weights with one per output channel.

    ``exclude_nodes`` (names, output names or globs) and ``exclude_ops`` stay float32. ``op_types`` are the
    operators that are quantized. ``attention`` also quantizes products of two activations (Q·Kᵀ, P·V).
    ``fold_weights`` stores weights as int8 before their DequantizeLinear; by default they stay float32
    before a QuantizeLinear, which every TensorRT parses and every tool reads. Biases stay float32.
    A model that has Q/DQ nodes already is taken as it is.
    """

    name = "int8"

    def __init__(
        self,
        exclude_nodes: Sequence[str] = (),
        exclude_ops: Sequence[str] = (),
        op_types: Sequence[str] = ("Conv", "Gemm", "MatMul", "ConvTranspose"),
        *,
        attention: bool = False,
        fold_weights: bool = False,
    ) -> None:
        if unknown := [op for op in op_types if op not in QUANTIZABLE_OPS]:
            raise PrecisionError(
                f"recipe int8: op_types has {unknown[0]!r}, which it cannot quantize",
                hint=nearest(unknown[0], QUANTIZABLE_OPS),
            )
        self.exclusions = Exclusions(exclude_nodes, exclude_ops)
        self.op_types = tuple(op_types)
        self.attention = attention
        self.fold_weights = fold_weights

    def tensors(self, proto: onnx.ModelProto) -> list[str]:
        """Return the float32 activations of *proto* whose ranges ``call`` needs, in graph order."""
        if has_quantize_nodes(proto):
            return []
        return self._plan(proto).tensors(proto.graph)

    def requires(self, proto: onnx.ModelProto) -> None:
        if low := low_types_in(proto):
            raise PrecisionError(
                f"the model is already typed: it has {' and '.join(sorted(low))} tensors",
                hint="start from the float32 model",
            )
        if has_quantize_nodes(proto):
            return
        self.exclusions.check(proto.graph)
        plan = self._plan(proto)
        if not plan.nodes:
            reasons = "; ".join(f"{label}: {reason}" for label, reason in list(plan.kept.items())[:3])
            raise PrecisionError(
                f"nothing to do in int8: no {', '.join(self.op_types)} node can be quantized",
                hint=reasons
                or f"the model has no such node; it has {', '.join(sorted({n.op_type for n in proto.graph.node}))}",
            )

    def call(self, proto: onnx.ModelProto, ranges: Ranges | None) -> RecipeResult:
        if has_quantize_nodes(proto):
            return RecipeResult(proto, modified=False, notes={"already_quantized": True})
        missing = [name for name in self.tensors(proto) if name not in (ranges or {})]
        if missing:
            raise PrecisionError(
                f"no range for {len(missing)} activations, {missing[0]!r} first",
                hint="calibrate on real samples first",
            )
        now, model = opset_of(proto), copy_model(proto)
        notes: dict[str, Any] = {}
        if now is not None and now < _OLDEST_OPSET:
            model = convert_opset(model, _OLDEST_OPSET)
            notes["opset"] = {"from": now, "to": _OLDEST_OPSET}
        notes |= _Quantization(model, self._plan(model), ranges or {}, fold_weights=self.fold_weights).run()
        return RecipeResult(model, modified=True, notes=notes)

    def ensures(self, before: onnx.ModelProto, result: RecipeResult) -> None:
        if not result.modified:
            return
        check_result(before, result.proto)
        check_io_unchanged(before, result.proto)
        _check_pairs(result.proto.graph)
        _check_weights(before.graph, result.proto.graph)

    def _plan(self, proto: onnx.ModelProto) -> Plan:
        return make_plan(proto, self.op_types, self.exclusions, attention=self.attention)


class _Quantization:
    def __init__(self, model: onnx.ModelProto, plan: Plan, ranges: Ranges, *, fold_weights: bool) -> None:
        self.graph, self.plan, self.ranges, self.fold_weights = model.graph, plan, ranges, fold_weights
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
            scale = activation_scale(low, high)
            self.activation_scales.append(float(scale))
            self.done[name, None] = self._pair(name, scale, None)
        return self.done[name, None]

    def _weight(self, name: str, axis: int | None) -> str:
        if (name, axis) not in self.done:
            weight = self.values[name]
            scales = weight_scales(weight, axis)
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
        """Append Q and DQ of tensor *name* (DQ alone after the int8 values in *stored*); return DQ's output."""
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
            self.zero_points[key] = self._initializer("int8_zero_point", np.zeros(scales.shape, dtype=np.int8))
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


def _check_pairs(graph: onnx.GraphProto) -> None:
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


def _check_weights(before: onnx.GraphProto, after: onnx.GraphProto) -> None:
    """Raise PrecisionError where a weight through int8 is off by more than half a step."""
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
        stored = integers.get(maker.input[0])
        found = quantized(weight, scales, axis) if stored is None else onnx.numpy_helper.to_array(stored)
        if (error := quantization_error(weight, found, scales, axis)) > _HALF_STEP:
            raise PrecisionError(f"the weight of {node_label(node)!r} is off by {error:.3f} steps of int8")


# Half a step, and the float32 rounding of the quotient.
_HALF_STEP = 0.5 + 1e-4
