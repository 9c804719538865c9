"""Loading and running under the recorded bindings: profiles, siblings, formats, types, memory, the lean runtime."""

from __future__ import annotations

import ast
import dataclasses
import gc
import hashlib
import itertools
import json
import sys
from pathlib import Path

import doubles
import doubles_execution
import fake_cuda
import ml_dtypes
import numpy as np
import pytest
from hand_network import case_of, lab_of
from networks import model, node

import pytest_trt.backends.tensorrt as package
from pytest_trt.backends import BuildOptions, BuildRequest
from pytest_trt.backends.buffers import PinnedBuffer
from pytest_trt.backends.clocks import LaunchQueue
from pytest_trt.backends.cuda import Stream
from pytest_trt.backends.tensorrt import TensorRTBackend, TensorRTSession, binding
from pytest_trt.backends.tensorrt.dtypes import cast, model_dtype, tensorrt_dtype, widens
from pytest_trt.backends.throughput import measure_throughput
from pytest_trt.errors import InputsError, RunError, UnsupportedError
from pytest_trt.spec.case import Axes, Case
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import PRECISIONS
from pytest_trt.spec.shapes import Profile, ShapeRange

FLOAT, UINT8, INT8, INT64, BOOL, HALF, BF16 = 1, 2, 3, 7, 9, 10, 16
WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3) / 10
X = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
SMALL = Profile("small", {"x": ShapeRange((1, 4), (2, 4), (8, 4))})
LARGE = Profile("large", {"x": ShapeRange((16, 4), (32, 4), (64, 4))})


@pytest.fixture
def cuda(monkeypatch):
    fake = doubles_execution.ExecutionCuda()
    for name, module in fake_cuda.modules(fake).items():
        monkeypatch.setitem(sys.modules, name, module)
    return fake


@pytest.fixture(params=doubles.VERSIONS)
def trt(request, cuda, monkeypatch):
    return doubles_execution.activate(request.param, cuda, monkeypatch)


@pytest.fixture
def trt8(cuda, monkeypatch):
    return doubles_execution.activate("8.6.0", cuda, monkeypatch)


@pytest.fixture
def trt10(cuda, monkeypatch):
    return doubles_execution.activate("10.16.1.11", cuda, monkeypatch)


def matmul() -> Model:
    proto = model([node("MatMul", ["x", "w"], ["y"], "mm")], {"x": ["N", 4]}, {"y": ["N", 3]}, {"w": WEIGHT})
    return Model.from_proto(proto, "matmul")


def network(name, nodes, inputs, outputs, weights=None) -> Model:
    return Model.from_proto(model(nodes, inputs, outputs, weights), name)


def request_for(which=None, profile=SMALL, profiles=(), **options) -> BuildRequest:
    return BuildRequest(which or matmul(), PRECISIONS["fp32"], profile, BuildOptions(**options), tuple(profiles))


def plan_of(request) -> bytes:
    return TensorRTBackend().build(request).plan


def load(request) -> TensorRTSession:
    backend = TensorRTBackend()
    return backend.load(backend.build(request).plan, request)


def is_86(trt) -> bool:
    return trt.__version__.startswith("8.6")


# Loading


@pytest.mark.parametrize(
    ("options", "allowed"),
    [({}, False), ({"version_compatibility": "off"}, False), ({"version_compatibility": "on"}, True)],
)
def test_host_code_is_allowed_only_where_it_was_built_in(trt, options, allowed):
    request = request_for(**options)
    plan = plan_of(request)
    trt._loads.clear()
    with TensorRTSession(trt, plan, request) as session:
        np.testing.assert_allclose(session.run({"x": X})["y"], X @ WEIGHT, rtol=1e-6)
    assert trt._loads == [{"lean": False, "host_code": allowed, "plugins": []}]


def lean_library(tmp_path) -> Path:
    path = tmp_path / "libnvinfer_lean.so.8"
    path.write_bytes(b"LEAN")
    return path


def test_a_plan_without_a_lean_runtime_is_given_one(trt, cuda, tmp_path):
    request = request_for(version_compatibility="exclude-lean", lean_runtime=lean_library(tmp_path))
    session = load(request)
    assert trt._loads[-1] == {"lean": True, "host_code": True, "plugins": []}
    np.testing.assert_allclose(session.run({"x": X})["y"], X @ WEIGHT, rtol=1e-6)
    trt._died.clear()
    session.close()
    assert trt._died == ["context", "engine", "lean runtime", "runtime"]
    assert not cuda.live


def test_a_lean_library_that_is_none(trt, cuda, tmp_path):
    wrong = tmp_path / "libc.so"
    wrong.write_bytes(b"ELF")
    good = request_for(version_compatibility="exclude-lean", lean_runtime=lean_library(tmp_path))
    plan = plan_of(good)
    bad = dataclasses.replace(good, options=dataclasses.replace(good.options, lean_runtime=wrong))
    with pytest.raises(RunError, match="is no lean runtime") as caught:
        TensorRTSession(trt, plan, bad)
    assert str(wrong) in caught.value.message
    assert "--trt-lean-runtime" in caught.value.hint
    assert not cuda.live


def test_a_missing_lean_library_is_the_hint(trt, tmp_path):
    good = request_for(version_compatibility="exclude-lean", lean_runtime=lean_library(tmp_path))
    plan = plan_of(good)
    with pytest.raises(RunError, match="no lean runtime for this plan") as caught:
        TensorRTSession(trt, plan, request_for(version_compatibility="exclude-lean"))
    assert "--trt-lean-runtime=" in caught.value.hint


@pytest.fixture
def plan_without_runtime(trt, folder: Path, tmp_path: Path) -> Axes:
    """The folder's model becomes a plan that a lean runtime of its own must run: what a marker says to load it."""
    said = {"lean_runtime": lean_library(tmp_path), "version_compatibility": "exclude-lean"}
    with lab_of(folder, **said) as lab:
        plan = lab.engine(case_of(lab))[0].plan
    (folder / "net.plan").write_bytes(plan)
    trust = f'trust = "{hashlib.sha256(plan).hexdigest()}"'
    text = f'[model]\nname = "hand"\nplan = "net.plan"\n{trust}\nreference = "net.py:reference"\n'
    (folder / "trt.toml").write_text(text)
    return Axes(options=tuple((name, str(value)) for name, value in said.items()))


def test_a_plan_is_read_as_a_marker_says(trt, folder: Path, plan_without_runtime: Axes):
    trt._loads.clear()
    with lab_of(folder) as lab:
        (case,) = lab.cases(lab.add("."), plan_without_runtime)
        assert lab.profile(case).at("max") == {"x": (8, 4)}
        assert lab.check(case, lab.record(case)).ok
    assert {load["lean"] for load in trt._loads} == {True}
    with lab_of(folder) as lab, pytest.raises(RunError, match="no lean runtime for this plan"):
        lab.profile(case_of(lab))


def test_a_plan_is_read_as_the_marker_of_a_case_from_another_process_says(folder: Path, plan_without_runtime: Axes):
    with lab_of(folder) as lab:
        (case,) = lab.cases(lab.add("."), plan_without_runtime)
    with lab_of(folder) as lab:
        lab.add(".")
        sent = Case.from_json(json.loads(json.dumps(case.to_json())))
        assert [profile.name for profile in lab.request(sent).profiles] == ["default"]


def test_plugins_are_there_before_the_plan(trt, monkeypatch, tmp_path):
    library = tmp_path / "libplugin.so"
    library.write_bytes(b"CREATORS")
    request = request_for(plugins=(library,))
    plan = plan_of(request)
    # Another process: nothing is loaded yet.
    trt._plugins.clear()
    monkeypatch.setattr("pytest_trt.backends.tensorrt.plugins._loaded", {})
    trt._loads.clear()
    with TensorRTSession(trt, plan, request):
        assert trt._loads[0]["plugins"] == [str(library)]


def test_weights_are_streamed_within_the_automatic_budget(trt):
    if is_86(trt):
        assert not hasattr(trt.ICudaEngine, "streamable_weights_size")
        return
    request = request_for(weight_streaming=True)
    with load(request) as session:
        np.testing.assert_allclose(session.run({"x": X})["y"], X @ WEIGHT, rtol=1e-6)
    half = WEIGHT.nbytes // 2
    name, budget = ("weight_streaming_budget_v2", half)
    if not hasattr(trt.ICudaEngine, name):
        name, budget = "weight_streaming_budget", -1
    assert trt._budgets[-1][name] == budget  # set by the time that the context was made
    with load(request_for()):
        assert set(trt._budgets[-1].values()) == {None}


def test_a_refused_streaming_budget(trt10, monkeypatch):
    request = request_for(weight_streaming=True)
    plan = plan_of(request)

    def refuse(engine):
        raise RuntimeError("budget too small")

    monkeypatch.setattr("pytest_trt.backends.tensorrt.loading.stream_weights", refuse)
    with pytest.raises(RunError, match="cannot stream the engine's weights: budget too small"):
        TensorRTSession(trt10, plan, request)


def test_a_stripped_plan_gets_its_weights(trt):
    if is_86(trt):
        assert not hasattr(trt.BuilderFlag, "STRIP_PLAN")
        return
    with load(request_for(strip_plan=True)) as session:
        np.testing.assert_allclose(session.run({"x": X})["y"], X @ WEIGHT, rtol=1e-6)


# The lean runtime


@pytest.fixture(params=doubles_execution.LEAN)
def lean(request, cuda, monkeypatch):
    trt = doubles_execution.make_tensorrt(request.param, cuda, monkeypatch)
    for missing in ("Builder", "OnnxParser", "EngineInspector", "TensorFormat", "init_libnvinfer_plugins"):
        assert not hasattr(trt, missing)
    return trt


def test_a_lean_runtime_runs_a_plan_of_8_6(trt8, lean, cuda):
    request = request_for(version_compatibility="on")
    plan = plan_of(request)
    with TensorRTSession(lean, plan, request) as session, session.sibling() as other:
        assert lean._loads == [{"lean": False, "host_code": True, "plugins": []}]
        for one in (session, other):
            np.testing.assert_allclose(one.run({"x": X})["y"], X @ WEIGHT, rtol=1e-6)
            one.stage({"x": X})
            assert one.clock().name == "graph"
    assert not cuda.live


def test_the_lean_runtime_refuses_formats_that_it_cannot_name(trt8, lean, cuda):
    request = request_for(relu(), IMAGES, version_compatibility="on", io_formats=("x=CHW4",))
    plan = plan_of(request)
    with pytest.raises(RunError, match="'x' has the format Four wide channel"):
        TensorRTSession(lean, plan, request)
    assert not cuda.live


# Profiles


@pytest.mark.parametrize("profile", [SMALL, LARGE], ids=lambda profile: profile.name)
def test_a_session_runs_the_profile_that_was_asked(trt, cuda, profile):
    with load(request_for(profile=profile, profiles=(SMALL, LARGE))) as session:
        assert trt._profiles[-1] == (SMALL, LARGE).index(profile)
        shapes = profile.ranges["x"]
        for shape in (shapes.opt, shapes.min, shapes.max):
            feed = np.arange(shape[0] * 4, dtype=np.float32).reshape(shape)
            np.testing.assert_allclose(session.run({"x": feed})["y"], feed @ WEIGHT, rtol=1e-5)
        other = (LARGE if profile is SMALL else SMALL).ranges["x"].opt
        allowed = f"outside profile '{profile.name}', which allows {shapes.min[0]}x4 to {shapes.max[0]}x4"
        with pytest.raises(RunError, match=allowed):
            session.run({"x": np.zeros(other, np.float32)})
        session.stage({"x": np.zeros(shapes.opt, np.float32)})
        assert session.clock().name == "graph"
    assert not cuda.live


def test_a_single_context_with_a_single_profile_is_told_nothing(trt):
    with load(request_for()):
        assert trt._profiles == []


def test_fixed_shapes_have_no_profiles(trt):
    still = network("still", [node("Relu", ["x"], ["y"], "r")], {"x": [2, 4]}, {"y": [2, 4]})
    profiles = tuple(Profile.fixed(name, {"x": (2, 4)}) for name in ("a", "b"))
    with load(request_for(still, profiles[1], profiles)) as session, session.sibling() as other:
        np.testing.assert_array_equal(other.run({"x": X})["y"], np.maximum(X, 0))
        assert trt._profiles == []


def test_an_engine_with_too_few_profiles(trt, cuda):
    plan = plan_of(request_for())
    asked = request_for(profile=LARGE, profiles=(SMALL, LARGE))
    with pytest.raises(RunError, match="profile 'large': the engine holds 1 profiles, and this would be number 2"):
        TensorRTSession(trt, plan, asked)
    assert not cuda.live


def test_a_refused_profile(trt, cuda):
    request = request_for(profile=LARGE, profiles=(SMALL, LARGE))
    plan = plan_of(request)
    trt.misbehave.add("no-sharing")
    with pytest.raises(RunError, match="profile 'large': the profile was refused"):
        TensorRTSession(trt, plan, request)
    assert not cuda.live


# Siblings


def test_siblings_share_the_engine_alone(trt, cuda):
    with load(request_for()) as session:
        loads = len(trt._loads)
        with session.sibling() as other:
            assert len(trt._loads) == loads
            assert other._stream.handle != session._stream.handle
            session.stage({"x": X})
            other.stage({"x": -X})
            for one, sign in ((session, 1), (other, -1)):
                one.launch()
                np.testing.assert_allclose(one._collect(copy=True)["y"], sign * (X @ WEIGHT), rtol=1e-6)
            np.testing.assert_allclose(other.run({"x": X[:1]})["y"], X[:1] @ WEIGHT, rtol=1e-6)
            np.testing.assert_allclose(session.run({"x": X})["y"], X @ WEIGHT, rtol=1e-6)
    assert not cuda.live


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_the_last_one_frees_the_engine(trt8, cuda, order):
    first = load(request_for())
    second = first.sibling()
    sessions = [first, second, second.sibling()]
    trt8._died.clear()
    for count, index in enumerate(order, 1):
        sessions[index].close()
        sessions[index].close()  # twice is fine, and counts once
        assert trt8._died == ["context"] * count + (["engine", "runtime"] if count == 3 else [])
        for still in order[count:]:
            np.testing.assert_allclose(sessions[still].run({"x": X})["y"], X @ WEIGHT, rtol=1e-6)
    assert not cuda.live
    with pytest.raises(RunError, match="closed"):
        first.sibling()


def test_a_sibling_is_captured_too(cuda, trt):
    with load(request_for()) as session, session.sibling() as other:
        for one in (session, other):
            one.stage({"x": X})
        clocks = [one.clock() for one in (session, other)]
        assert [clock.name for clock in clocks] == ["graph", "graph"]
        for one, clock in zip((session, other), clocks, strict=True):
            before = cuda.graph_launches
            assert (clock.time(one.launch, 5) > 0).all()
            assert cuda.graph_launches == before + 6
    assert not cuda.live


def test_a_profile_that_one_context_keeps_for_itself(trt8, cuda):
    with load(request_for()) as session:
        trt8.misbehave.add("no-sharing")
        with pytest.raises(UnsupportedError, match="Profile 0 is chosen by another context"):
            session.sibling()
        np.testing.assert_allclose(session.run({"x": X})["y"], X @ WEIGHT, rtol=1e-6)
    assert not cuda.live


# Formats


IMAGES = Profile("images", {"x": ShapeRange((1, 5, 2, 3), (2, 5, 2, 3), (4, 5, 2, 3))})


def relu() -> Model:
    shape = ["N", 5, 2, 3]
    return network("relu", [node("Relu", ["x"], ["y"], "relu")], {"x": shape}, {"y": shape})


def pixels(count=2) -> np.ndarray:
    return np.linspace(-1, 1, count * 30, dtype=np.float32).reshape(count, 5, 2, 3)


@pytest.mark.parametrize("layout", ["LINEAR", "CHW2", "CHW4", "CHW16", "CHW32", "HWC", "HWC8", "HWC16"])
@pytest.mark.parametrize("tensor", ["x", "y"])
def test_every_format_gives_the_same(trt, cuda, layout, tensor):
    with load(request_for(relu(), IMAGES, io_formats=(f"{tensor}={layout}",))) as session:
        for count in (2, 4, 1):
            feed = pixels(count)
            actual = session.run({"x": feed})["y"]
            np.testing.assert_array_equal(actual, np.maximum(feed, 0))
            assert actual.flags.c_contiguous
    assert not cuda.live


def test_formats_of_volumes(trt8):
    shape = ["N", 3, 2, 2, 2]
    still = network("volume", [node("Relu", ["x"], ["y"], "relu")], {"x": shape}, {"y": shape})
    profile = Profile("v", {"x": ShapeRange.fixed((2, 3, 2, 2, 2))})
    feed = np.linspace(-1, 1, 48, dtype=np.float32).reshape(2, 3, 2, 2, 2)
    with load(request_for(still, profile, io_formats=("x=CDHW32", "y=DHWC8"))) as session:
        np.testing.assert_array_equal(session.run({"x": feed})["y"], np.maximum(feed, 0))


def test_the_engine_s_narrower_type_is_checked(trt8):
    with load(request_for(relu(), IMAGES, io_formats=("x=HALF:HWC8", "y=HALF:LINEAR"))) as session:
        actual = session.run({"x": pixels()})["y"]
        assert actual.dtype == np.float32  # the model's type, which holds every half
        np.testing.assert_allclose(actual, np.maximum(pixels(), 0), atol=1e-3)
        with pytest.raises(RunError, match=r"'x' has the value 70000\.0, which does not fit the engine's float16"):
            session.run({"x": np.full((1, 5, 2, 3), 7e4, np.float32)})
        infinite = session.run({"x": np.full((1, 5, 2, 3), np.inf, np.float32)})["y"]
        assert np.isinf(infinite).all()


def test_quantized_values_are_never_converted(trt8):
    with load(request_for(relu(), IMAGES, io_formats=("x=INT8:CHW32", "y=INT8:CHW4"))) as session:
        with pytest.raises(InputsError, match="is int8, got float32") as caught:
            session.run({"x": pixels()})
        assert "quantized already" in caught.value.hint
        feed = np.arange(-30, 30, dtype=np.int8).reshape(2, 5, 2, 3)
        actual = session.run({"x": feed})["y"]
        assert actual.dtype == np.int8
        np.testing.assert_array_equal(actual, np.maximum(feed, 0))


# Types


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(HALF, np.float16), (BF16, ml_dtypes.bfloat16), (UINT8, np.uint8), (INT8, np.int8), (BOOL, np.bool_)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_output_types(trt, kind, dtype):
    if kind == BF16 and is_86(trt):
        assert not hasattr(trt.DataType, "BF16")
        return
    typed = network("typed", [node("Cast", ["x"], ["y"], "cast", to=kind)], {"x": ["N", 4]}, {"y": (kind, ["N", 4])})
    feed = np.array([[0, 1, 2, 3]], np.float32)
    with load(request_for(typed)) as session:
        actual = session.run({"x": feed})["y"]
    assert actual.dtype == dtype
    np.testing.assert_array_equal(actual, feed.astype(dtype))


def test_scalars_and_empty_tensors(trt, cuda):
    scaled = network(
        "scaled",
        [
            node("Mul", ["x", "s"], ["y"], "mul"),
            node("ReduceSum", ["y"], ["total"], "sum", keepdims=0),
        ],
        {"x": ["N", 4], "s": []},
        {"y": ["N", 4], "total": []},
    )
    profile = Profile("z", {"x": ShapeRange((0, 4), (2, 4), (8, 4)), "s": ShapeRange.fixed(())})
    with load(request_for(scaled, profile)) as session:
        outputs = session.run({"x": X, "s": np.float32(3)})
        np.testing.assert_allclose(outputs["y"], X * 3)
        assert outputs["total"].shape == ()
        np.testing.assert_allclose(outputs["total"], (X * 3).sum(), atol=1e-6)
        session.stage({"x": X[:0], "s": np.float32(2)})
        session.launch()
        empty = session.run({"x": X[:0], "s": np.array(3, np.float32)}, copy=False)
        assert empty["y"].shape == (0, 4)
        assert empty["total"] == 0
        del empty  # a view
    assert not cuda.live


def test_types_by_name():
    assert tensorrt_dtype("FP8", "t") == ml_dtypes.float8_e4m3fn
    assert model_dtype("float8e4m3fn", "t") == ml_dtypes.float8_e4m3fn
    assert tensorrt_dtype("UINT8", "t") == np.uint8
    for name in ("FP4", "INT4", "E8M0"):
        with pytest.raises(RunError, match=f"'t' is {name}"):
            tensorrt_dtype(name, "t")


@pytest.mark.parametrize(
    ("narrow", "wide", "expected"),
    [
        (np.int32, np.int64, True),
        (np.int64, np.int32, False),
        (np.float16, np.float32, True),
        (ml_dtypes.bfloat16, np.float32, True),
        (ml_dtypes.bfloat16, np.float16, False),
        (ml_dtypes.float8_e4m3fn, np.float32, True),
        (np.int8, np.float32, False),  # quantized
        (np.int8, ml_dtypes.bfloat16, False),
        (np.bool_, np.float32, False),
        (np.bool_, np.bool_, True),
    ],
)
def test_what_widens(narrow, wide, expected):
    assert widens(np.dtype(narrow), np.dtype(wide)) is expected


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.float8_e4m3fn], ids=["float16", "float8"])
def test_numbers_do_not_become_infinite(dtype):
    fits = np.array([1.5, np.nan, 0, -3], np.float32)
    np.testing.assert_array_equal(cast(fits, np.dtype(dtype), "t").astype(np.float32), fits)
    with pytest.raises(RunError, match="'t' has the value -1000000000"):
        cast(np.array([1, -1e9], np.float32), np.dtype(dtype), "t")
    assert cast(np.zeros((0, 2), np.float32), np.dtype(dtype), "t").shape == (0, 2)


# Memory that the caller shares


def two_inputs() -> Model:
    return network("sub", [node("Sub", ["a", "b"], ["y"], "sub")], {"a": ["N", 4], "b": ["N", 4]}, {"y": ["N", 4]})


TWO = Profile("two", {name: ShapeRange((1, 4), (2, 4), (8, 4)) for name in "ab"})


def test_a_pinned_input_is_not_copied_on_the_host(trt, monkeypatch):
    copies = []
    real = np.copyto
    with load(request_for()) as session:
        view = session.pinned("x", (2, 4))
        assert view.dtype == np.float32
        monkeypatch.setattr(binding.np, "copyto", lambda target, array: copies.append(1) or real(target, array))
        for sign in (1, -1):
            view[...] = sign * X
            np.testing.assert_allclose(session.run({"x": view})["y"], sign * (X @ WEIGHT), rtol=1e-6)
        np.testing.assert_allclose(session.run({"x": view[:1]})["y"], -X[:1] @ WEIGHT, rtol=1e-6)
        assert not copies
        np.testing.assert_allclose(session.run({"x": X})["y"], X @ WEIGHT, rtol=1e-6)
        assert copies == [1]
        # A view of the same memory that is not its beginning, or not in order, is an array like any other.
        view[...] = X
        np.testing.assert_allclose(session.run({"x": view[1:]})["y"], X[1:] @ WEIGHT, rtol=1e-6)
        view[...] = X
        np.testing.assert_allclose(session.run({"x": view[::-1]})["y"], X[::-1] @ WEIGHT, rtol=1e-6)
        pinned = session.pinned("x", (4, 4))
        pinned[...] = np.repeat(X, 2, axis=0)
        np.testing.assert_allclose(session.run({"x": pinned[::2]})["y"], X @ WEIGHT, rtol=1e-6)
        assert copies == [1] * 4


def test_pinned_inputs_may_be_swapped(trt):
    with load(request_for(two_inputs(), TWO)) as session:
        a, b = session.pinned("a", (2, 4)), session.pinned("b", (2, 4))
        a[...], b[...] = X, 1
        np.testing.assert_array_equal(session.run({"a": a, "b": b})["y"], X - 1)
        a[...], b[...] = X, 1
        np.testing.assert_array_equal(session.run({"a": b, "b": a})["y"], 1 - X)


def test_an_output_may_be_the_next_input(trt):
    with load(request_for(two_inputs(), TWO)) as session:
        state, one = np.zeros_like(X), np.ones_like(X)
        for _ in range(3):
            state = session.run({"a": state, "b": one}, copy=False)["y"]
        np.testing.assert_array_equal(state, np.full_like(X, -3))


def test_outputs_without_a_copy_are_written_again(trt):
    with load(request_for()) as session:
        view = session.run({"x": X}, copy=False)["y"]
        np.testing.assert_allclose(view, X @ WEIGHT, rtol=1e-6)
        own = session.run({"x": -X})["y"]
        np.testing.assert_array_equal(view, own)
        assert not np.shares_memory(view, own)
        assert np.shares_memory(view, session.run({"x": X}, copy=False)["y"])


def test_views_outlive_what_they_show(trt, cuda):
    session = load(request_for())
    small = session.pinned("x", (1, 4))
    small[...] = 7
    session.run({"x": np.zeros((8, 4), np.float32)})  # a larger buffer takes its place
    np.testing.assert_array_equal(small, np.full((1, 4), 7, np.float32))
    np.testing.assert_allclose(session.run({"x": small})["y"], small @ WEIGHT, rtol=1e-6)
    output = session.run({"x": X}, copy=False)["y"]
    session.close()
    np.testing.assert_allclose(output, X @ WEIGHT, rtol=1e-6)
    assert sorted(kind for kind, _ in cuda.live) == ["host", "host"]
    del small, output
    assert not cuda.live


def test_what_cannot_be_pinned(trt):
    integers = network("add", [node("Add", ["i", "i"], ["y"], "add")], {"i": (INT64, ["N"])}, {"y": (INT64, ["N"])})
    profile = Profile("n", {"i": ShapeRange((1,), (3,), (4,))})
    with load(request_for(integers, profile)) as session:
        if is_86(trt):
            with pytest.raises(UnsupportedError, match="int64 in the model and int32 as LINEAR in the engine"):
                session.pinned("i", (3,))
        else:
            assert session.pinned("i", (3,)).dtype == np.int64
        with pytest.raises(InputsError, match="no input 'j'"):
            session.pinned("j", (3,))
        with pytest.raises(RunError, match="shape 5 is outside profile 'n'"):
            session.pinned("i", (5,))
    with pytest.raises(RunError, match="closed"):
        session.pinned("i", (3,))
    with (
        load(request_for(relu(), IMAGES, io_formats=("x=HWC8",))) as session,
        pytest.raises(UnsupportedError, match="float32 as HWC8"),
    ):
        session.pinned("x", (1, 5, 2, 3))


def test_a_pinned_buffer_frees_once(cuda):
    buffer = PinnedBuffer()
    buffer.reserve(64)
    view = buffer.view(np.dtype(np.float32), (4,))
    address = buffer.pointer
    buffer.close()
    buffer.close()
    assert ("host", address) in cuda.live
    inner = view[1:].T
    del view
    gc.collect()
    assert ("host", address) in cuda.live
    del inner
    assert not cuda.live


# Launching


def test_staged_inputs_survive_a_refused_feed(trt):
    with load(request_for()) as session:
        session.stage({"x": X})
        for feeds, error in (({"x": np.zeros((9, 4), np.float32)}, RunError), ({}, InputsError)):
            with pytest.raises(error):
                session.run(feeds)
            session.launch()
        np.testing.assert_allclose(session._collect(copy=True)["y"], X @ WEIGHT, rtol=1e-6)


def test_a_launch_is_one_call(trt10, cuda, monkeypatch):
    with load(request_for()) as session:
        session.stage({"x": X})
        called = []
        for name in [name for name in dir(cuda) if name.startswith("cuda") and callable(getattr(cuda, name))]:
            monkeypatch.setattr(cuda, name, lambda *_, name=name: called.append(name))
        session.launch()
        assert called == []


def test_synchronize_tells_of_a_failed_kernel(trt10, cuda):
    session = load(request_for())
    session.stage({"x": X})
    session.launch()
    session.synchronize()
    cuda.fail["cudaStreamSynchronize"] = fake_cuda.cudaError_t.cudaErrorIllegalAddress
    with pytest.raises(RunError, match="cudaErrorIllegalAddress"):
        session.synchronize()
    cuda.fail.clear()
    session.close()
    with pytest.raises(RunError, match="closed"):
        session.synchronize()


def test_a_queue_waits_for_the_oldest_launch(cuda):
    stream = Stream()
    launched = []
    queue = LaunchQueue(stream, lambda: launched.append(len(cuda.events)), 3)
    for _ in range(8):
        queue.push()
        under_way = [number for kind, number in cuda.events if kind == "record"]
        waited = [number for kind, number in cuda.events if kind == "wait"]
        assert len(under_way) - len(waited) <= 3
        assert waited == under_way[: len(waited)]
    assert len(launched) == 8
    assert len(waited) == 5
    queue.drain()
    queue.close()
    queue.close()
    stream.close()
    assert not cuda.live


def test_a_queue_launches_the_graph(trt, cuda):
    with load(request_for()) as session:
        session.stage({"x": X})
        queue = session.queue(2)
        before = cuda.graph_launches
        for _ in range(5):
            queue.push()
        queue.drain()
        assert cuda.graph_launches == before + 5
        session.run({"x": np.zeros((8, 4), np.float32)})  # moves the buffers, and stages again
        with pytest.raises(RunError, match="CUDA graph is closed"):
            queue.push()
        queue.close()
    assert not cuda.live


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "no-capture"])
@pytest.mark.parametrize("streams", [1, 3])
def test_throughput_counts_launches(trt, cuda, graph, streams):
    if not graph:
        trt.misbehave.add("no-capture")
    ticks = itertools.count()
    with load(request_for()) as session:
        sessions = [session, *(session.sibling() for _ in range(streams - 1))]
        for one in sessions:
            one.stage({"x": X})
            one.clock()
        started_ms, before = cuda.clock_ms, cuda.graph_launches
        found = measure_throughput(sessions, 20, now=lambda: float(next(ticks)))
        # The clock is read at the start, after each of 20 rounds, and at the end.
        assert found == {
            "streams": streams,
            "launches": 20 * streams,
            "seconds": 21.0,
            "per_second": 20 * streams / 21,
            "clock": "graph" if graph else "sync",
        }
        done = 21 * streams  # and one of each beforehand
        assert cuda.graph_launches - before == (done if graph else 0)
        assert cuda.clock_ms - started_ms == pytest.approx(done * fake_cuda.LAUNCH_MS)
        for one in sessions[1:]:
            one.close()
    assert not cuda.live


# What may not be used


# They return arrays made by the bindings, which have stride 0 under NumPy 2 up to 10.15.
ARRAYS = {"numpy", "kernel", "bias", "shift", "scale", "power", "get_named_weights", "get_weights_prototype"}


def test_no_array_of_the_bindings_is_used():
    found = [
        f"{path.name}:{part.lineno} .{part.attr}"
        for path in sorted(Path(package.__file__).parent.glob("*.py"))
        for part in ast.walk(ast.parse(path.read_text()))
        if isinstance(part, ast.Attribute) and part.attr in ARRAYS and isinstance(part.ctx, ast.Load)
    ]
    assert found == []
