"""A model whose latency is changed by a really longer computation."""

from __future__ import annotations

from pathlib import Path

import numpy as np

__all__ = ["write_chain"]


def write_chain(folder: Path, layers: int, width: int) -> Path:
    """Matrix products of *width*, each with an activation: a layer more is a kernel more."""
    import onnx

    folder.mkdir()
    nodes, values, last, rng = [], [], "x", np.random.default_rng(0)
    for index in range(layers):
        weight = rng.standard_normal((width, width)).astype(np.float32) * 1.4 * width**-0.5
        values.append(onnx.numpy_helper.from_array(weight.astype(np.float32), f"w{index}"))
        nodes.append(onnx.helper.make_node("MatMul", [last, f"w{index}"], [f"m{index}"], name=f"product{index}"))
        last = "y" if index == layers - 1 else f"r{index}"
        nodes.append(onnx.helper.make_node("Relu", [f"m{index}"], [last], name=f"relu{index}"))
    x, y = (onnx.helper.make_tensor_value_info(name, 1, ["N", width]) for name in "xy")
    graph = onnx.helper.make_graph(nodes, "chain", [x], [y], values)
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8),
        folder / "model.onnx",
    )
    (folder / "trt.toml").write_text(f"[profiles.b]\nx = [{4 * width}, {width}]\n")
    return folder
