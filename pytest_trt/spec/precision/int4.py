"""int4: weights stored in 4 bits, in blocks with a scale each; activations and arithmetic stay as they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.errors import PrecisionError
from pytest_trt.spec.precision import RecipeResult
from pytest_trt.spec.precision.already import is_quantized_to, refuse_low_types
from pytest_trt.spec.precision.blocks import block_error, block_quantized, block_scales, pack
from pytest_trt.spec.precision.checks import check_io_unchanged, check_result
from pytest_trt.spec.precision.constants import constants
from pytest_trt.spec.precision.exclusions import Exclusions
from pytest_trt.spec.precision.graph import (
    FLOAT,
    Names,
    convert_opset,
    copy_model,
    has_quantize_nodes,
    infer_types,
    node_label,
    opset_of,
    remove_unread,
    replace_nodes,
)
from pytest_trt.spec.precision.quantizable import weight_values

if TYPE_CHECKING:
    import onnx

    from pytest_trt.spec.precision import Ranges

__all__ = ["BLOCK_SIZES", "Int4Recipe"]

Array = np.ndarray[Any, Any]

# What TensorRT takes; others fail in its builder.
BLOCK_SIZES = (64, 128)
_INT4 = 22  # onnx.TensorProto.DataType, which is part of the file format
_OLDEST_OPSET = 21
_OPS = ("Gemm", "MatMul")


class Int4Recipe:
    """Symmetric int4, -7 to 7, one scale for each *block_size* weights along the axis that is summed over.

    ``exclude_nodes`` (names, output names or globs) and ``exclude_ops`` stay float32, and so do all nodes but MatMul
    and Gemm with a constant matrix whose summed axis holds whole blocks. A model that has int4 weights already is taken
    as it is.
    """

    name = "int4"

    def __init__(
        self, exclude_nodes: Sequence[str] = (), exclude_ops: Sequence[str] = (), *, block_size: int = 128
    ) -> None:
        if block_size not in BLOCK_SIZES:
            raise PrecisionError(
                f"recipe int4: block_size={block_size}",
                hint=f"TensorRT takes {' and '.join(map(str, BLOCK_SIZES))}",
            )
        self.exclusions = Exclusions(exclude_nodes, exclude_ops)
        self.block_size = block_size

    def requires(self, proto: onnx.ModelProto) -> None:
        if is_quantized_to(proto, self.name):
            return
        refuse_low_types(proto)
        self.exclusions.check(proto.graph)
        planned, kept = self._plan(proto)
        if not planned:
            reasons = "; ".join(f"{label}: {reason}" for label, reason in list(kept.items())[:3])
            raise PrecisionError(
                "nothing to do in int4: no MatMul or Gemm has a weight that can be stored in blocks",
                hint=reasons or "the model has no such node",
            )

    def call(self, proto: onnx.ModelProto, ranges: Ranges | None) -> RecipeResult:  # noqa: ARG002 - weights only
        if has_quantize_nodes(proto):
            return RecipeResult(proto, modified=False, notes={"already_quantized": True})
        now, model = opset_of(proto), copy_model(proto)
        notes: dict[str, Any] = {"block_size": self.block_size}
        if now is not None and now < _OLDEST_OPSET:
            model = convert_opset(model, _OLDEST_OPSET)
            notes["opset"] = {"from": now, "to": _OLDEST_OPSET}
        return RecipeResult(model, modified=True, notes=notes | self._insert(model))

    def ensures(self, before: onnx.ModelProto, result: RecipeResult) -> None:
        if not result.modified:
            return
        check_result(before, result.proto)
        check_io_unchanged(before, result.proto)
        self._check_weights(before.graph, result.proto.graph)

    def _plan(self, proto: onnx.ModelProto) -> tuple[dict[int, int], dict[str, str]]:
        """Return {index of a node: summed axis of its weight}, and {label: reason} of the nodes that stay float32."""
        types, values = infer_types(proto), weight_values(proto.graph)
        planned: dict[int, int] = {}
        kept: dict[str, str] = {}
        for index, node in enumerate(proto.graph.node):
            if node.op_type not in _OPS or node.domain not in ("", "ai.onnx"):
                continue
            found = self.exclusions.reason(node) or self._axis_of(node, types, values)
            if isinstance(found, str):
                kept[node_label(node)] = found
            else:
                planned[index] = found
        return planned, kept

    def _axis_of(self, node: onnx.NodeProto, types: Mapping[str, int], values: Mapping[str, Array]) -> int | str:
        data, name = node.input[0], node.input[1]
        if name not in values:
            return f"its weight {name!r} is no constant"
        if data in values:
            return f"its first operand {data!r} is a constant"
        if types.get(data) != FLOAT:
            return f"{data!r} is not known to be float32"
        weight = values[name]
        if weight.ndim != 2:
            return f"its weight {name!r} has {weight.ndim} dimensions, not 2"
        axis = _summed_axis(node)
        if not weight.shape[axis] or weight.shape[axis] % self.block_size:
            return f"its weight {name!r} sums over {weight.shape[axis]} values, no multiple of {self.block_size}"
        return axis

    def _insert(self, model: onnx.ModelProto) -> dict[str, Any]:
        """Replace the weights in place and return the notes."""
        import onnx

        graph, (planned, kept) = model.graph, self._plan(model)
        values, names = weight_values(graph), Names(graph)
        ops: Counter[str] = Counter()
        done: dict[tuple[str, int], str] = {}
        scales_seen: list[Array] = []
        before = after = 0
        nodes: list[onnx.NodeProto] = []
        for index, node in enumerate(graph.node):
            if index in planned:
                name, axis = node.input[1], planned[index]
                if (name, axis) not in done:
                    scales = block_scales(values[name], axis, self.block_size)
                    integers = block_quantized(values[name], scales, axis)
                    stored, scale = names.fresh(f"{name}_int4"), names.fresh(f"{name}_scale")
                    raw = pack(integers)
                    graph.initializer.append(
                        onnx.TensorProto(name=stored, data_type=_INT4, dims=integers.shape, raw_data=raw)
                    )
                    graph.initializer.append(onnx.numpy_helper.from_array(scales, scale))
                    output = names.fresh(f"{name}_dequantized")
                    nodes.append(
                        onnx.helper.make_node(
                            "DequantizeLinear",
                            [stored, scale],
                            [output],
                            name=names.fresh(f"{output}_DequantizeLinear"),
                            axis=axis,
                            block_size=self.block_size,
                        )
                    )
                    done[name, axis] = output
                    scales_seen.append(scales)
                    before += values[name].size * 4
                    after += len(raw) + scales.nbytes
                node.input[1] = done[name, axis]
                ops[node.op_type] += 1
            nodes.append(node)
        replace_nodes(graph, nodes)
        remove_unread(graph, {name for name, _ in done})
        everything = np.concatenate([s.ravel() for s in scales_seen])
        return {
            "quantized": dict(sorted(ops.items())),
            "kept_nodes": kept,
            "weight_tensors": len(done),
            "weight_scales": [float(everything.min()), float(everything.max())],
            "weight_bytes": {"from": before, "to": after},
        }

    def _check_weights(self, before: onnx.GraphProto, after: onnx.GraphProto) -> None:
        """Raise PrecisionError where a weight is off by more than half a step, or a scale cannot be one."""
        import onnx

        values, scales_of = weight_values(before), constants(after)
        stored = {t.name: t for t in after.initializer if t.data_type == _INT4}
        makers = {name: node for node in after.node for name in node.output}
        weights = {node.output[0]: node for node in before.node if node.op_type in _OPS}
        for node in after.node:
            old, maker = weights.get(node.output[0]), makers.get(node.input[1]) if len(node.input) > 1 else None
            if old is None or maker is None or maker.op_type != "DequantizeLinear":
                continue
            scales, axis = scales_of[maker.input[1]], _summed_axis(old)
            if not (np.isfinite(scales).all() and (scales > 0).all()):
                raise PrecisionError(f"{node_label(maker)!r} has scales that are not positive and finite: {scales}")
            integers = onnx.numpy_helper.to_array(stored[maker.input[0]]).astype(np.int8)
            error = block_error(values[old.input[1]], integers, scales, axis)
            if error > _HALF_STEP:
                raise PrecisionError(f"the weight of {node_label(node)!r} is off by {error:.3f} steps of int4")


# Half a step, and the float32 rounding of the quotient.
_HALF_STEP = 0.5 + 1e-4


def _summed_axis(node: onnx.NodeProto) -> int:
    return 1 if node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute) else 0
