"""The bytes of a model's weights, as evidence where an engine does not show its types."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import onnx

__all__ = ["BYTES", "WeightSizes", "judge_size", "size_text", "weight_sizes"]

# Bytes per element, by the name of the DataType.
BYTES = {
    "FLOAT": 4.0,
    "HALF": 2.0,
    "BF16": 2.0,
    "INT8": 1.0,
    "UINT8": 1.0,
    "FP8": 1.0,
    "FP4": 0.5,
    "INT4": 0.5,
    "INT32": 4.0,
    "INT64": 8.0,
    "BOOL": 1.0,
}

# onnx.TensorProto.DataType of floats, and of the integers that a DequantizeLinear reads: fixed by the file format.
_FLOATS = {1: 4.0, 10: 2.0, 16: 2.0, 11: 8.0, 17: 1.0, 18: 1.0, 19: 1.0, 20: 1.0, 23: 0.5}
_QUANTIZED = {2: 1.0, 3: 1.0, 21: 0.5, 22: 0.5, **{kind: _FLOATS[kind] for kind in (17, 18, 19, 20, 23)}}

# A plan that was built in the wanted type holds about that type's bytes; one in fp32 all of fp32's.
_FULL = 0.9
_REDUCED = 0.6
# What a plan holds besides weights: the code of generated kernels and the description of the layers, some MB in what
# was seen. Only a plan that exceeds the wanted weights by more than this can be told from one of small weights.
_CODE_BYTES = 8_000_000


class WeightSizes(NamedTuple):
    """Bytes of all weights: in the types that were asked for, and as if all were float32."""

    typed: int
    fp32: int


def weight_sizes(model: onnx.ModelProto, quantized: str | None = None) -> WeightSizes:
    """Add up the constants of *model* that are floats or were made from floats.

    A float that a QuantizeLinear reads counts as one byte, for the engine keeps the integers. *quantized* names the
    DataType that every float shall count as; it is for a model that TensorRT itself calibrates.
    """
    from pytest_trt.spec.precision.graph import all_graphs

    typed = fp32 = 0.0
    for graph in all_graphs(model.graph):
        becomes_int8 = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
        integers = {node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
        constants = [(tensor.name, tensor) for tensor in graph.initializer]
        for node in graph.node:
            if node.op_type == "Constant":
                constants += [(node.output[0], a.t) for a in node.attribute if a.name == "value" and a.HasField("t")]
        for name, tensor in constants:
            size = (_QUANTIZED if name in integers else _FLOATS).get(tensor.data_type)
            if size is None:
                continue
            count = math.prod(tensor.dims)
            if quantized is not None:
                size = BYTES[quantized]
            typed += count * (1.0 if name in becomes_int8 else size)
            fp32 += count * 4.0
    return WeightSizes(round(typed), round(fp32))


def judge_size(
    plan_bytes: int, typed_weight_bytes: int, full_weight_bytes: int, wanted: str, full: str = "fp32"
) -> str | None:
    """Say that a plan is as large as its weights in *full*, where those in the *wanted* type are far smaller.

    None where the plan is smaller, or where the weights are too small, or too alike in both types, to tell. The plan
    must hold its weights once and nothing else of their size: one profile, no runtime inside, not refittable.
    """
    reduced = typed_weight_bytes <= _REDUCED * full_weight_bytes
    large = plan_bytes >= _FULL * full_weight_bytes
    if not (reduced and large and plan_bytes - typed_weight_bytes > _CODE_BYTES):
        return None
    return (
        f"the plan has {size_text(plan_bytes)}, as much as the {full} weights ({size_text(full_weight_bytes)}); "
        f"in {wanted} they take {size_text(typed_weight_bytes)}"
    )


def size_text(count: float) -> str:
    """``265 MB``, ``2.5 MB``, ``4 KB``."""
    value = count / 1e6
    if value >= 9.95:
        return f"{value:.0f} MB"
    return f"{value:.1f} MB" if value >= 0.95 else f"{count / 1e3:.0f} KB"
