"""Large weights beside their graph: ONNX Runtime reads them where they lie, and no message has to hold them.

A diagnosis opens one model many times, with other outputs or other nodes: most of that was copying its weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.spec.precision.graph import copy_model

if TYPE_CHECKING:
    import onnx

    from pytest_trt.backends import Array

__all__ = ["without_weights"]

# By ONNX's number of the type: those that NumPy has as well, and that no node wants to see while a graph is loaded.
_TYPES = {1: np.float32, 2: np.uint8, 3: np.int8, 10: np.float16, 11: np.float64}
# What is smaller costs nothing, and may be a shape, an axis or a scale that shape inference reads.
_LARGE_BYTES = 4096


def without_weights(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Return a copy of *proto* whose large weights are only declared, as external data, and these weights by name.

    The arrays view copies of the weights' bytes; a session reads them as long as it lives.
    """
    copy = copy_model(proto, bulk=False)
    weights: dict[str, Array] = {}
    for source, target in zip(proto.graph.initializer, copy.graph.initializer, strict=True):
        if len(source.raw_data) <= _LARGE_BYTES:
            continue
        if source.data_type in _TYPES:
            weights[source.name] = _array(source)
            target.data_location = target.EXTERNAL
            target.external_data.add(key="location", value="memory")
        else:
            target.CopyFrom(source)
    return copy, weights


def _array(tensor: Any) -> Array:
    array: Array = np.frombuffer(tensor.raw_data, _TYPES[tensor.data_type])
    return array.reshape(tuple(tensor.dims))
