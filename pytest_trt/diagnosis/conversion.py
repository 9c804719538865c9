"""The conversion of one model into one precision: what may be left out of it, and the typed model without that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pytest_trt.errors import PrecisionError
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import Precision, Ranges, RecipeResult, apply_recipe
from pytest_trt.spec.precision.graph import FLOAT, LOW_NAMES, infer_types, node_label
from pytest_trt.spec.precision.operators import EXACT_OPS, NEUTRAL_OPS
from pytest_trt.spec.precision.simulate import simulate

if TYPE_CHECKING:
    import onnx

__all__ = ["Candidate", "Conversion", "as_computed"]

_SIMULATED = {"fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class Candidate:
    """A node that the recipe changed. ``entry`` is what ``exclude_nodes`` calls it; ``inputs`` are its float32 ones."""

    entry: str
    label: str
    op_type: str
    output: str
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Conversion:
    """A model, the precision that it is to have, and all that its recipe needs.

    ``options`` are the recipe's, without ``exclude_nodes``; ``excluded`` are those that the manifest names. ``ranges``
    are those of every tensor that could be quantized, so that no set of exclusions calibrates again.
    """

    model: Model
    precision: Precision
    ranges: Ranges | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    excluded: tuple[str, ...] = ()

    def apply(self, exclude_nodes: Collection[str] = ()) -> RecipeResult:
        """Return the typed model with *exclude_nodes* in float32; with all candidates among them, the model as it was.

        Raises PrecisionError.
        """
        if exclude_nodes and {c.entry for c in self.candidates} <= set(exclude_nodes):
            return RecipeResult(self.model.proto, modified=False)
        options = {**self.options, **({"exclude_nodes": sorted(exclude_nodes)} if exclude_nodes else {})}
        return apply_recipe(self.precision.make_recipe(**options), self.model.proto, self.ranges)

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """The nodes that the recipe changes when nothing is excluded by name, in graph order.

        Nodes that only move values follow their neighbours, so they are candidates only where there are no others.
        Raises PrecisionError where the recipe has nothing to leave out.
        """
        recipe = self.precision.make_recipe(**self.options)
        result = apply_recipe(recipe, self.model.proto, self.ranges)
        if not result.modified:
            raise PrecisionError(
                f"{self.model.name} in {self.precision.name}: the recipe changes nothing that could be excluded",
                hint="a model that is typed already is taken as it is; its nodes are its author's choice",
            )
        changed = _changed(self.model.proto, result.proto)
        computing = [node for node in changed if node.op_type not in EXACT_OPS]
        return _described(self.model.proto, computing or changed)


def as_computed(model: Model, precision: str) -> Model:
    """Return a typed model in the form in which a float32 runtime shows its rounding: low tensors keep their names,
    in float32. Other precisions than fp16 and bf16 round visibly as they are."""
    low = _SIMULATED.get(precision)
    if low is None or low not in {LOW_NAMES.get(kind) for kind in infer_types(model.proto).values()}:
        return model
    return Model.from_proto(simulate(model.proto, low), model.name)


def _changed(before: onnx.ModelProto, after: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes of *before* that compute in a low type in *after*, or read what a new DequantizeLinear made."""
    makers = {name: node for node in after.graph.node for name in node.output}
    old = {name for node in before.graph.node for name in node.output}
    types = infer_types(after)
    fresh = {name for name, node in makers.items() if node.op_type == "DequantizeLinear" and name not in old}
    low = {name for name, kind in types.items() if kind in LOW_NAMES}
    found = []
    for node in before.graph.node:
        now = makers.get(next((name for name in node.output if name), ""))
        if now is not None and now.op_type == "Cast" != node.op_type:
            now = makers.get(now.input[0])  # the cast that gives a graph output its type back
        if now is None or node.op_type in NEUTRAL_OPS:
            continue
        if not fresh.isdisjoint(now.input) or not low.isdisjoint((*now.input, *now.output)):
            found.append(node)
    return found


def _described(proto: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> tuple[Candidate, ...]:
    types = infer_types(proto)
    constant = {tensor.name for tensor in proto.graph.initializer}
    named = Counter(name for node in proto.graph.node for name in {node.name, *node.output} if name)
    found = []
    for node in nodes:
        # A name may serve several nodes; an entry must mean this one alone.
        own = [name for name in (node.name, *node.output) if name and named[name] == 1]
        inputs = tuple(name for name in node.input if types.get(name) == FLOAT and name not in constant)
        label = node_label(node)
        found.append(Candidate(own[0] if own else label, label, node.op_type, str(node.output[0]), inputs))
    return tuple(found)
