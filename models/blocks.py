"""Building blocks of the model folders: an ONNX graph writer, two sources of weights, and the layers.

Each folder's ``build.py`` loads this file by its path, because it is itself loaded by path and its folder is
on no import path. Opset 17 and IR version 8 are what TensorRT 8.6 still reads, so LayerNorm and GELU are
written out in elementary operators.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

OPSET, IR_VERSION = 17, 8

# The original BERT adds this to the scores of padding. It fits fp16; the smallest float32 would not.
MASKED_SCORE = -10000.0

# (name, shape, how a made-up weight would be drawn) -> float32 array of that shape
Weights = Callable[..., np.ndarray]


class SeededWeights:
    """Normal weights that depend on the seed and the tensor's name only, not on the order of the calls."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(
        self, name: str, shape: Sequence[int], *, std: float, mean: float = 0.0, centred: bool = False
    ) -> np.ndarray:
        """Return float32 weights; ``centred`` makes each output filter (axis 0) sum to exactly zero mean.

        A ReLU network without BatchNorm maps all inputs to nearly one output, because the positive mean of the
        activations swamps what differs between them. Centred filters do not see that mean.
        """
        generator = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        array = generator.standard_normal(tuple(shape), dtype=np.float32)
        if centred:
            array -= array.mean(axis=tuple(range(1, array.ndim)), keepdims=True)
        array *= np.float32(std)
        array += np.float32(mean)
        return array


class TrainedWeights:
    """Weights looked up by name; the shape that the graph expects is checked."""

    def __init__(self, tensors: Mapping[str, np.ndarray]) -> None:
        self.tensors = tensors

    def __call__(self, name: str, shape: Sequence[int], **_: Any) -> np.ndarray:
        array = self.tensors[name]
        if array.shape != tuple(shape):
            raise ValueError(f"weight {name!r} has shape {array.shape}, but the graph needs {tuple(shape)}")
        return np.ascontiguousarray(array, dtype=np.float32)


class Graph:
    """Writes one ONNX graph. A node's name is also the name of its output, so messages can be read."""

    def __init__(self, name: str, weights: Weights) -> None:
        self.weights = weights
        self.proto = onnx.ModelProto(ir_version=IR_VERSION, producer_name="pytest-trt models")
        self.proto.opset_import.append(helper.make_opsetid("", OPSET))
        self.graph = self.proto.graph
        self.graph.name = name
        self._stored: set[str] = set()

    def input(self, name: str, elem_type: int, shape: Sequence[int | str]) -> str:
        self.graph.input.append(helper.make_tensor_value_info(name, elem_type, shape))
        return name

    def output(self, name: str, shape: Sequence[int | str]) -> None:
        self.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        """Store *value* under *name*; a second call with the same name shares the first one's tensor."""
        if name not in self._stored:
            self._stored.add(name)
            array = np.asarray(value, dtype=dtype)
            # Filled in place: a full-size model would otherwise be copied once more.
            self.graph.initializer.add(
                name=name,
                data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
                dims=array.shape,
                raw_data=array.tobytes(),
            )
        return name

    def weight(self, name: str, shape: Sequence[int], **law: Any) -> str:
        return self.constant(name, self.weights(name, shape, **law))

    def node(self, op: str, inputs: Sequence[str], name: str, *, output: str | None = None, **attributes: Any) -> str:
        self.graph.node.append(helper.make_node(op, inputs, [output or name], name=name, **attributes))
        return output or name

    def reshape(self, x: str, name: str, shape: Sequence[int]) -> str:
        """Reshape to a constant shape, where 0 keeps a dimension and -1 is what remains."""
        return self.node("Reshape", [x, self.constant(f"{name}.shape", shape, np.int64)], name)

    def size(self, x: str, axis: int, name: str) -> str:
        """Return the size of *x* along *axis*, int64 of shape [1]."""
        sizes = self.node("Shape", [x], f"{name}.shape")
        return self.node("Gather", [sizes, self.constant(f"axis{axis}", [axis], np.int64)], name, axis=0)


# Layers. `name` prefixes the node names, `param` (default: the same) the weights' names.


def linear(
    g: Graph, x: str, name: str, n_in: int, n_out: int, *, param: str = "", gain: float = 1.0, **last: Any
) -> str:
    """``x @ weight.T + bias``; the checkpoint's weight is [n_out, n_in], as PyTorch keeps it."""
    param = param or name
    weight = g.weights(f"{param}.weight", (n_out, n_in), std=gain / math.sqrt(n_in))
    product = g.node("MatMul", [x, g.constant(f"{param}.weight", weight.T)], f"{name}.matmul")
    return g.node("Add", [product, g.weight(f"{param}.bias", (n_out,), std=0.02)], f"{name}.add", **last)


def layer_norm(g: Graph, x: str, name: str, width: int, *, eps: float, param: str = "", **last: Any) -> str:
    param = param or name
    mean = g.node("ReduceMean", [x], f"{name}.mean", axes=[-1], keepdims=1)
    centred = g.node("Sub", [x, mean], f"{name}.centre")
    squares = g.node("Mul", [centred, centred], f"{name}.square")
    variance = g.node("ReduceMean", [squares], f"{name}.variance", axes=[-1], keepdims=1)
    guarded = g.node("Add", [variance, g.constant("layernorm.eps", eps)], f"{name}.eps")
    deviation = g.node("Sqrt", [guarded], f"{name}.deviation")
    normal = g.node("Div", [centred, deviation], f"{name}.normalize")
    scaled = g.node("Mul", [normal, g.weight(f"{param}.weight", (width,), std=0.1, mean=1.0)], f"{name}.scale")
    return g.node("Add", [scaled, g.weight(f"{param}.bias", (width,), std=0.1)], f"{name}.shift", **last)


def gelu(g: Graph, x: str, name: str) -> str:
    erf = g.node("Erf", [g.node("Div", [x, g.constant("sqrt2", math.sqrt(2))], f"{name}.div")], f"{name}.erf")
    gate = g.node("Add", [erf, g.constant("one", 1)], f"{name}.one")
    return g.node("Mul", [g.node("Mul", [x, gate], f"{name}.gate"), g.constant("half", 0.5)], f"{name}.half")


def gelu_tanh(g: Graph, x: str, name: str) -> str:
    """GPT-2's approximation of GELU."""
    cube = g.node("Mul", [g.node("Mul", [x, x], f"{name}.square"), x], f"{name}.cube")
    bent = g.node("Mul", [cube, g.constant("gelu.cubic", 0.044715)], f"{name}.cubic")
    inner = g.node(
        "Mul",
        [g.node("Add", [x, bent], f"{name}.sum"), g.constant("gelu.scale", math.sqrt(2 / math.pi))],
        f"{name}.scale",
    )
    gate = g.node("Add", [g.node("Tanh", [inner], f"{name}.tanh"), g.constant("one", 1)], f"{name}.one")
    return g.node("Mul", [g.node("Mul", [x, gate], f"{name}.gate"), g.constant("half", 0.5)], f"{name}.half")


def attend(g: Graph, query: str, key: str, value: str, name: str, *, width: int, heads: int, mask: str | None) -> str:
    """Multi-head attention over [N, S, width]; *mask* is added to the scores [N, heads, S, S]."""

    def split(x: str, part: str, perm: Sequence[int]) -> str:
        apart = g.reshape(x, f"{name}.{part}.split_heads", [0, 0, heads, width // heads])
        return g.node("Transpose", [apart], f"{name}.{part}.transpose", perm=perm)

    q, k, v = split(query, "query", [0, 2, 1, 3]), split(key, "key", [0, 2, 3, 1]), split(value, "value", [0, 2, 1, 3])
    scores = g.node("MatMul", [q, k], f"{name}.scores")
    scores = g.node("Mul", [scores, g.constant("attention.scale", (width // heads) ** -0.5)], f"{name}.scale")
    if mask is not None:
        scores = g.node("Add", [scores, mask], f"{name}.mask")
    context = g.node("MatMul", [g.node("Softmax", [scores], f"{name}.softmax", axis=-1), v], f"{name}.context")
    return g.reshape(
        g.node("Transpose", [context], f"{name}.transpose", perm=[0, 2, 1, 3]), f"{name}.merge_heads", [0, 0, width]
    )


def bert_encoder(
    g: Graph, *, layers: int, heads: int, width: int, intermediate: int, vocab: int, positions: int, eps: float = 1e-12
) -> tuple[str, str]:
    """Add BERT's three int64 inputs [N, S] and its encoder; return the hidden states [N, S, width] and the
    float mask [N, S]. Weights have the names of Hugging Face's ``BertModel``."""
    ids, mask, types = (
        g.input(n, TensorProto.INT64, ["N", "S"]) for n in ("input_ids", "attention_mask", "token_type_ids")
    )
    table = [
        g.weight(f"embeddings.{kind}_embeddings.weight", (rows, width), std=0.5)
        for kind, rows in (("word", vocab), ("position", positions), ("token_type", 2))
    ]
    words = g.node("Gather", [table[0], ids], "embeddings.word", axis=0)
    x = g.node(
        "Add",
        [words, g.node("Gather", [table[2], types], "embeddings.token_type", axis=0)],
        "embeddings.add_token_type",
    )
    x = g.node(
        "Add", [x, first_rows(g, table[1], g.size(ids, 1, "length"), "embeddings.position")], "embeddings.add_position"
    )
    x = layer_norm(g, x, "embeddings.layernorm", width, eps=eps, param="embeddings.LayerNorm")

    kept = g.node("Cast", [mask], "mask.float", to=TensorProto.FLOAT)
    row = g.node("Unsqueeze", [kept, g.constant("mask.axes", [1, 2], np.int64)], "mask.unsqueeze")
    padding = g.node("Sub", [g.constant("one", 1), row], "mask.padding")
    scores = g.node("Mul", [padding, g.constant("mask.score", MASKED_SCORE)], "mask.scores")
    for i in range(layers):
        x = _bert_layer(g, x, f"layer{i}", f"encoder.layer.{i}", scores, width, heads, intermediate, eps)
    return x, kept


def _bert_layer(
    g: Graph, x: str, name: str, param: str, mask: str, width: int, heads: int, intermediate: int, eps: float
) -> str:
    qkv = [
        linear(g, x, f"{name}.attention.{part}", width, width, param=f"{param}.attention.self.{part}", gain=gain)
        for part, gain in (("query", 2.0), ("key", 1.0), ("value", 1.0))
    ]
    context = attend(g, *qkv, f"{name}.attention", width=width, heads=heads, mask=mask)
    # Made-up attention averages over all tokens alike; at full strength every row would end up the same.
    dense = f"{param}.attention.output.dense"
    out = linear(g, context, f"{name}.attention.output", width, width, param=dense, gain=0.3)
    x = g.node("Add", [out, x], f"{name}.attention.residual")
    x = layer_norm(g, x, f"{name}.attention.layernorm", width, eps=eps, param=f"{param}.attention.output.LayerNorm")
    inner = gelu(
        g, linear(g, x, f"{name}.ffn.up", width, intermediate, param=f"{param}.intermediate.dense"), f"{name}.ffn.gelu"
    )
    out = linear(g, inner, f"{name}.ffn.down", intermediate, width, param=f"{param}.output.dense")
    x = g.node("Add", [out, x], f"{name}.ffn.residual")
    return layer_norm(g, x, f"{name}.ffn.layernorm", width, eps=eps, param=f"{param}.output.LayerNorm")


def first_rows(g: Graph, table: str, count: str, name: str) -> str:
    """Return ``table[:count]``; *count* is an int64 tensor of shape [1]."""
    zero = g.constant("axis0", [0], np.int64)
    return g.node("Slice", [table, zero, count, zero], name)


def conv(
    g: Graph,
    x: str,
    name: str,
    n_in: int,
    n_out: int,
    kernel: int,
    *,
    stride: int = 1,
    pad: int | None = None,
    gain: float = 1.0,
) -> str:
    """Convolution with bias, as it is after a BatchNorm was folded into it; padded to keep the size at stride 1."""
    pad = kernel // 2 if pad is None else pad
    # Keeps the variance of what comes out of a ReLU, whose variance is (1 - 1/pi)/2 of what went in.
    std = gain * math.sqrt(2 / (1 - 1 / math.pi) / (n_in * kernel * kernel))
    weight = g.weight(f"{name}.weight", (n_out, n_in, kernel, kernel), std=std, centred=True)
    bias = g.weight(f"{name}.bias", (n_out,), std=0.1)
    return g.node("Conv", [x, weight, bias], name, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4)


def bottleneck(
    g: Graph, x: str, name: str, n_in: int, width: int, *, stride: int = 1, gain: float = 1.0, **last: Any
) -> str:
    """ResNet's bottleneck, stride on the 3x3 as in v1.5: [N, n_in, H, W] → [N, 4*width, H/stride, W/stride]."""
    out = g.node("Relu", [conv(g, x, f"{name}.conv1", n_in, width, 1)], f"{name}.relu1")
    out = g.node("Relu", [conv(g, out, f"{name}.conv2", width, width, 3, stride=stride)], f"{name}.relu2")
    out = conv(g, out, f"{name}.conv3", width, 4 * width, 1, gain=gain)
    if stride != 1 or n_in != 4 * width:
        x = conv(g, x, f"{name}.downsample", n_in, 4 * width, 1, stride=stride)
    return g.node("Relu", [g.node("Add", [out, x], f"{name}.add")], f"{name}.relu3", **last)


def smooth_images(rows: int, channels: int, resolution: int, *, seed: int) -> np.ndarray:
    """Return made-up images, float32 [rows, channels, resolution, resolution], each of mean 0 and deviation 1.

    Noise at octaves from coarse to fine, where amplitude falls with frequency as in photographs. They look
    like clouds and show nothing: fit to exercise a network whose weights are made up as well.
    """
    generator = np.random.default_rng(seed)
    images = np.zeros((rows, channels, resolution, resolution), np.float32)
    cells = 2
    while cells <= resolution:
        coarse = generator.standard_normal((rows, channels, cells, cells), dtype=np.float32)
        at = np.linspace(0, cells - 1, resolution)
        # Linear interpolation along both axes as one small matrix.
        blend = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(cells))).astype(np.float32)
        images += (blend @ coarse @ blend.T) / cells
        cells *= 2
    images -= images.mean(axis=(2, 3), keepdims=True)
    return images / images.std(axis=(2, 3), keepdims=True)
