"""Another order of summation, imitated: how far a typed model moves when no engine is at fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trt.spec.model import Model
from pytest_trt.spec.precision.graph import FLOAT, Names, copy_model, infer_types, replace_nodes

if TYPE_CHECKING:
    import onnx

__all__ = ["STEP", "reordered"]

# A sum of a thousand float32 products differs by about this much, relatively, from the same sum in another order.
STEP = 2.0**-20

_SUMMING = {
    "AveragePool",
    "BatchNormalization",
    "Conv",
    "ConvTranspose",
    "Einsum",
    "Gemm",
    "GlobalAveragePool",
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "MatMul",
    "ReduceMean",
    "ReduceSum",
    "Softmax",
}


def reordered(model: Model) -> Model | None:
    """Return *model* with each float32 result of a node that sums up moved by one part in a million, by turns up and
    down; None where there is none. What rounds afterwards (casts, Q/DQ pairs) then rounds a little of it otherwise."""
    from onnx import helper

    proto = copy_model(model.proto)
    types, names = infer_types(proto), Names(proto.graph)
    factors = [names.fresh(f"sum_{word}") for word in ("up", "down")]
    nodes: list[onnx.NodeProto] = []
    count = 0
    for node in proto.graph.node:
        nodes.append(node)
        if node.op_type in _SUMMING and types.get(node.output[0]) == FLOAT:
            result = node.output[0]
            node.output[0] = names.fresh(f"{result}_sum")
            inputs = [node.output[0], factors[count % 2]]
            nodes.append(helper.make_node("Mul", inputs, [result], names.fresh(f"{result}_moved")))
            count += 1
    if not count:
        return None
    replace_nodes(proto.graph, nodes)
    for factor, value in zip(factors, (1 + STEP, 1 - STEP), strict=True):
        proto.graph.initializer.append(helper.make_tensor(factor, FLOAT, [], [value]))
    return Model.from_proto(proto, model.name)
