"""Faults planted into a chain of matrix products, with the names that a diagnosis must give them, on any backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import model, node, weights

from pytest_trt.backends import BuildRequest
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import Precision, Ranges, RecipeResult

FLOAT16 = 10
MANIFEST = """
[inputs]
file = "inputs.npz"
[profiles.b]
x = [{rows}, {width}]
[precision.int8]
calibration = "minmax"
[tolerance.int8]
cosine = 0.98
"""


@dataclass(frozen=True)
class Plant:
    """One fault. ``factors`` change weights of the float32 model, ``harm`` what the recipe made of it.

    ``nodes`` must stay in float32; ``nonfinite`` is the first node that makes infinity, ``vanished`` the one whose
    values become 0, ``saturated`` the tensors whose Q/DQ pairs clip.
    """

    name: str
    precision: str
    depth: int
    nodes: tuple[str, ...]
    harm: Callable[[onnx.ModelProto], None] = lambda proto: None
    factors: Mapping[str, float] = field(default_factory=dict)
    nonfinite: str | None = None
    vanished: str | None = None
    saturated: tuple[str, ...] = ()


def chain(depth: int, width: int, factors: Mapping[str, float] | None = None) -> onnx.ModelProto:
    """``r_i = relu((r_{i-1} · w_i) · s_i)`` for *depth* layers; the s_i are 1, and the values keep their size."""
    nodes, last, values = [], "x", {}
    for i in range(depth):
        nodes += [
            node("MatMul", [last, f"w{i}"], [f"m{i}"], name=f"matmul_{i}"),
            node("Mul", [f"m{i}", f"s{i}"], [f"t{i}"], name=f"mul_{i}"),
            node("Relu", [f"t{i}"], [f"r{i}" if i < depth - 1 else "y"], name=f"relu_{i}"),
        ]
        values |= {f"w{i}": weights(i, width, width, scale=1.4 * width**-0.5), f"s{i}": np.float32(1)}
        last = f"r{i}"
    for name, factor in (factors or {}).items():
        values[name] = np.asarray(values[name] * np.float32(factor))
    return model(nodes, {"x": ["N", width]}, {"y": ["N", width]}, values)


def write_chain(folder: Path, depth: int, *, width: int, rows: int, factors: Mapping[str, float] | None = None) -> Path:
    """A model folder with a chain, and inputs for one sample of *rows*."""
    folder.mkdir(parents=True)
    onnx.save(chain(depth, width, factors), folder / "model.onnx")
    np.savez(folder / "inputs.npz", x=weights(1000, rows, width))
    (folder / "trt.toml").write_text(MANIFEST.format(rows=rows, width=width))
    return folder


def corrupt(proto: onnx.ModelProto, name: str, data_type: int | None = None) -> None:
    """Eight columns of the weight *name* get the wrong sign and size, where it has this type."""
    for tensor in proto.graph.initializer:
        if tensor.name == name and data_type in (None, tensor.data_type):
            value = np.array(onnx.numpy_helper.to_array(tensor))
            value[:, :8] *= -8
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, name))


def with_other_weight(request: BuildRequest, name: str) -> BuildRequest:
    """*request* for a model whose weight *name* is corrupt: what a builder reads that takes one for another."""
    proto = onnx.ModelProto()
    proto.CopyFrom(request.model.proto)
    corrupt(proto, name)
    return replace(request, model=Model.from_proto(proto, request.model.name))


def shrink_scale(proto: onnx.ModelProto, tensor: str) -> None:
    """The scale of the Q/DQ pair of *tensor* is ten times too small, where it has one."""
    for found in proto.graph.initializer:
        if found.name == f"{tensor}_scale":
            value = np.asarray(onnx.numpy_helper.to_array(found) * np.float32(0.1))
            found.CopyFrom(onnx.numpy_helper.from_array(value, found.name))


def _two_scales(proto: onnx.ModelProto) -> None:
    shrink_scale(proto, "r1")
    shrink_scale(proto, "r17")


PLANTS = (
    Plant("corrupted weight", "fp16", 8, ("matmul_5",), harm=lambda proto: corrupt(proto, "w5", FLOAT16)),
    # 400 · 400 is beyond 65504; the next weights bring the values back. What reads infinity must stay float32 as well.
    Plant(
        "overflow in fp16",
        "fp16",
        8,
        ("mul_3", "matmul_4"),
        factors={"w3": 400, "s3": 400, "w4": 1 / 160000},
        nonfinite="mul_3",
    ),
    # 1e-8 is 0 in float16.
    Plant(
        "underflow in fp16",
        "fp16",
        8,
        ("mul_3", "matmul_4"),
        factors={"w3": 1e-4, "s3": 1e-4, "w4": 1e4, "s4": 1e4},
        vanished="mul_3",
    ),
    Plant(
        "scale ten times off",
        "int8",
        8,
        ("matmul_5",),
        harm=lambda proto: shrink_scale(proto, "r4"),
        saturated=("r4",),
    ),
    Plant("two culprits far apart", "int8", 20, ("matmul_2", "matmul_18"), harm=_two_scales, saturated=("r1", "r17")),
)


class _Faulty:
    """A recipe with a bug that its own check does not see."""

    def __init__(self, inner: Any, harm: Callable[[onnx.ModelProto], None]) -> None:
        self.inner, self.harm, self.name = inner, harm, inner.name

    def requires(self, proto: onnx.ModelProto) -> None:
        self.inner.requires(proto)

    def call(self, proto: onnx.ModelProto, ranges: Ranges | None) -> RecipeResult:
        result: RecipeResult = self.inner.call(proto, ranges)
        self.harm(result.proto)
        return result

    def ensures(self, before: onnx.ModelProto, result: RecipeResult) -> None:
        """Nothing is checked."""


def break_recipes(monkeypatch: pytest.MonkeyPatch, harm: Callable[[onnx.ModelProto], None]) -> None:
    """Let every recipe do *harm* to what it made."""
    make = Precision.make_recipe
    monkeypatch.setattr(Precision, "make_recipe", lambda self, **options: _Faulty(make(self, **options), harm))


def corrupt_tiny(proto: onnx.ModelProto) -> None:
    """In the model of ``project``, four rows of ``V`` get the wrong sign and size, where it is stored in float16."""
    for tensor in proto.graph.initializer:
        if tensor.name == "V" and tensor.data_type == FLOAT16:
            value = np.array(onnx.numpy_helper.to_array(tensor))
            value[:4] *= -4
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, "V"))


def plant(monkeypatch: pytest.MonkeyPatch, folder: Path, fault: Plant, *, width: int, rows: int) -> Path:
    """Write the model of *fault* into *folder*, and let every recipe have its bug."""
    break_recipes(monkeypatch, fault.harm)
    return write_chain(folder, fault.depth, width=width, rows=rows, factors=fault.factors)
