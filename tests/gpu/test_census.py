"""What the inspector shows of real engines, and whether a precision that was not honoured is seen."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_trt.backends import BuildOptions, BuildRequest
from pytest_trt.backends.tensorrt.kernel_names import count_half_sums
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import PRECISIONS, apply_recipe
from pytest_trt.spec.shapes import Profile, ShapeRange

pytestmark = pytest.mark.gpu

RNG = np.random.default_rng(3)
FAST = BuildOptions(opt_level=1)
WIDTH = 1024
SHAPES = Profile("p", {"x": ShapeRange((1, 128, WIDTH), (2, 128, WIDTH), (4, 128, WIDTH))})
PICTURES = Profile.fixed("p", {"x": (2, 64, 16, 16)})


def attention() -> Model:
    """One attention block over a dynamic batch, which TensorRT gives to its graph compiler: 16.8 MB of weights."""
    scale = np.float32(WIDTH**-0.5)
    nodes = [helper.make_node("MatMul", ["x", name], [f"x{name}"], f"/{name}") for name in ("q", "k", "v")]
    nodes += [
        helper.make_node("Transpose", ["xk"], ["kt"], "/transpose", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["xq", "kt"], ["scores"], "/scores"),
        helper.make_node("Mul", ["scores", "scale"], ["scaled"], "/scale"),
        helper.make_node("Softmax", ["scaled"], ["shares"], "/softmax", axis=-1),
        helper.make_node("MatMul", ["shares", "xv"], ["mixed"], "/mix"),
        helper.make_node("MatMul", ["mixed", "o"], ["out"], "/o"),
        helper.make_node("Add", ["out", "x"], ["y"], "/add"),
    ]
    weights = [
        numpy_helper.from_array((RNG.standard_normal((WIDTH, WIDTH)) / WIDTH**0.5).astype(np.float32), name)
        for name in ("q", "k", "v", "o")
    ]
    return _model("attention", nodes, ["N", 128, WIDTH], [*weights, numpy_helper.from_array(scale, "scale")])


def convolutions() -> Model:
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["h"], "/first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h"], ["r"], "/relu"),
        helper.make_node("Conv", ["r", "w1"], ["y"], "/second", pads=[1, 1, 1, 1]),
    ]
    weights = [
        numpy_helper.from_array((RNG.standard_normal((64, 64, 3, 3)) / 24).astype(np.float32), f"w{index}")
        for index in range(2)
    ]
    return _model("convolutions", nodes, [2, 64, 16, 16], weights)


def _model(name, nodes, shape, weights) -> Model:
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, shape) for end in ("x", "y")]
    graph = helper.make_graph(nodes, name, ends[:1], ends[1:], weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(proto)
    return Model.from_proto(proto, name)


def typed(model: Model, precision: str, **flags) -> BuildRequest:
    chosen = PRECISIONS[precision]
    proto = apply_recipe(chosen.make_recipe(), model.proto).proto
    profile = SHAPES if model.name == "attention" else PICTURES
    return BuildRequest(Model.from_proto(proto, model.name), dataclasses.replace(chosen, **flags), profile, FAST)


@pytest.mark.parametrize("make", [convolutions, attention], ids=["visible", "hidden in a region"])
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16"])
def test_an_honoured_request_is_not_refused(backend, make, precision):
    facts = backend.build(typed(make(), precision)).facts

    assert "not_honoured" not in facts, facts["census"]


@pytest.mark.parametrize("make", [convolutions, attention], ids=["visible", "hidden in a region"])
def test_a_typed_fp16_model_built_without_the_flag_is_caught(backend, make):
    request = typed(make(), "fp16")
    # What a tool does that forgets the flag: the model says float16, the builder is not allowed to use it.
    forgotten = dataclasses.replace(PRECISIONS["fp16"], flags_on=())
    built = backend.build(dataclasses.replace(request, precision=forgotten))

    from pytest_trt.backends.tensorrt.census import take_census
    from pytest_trt.backends.tensorrt.loading import deserialize
    from pytest_trt.backends.tensorrt.probe import import_tensorrt

    trt = import_tensorrt()
    _runtime, engine = deserialize(trt, built.plan, request)
    census = take_census(trt, engine, request, len(built.plan))
    refusal = census.not_honoured(request)

    assert refusal is not None, census.facts()["census"]
    assert refusal.startswith("fp16 was asked, but")


def test_the_structure_of_two_convolutions(backend):
    facts = backend.build(typed(convolutions(), "fp32")).facts

    assert facts["structure"]["layers"] >= 2
    assert facts["structure"]["fused"] >= 1, "a convolution and its Relu are one layer"
    assert facts["structure"]["device_memory_bytes"] == facts["device_memory_bytes"] > 0
    assert len(facts["tactics"]) >= 2
    assert facts["census"]["weights_bytes"]["FLOAT"] == 2 * 64 * 64 * 9 * 4


def test_a_region_of_the_graph_compiler_is_counted(backend):
    census = backend.build(typed(attention(), "fp16")).facts["census"]

    assert census["myelin"] >= 1
    assert "not visible" in census["evidence"] or "hidden" in census["evidence"]


@pytest.mark.parametrize("length", [768, 3072])
def test_kernels_say_in_what_they_add_up(backend, length):
    """Sums in float16 are off by several times what rounding their result makes, and by more the longer they are."""
    weight = (RNG.standard_normal((length, 1024)) * length**-0.5).astype(np.float16).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "/product")]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1024, size])
        for name, size in (("x", length), ("y", 1024))
    ]
    graph = helper.make_graph(nodes, "product", ends[:1], ends[1:], [numpy_helper.from_array(weight, "w")])
    plain = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    fp16 = PRECISIONS["fp16"]
    typed = Model.from_proto(apply_recipe(fp16.make_recipe(), plain, None).proto, "product")
    wanted = BuildRequest(typed, fp16, Profile.fixed("p", {"x": (1024, length)}), BuildOptions())
    built = backend.build(wanted)
    x = RNG.standard_normal((1024, length)).astype(np.float16).astype(np.float32)
    with backend.load(built.plan, wanted) as session:
        found = session.run({"x": x})["y"].astype(np.float64)
    exact = x.astype(np.float64) @ weight.astype(np.float64)
    error, rounding = (np.sqrt(np.mean((y - exact) ** 2)) for y in (found, exact.astype(np.float16)))

    half, told = count_half_sums(built.facts["tactics"].values())
    assert told == 1
    assert (error > 3 * rounding) == bool(half)
