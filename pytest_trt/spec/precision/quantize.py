"""int8 and fp8: Q/DQ pairs from given ranges, as TensorRT's explicit quantization wants them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pytest_trt.errors import PrecisionError, nearest
from pytest_trt.spec.precision import RecipeResult
from pytest_trt.spec.precision.already import is_quantized_to, refuse_low_types
from pytest_trt.spec.precision.checks import check_io_unchanged, check_result
from pytest_trt.spec.precision.exclusions import Exclusions
from pytest_trt.spec.precision.graph import convert_opset, copy_model, has_quantize_nodes, opset_of
from pytest_trt.spec.precision.qdq import FP8, INT8, Grid, insert_pairs
from pytest_trt.spec.precision.qdq_checks import check_pairs, check_weights
from pytest_trt.spec.precision.quantizable import QUANTIZABLE_OPS, Plan, fp8_limit, make_plan

if TYPE_CHECKING:
    import onnx

    from pytest_trt.spec.precision import Ranges

__all__ = ["Fp8Recipe", "Int8Recipe"]

# What quantizers write that do not write Q/DQ pairs: dynamic quantization, and the operator-oriented format.
_INTEGER_OPS = ("ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul")


class _QdqRecipe:
    """Symmetric quantization with zero point 0 and one scale per activation tensor. Biases stay float32.

    ``exclude_nodes`` (names, output names or globs) and ``exclude_ops`` stay float32. ``op_types`` are the
    operators that are quantized. A model that has Q/DQ nodes of this type already is taken as it is.
    """

    name: str
    grid: Grid
    known_ops: tuple[str, ...]

    def __init__(self, exclude_nodes: Sequence[str], exclude_ops: Sequence[str], op_types: Sequence[str]) -> None:
        if unknown := [op for op in op_types if op not in self.known_ops]:
            raise PrecisionError(
                f"recipe {self.name}: op_types has {unknown[0]!r}, which it cannot quantize",
                hint=nearest(unknown[0], self.known_ops),
            )
        self.exclusions = Exclusions(exclude_nodes, exclude_ops)
        self.op_types = tuple(op_types)

    def tensors(self, proto: onnx.ModelProto) -> list[str]:
        """Return the float32 activations of *proto* whose ranges ``call`` needs, in graph order."""
        if has_quantize_nodes(proto):
            return []
        return self._plan(proto).tensors(proto.graph)

    def requires(self, proto: onnx.ModelProto) -> None:
        if self._is_done(proto):
            return
        self.exclusions.check(proto.graph)
        plan = self._plan(proto)
        if not plan.nodes:
            reasons = "; ".join(f"{label}: {reason}" for label, reason in list(plan.kept.items())[:3])
            raise PrecisionError(
                f"nothing to do in {self.name}: no {', '.join(self.op_types)} node can be quantized",
                hint=reasons or _what_it_has(proto),
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
        if now is not None and now < self.grid.opset:
            model = convert_opset(model, self.grid.opset)
            notes["opset"] = {"from": now, "to": self.grid.opset}
        notes |= self._insert(model, ranges or {})
        return RecipeResult(model, modified=True, notes=notes)

    def ensures(self, before: onnx.ModelProto, result: RecipeResult) -> None:
        if not result.modified:
            return
        check_result(before, result.proto)
        check_io_unchanged(before, result.proto)
        check_pairs(result.proto.graph)
        check_weights(before.graph, result.proto.graph, self.grid)

    def _is_done(self, proto: onnx.ModelProto) -> bool:
        raise NotImplementedError  # which types may stand beside the pairs differs

    def _insert(self, model: onnx.ModelProto, ranges: Ranges) -> dict[str, Any]:
        return insert_pairs(model, self._plan(model), ranges, self.grid)

    def _plan(self, proto: onnx.ModelProto) -> Plan:
        return make_plan(proto, self.op_types, self.exclusions)


class Int8Recipe(_QdqRecipe):
    """int8, weights with one scale per output channel.

    ``exclude_nodes``, ``exclude_ops`` and ``op_types`` as above. ``attention`` also quantizes products of two
    activations (Q·Kᵀ, P·V). ``fold_weights`` stores weights as int8 before their DequantizeLinear; by default they
    stay float32 before a QuantizeLinear, which every TensorRT parses and every tool reads.
    """

    name = "int8"
    grid = INT8
    known_ops = QUANTIZABLE_OPS

    def __init__(
        self,
        exclude_nodes: Sequence[str] = (),
        exclude_ops: Sequence[str] = (),
        op_types: Sequence[str] = ("Conv", "Gemm", "MatMul", "ConvTranspose"),
        *,
        attention: bool = False,
        fold_weights: bool = False,
    ) -> None:
        super().__init__(exclude_nodes, exclude_ops, op_types)
        self.attention = attention
        self.fold_weights = fold_weights

    def _is_done(self, proto: onnx.ModelProto) -> bool:
        refuse_low_types(proto)
        return is_quantized_to(proto, self.name)

    def _insert(self, model: onnx.ModelProto, ranges: Ranges) -> dict[str, Any]:
        return insert_pairs(model, self._plan(model), ranges, self.grid, fold_weights=self.fold_weights)

    def _plan(self, proto: onnx.ModelProto) -> Plan:
        return make_plan(proto, self.op_types, self.exclusions, attention=self.attention)


class Fp8Recipe(_QdqRecipe):
    """fp8 (e4m3), one scale per weight tensor.

    A float of 3 bits of mantissa is equally exact over 15 powers of 2, so scales per channel would gain little, and
    TensorRT multiplies with them from 10.6 on only. Convolutions for which TensorRT has no fp8 kernel (grouped,
    channels not in multiples of 16, large windows) stay float32, with the reason in the notes.
    """

    name = "fp8"
    grid = FP8
    known_ops = ("Conv", "Gemm", "MatMul")

    def __init__(
        self,
        exclude_nodes: Sequence[str] = (),
        exclude_ops: Sequence[str] = (),
        op_types: Sequence[str] = ("Conv", "Gemm", "MatMul"),
    ) -> None:
        super().__init__(exclude_nodes, exclude_ops, op_types)

    def _is_done(self, proto: onnx.ModelProto) -> bool:
        done = is_quantized_to(proto, self.name)
        if not done:
            refuse_low_types(proto)
        return done

    def _plan(self, proto: onnx.ModelProto) -> Plan:
        return make_plan(proto, self.op_types, self.exclusions, per_channel=False, limit=fp8_limit)


def _what_it_has(proto: onnx.ModelProto) -> str:
    """Why nothing can be quantized in a model of which no node could be."""
    kinds = sorted({node.op_type for node in proto.graph.node})
    if integers := [kind for kind in kinds if kind in _INTEGER_OPS]:
        return (
            f"it is quantized already, to {', '.join(integers)} and not to Q/DQ pairs: start from its float32 model, or"
            " quantize that one with pairs"
        )
    return f"the model has no such node; it has {', '.join(kinds)}"
