"""ViT-B/16 (pre-norm) with seeded weights."""

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


def build(
    *, resolution: int, patch: int, layers: int, heads: int, width: int, classes: int, seed: int = 16
) -> onnx.ModelProto:
    """``image`` float32 [N, 3, resolution, resolution] → ``logits`` float32 [N, classes]."""
    norm = {"eps": 1e-6}
    g = blocks.Graph("vit", blocks.SeededWeights(seed))
    image = g.input("image", onnx.TensorProto.FLOAT, ["N", 3, resolution, resolution])
    weight = g.weight("patch.weight", (width, 3, patch, patch), std=(3 * patch * patch) ** -0.5)
    bias = g.weight("patch.bias", (width,), std=0.02)
    x = g.node("Conv", [image, weight, bias], "patch", kernel_shape=[patch] * 2, strides=[patch] * 2)
    x = g.node("Transpose", [g.reshape(x, "patch.flatten", [0, width, -1])], "patch.transpose", perm=[0, 2, 1])

    rows = g.size(image, 0, "batch")
    shape = g.node("Concat", [rows, g.constant("token_shape", [1, width], np.int64)], "class_token.shape", axis=0)
    token = g.node("Expand", [g.weight("class_token", (1, 1, width), std=0.1), shape], "class_token.expand")
    x = g.node("Concat", [token, x], "tokens", axis=1)
    tokens = (resolution // patch) ** 2 + 1
    x = g.node("Add", [x, g.weight("positions", (1, tokens, width), std=0.1)], "add_positions")

    for i in range(layers):
        name = f"layer{i}"
        inner = blocks.layer_norm(g, x, f"{name}.norm1", width, **norm)
        qkv = [blocks.linear(g, inner, f"{name}.attention.{part}", width, width) for part in ("query", "key", "value")]
        context = blocks.attend(g, *qkv, f"{name}.attention", width=width, heads=heads, mask=None)
        out = blocks.linear(g, context, f"{name}.attention.output", width, width)
        x = g.node("Add", [x, out], f"{name}.attention.residual")
        inner = blocks.layer_norm(g, x, f"{name}.norm2", width, **norm)
        inner = blocks.gelu(g, blocks.linear(g, inner, f"{name}.mlp.up", width, 4 * width), f"{name}.mlp.gelu")
        x = g.node("Add", [x, blocks.linear(g, inner, f"{name}.mlp.down", 4 * width, width)], f"{name}.mlp.residual")
    x = blocks.layer_norm(g, x, "norm", width, **norm)
    first = g.node("Gather", [x, g.constant("first_token", 0, np.int64)], "class_token.take", axis=1)
    blocks.linear(g, first, "head", width, classes, output="logits")
    g.output("logits", ["N", classes])
    return g.proto


def inputs(*, resolution: int, **_: int) -> dict[str, np.ndarray]:
    """Synthetic images, 16 rows."""
    return {"image": blocks.smooth_images(16, 3, resolution, seed=0)}
