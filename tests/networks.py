"""Small networks for the tests of precision recipes, and ONNX Runtime to run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

FLOAT, FLOAT16, BFLOAT16, INT64, BOOL = 1, 10, 16, 7, 9
Array = np.ndarray[Any, Any]

node = helper.make_node


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    weights: Mapping[str, Array] | None = None,
    *,
    opset: int = 17,
    domains: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """Inputs and outputs: name → shape (float32), or name → (type, shape)."""

    def value(name: str, what: Any) -> onnx.ValueInfoProto:
        data_type, shape = what if isinstance(what, tuple) else (FLOAT, what)
        return helper.make_tensor_value_info(name, data_type, shape)

    graph = helper.make_graph(
        nodes,
        "network",
        [value(*item) for item in inputs.items()],
        [value(*item) for item in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid(d, v) for d, v in {"": opset, **(domains or {})}.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def run(
    proto: onnx.ModelProto, feeds: Mapping[str, Array], *, level: str = "ORT_ENABLE_ALL", **config: str
) -> list[Array]:
    """Outputs of *proto* from ONNX Runtime's CPU provider. Config keys are written with ``__`` for a dot."""
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    for key, entry in config.items():
        options.add_session_config_entry(key.replace("__", "."), entry)
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


def types_of(proto: onnx.ModelProto) -> dict[str, int]:
    """Element types by strict inference over the whole graph: an independent look at what a recipe made."""
    graph = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True).graph
    found = {t.name: t.data_type for t in graph.initializer}
    found.update((v.name, v.type.tensor_type.elem_type) for v in (*graph.value_info, *graph.input, *graph.output))
    return found


def ops(proto: onnx.ModelProto) -> list[str]:
    return [n.op_type for n in proto.graph.node]


def find(proto: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(n for n in proto.graph.node if n.name == name)


def weights(seed: int, *shape: int, scale: float = 1.0) -> Array:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def conv_net() -> onnx.ModelProto:
    """Two convolutions with a residual, a pool and a Gemm."""
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"], name="relu1"),
        node("Conv", ["r1", "w2"], ["c2"], name="conv2", pads=[1, 1, 1, 1]),
        node("Add", ["c2", "r1"], ["a"], name="add"),
        node("GlobalAveragePool", ["a"], ["p"], name="pool"),
        node("Flatten", ["p"], ["f"], name="flatten"),
        node("Gemm", ["f", "w3", "b3"], ["y"], name="gemm", transB=1),
    ]
    values = {
        "w1": weights(1, 8, 3, 3, 3, scale=0.2),
        "b1": weights(2, 8),
        "w2": weights(3, 8, 8, 3, 3, scale=0.12),
        "w3": weights(4, 5, 8, scale=0.3),
        "b3": weights(5, 5),
    }
    return model(nodes, {"x": ["N", 3, 8, 8]}, {"y": ["N", 5]}, values)


def attention(mask: float, *, as_where: bool = False) -> onnx.ModelProto:
    """softmax(x·Wq·(x·Wk)ᵀ + (1 - keep) · mask)·(x·Wv) for integer ``keep``, or Where(keep, scores, mask)."""
    nodes = [
        node("MatMul", ["x", "wq"], ["q"], name="query"),
        node("MatMul", ["x", "wk"], ["k"], name="key"),
        node("MatMul", ["x", "wv"], ["v"], name="value"),
        node("Transpose", ["k"], ["kt"], name="transpose", perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], ["s"], name="scores"),
        node("Softmax", ["masked"], ["p"], name="softmax", axis=-1),
        node("MatMul", ["p", "v"], ["y"], name="context"),
    ]
    values = {f"w{n}": weights(i, 16, 16, scale=0.25) for i, n in enumerate("qkv")}
    values["mask"] = np.float32(mask)
    if as_where:
        values["zero"] = np.int64(0)
        masking = [
            node("Greater", ["keep", "zero"], ["kept"], name="kept"),
            node("Where", ["kept", "s", "mask"], ["masked"], name="where"),
        ]
    else:
        values["one"] = np.float32(1)
        masking = [
            node("Cast", ["keep"], ["keepf"], name="cast", to=FLOAT),
            node("Sub", ["one", "keepf"], ["drop"], name="drop"),
            node("Mul", ["drop", "mask"], ["bias"], name="bias"),
            node("Add", ["s", "bias"], ["masked"], name="add_mask"),
        ]
    nodes[5:5] = masking
    return model(nodes, {"x": ["B", "L", 16], "keep": (INT64, ["B", 1, "L"])}, {"y": ["B", "L", 16]}, values)


def layer_norm(epsilon: float) -> onnx.ModelProto:
    """Layer normalization as exporters decompose it, between two MatMuls."""
    nodes = [
        node("MatMul", ["x", "w"], ["h"], name="before"),
        node("ReduceMean", ["h"], ["m"], name="mean", axes=[-1]),
        node("Sub", ["h", "m"], ["d"], name="sub"),
        node("Pow", ["d", "two"], ["d2"], name="pow"),
        node("ReduceMean", ["d2"], ["v"], name="variance", axes=[-1]),
        node("Add", ["v", "eps"], ["ve"], name="add_epsilon"),
        node("Sqrt", ["ve"], ["sd"], name="sqrt"),
        node("Div", ["d", "sd"], ["n"], name="div"),
        node("MatMul", ["n", "w"], ["y"], name="after"),
    ]
    values = {"w": weights(1, 16, 16, scale=0.25), "two": np.float32(2), "eps": np.float32(epsilon)}
    return model(nodes, {"x": ["B", 16]}, {"y": ["B", 16]}, values)
