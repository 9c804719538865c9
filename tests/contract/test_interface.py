"""Inputs and outputs read from engines and networks, held against the recorded bindings of six versions."""

from __future__ import annotations

import base64
import json

import pytest
from double_base import FROM_ONNX
from onnx import TensorProto, helper

from pytest_trt.backends import BuildOptions, BuildRequest
from pytest_trt.backends.tensorrt.interface import check_network, plan_interface, read_interface
from pytest_trt.backends.tensorrt.loading import deserialize
from pytest_trt.backends.tensorrt.versions import create_network
from pytest_trt.errors import BuildError, RunError, UnsupportedError
from pytest_trt.spec.interface import Interface
from pytest_trt.spec.model import Model, TensorSpec
from pytest_trt.spec.precision import PRECISIONS
from pytest_trt.spec.shapes import Profile, ShapeRange


def value(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def plan_of(trt, inputs, outputs, profiles=({},)) -> bytes:
    """What the double's builder would write."""
    proto = helper.make_model(helper.make_graph([], "m", inputs, outputs))
    plan = {
        "version": trt.__version__,
        "flags": [],
        "profiles": list(profiles),
        "dtypes": {v.name: FROM_ONNX[v.type.tensor_type.elem_type] for v in [*inputs, *outputs]},
        "model": base64.b64encode(proto.SerializeToString()).decode(),
    }
    return json.dumps(plan).encode()


def interface_of(trt, *parts) -> Interface:
    return read_interface(trt, plan_of(trt, *parts), BuildOptions())


def on_host(trt, monkeypatch, name):
    def location(_, asked):
        return trt.TensorLocation.HOST if asked == name else trt.TensorLocation.DEVICE

    monkeypatch.setattr(trt.ICudaEngine, "get_tensor_location", location)


def test_a_plan_says_its_inputs_outputs_and_profiles(trt):
    profiles = [{"x": [[1, 4], [2, 4], [8, 4]]}, {"x": [[9, 4], [9, 4], [64, 4]]}]
    found = interface_of(
        trt,
        [value("x", TensorProto.FLOAT, ["N", 4]), value("m", TensorProto.BOOL, [3])],
        [value("y", TensorProto.FLOAT16, ["N", 3]), value("s", TensorProto.INT32, [])],
        profiles,
    )

    m = ShapeRange.fixed((3,))
    assert found == Interface(
        (TensorSpec("x", "float32", (None, 4)), TensorSpec("m", "bool", (3,))),
        (TensorSpec("y", "float16", (None, 3)), TensorSpec("s", "int32", ())),
        (
            Profile("default", {"x": ShapeRange((1, 4), (2, 4), (8, 4)), "m": m}),
            Profile("default1", {"x": ShapeRange((9, 4), (9, 4), (64, 4)), "m": m}),
        ),
    )
    for profile in found.profiles:
        profile.validate(found.inputs)
    assert all(type(size) is int for size in found.profiles[0].ranges["x"].max)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (TensorProto.INT64, "int64"),
        (TensorProto.BFLOAT16, "bfloat16"),
        (TensorProto.UINT8, "uint8"),
        (TensorProto.INT8, "int8"),
    ],
)
def test_types_have_the_names_of_a_model(trt, kind, name):
    if name in ("int64", "bfloat16") and not hasattr(trt.DataType, FROM_ONNX[kind]):
        pytest.skip(f"TensorRT {trt.__version__} has no {name}")
    (spec,) = interface_of(trt, [value("x", kind, [1])], [value("y", TensorProto.FLOAT, [1])]).inputs
    model = Model.from_interface(Interface((spec,)), "m", identity="1")
    assert spec.dtype == name
    assert model.inputs == (spec,)


def test_an_input_that_decides_shapes_is_refused(trt, monkeypatch):
    on_host(trt, monkeypatch, "s")

    with pytest.raises(UnsupportedError, match="input 's' of the plan decides shapes by its values"):
        interface_of(trt, [value("s", TensorProto.INT32, [2])], [value("y", TensorProto.FLOAT, ["N"])])


def test_an_output_on_the_host_is_an_output(trt, monkeypatch):
    on_host(trt, monkeypatch, "s")

    found = interface_of(trt, [value("x", TensorProto.FLOAT, [2])], [value("s", TensorProto.INT32, [1])])
    assert found.outputs == (TensorSpec("s", "int32", (1,)),)


def test_a_type_below_one_byte_is_named(trt, monkeypatch):
    name = next((n for n in ("INT4", "FP4") if hasattr(trt.DataType, n)), None)
    if name is None:
        pytest.skip(f"TensorRT {trt.__version__} has no such type")
    monkeypatch.setattr(trt.ICudaEngine, "get_tensor_dtype", lambda *_: getattr(trt.DataType, name))

    with pytest.raises(RunError, match=f"'x' is {name}"):
        interface_of(trt, [value("x", TensorProto.FLOAT, [2])], [])


def test_a_plan_that_cannot_be_loaded_is_an_error(trt, cuda):
    with pytest.raises(RunError, match=f"TensorRT {trt.__version__} cannot load the plan"):
        read_interface(trt, b"no plan", BuildOptions())
    assert not cuda.live


# Networks


X, Y = TensorSpec("x", "float32", ("N", 4)), TensorSpec("y", "float32", ("N", 4))


def model_of(function) -> Model:
    return Model.from_interface(Interface((X,), (Y,)), "hand", identity="1", network=function)


def relu(network, trt, *, x=("x", "FLOAT", (-1, 4)), y="y", more=None):
    name, dtype, shape = x
    tensor = network.add_input(name, getattr(trt.DataType, dtype), shape)
    if more:
        network.add_input(more, trt.DataType.FLOAT, (1,))
    result = network.add_activation(tensor, trt.ActivationType.RELU).get_output(0)
    if y:
        result.name = y
    network.mark_output(result)


def network_of(trt, **parts):
    network = create_network(trt, trt.Builder(trt.ILogger()), "weak")
    relu(network, trt, **parts)
    return network


def test_what_was_built_from_a_network_is_what_its_plan_says(trt, backend):
    profile = Profile("b", {"x": ShapeRange((1, 4), (2, 4), (8, 4))})
    request = BuildRequest(model_of(relu), PRECISIONS["fp32"], profile)
    plan = backend.build(request).plan
    runtimes, engine = deserialize(trt, plan, request)

    found = plan_interface(trt, engine)
    assert Interface.of(request.model).mismatch(found) is None
    assert [dict(p.ranges) for p in found.profiles] == [dict(profile.ranges)]
    del engine, runtimes


def test_a_network_as_declared_passes(trt):
    network = network_of(trt)
    assert check_network(network, model_of(relu)) is None
    assert (network.num_inputs, network.num_outputs) == (1, 1)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"x": ("x", "FLOAT", (-1, 5))}, r"input 'x' is \?x5, declared Nx4"),
        ({"x": ("x", "FLOAT", (2, 4))}, "input 'x' is 2x4, declared Nx4"),
        ({"x": ("x", "HALF", (-1, 4))}, "input 'x' is float16, declared float32"),
        ({"x": ("image", "FLOAT", (-1, 4))}, "there is no input 'x'"),
        ({"y": None}, "there is no output 'y'"),
        ({"more": "z"}, "input 'z' is not declared"),
    ],
)
def test_a_network_other_than_declared_is_refused(trt, parts, message):
    with pytest.raises(BuildError, match=rf"not what \[interface\] declares: {message}"):
        check_network(network_of(trt, **parts), model_of(relu))


def test_a_tensor_without_a_shape_is_named(trt, monkeypatch):
    def shape(tensor):
        if tensor.name == "y":
            raise ValueError("__len__() should return >= 0")
        return tensor._shape

    network = network_of(trt)
    monkeypatch.setattr(trt.ITensor, "shape", property(shape))

    with pytest.raises(BuildError, match="tensor 'y' has no shape"):
        check_network(network, model_of(relu))
