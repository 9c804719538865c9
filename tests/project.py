"""A small model folder, as tests of several kinds need it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MANIFEST = """
[inputs]
file = "inputs.npz"
[profiles.b1]
x = [1, 4]
[profiles.b8]
x = { min = [1, 4], opt = [8, 4], max = [16, 4] }
"""


def write_model(folder: Path, manifest: str | None = MANIFEST, seed: int = 0) -> Path:
    """Write ``y = relu(x · W) · V``, 16 real rows and a manifest into *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("W", (4, 8)), ("V", (8, 3)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["h"], name="hidden"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "V"], ["y"], name="out"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        weights,
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "model.onnx"
    )
    np.savez(folder / "inputs.npz", x=rng.standard_normal((16, 4)).astype(np.float32))
    if manifest is not None:
        (folder / "trt.toml").write_text(manifest)
    return folder
