"""Float constants of a graph, and their rounding to the 16-bit float types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.spec.precision.graph import BFLOAT16, FLOAT, FLOAT16

if TYPE_CHECKING:
    import onnx

__all__ = ["constant_holders", "constants", "float_value", "make_tensor", "round_to", "store", "widened"]

Array = np.ndarray[Any, Any]


def constant_holders(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto | onnx.NodeProto]:
    """Return what makes each constant of *graph*: its initializer or its Constant node."""
    holders: dict[str, onnx.TensorProto | onnx.NodeProto] = {t.name: t for t in graph.initializer}
    holders.update((n.output[0], n) for n in graph.node if n.op_type == "Constant" and n.domain in ("", "ai.onnx"))
    return holders


def float_value(holder: onnx.TensorProto | onnx.NodeProto) -> Array | None:
    """Return the float32 array in *holder*, or None when it holds something else."""
    import onnx

    if isinstance(holder, onnx.TensorProto):
        return np.asarray(onnx.numpy_helper.to_array(holder)) if holder.data_type == FLOAT else None
    attribute = holder.attribute[0]
    if attribute.name == "value":
        return float_value(attribute.t)
    if attribute.name == "value_float":
        return np.asarray(attribute.f, dtype=np.float32)
    if attribute.name == "value_floats":
        return np.asarray(attribute.floats, dtype=np.float32)
    return None


def constants(graph: onnx.GraphProto) -> dict[str, Array]:
    """Return the float32 constants of *graph* by name: initializers and the outputs of Constant nodes."""
    values = ((name, float_value(holder)) for name, holder in constant_holders(graph).items())
    return {name: value for name, value in values if value is not None}


def store(holder: onnx.TensorProto | onnx.NodeProto, values: Array, data_type: int) -> None:
    """Put *values* into *holder* as *data_type*; the constant keeps its name."""
    import onnx

    if isinstance(holder, onnx.TensorProto):
        holder.CopyFrom(make_tensor(holder.name, values, data_type))
    else:
        tensor = make_tensor(holder.output[0], values, data_type)
        del holder.attribute[:]
        holder.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(tensor)


def make_tensor(name: str, values: Array, data_type: int) -> onnx.TensorProto:
    """Return float32 *values* stored as *data_type*: float32, float16 or bfloat16."""
    import onnx

    values = np.asarray(values, dtype=np.float32)
    if data_type == BFLOAT16:
        raw = _bfloat16_bits(values).astype("<u2").tobytes()
    else:
        with np.errstate(over="ignore", under="ignore"):
            raw = values.astype("<f2" if data_type == FLOAT16 else "<f4").tobytes()
    return onnx.TensorProto(name=name, data_type=data_type, dims=values.shape, raw_data=raw)


def widened(tensor: onnx.TensorProto) -> Array:
    """Return the float16 or bfloat16 values in *tensor* as float32; that is exact."""
    if tensor.HasField("raw_data"):
        bits = np.frombuffer(tensor.raw_data, dtype="<u2")
    else:
        bits = np.asarray(tensor.int32_data, dtype=np.uint16)
    bits = bits.reshape(tuple(tensor.dims))
    if tensor.data_type == FLOAT16:
        return bits.view(np.float16).astype(np.float32)
    return _from_bfloat16_bits(bits)


def round_to(values: Array, low: int) -> Array:
    """Return *values* rounded to the nearest value of type *low* (ties to even), as float32."""
    values = np.asarray(values, dtype=np.float32)
    if low == FLOAT16:
        with np.errstate(over="ignore", under="ignore"):
            return values.astype(np.float16).astype(np.float32)
    return _from_bfloat16_bits(_bfloat16_bits(values))


def _bfloat16_bits(values: Array) -> Array:
    # By hand, because NumPy has no bfloat16 and older onnx comes without ml_dtypes. The carry of the
    # addition runs into the exponent, which is what rounding up to the next power of two (or to inf) means.
    # In one dimension, because NumPy 1 widens an array without any as soon as an integer is added.
    bits = np.ascontiguousarray(values).reshape(-1).view(np.uint32)
    rounded = (bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16
    rounded[np.isnan(bits.view(np.float32))] = 0x7FC0
    found: Array = rounded.astype(np.uint16).reshape(values.shape)
    return found


def _from_bfloat16_bits(bits: Array) -> Array:
    values: Array = (bits.reshape(-1).astype(np.uint32) << 16).view(np.float32).reshape(bits.shape)
    return values
