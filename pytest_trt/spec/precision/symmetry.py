"""Q/DQ pairs that TensorRT does not take: of another type than int8, float8 or int4, or with a zero point beside 0.

ONNX Runtime takes them all, and its own quantizer makes zero points unless it is told otherwise, so a model can be
right on the CPU and refused on the GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.spec.precision.constants import constant_holders
from pytest_trt.spec.precision.graph import all_graphs, node_label

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

__all__ = ["asymmetric_pairs", "asymmetry_remark"]

# By onnx.TensorProto.DataType, which is part of the file format.
_REFUSED = {2: "uint8", 4: "uint16", 5: "int16", 21: "uint4", 25: "uint2", 26: "int2"}
_UINT8 = 2  # what ONNX stores where neither a zero point nor an attribute says the type


def asymmetry_remark(proto: onnx.ModelProto) -> str | None:
    """What to know of a model before TensorRT refuses it; None where its pairs are symmetric, or it has none."""
    found = asymmetric_pairs(proto)
    if not found:
        return None
    (label, why), *rest = found.items()
    more = f", and {len(rest)} more nodes" if rest[1:] else f", {rest[0][0]!r} {rest[0][1]}" if rest else ""
    return (
        f"TensorRT takes Q/DQ pairs of int8, float8 and int4 with zero points of 0: {label!r} {why}{more}; quantize the"
        " model again, symmetric and in int8, or start from its float32 model"
    )


def asymmetric_pairs(proto: onnx.ModelProto) -> dict[str, str]:
    """Return the nodes, subgraphs included, that are of a refused type or have a zero point beside 0, and which it is.

    Zero points that are computed are not judged.
    """
    found: dict[str, str] = {}
    holders: dict[str, onnx.TensorProto | onnx.NodeProto] = {}
    for graph in all_graphs(proto.graph):
        holders.update(constant_holders(graph))
        for node in graph.node:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear") and (why := _why(node, holders)):
                found[node_label(node)] = why
    return found


def _why(node: onnx.NodeProto, holders: Mapping[str, onnx.TensorProto | onnx.NodeProto]) -> str | None:
    zero = _tensor(holders.get(node.input[2])) if len(node.input) > 2 and node.input[2] else None
    if zero is not None:
        kind = zero.data_type
    elif len(node.input) > 2 and node.input[2]:
        return None
    elif node.op_type == "QuantizeLinear":
        kind = next((a.i for a in node.attribute if a.name == "output_dtype" and a.i), _UINT8)
    else:
        stored = _tensor(holders.get(node.input[0]))  # else the QuantizeLinear before it says it
        kind = stored.data_type if stored is not None else 0
    if kind in _REFUSED:
        return f"has {_REFUSED[kind]}"
    value = _largest(zero) if zero is not None else 0
    return f"has the zero point {value:g}" if value else None


def _tensor(holder: onnx.TensorProto | onnx.NodeProto | None) -> onnx.TensorProto | None:
    """The tensor of an initializer, or of a Constant that holds one."""
    attributes: Any = getattr(holder, "attribute", None)
    if attributes is None:
        return holder
    return next((a.t for a in attributes if a.name == "value"), None)


def _largest(zero: onnx.TensorProto) -> float:
    """The element of *zero* that is furthest from 0."""
    import onnx

    values = np.asarray(onnx.numpy_helper.to_array(zero)).astype(np.float64).ravel()
    return float(values[np.argmax(np.abs(values))]) if values.size else 0.0
