"""Rounding of a 16-bit typed model, made visible to backends that compute in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trt.errors import PrecisionError
from pytest_trt.spec.precision.constants import constant_holders, store, widened
from pytest_trt.spec.precision.graph import (
    FLOAT,
    LOW_NAMES,
    Names,
    all_graphs,
    captured_names,
    copy_model,
    infer_types,
    replace_nodes,
)
from pytest_trt.spec.precision.operators import EXACT_OPS

if TYPE_CHECKING:
    import onnx

__all__ = ["simulate"]


def simulate(proto: onnx.ModelProto, low: str) -> onnx.ModelProto:
    """Return a float32 model that rounds every tensor which *proto* holds in *low*, with the same inputs and outputs.

    *proto* is what Fp16Recipe or Bf16Recipe made; *low* is ``"float16"`` or ``"bfloat16"``. Each low
    tensor becomes a float32 one that went through a pair of casts, float32 → low → float32; weights are
    stored as the float32 value of their low one. So a CPU does what a GPU does when it multiplies 16-bit
    operands, sums in float32 and stores 16 bits. A GPU may still differ: it keeps values inside a fused
    kernel in float32, and TensorRT is free to sum in float16. *proto* is not changed.

    ONNX Runtime's CPU provider keeps these pairs at every graph optimization level, from DISABLE_ALL to
    ENABLE_ALL (its cast elimination takes only casts that lose nothing), and has Cast for both types;
    tests/unit/test_precision_simulate.py holds it to that, bit for bit.

    Raises PrecisionError when *low* is neither name, *proto* has no such tensor, or has them in a subgraph.
    """
    types_by_name = {name: data_type for data_type, name in LOW_NAMES.items()}
    if low not in types_by_name:
        raise PrecisionError(f"cannot simulate {low!r}", hint=f"known: {', '.join(sorted(types_by_name))}")
    model = copy_model(proto)
    _Simulation(model, types_by_name[low]).run()
    return model


class _Simulation:
    def __init__(self, model: onnx.ModelProto, low: int) -> None:
        self.graph, self.low = model.graph, low
        self.names = Names(model.graph)
        self.is_low = {name for name, data_type in infer_types(model).items() if data_type == low}
        self.nodes: list[onnx.NodeProto] = []
        if not self.is_low:
            raise PrecisionError(f"nothing to simulate: the model has no {LOW_NAMES[low]} tensor")
        for inner in list(all_graphs(model.graph))[1:]:
            if any(t.data_type == low for t in inner.initializer) or any(_casts_to(n, low) for n in inner.node):
                raise PrecisionError(f"cannot simulate {LOW_NAMES[low]} in the subgraph {inner.name!r}")
        for node in model.graph.node:
            if captured := captured_names(node) & self.is_low:
                raise PrecisionError(f"cannot simulate {LOW_NAMES[low]} where a subgraph reads it: {sorted(captured)}")

    def run(self) -> None:
        self._widen_constants()
        borders = {v.name for v in (*self.graph.input, *self.graph.output)} & self.is_low
        inner = {name: self.names.fresh(f"{name}_float32") for name in sorted(borders)}
        for value in self.graph.input:
            if value.name in inner:
                self._cast(value.name, inner[value.name], FLOAT)
        for node in self.graph.node:
            self._rewrite(node, inner)
        fed = {v.name for v in self.graph.input}
        for value in self.graph.output:
            if value.name in inner and value.name not in fed:
                self._cast(inner[value.name], value.name, self.low)
        for value in self.graph.value_info:
            if value.name in self.is_low:
                value.type.tensor_type.elem_type = FLOAT
        replace_nodes(self.graph, self.nodes)

    def _rewrite(self, node: onnx.NodeProto, inner: dict[str, str]) -> None:
        node.input[:] = [inner.get(name, name) for name in node.input]
        rounded = [name for name in node.output if name in self.is_low]
        node.output[:] = [inner.get(name, name) for name in node.output]
        self.nodes.append(node)
        if not rounded or node.op_type == "Constant":
            return
        if node.op_type == "Cast":
            # float32 → low is the first half of the pair; the second follows.
            self._round(node, inner, rounded, first=False)
        elif node.op_type not in EXACT_OPS:
            self._round(node, inner, rounded, first=True)

    def _round(self, node: onnx.NodeProto, inner: dict[str, str], rounded: list[str], *, first: bool) -> None:
        for name in rounded:
            target = inner.get(name, name)
            position = list(node.output).index(target)
            stored = node.output[position] = self.names.fresh(f"{name}_{'computed' if first else LOW_NAMES[self.low]}")
            if first:
                stored = self._cast(stored, self.names.fresh(f"{name}_{LOW_NAMES[self.low]}"), self.low)
            self._cast(stored, target, FLOAT)

    def _cast(self, source: str, target: str, data_type: int) -> str:
        import onnx

        name = self.names.fresh(f"{target}_round")
        self.nodes.append(onnx.helper.make_node("Cast", [source], [target], name=name, to=data_type))
        return target

    def _widen_constants(self) -> None:
        import onnx

        for holder in constant_holders(self.graph).values():
            tensor = holder if isinstance(holder, onnx.TensorProto) else holder.attribute[0].t
            if tensor.data_type == self.low:
                store(holder, widened(tensor), FLOAT)


def _casts_to(node: onnx.NodeProto, low: int) -> bool:
    return node.op_type == "Cast" and any(a.name == "to" and a.i == low for a in node.attribute)
