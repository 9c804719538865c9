"""int8 by TensorRT's own calibration: the float32 model, whose scales the builder finds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trt.errors import PrecisionError
from pytest_trt.spec.precision.already import quantized_precisions
from pytest_trt.spec.precision.casts import Fp32Recipe

if TYPE_CHECKING:
    import onnx

__all__ = ["ImplicitInt8Recipe"]


class ImplicitInt8Recipe(Fp32Recipe):
    """The model as it is. What a weakly typed TensorRT runs in int8 is its own choice, by speed."""

    name = "implicit int8"

    def requires(self, proto: onnx.ModelProto) -> None:
        if found := quantized_precisions(proto):
            raise PrecisionError(
                "the model has Q/DQ pairs, and TensorRT calibrates no model that says its scales",
                hint=f"ask for {found[0]}, which takes it as it is, or start from the float32 model",
            )
        super().requires(proto)
