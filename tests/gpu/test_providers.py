"""onnxruntime-gpu on a GPU: its CUDA and TensorRT providers against ONNX Runtime on the CPU.

Skipped only where the probe says what is missing.
"""

from __future__ import annotations

import io
import zipfile

import numpy as np
import onnx
import pytest
from networks import attention, conv_net, model, node, run, weights

from pytest_trt.backends import BuildOptions, BuildRequest
from pytest_trt.backends.onnxruntime.on_cuda import CudaBackend
from pytest_trt.backends.onnxruntime.on_tensorrt import OrtTensorRTBackend
from pytest_trt.errors import InputsError, RunError
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import apply_recipe, get_precision
from pytest_trt.spec.precision.ranges import calibration_tensors
from pytest_trt.spec.shapes import Profile, ShapeRange

pytestmark = pytest.mark.gpu

FEEDS = {"x": weights(9, 2, 3, 8, 8)}
PROFILE = Profile("p", {"x": ShapeRange((1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))})
PRECISIONS = ("fp32", "tf32", "fp16", "int8")
LIMITS = {"fp32": 1e-4, "tf32": 1e-2, "fp16": 2e-2, "int8": 5e-1}


@pytest.fixture(params=[CudaBackend, OrtTensorRTBackend], ids=lambda kind: kind.name)
def backend(request):
    return available(request.param())


@pytest.fixture
def tensorrt():
    return available(OrtTensorRTBackend())


def available(backend):
    found = backend.probe()
    if not found.ok:
        pytest.skip(found.reason)
    return backend


def wanted(backend, proto: onnx.ModelProto | None = None, precision: str = "tf32", profile=PROFILE) -> BuildRequest:
    """A request with the precision's typed model; a skip where the provider does not have it."""
    found = get_precision(precision)
    support = backend.support(found)
    if support.kind == "unsupported":
        pytest.skip(support.reason)
    proto = proto or conv_net()
    ranges = dict.fromkeys(calibration_tensors(proto, {}), (-4.0, 4.0)) if found.calibrated else None
    typed = apply_recipe(found.make_recipe(), proto, ranges).proto
    options = BuildOptions(opt_level=1) if isinstance(backend, OrtTensorRTBackend) else BuildOptions()
    return BuildRequest(Model.from_proto(typed, "net"), found, profile, options)


def opened(backend, request: BuildRequest):
    built = backend.build(request)
    return backend.load(built.plan, request), built


@pytest.mark.parametrize("precision", PRECISIONS)
def test_it_computes_what_the_cpu_computes(backend, precision: str):
    session, built = opened(backend, wanted(backend, precision=precision))
    try:
        for batch in (2, 1, 4):
            feeds = {"x": weights(batch, batch, 3, 8, 8)}
            expected = run(conv_net(), feeds)[0]
            np.testing.assert_allclose(session.run(feeds)["y"], expected, rtol=0, atol=LIMITS[precision])
    finally:
        session.close()
    assert built.facts["nodes"] > 0
    assert built.facts["nodes_elsewhere"] == {}


def test_float32_is_not_tf32():
    backend = available(CudaBackend())
    proto = model([node("MatMul", ["x", "w"], ["y"])], {"x": [64, 512]}, {"y": [64, 512]}, {"w": weights(1, 512, 512)})
    feeds, profile = {"x": weights(2, 64, 512)}, Profile.fixed("p", {"x": (64, 512)})
    exact = feeds["x"].astype(np.float64) @ weights(1, 512, 512).astype(np.float64)
    errors = {}
    for precision in ("fp32", "tf32"):
        session, _ = opened(backend, wanted(backend, proto, precision, profile))
        errors[precision] = float(np.abs(session.run(feeds)["y"] - exact).max())
        session.close()

    assert errors["fp32"] * 20 < errors["tf32"]


def test_two_inputs_of_two_types(backend):
    feeds = {"x": weights(3, 2, 5, 16), "keep": np.array([[[1, 1, 0, 1, 0]]] * 2, np.int64)}
    proto = attention(-1e4)
    profile = Profile.fixed("p", {name: array.shape for name, array in feeds.items()})
    session, _ = opened(backend, wanted(backend, proto, profile=profile))
    try:
        np.testing.assert_allclose(session.run(feeds)["y"], run(proto, feeds)[0], rtol=0, atol=1e-2)
    finally:
        session.close()


def test_launches_are_timed_on_the_staged_inputs(backend):
    session, _ = opened(backend, wanted(backend))
    try:
        session.stage(FEEDS)
        clock = session.clock()
        before = session.run(FEEDS)["y"]
        times = clock.time(session.launch, 20)
        other = session.run({"x": -FEEDS["x"]})["y"]
        session.launch()

        assert clock.name in ("sync", "host")
        assert times.shape == (20,)
        assert (times > 0).all()
        assert not np.allclose(before, other)
        np.testing.assert_array_equal(session.run(FEEDS)["y"], before)
        assert {"sm_clock_mhz", "temperature_c"} <= set(clock.conditions())
    finally:
        session.close()


def test_transfers_take_time(backend):
    session, _ = opened(backend, wanted(backend))
    try:
        assert all(value > 0 for value in session.transfers_ms(FEEDS).values())
    finally:
        session.close()


def test_what_the_provider_leaves_out_is_in_the_facts(backend):
    # Neither provider has Det.
    nodes = [node("Relu", ["x"], ["r"], name="relu"), node("Det", ["r"], ["y"], name="det")]
    proto = model(nodes, {"x": ["N", 4, 4]}, {"y": ["N"]})
    feeds = {"x": weights(1, 3, 4, 4)}
    session, built = opened(backend, wanted(backend, proto, profile=Profile.fixed("p", {"x": (3, 4, 4)})))
    try:
        np.testing.assert_allclose(session.run(feeds)["y"], run(proto, feeds)[0], rtol=1e-3, atol=1e-3)
    finally:
        session.close()
    assert built.facts["nodes"] == 1
    assert built.facts["operators_elsewhere"]["CPUExecutionProvider"]["Det"] == 1


def test_an_output_whose_shape_depends_on_the_data():
    backend = available(CudaBackend())
    proto = model([node("NonZero", ["x"], ["y"])], {"x": [4, 4]}, {"y": (7, [2, "K"])})
    session, _ = opened(backend, wanted(backend, proto, profile=Profile.fixed("p", {"x": (4, 4)})))
    try:
        for count in (3, 16, 0):
            array = np.zeros(16, np.float32)
            array[:count] = 1
            assert session.run({"x": array.reshape(4, 4)})["y"].shape == (2, count)
    finally:
        session.close()


def test_feeds_that_do_not_fit(backend):
    session, _ = opened(backend, wanted(backend))
    try:
        with pytest.raises(InputsError, match="no array for input 'x'"):
            session.run({})
        with pytest.raises(RunError):
            session.run({"x": weights(1, 2, 4, 8, 8)})
        assert np.isfinite(session.run(FEEDS)["y"]).all()
    finally:
        session.close()


def test_the_plan_is_what_runs(tensorrt):
    request = wanted(tensorrt)
    built = tensorrt.build(request)
    with zipfile.ZipFile(io.BytesIO(built.plan)) as archive:
        assert any(name.endswith(".engine") for name in archive.namelist())
    first, second = (tensorrt.load(built.plan, request) for _ in range(2))
    try:
        np.testing.assert_array_equal(first.run(FEEDS)["y"], second.run(FEEDS)["y"])
    finally:
        second.close()
        first.close()


def test_models_of_one_structure_do_not_share_an_engine(tensorrt):
    profile = Profile.fixed("p", {"x": (4, 4)})
    for factor in (2, 3):
        proto = model([node("Mul", ["x", "k"], ["y"])], {"x": [4, 4]}, {"y": [4, 4]}, {"k": np.float32(factor)})
        session, _ = opened(tensorrt, wanted(tensorrt, proto, profile=profile))
        try:
            np.testing.assert_allclose(session.run({"x": np.ones((4, 4), np.float32)})["y"], factor)
        finally:
            session.close()


def test_shapes_outside_of_the_profile_build_nothing_in_silence(tensorrt):
    session, _ = opened(tensorrt, wanted(tensorrt))
    try:
        with pytest.raises(RunError):
            session.run({"x": weights(1, 5, 3, 8, 8)})
    finally:
        session.close()


def test_timings_come_back_and_are_taken(tensorrt):
    request = wanted(tensorrt)
    first = tensorrt.build(request)
    if "tensorrt" not in tensorrt.identity():
        pytest.skip("the version of libnvinfer cannot be told here, so no timings are kept")
    again = tensorrt.build(BuildRequest(
        request.model, request.precision, request.profile, request.options, timing_cache=first.timing_cache
    ))  # fmt: skip

    assert first.timing_cache
    assert again.timing_cache
