"""fp32, tf32, fp16 and bf16: models typed by casts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.errors import PrecisionError, UnsupportedError
from pytest_trt.spec.precision import RecipeResult
from pytest_trt.spec.precision.already import quantized_precisions
from pytest_trt.spec.precision.checks import check_io_unchanged, check_result
from pytest_trt.spec.precision.constants import constant_holders, constants, float_value, round_to, store
from pytest_trt.spec.precision.exclusions import Exclusions
from pytest_trt.spec.precision.graph import (
    BFLOAT16,
    FLOAT16,
    LOW_NAMES,
    convert_opset,
    copy_model,
    infer_types,
    low_types_in,
    node_label,
    opset_of,
)
from pytest_trt.spec.precision.operators import NEUTRAL_OPS, opset_needed
from pytest_trt.spec.precision.retype import retype
from pytest_trt.spec.precision.selection import Selection, select

if TYPE_CHECKING:
    import onnx

    from pytest_trt.spec.precision import Ranges

__all__ = ["Bf16Recipe", "Fp16Recipe", "Fp32Recipe", "Tf32Recipe"]

# TensorRT 10 parses opset 22, which gives Conv and the pools a bfloat16 form.
_NEWEST_OPSET = 22


_ALREADY = {"float16": "fp16", "bfloat16": "bf16"}


class Fp32Recipe:
    """The model as it is, which must be a float32 one."""

    name = "fp32"

    def requires(self, proto: onnx.ModelProto) -> None:
        """Raise PrecisionError when *proto* is typed already: then its name would say something untrue.

        Raises UnsupportedError where no other name would be true either.
        """
        if low := low_types_in(proto):
            has = f"the model is already typed: it has {' and '.join(sorted(low))} tensors"
            # Only a cast recipe of that one type, or the recipe of its Q/DQ pairs, would take it.
            names = quantized_precisions(proto) or [_ALREADY[t] for t in low if len(low) == 1 and t in _ALREADY]
            if not names:
                raise UnsupportedError(f"{has}, and no precision is named after that")
            raise PrecisionError(has, hint=f"ask for {names[0]}, which takes it as it is")
        if found := quantized_precisions(proto):
            raise PrecisionError(
                "the model is already quantized: it has QuantizeLinear or DequantizeLinear nodes",
                hint=f"ask for {found[0]}, which takes it as it is",
            )

    def call(self, proto: onnx.ModelProto, ranges: Ranges | None) -> RecipeResult:  # noqa: ARG002 - no types
        return RecipeResult(proto, modified=False)

    def ensures(self, before: onnx.ModelProto, result: RecipeResult) -> None:
        if result.proto is not before:
            raise PrecisionError("the model changed, and it must not")


class Tf32Recipe(Fp32Recipe):
    """The float32 model; what differs is how the engine multiplies."""

    name = "tf32"


class _CastRecipe:
    """Nodes that can compute in a 16-bit float type do so; casts stand where the type changes.

    ``exclude_nodes`` (names, output names or globs) and ``exclude_ops`` stay float32. ``keep_io`` leaves
    graph inputs and outputs float32. ``overflow`` says what happens to constants beyond the type's range:
    ``"keep"`` leaves their nodes in float32, ``"saturate"`` clamps them to the largest finite value (faster,
    and enough for masks, except that a row which is masked out entirely may come out different). ``opset``
    fixes the opset of the result; by default it is raised, up to 22, where an operator has no form in the
    wanted type before. A model that is typed so already is taken as it is.
    """

    name: str
    low: int

    def __init__(
        self,
        exclude_nodes: Sequence[str] = (),
        exclude_ops: Sequence[str] = (),
        *,
        keep_io: bool = True,
        overflow: str = "keep",
        opset: int | None = None,
    ) -> None:
        if overflow not in ("keep", "saturate"):
            raise PrecisionError(f"recipe {self.name}: overflow={overflow!r}", hint="known: keep, saturate")
        self.exclusions = Exclusions(exclude_nodes, exclude_ops)
        self.keep_io = keep_io
        self.overflow = overflow
        self.opset = opset

    def requires(self, proto: onnx.ModelProto) -> None:
        if found := quantized_precisions(proto):
            raise PrecisionError(
                "the model is quantized: casts would part its Q/DQ pairs from the nodes that they belong to",
                hint=f"ask for {found[0]}, which takes it as it is, or start from the float32 model",
            )
        if other := low_types_in(proto) - {LOW_NAMES[self.low]}:
            raise PrecisionError(
                f"the model is already typed: it has {' and '.join(sorted(other))} tensors",
                hint="start from the float32 model",
            )
        self.exclusions.check(proto.graph)

    def call(self, proto: onnx.ModelProto, ranges: Ranges | None) -> RecipeResult:
        low_name = LOW_NAMES[self.low]
        if low_types_in(proto):
            return RecipeResult(proto, modified=False, notes={"low_type": low_name, "already_typed": True})
        model, opset_note = self._with_opset(proto)
        saturated = _saturate(model.graph, self.low) if self.overflow == "saturate" else []
        selection = select(model, self.low, self.exclusions, ranges)
        nodes = list(model.graph.node)
        kept = {node_label(nodes[index]): reason for index, reason in sorted(selection.kept.items())}
        if not selection.low:
            reasons = "; ".join(f"{label}: {reason}" for label, reason in list(kept.items())[:3])
            raise PrecisionError(
                f"nothing to do in {low_name}: no node can take it", hint=reasons or "it computes nothing in float32"
            )
        notes: dict[str, Any] = {
            "low_type": low_name,
            "low_nodes": len(selection.low),
            "low_ops": dict(sorted(Counter(nodes[index].op_type for index in selection.low).items())),
            "kept_nodes": kept,
            "constants": _losses(model.graph, selection, self.low),
            **opset_note,
        }
        if saturated:
            notes["saturated_constants"] = saturated
        notes["casts"] = retype(model, selection, self.low, keep_io=self.keep_io)
        return RecipeResult(model, modified=True, notes=notes)

    def ensures(self, before: onnx.ModelProto, result: RecipeResult) -> None:
        if not result.modified:
            return
        check_result(before, result.proto)
        if self.keep_io:
            check_io_unchanged(before, result.proto)
        types = infer_types(result.proto)
        low = [
            n for n in result.proto.graph.node if n.op_type not in NEUTRAL_OPS and self.low in map(types.get, n.input)
        ]
        if len(low) != result.notes["low_nodes"]:
            raise PrecisionError(f"{len(low)} nodes take {LOW_NAMES[self.low]}, not {result.notes['low_nodes']}")
        if "opset" not in result.notes:
            old, new = (Counter(n.op_type for n in p.graph.node) for p in (before, result.proto))
            new["Cast"] -= result.notes["casts"]
            # A constant that nothing reads any more, or that both types read, changes their number.
            old["Constant"] = new["Constant"] = 0
            if old != new:
                raise PrecisionError(f"nodes were lost or added: {+(old - new)} lost, {+(new - old)} added")

    def _with_opset(self, proto: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, Any]]:
        """Return a copy of *proto* at the opset it needs, and the note about it."""
        model = copy_model(proto)
        now = opset_of(model)
        target = self.opset or opset_needed(model, self.low, _NEWEST_OPSET)
        if now is None or target == now:
            return model, {}
        try:
            return convert_opset(model, target), {"opset": {"from": now, "to": target}}
        except PrecisionError as error:
            if self.opset:
                raise
            # Not fatal: the nodes in question stay float32, each with its reason.
            return model, {"opset_refused": error.message}


class Fp16Recipe(_CastRecipe):
    __doc__ = f"float16. {_CastRecipe.__doc__}"
    name = "fp16"
    low = FLOAT16


class Bf16Recipe(_CastRecipe):
    __doc__ = f"bfloat16. {_CastRecipe.__doc__}"
    name = "bf16"
    low = BFLOAT16


def _saturate(graph: onnx.GraphProto, low: int) -> list[str]:
    """Clamp every float32 constant to the finite range of *low*; return the names of those that changed."""
    top = np.float32(65504.0) if low == FLOAT16 else np.uint32(0x7F7F0000).view(np.float32)
    holders = dict(constant_holders(graph))
    changed = []
    for node in graph.node:
        if node.op_type == "ConstantOfShape" and node.attribute:
            holders[node_label(node)] = node.attribute[0].t
    for name, holder in holders.items():
        value = float_value(holder)
        if value is None or not np.any(np.isfinite(value) & np.isinf(round_to(value, low))):
            continue
        store(holder, np.where(np.isfinite(value), np.clip(value, -top, top), value), 1)
        changed.append(name)
    return changed


def _losses(graph: onnx.GraphProto, selection: Selection, low: int) -> dict[str, Any]:
    """Return how many values the constants of low nodes have, and the shares that vanish or lose digits."""
    values = constants(graph)
    names = {graph.node[i].input[p] for i, operands in selection.low.items() for p in operands.inputs} & values.keys()
    total = to_zero = to_subnormal = 0
    for name in names:
        value = values[name]
        rounded = np.abs(round_to(value, low))
        smallest_normal = 2.0**-14 if low == FLOAT16 else 2.0**-126
        total += value.size
        to_zero += int(np.count_nonzero((value != 0) & (rounded == 0)))
        to_subnormal += int(np.count_nonzero((rounded != 0) & (rounded < smallest_normal)))
    share = max(total, 1)
    return {"values": total, "to_zero": to_zero / share, "to_subnormal": to_subnormal / share}
