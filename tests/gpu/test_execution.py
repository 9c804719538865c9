"""Loading and running on a GPU: profiles, siblings, formats, types, shared memory, throughput, the lean runtime.

``TENSORRT_LEAN8`` is the path of 8.6.0's ``libnvinfer_lean.so.8``, ``TENSORRT_LEAN10`` a folder that holds
``tensorrt_lean_bindings`` of 10; the tests that need them are skipped without.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from networks import BOOL, FLOAT, FLOAT16, INT64, model, node, run, weights

from pytest_trt.backends import BuildOptions, BuildRequest
from pytest_trt.backends.throughput import measure_throughput
from pytest_trt.errors import InputsError, RunError, UsageError
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import PRECISIONS
from pytest_trt.spec.shapes import Profile, ShapeRange

pytestmark = pytest.mark.gpu

UINT8 = 2
RNG = np.random.default_rng(11)
SMALL = Profile("small", {"x": ShapeRange((1, 64), (4, 64), (8, 64))})
LARGE = Profile("large", {"x": ShapeRange((16, 64), (64, 64), (256, 64))})


def normal(*shape) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def gemm() -> Model:
    """x[N,64] through two layers to y[N,48]."""
    nodes = [
        node("Gemm", ["x", "w1", "b1"], ["h"], name="first"),
        node("Relu", ["h"], ["r"], name="relu"),
        node("Gemm", ["r", "w2", "b2"], ["y"], name="second"),
    ]
    values = {
        "w1": weights(1, 64, 96, scale=0.12),
        "b1": weights(2, 96),
        "w2": weights(3, 96, 48, scale=0.1),
        "b2": weights(4, 48),
    }
    return Model.from_proto(model(nodes, {"x": ["N", 64]}, {"y": ["N", 48]}, values), "gemm")


def conv(spatial: int = 2, channels: int = 5) -> Model:
    """A convolution that keeps the shape; 5 channels fill no vector."""
    shape = ["N", channels, *[6, 7, 4][:spatial]]
    kernel = weights(5, channels, channels, *[3] * spatial, scale=0.15)
    nodes = [
        node("Conv", ["x", "w"], ["c"], name="conv", pads=[1] * 2 * spatial),
        node("Relu", ["c"], ["y"], name="relu"),
    ]
    return Model.from_proto(model(nodes, {"x": shape}, {"y": shape}, {"w": kernel}), f"conv{spatial}d")


def expected(which: Model, feeds) -> dict[str, np.ndarray]:
    return dict(zip([spec.name for spec in which.outputs], run(which.proto, feeds), strict=True))


def request_for(which, profile, precision="fp32", profiles=(), **options) -> BuildRequest:
    return BuildRequest(which, PRECISIONS[precision], profile, BuildOptions(opt_level=1, **options), tuple(profiles))


def load(backend, request):
    return backend.load(backend.build(request).plan, request)


def assert_right(session, which, feeds, tolerance=2e-5):
    for name, array in expected(which, feeds).items():
        np.testing.assert_allclose(session.run(feeds)[name], array, rtol=tolerance, atol=tolerance)


def free_bytes() -> int:
    from cuda.bindings import runtime

    error, free, _total = runtime.cudaMemGetInfo()
    assert int(error) == 0
    return free


# Profiles


def test_each_profile_of_one_engine_runs(backend):
    which = gemm()
    plan = backend.build(request_for(which, SMALL, profiles=(SMALL, LARGE))).plan
    for profile, other in ((SMALL, LARGE), (LARGE, SMALL)):
        request = request_for(which, profile, profiles=(SMALL, LARGE))
        with backend.load(plan, request) as session:
            shapes = profile.ranges["x"]
            for shape in (shapes.opt, shapes.min, shapes.max, shapes.opt):
                assert_right(session, which, {"x": normal(*shape)})
            with pytest.raises(RunError, match=f"outside profile '{profile.name}'"):
                session.run({"x": normal(*other.ranges["x"].opt)})
            session.stage({"x": normal(*shapes.max)})
            clock = session.clock()
            assert clock.name == "graph", clock.note
            assert (clock.time(session.launch, 5) > 0).all()


# Siblings


def test_siblings_at_once_give_what_one_gives_alone(backend):
    which = gemm()
    feeds = [{"x": normal(8, 64)} for _ in range(3)]
    with load(backend, request_for(which, SMALL)) as session:
        alone = [session.run(feed)["y"] for feed in feeds]
        sessions = [session, session.sibling(), session.sibling()]
        with ThreadPoolExecutor(3) as pool:
            together = list(pool.map(lambda one, feed: [one.run(feed)["y"] for _ in range(50)], sessions, feeds))
        for runs, single in zip(together, alone, strict=True):
            for outputs in runs:
                np.testing.assert_array_equal(outputs, single)
        for one in sessions[1:]:
            one.close()


def test_the_engine_outlives_the_session_that_loaded_it(backend):
    which = gemm()
    first = load(backend, request_for(which, SMALL))
    second = first.sibling()
    first.close()
    assert_right(second, which, {"x": normal(8, 64)})
    second.stage({"x": normal(8, 64)})
    clock = second.clock()
    assert clock.name == "graph", clock.note
    assert (clock.time(second.launch, 20) > 0).all()
    third = second.sibling()
    second.close()
    assert_right(third, which, {"x": normal(1, 64)})
    third.close()
    third.close()


def test_siblings_of_a_fixed_engine(backend):
    which = gemm()
    with load(backend, request_for(which, Profile.fixed("fixed", {"x": (4, 64)}))) as session:
        with session.sibling() as other:
            assert_right(other, which, {"x": normal(4, 64)})
        assert_right(session, which, {"x": normal(4, 64)})


def test_a_sibling_with_shapes_that_depend_on_the_data(backend):
    proto = model([node("NonZero", ["x"], ["y"], name="nz")], {"x": ["N", 64]}, {"y": (INT64, [2, None])})
    which = Model.from_proto(proto, "nonzero")
    with load(backend, request_for(which, SMALL)) as session, session.sibling() as other:
        for one, rows in ((session, 2), (other, 8), (session, 8), (other, 1)):
            x = (normal(rows, 64) > 0).astype(np.float32)
            actual = one.run({"x": x})["y"]
            allocator = one._outputs[0].allocator
            asked, got = allocator.asked, allocator.buffer.nbytes
            sys.stdout.write(f"{rows} rows: {actual.nbytes} bytes of int64, asked for {asked}, got {got}\n")
            np.testing.assert_array_equal(actual, np.array(np.nonzero(x)))


def test_loads_with_siblings_keep_no_memory(backend):
    which = gemm()
    profile = Profile("huge", {"x": ShapeRange.fixed((16384, 64))})  # 4 MB in, 3 MB out, and as much pinned
    request = request_for(which, profile)
    plan = backend.build(request).plan
    feeds = {"x": normal(16384, 64)}

    def once():
        first = backend.load(plan, request)
        second = first.sibling()
        for one in (first, second):
            one.run(feeds, copy=False)
            one.stage(feeds)
            one.clock().time(one.launch, 2)
        first.close()
        second.close()

    for _ in range(3):  # kernels are loaded on first use, and stay
        once()
    before = free_bytes()
    for _ in range(15):
        once()
    assert before - free_bytes() < 32 * 2**20  # fifteen that leaked would be more than 200 MB


# Formats


@pytest.mark.parametrize(
    ("precision", "spatial", "wanted"),
    [
        ("fp32", 2, "x=CHW32"),
        ("fp32", 2, "y=CHW32"),
        ("fp32", 2, "x=HWC"),
        ("fp32", 2, "y=HWC"),
        ("fp16", 2, "x=HALF:HWC8"),
        ("fp16", 2, "y=HALF:HWC8"),
        ("fp16", 2, "x=HALF:CHW2"),
        ("fp16", 2, "y=HALF:CHW32"),
        ("fp16", 2, "x=HALF:LINEAR"),
        ("fp16", 3, "x=HALF:DHWC8"),
        ("fp16", 3, "y=HALF:CDHW32"),
    ],
)
def test_formats(backend, precision, spatial, wanted):
    if "HALF" in wanted and backend.identity()["typing"] == "strong":
        pytest.skip("a strongly typed network takes the types of its inputs from the model")
    which = conv(spatial)
    shape = (2, 5, *[6, 7, 4][:spatial])
    tensor, _, layout = wanted.replace("HALF:", "").partition("=")
    profile = Profile("images", {"x": ShapeRange((1, *shape[1:]), shape, (3, *shape[1:]))})
    tolerance = 2e-5 if precision == "fp32" else 2e-2
    with load(backend, request_for(which, profile, precision, io_formats=(wanted,))) as session:
        found = {binding.name: binding for binding in session._bindings}[tensor]
        assert found.layout.name == layout
        assert found.dtype == (np.float16 if "HALF" in wanted else np.float32)
        for count in (2, 3, 1):
            feeds = {"x": normal(count, *shape[1:])}
            assert_right(session, which, feeds, tolerance)
            assert session.run(feeds)["y"].dtype == np.float32
        if "x=HALF" in wanted:
            with pytest.raises(RunError, match="does not fit the engine's float16"):
                session.run({"x": np.full(shape, 1e6, np.float32)})


# Types


def test_half_and_bool_outputs(backend):
    nodes = [
        node("Cast", ["x"], ["h"], name="half", to=FLOAT16),
        node("Greater", ["x", "zero"], ["b"], name="positive"),
    ]
    proto = model(nodes, {"x": ["N", 64]}, {"h": (FLOAT16, ["N", 64]), "b": (BOOL, ["N", 64])}, {"zero": np.float32(0)})
    which = Model.from_proto(proto, "types")
    x = normal(4, 64)
    with load(backend, request_for(which, SMALL, "fp16")) as session:
        outputs = session.run({"x": x})
    assert outputs["h"].dtype == np.float16
    np.testing.assert_array_equal(outputs["h"], x.astype(np.float16))
    assert outputs["b"].dtype == np.bool_
    np.testing.assert_array_equal(outputs["b"], x > 0)


def test_uint8_in_and_out(backend):
    nodes = [
        node("Cast", ["x"], ["f"], name="widen", to=FLOAT),
        node("Add", ["f", "one"], ["g"], name="add"),
        node("Cast", ["g"], ["y"], name="narrow", to=UINT8),
    ]
    proto = model(nodes, {"x": (UINT8, ["N", 64])}, {"y": (UINT8, ["N", 64])}, {"one": np.float32(1)})
    which = Model.from_proto(proto, "bytes")
    x = RNG.integers(0, 255, (4, 64), dtype=np.uint8)
    with load(backend, request_for(which, SMALL)) as session:
        actual = session.run({"x": x})["y"]
    assert actual.dtype == np.uint8
    np.testing.assert_array_equal(actual, x + 1)


def test_a_scalar_output(backend):
    proto = model([node("ReduceSum", ["x"], ["y"], name="sum", keepdims=0)], {"x": ["N", 64]}, {"y": []})
    which = Model.from_proto(proto, "total")
    x = normal(4, 64)
    with load(backend, request_for(which, SMALL)) as session:
        total = session.run({"x": x})["y"]
    assert total.shape == ()
    np.testing.assert_allclose(total, x.sum(), rtol=1e-4, atol=1e-4)


# Memory that the caller shares


def test_pinned_inputs_and_uncopied_outputs(backend):
    which = gemm()
    session = load(backend, request_for(which, SMALL))
    view = session.pinned("x", (8, 64))
    for _ in range(3):
        view[...] = normal(8, 64)
        right = expected(which, {"x": np.array(view)})["y"]
        output = session.run({"x": view}, copy=False)["y"]
        np.testing.assert_allclose(output, right, rtol=2e-5, atol=2e-5)
    assert np.shares_memory(output, session.run({"x": view}, copy=False)["y"])
    with pytest.raises(InputsError, match="no input 'z'"):
        session.pinned("z", (1,))
    session.close()
    np.testing.assert_allclose(output, right, rtol=2e-5, atol=2e-5)  # the memory is still there
    view[...] = 0


# Throughput


@pytest.mark.parametrize("streams", [1, 3])
def test_throughput(backend, streams):
    which = gemm()
    feeds = {"x": normal(8, 64)}
    with load(backend, request_for(which, SMALL)) as session:
        before = session.run(feeds)["y"]
        sessions = [session, *(session.sibling() for _ in range(streams - 1))]
        for one in sessions:
            one.stage(feeds)
        found = measure_throughput(sessions, 0.2)
        assert found["clock"] == "graph"
        assert found["streams"] == streams
        assert found["launches"] >= 10 * streams
        assert found["launches"] % streams == 0
        assert found["per_second"] == found["launches"] / found["seconds"]
        for one in sessions:
            np.testing.assert_array_equal(one._collect(copy=True)["y"], before)
        for one in sessions[1:]:
            one.close()


# Loading


def test_host_code_is_not_allowed_by_default(backend):
    with load(backend, request_for(gemm(), SMALL)) as session:
        assert [runtime.engine_host_code_allowed for runtime in session._loaded._runtimes] == [False]


@pytest.mark.parametrize("option", ["strip_plan", "weight_streaming"])
def test_weights_that_are_not_in_place(backend, option):
    which = gemm()
    request = request_for(which, SMALL, **{option: True})
    try:
        backend.check(request.options)
    except UsageError as error:
        pytest.skip(error.message)
    with load(backend, request) as session:
        assert_right(session, which, {"x": normal(8, 64)})


def lean8() -> Path:
    path = os.environ.get("TENSORRT_LEAN8")
    if not path:
        pytest.skip("TENSORRT_LEAN8 is not set")
    return Path(path)


def without_lean_runtime(backend) -> tuple[bytes, BuildRequest]:
    """A plan that brings no lean runtime, and the request to run it with one."""
    library = lean8()
    if not backend.identity()["tensorrt"].startswith("8.6.0"):
        pytest.skip("TENSORRT_LEAN8 is 8.6.0's")
    built = request_for(gemm(), SMALL, version_compatibility="exclude-lean")
    options = dataclasses.replace(built.options, lean_runtime=library)
    return backend.build(built).plan, dataclasses.replace(built, options=options)


def test_a_plan_runs_in_the_lean_runtime_of_its_version(backend):
    plan, request = without_lean_runtime(backend)
    with backend.load(plan, request) as session:
        assert len(session._loaded._runtimes) == 2
        assert_right(session, request.model, {"x": normal(8, 64)})


# Two TensorRT in one process would share symbols: the newer one gets a process of its own.
UNDER_LEAN_10 = """
import sys
from pathlib import Path
import numpy as np
import onnx
sys.path.insert(0, {lean10!r})
import tensorrt_lean_bindings as trt
from pytest_trt.backends import BuildOptions, BuildRequest
from pytest_trt.backends.tensorrt.session import TensorRTSession
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import PRECISIONS
from pytest_trt.spec.shapes import Profile, ShapeRange

folder = Path({folder!r})
assert not hasattr(trt, "Builder")
options = BuildOptions(version_compatibility="exclude-lean", lean_runtime=Path({lean8!r}))
profile = Profile("small", {{"x": ShapeRange((1, 64), (4, 64), (8, 64))}})
model = Model.from_proto(onnx.load(folder / "model.onnx"), "gemm")
request = BuildRequest(model, PRECISIONS["fp32"], profile, options)
feeds = {{"x": np.load(folder / "x.npy")}}
with TensorRTSession(trt, (folder / "plan").read_bytes(), request) as session, session.sibling() as other:
    outputs = session.run(feeds)["y"]
    np.testing.assert_array_equal(other.run(feeds)["y"], outputs)
    session.stage(feeds)
    assert session.clock().name == "graph", session.clock().note
    assert (session.clock().time(session.launch, 5) > 0).all()
np.save(folder / "y.npy", outputs)
print(trt.__version__)
"""


def test_a_plan_runs_in_a_newer_lean_runtime(backend, tmp_path):
    lean10 = os.environ.get("TENSORRT_LEAN10")
    if not lean10:
        pytest.skip("TENSORRT_LEAN10 is not set")
    plan, request = without_lean_runtime(backend)
    feeds = {"x": normal(8, 64)}
    (tmp_path / "plan").write_bytes(plan)
    np.save(tmp_path / "x.npy", feeds["x"])
    (tmp_path / "model.onnx").write_bytes(request.model.serialized())
    script = UNDER_LEAN_10.format(lean10=lean10, lean8=str(request.options.lean_runtime), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split()[-1].startswith("10.")
    right = expected(request.model, feeds)["y"]
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), right, rtol=2e-5, atol=2e-5)


def test_networks_are_valid():
    import onnx

    for which in (gemm(), conv(2), conv(3)):
        onnx.checker.check_model(which.proto, full_check=True)
