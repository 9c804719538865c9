"""ResNet-50 (v1.5, BatchNorm folded) with seeded weights."""

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

# Bottlenecks per stage. 50 is the published network; 14 is the same with one bottleneck each.
_STAGES = {14: (1, 1, 1, 1), 26: (2, 2, 2, 2), 50: (3, 4, 6, 3)}


def build(*, depth: int, width: int, resolution: int, classes: int, seed: int = 50) -> onnx.ModelProto:
    """``image`` float32 [N, 3, resolution, resolution] → ``logits`` float32 [N, classes]."""
    stages = _STAGES[depth]
    gain = sum(stages) ** -0.5  # the residual branches together add about as much as went in
    g = blocks.Graph(f"resnet{depth}", blocks.SeededWeights(seed))
    x = g.input("image", onnx.TensorProto.FLOAT, ["N", 3, resolution, resolution])
    x = g.node("Relu", [blocks.conv(g, x, "conv1", 3, width, 7, stride=2)], "relu1")
    x = g.node("MaxPool", [x], "maxpool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = width
    for stage, repeats in enumerate(stages):
        for index in range(repeats):
            stride = 2 if stage > 0 and index == 0 else 1
            x = blocks.bottleneck(g, x, f"layer{stage + 1}.{index}", channels, width << stage, stride=stride, gain=gain)
            channels = 4 * (width << stage)
    x = g.node("Flatten", [g.node("GlobalAveragePool", [x], "avgpool")], "flatten", axis=1)
    weight = g.weight("fc.weight", (classes, channels), std=4 * channels**-0.5, centred=True)
    g.node("Gemm", [x, weight, g.weight("fc.bias", (classes,), std=0.1)], "fc", output="logits", transB=1)
    g.output("logits", ["N", classes])
    return g.proto


def inputs(*, resolution: int, **_: int) -> dict[str, np.ndarray]:
    """Synthetic images, 16 rows."""
    return {"image": blocks.smooth_images(16, 3, resolution, seed=0)}
