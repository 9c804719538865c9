"""What every recipe promises about its result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trt.errors import PrecisionError
from pytest_trt.spec.precision.graph import copy_model, fits_one_message, real_inputs

if TYPE_CHECKING:
    import onnx

__all__ = ["check_io_unchanged", "check_result"]


def check_io_unchanged(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """Raise PrecisionError unless inputs and outputs keep their names, order, types and shapes."""
    for kind, pick in (("input", real_inputs), ("output", _outputs)):
        old, new = ([_signature(v) for v in pick(proto.graph)] for proto in (before, after))
        if old != new:
            raise PrecisionError(f"the typed model has other {kind}s: {new} in place of {old}")


def _outputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    return list(graph.output)


def _signature(value: onnx.ValueInfoProto) -> tuple[object, ...]:
    tensor = value.type.tensor_type
    dims = tuple(d.dim_param or d.dim_value for d in tensor.shape.dim) if tensor.HasField("shape") else None
    return value.name, int(tensor.elem_type), dims


def check_result(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """Run ONNX's full check on *after*. Raises PrecisionError, which says when *before* already failed it.

    A model above 2 GiB is checked without its weights' data, by strict shape inference alone.
    """
    problem = _check(after)
    if problem is None:
        return
    if (old := _check(before)) is not None:
        raise PrecisionError(f"the model already fails ONNX's full check before the recipe: {old}")
    raise PrecisionError(f"the typed model fails ONNX's full check: {problem}")


def _check(proto: onnx.ModelProto) -> str | None:
    import onnx

    try:
        if fits_one_message(proto):
            onnx.checker.check_model(proto, full_check=True)
        else:
            onnx.shape_inference.infer_shapes(copy_model(proto, bulk=False), check_type=True, strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return str(error).strip()
    return None
