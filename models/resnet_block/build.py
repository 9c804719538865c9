"""One stage of ResNet bottlenecks with seeded weights: small enough to read, with every fusion of the large one."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx


def _load_blocks() -> ModuleType:
    """Load ``models/blocks.py`` by its path and leave ``sys.path`` alone: this file is itself loaded by path."""
    spec = importlib.util.spec_from_file_location(
        "pytest_trt_model_blocks", Path(__file__).resolve().parents[1] / "blocks.py"
    )
    if spec is None or spec.loader is None:
        raise ImportError("models/blocks.py is missing beside this folder")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


blocks = _load_blocks()


def build(*, width: int, repeats: int, resolution: int, seed: int = 51) -> onnx.ModelProto:
    """``features`` float32 [N, width, R, R] → ``output`` float32 [N, 4*width, R, R], with R the resolution."""
    g = blocks.Graph("resnet_block", blocks.SeededWeights(seed))
    x = g.input("features", onnx.TensorProto.FLOAT, ["N", width, resolution, resolution])
    channels = width
    for index in range(repeats):
        last = {"output": "output"} if index == repeats - 1 else {}
        x = blocks.bottleneck(g, x, f"block{index}", channels, width, gain=repeats**-0.5, **last)
        channels = 4 * width
    g.output("output", ["N", channels, resolution, resolution])
    return g.proto


def inputs(*, width: int, resolution: int, **_: int) -> dict[str, np.ndarray]:
    """Synthetic feature maps after a ReLU, 16 rows."""
    return {"features": np.maximum(blocks.smooth_images(16, width, resolution, seed=0), 0)}
