"""Which precisions a model carries already: recipes take such a model as it is, or refuse it with the right name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trt.errors import PrecisionError
from pytest_trt.spec.precision.graph import all_graphs, has_quantize_nodes, infer_types, low_types_in

if TYPE_CHECKING:
    import onnx

__all__ = ["is_quantized_to", "quantized_precisions", "refuse_low_types"]

# onnx.TensorProto.DataType, which is part of the file format.
_INT32 = 6
_PRECISIONS = {**dict.fromkeys(range(17, 21), "fp8"), 21: "int4", 22: "int4"}


def quantized_precisions(proto: onnx.ModelProto) -> tuple[str, ...]:
    """Return the names of the precisions that the Q/DQ pairs of *proto* go through, sorted; none without pairs.

    Biases in int32 count only where nothing else is quantized. Pairs whose type cannot be inferred, as in subgraphs,
    count as int8, the oldest of them.
    """
    if not has_quantize_nodes(proto):
        return ()
    outer, types = proto.graph, infer_types(proto)
    found: set[int | None] = set()
    for graph in all_graphs(outer):
        for node in graph.node:
            if node.op_type == "DequantizeLinear":
                found.add(types.get(node.input[0]) if graph is outer else None)
            elif node.op_type == "QuantizeLinear":
                found.add(types.get(node.output[0]) if graph is outer else None)
    if len(found) > 1:
        found.discard(_INT32)
    return tuple(sorted({_PRECISIONS.get(kind or 0, "int8") for kind in found}))


def is_quantized_to(proto: onnx.ModelProto, name: str) -> bool:
    """Whether *proto* has Q/DQ pairs of precision *name*. Raises PrecisionError when it has others only."""
    found = quantized_precisions(proto)
    if found and name not in found:
        raise PrecisionError(
            f"the model is already quantized, to {' and '.join(found)}",
            hint=f"ask for {found[0]}, which takes it as it is, or start from the float32 model",
        )
    return bool(found)


def refuse_low_types(proto: onnx.ModelProto) -> None:
    """Raise PrecisionError when *proto* has 16- or 8-bit floats."""
    if low := low_types_in(proto):
        raise PrecisionError(
            f"the model is already typed: it has {' and '.join(sorted(low))} tensors",
            hint="start from the float32 model",
        )
