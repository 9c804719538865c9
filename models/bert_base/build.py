"""BERT-base with seeded weights."""

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
    *, layers: int, heads: int, width: int, intermediate: int, vocab: int, positions: int, seed: int = 768
) -> onnx.ModelProto:
    """int64 [N, S] ``input_ids``, ``attention_mask``, ``token_type_ids`` → float32 ``last_hidden_state``
    [N, S, width] and ``pooler_output`` [N, width]."""
    g = blocks.Graph("bert", blocks.SeededWeights(seed))
    hidden, _ = blocks.bert_encoder(
        g, layers=layers, heads=heads, width=width, intermediate=intermediate, vocab=vocab, positions=positions
    )
    first = g.node("Gather", [hidden, g.constant("first_token", 0, np.int64)], "pooler.first_token", axis=1)
    pooled = blocks.linear(g, first, "pooler.dense", width, width)
    g.node("Tanh", [pooled], "pooler.tanh", output="pooler_output")
    g.node("Identity", [hidden], "last_hidden_state")
    g.output("last_hidden_state", ["N", "S", width])
    g.output("pooler_output", ["N", width])
    return g.proto
