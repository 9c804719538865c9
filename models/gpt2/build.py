"""GPT-2 (124M, one forward pass) with seeded weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

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


def build(*, layers: int, heads: int, width: int, vocab: int, positions: int, seed: int = 2) -> onnx.ModelProto:
    """``input_ids`` int64 [N, S], S ≤ positions → ``logits`` float32 [N, S, vocab]. No key/value cache."""
    gain = (2 * layers) ** -0.5  # GPT-2's own scaling of its residual branches
    norm = {"eps": 1e-5}
    g = blocks.Graph("gpt2", blocks.SeededWeights(seed))
    ids = g.input("input_ids", onnx.TensorProto.INT64, ["N", "S"])
    words = g.weight("wte.weight", (vocab, width), std=0.1)
    length = g.size(ids, 1, "length")
    position = blocks.first_rows(g, g.weight("wpe.weight", (positions, width), std=0.1), length, "wpe")
    x = g.node("Add", [g.node("Gather", [words, ids], "wte", axis=0), position], "embeddings")
    mask = _causal_mask(g, length, positions)

    for i in range(layers):
        name = f"layer{i}"
        inner = blocks.layer_norm(g, x, f"{name}.norm1", width, **norm)
        fused = blocks.linear(g, inner, f"{name}.attention.qkv", width, 3 * width)
        parts = [f"{name}.attention.{part}" for part in ("query", "key", "value")]
        sizes = g.constant("qkv.sizes", [width] * 3, np.int64)
        g.graph.node.append(
            onnx.helper.make_node("Split", [fused, sizes], parts, name=f"{name}.attention.split", axis=-1)
        )
        context = blocks.attend(g, *parts, f"{name}.attention", width=width, heads=heads, mask=mask)
        out = blocks.linear(g, context, f"{name}.attention.output", width, width, gain=gain)
        x = g.node("Add", [x, out], f"{name}.attention.residual")
        inner = blocks.layer_norm(g, x, f"{name}.norm2", width, **norm)
        inner = blocks.gelu_tanh(g, blocks.linear(g, inner, f"{name}.mlp.up", width, 4 * width), f"{name}.mlp.gelu")
        x = g.node(
            "Add", [x, blocks.linear(g, inner, f"{name}.mlp.down", 4 * width, width, gain=gain)], f"{name}.mlp.residual"
        )
    x = blocks.layer_norm(g, x, "norm", width, **norm)
    # The output layer is the embedding table again: one tensor, two uses.
    tied = g.node("Transpose", [words], "lm_head.transpose", perm=[1, 0])
    g.node("MatMul", [x, tied], "lm_head.matmul", output="logits")
    g.output("logits", ["N", "S", vocab])
    return g.proto


def _causal_mask(g: Any, length: str, positions: int) -> str:
    """Scores to add, float32 [1, 1, S, S]: the corner of a stored triangle."""
    triangle = np.triu(np.full((1, 1, positions, positions), blocks.MASKED_SCORE, np.float32), k=1)
    table = g.constant("mask.table", triangle)
    starts, axes = g.constant("mask.starts", [0, 0], np.int64), g.constant("mask.axes", [2, 3], np.int64)
    ends = g.node("Concat", [length, length], "mask.ends", axis=0)
    return g.node("Slice", [table, starts, ends, axes], "mask")
