"""What the parts of the TensorRT double share: types by name, objects of a recorded class."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

FROM_ONNX = {1: "FLOAT", 2: "UINT8", 3: "INT8", 6: "INT32", 7: "INT64", 9: "BOOL", 10: "HALF", 16: "BF16"}


NUMPY = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}


def make(trt: Any, name: str, **state: object) -> Any:
    made = getattr(trt, name)
    thing = made.__new__(made)
    thing.__dict__.update(state)
    return thing


def tensor_dtype(trt: Any, elem_type: int) -> Any:
    name = FROM_ONNX[elem_type]
    # 8.6 has no 64-bit integers: its parser narrows them.
    return getattr(trt.DataType, "INT32" if name == "INT64" and not hasattr(trt.DataType, "INT64") else name)


def dims_of(trt: Any, shape: Any) -> Any:
    return trt.Dims(tuple(shape))


def process_logger_of(trt: Any) -> Any:
    from pytest_trt.backends.tensorrt.logger import process_logger

    return process_logger(trt)
