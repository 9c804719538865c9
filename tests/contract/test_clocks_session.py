"""The latency modes of a session on each recorded TensorRT: which there are, what they are called, what they keep."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import doubles
import doubles_execution
import fake_cuda
import numpy as np
import pytest
from networks import model, node

from pytest_trt.backends import BuildRequest
from pytest_trt.backends.tensorrt import TensorRTBackend
from pytest_trt.backends.tensorrt.versions.trtexec import queue_defaults
from pytest_trt.errors import RunError, UnsupportedError, UsageError
from pytest_trt.latency.timer import sample
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import PRECISIONS
from pytest_trt.spec.shapes import Profile, ShapeRange

WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3) / 10
X = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)


class ClockCuda(doubles_execution.ExecutionCuda):
    """What clocks call beyond the rest; still, what is enqueued happens at once."""

    cudaEventBlockingSync = 1
    cudaDeviceScheduleMask, cudaDeviceScheduleSpin, cudaDeviceScheduleYield, cudaDeviceScheduleBlockingSync = 7, 1, 2, 4
    cudaDeviceAttr = SimpleNamespace(cudaDevAttrL2CacheSize=38)

    def cudaGetDeviceFlags(self):
        return self._answer("cudaGetDeviceFlags", 0)

    def cudaDeviceGetAttribute(self, attribute, device):
        return self._answer("cudaDeviceGetAttribute", 4096)

    def cudaEventCreateWithFlags(self, flags):
        return self.cudaEventCreate()

    def cudaStreamWaitEvent(self, stream, event, flags):
        return self._answer("cudaStreamWaitEvent")

    def cudaMemsetAsync(self, pointer, value, count, stream):
        assert self.holds(pointer, count, "device")
        return self._answer("cudaMemsetAsync")


@pytest.fixture
def cuda(monkeypatch):
    fake = ClockCuda()
    driver = ModuleType("cuda.bindings.driver")
    driver.CUstreamWaitValue_flags = SimpleNamespace(CU_STREAM_WAIT_VALUE_GEQ=0)
    driver.cuStreamWaitValue32 = lambda *arguments: (fake_cuda.OK,)
    found = fake_cuda.modules(fake)
    found["cuda.bindings"].driver = driver
    for name, module in {**found, "cuda.bindings.driver": driver}.items():
        monkeypatch.setitem(sys.modules, name, module)
    yield fake
    assert not fake.live


@pytest.fixture(params=doubles.VERSIONS)
def trt(request, cuda, monkeypatch):
    return doubles_execution.activate(request.param, cuda, monkeypatch)


def load(*, staged=True):
    proto = model([node("MatMul", ["x", "w"], ["y"], "mm")], {"x": ["N", 4]}, {"y": ["N", 3]}, {"w": WEIGHT})
    profile = Profile("p", {"x": ShapeRange((1, 4), (2, 4), (8, 4))})
    request = BuildRequest(Model.from_proto(proto, "matmul"), PRECISIONS["fp32"], profile)
    backend = TensorRTBackend()
    session = backend.load(backend.build(request).plan, request)
    if staged:
        session.stage({"x": X})
    return session


def before_11(trt) -> bool:
    return int(trt.__version__.split(".")[0]) < 11


def test_trtexec_changed_its_defaults_with_11(trt):
    found = queue_defaults(trt)
    if before_11(trt):
        assert (found.graph, found.transfers, found.spin) == (False, True, False)
    else:
        assert (found.graph, found.transfers, found.spin) == (True, False, True)


MODES = {
    "isolated": "isolated+graph+held",
    "queued": None,
    "throughput": "throughput+streams=1+graph",
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_times_what_is_staged(trt, cuda, mode):
    with load() as session:
        clock = session.clock(mode)
        times = clock.time(session.launch, 4)

        assert clock.name == (MODES[mode] or ("queued+transfers+blocking" if before_11(trt) else "queued+graph"))
        assert times.shape == (4,)
        if mode != "throughput":  # that one reads the host's clock
            np.testing.assert_allclose(times, fake_cuda.LAUNCH_MS)
        assert (times > 0).all()
        np.testing.assert_allclose(session.run({"x": X})["y"], X @ WEIGHT, rtol=1e-6)


@pytest.fixture
def trt10(cuda, monkeypatch):
    return doubles_execution.activate("10.16.1.11", cuda, monkeypatch)


def test_clocks_are_kept_except_that_of_throughput(trt10):
    with load() as session:
        for mode in ("graph", "isolated", "queued"):
            assert session.clock(mode) is session.clock(mode)
        assert session.clock() is session.clock("graph")
        assert session.clock("isolated", l2_flush=True) is not session.clock("isolated")
        assert session.clock("throughput", streams=2) is not session.clock("throughput", streams=2)


def test_throughput_runs_siblings(trt10, cuda):
    with load() as session:
        alone = {kind: sum(k == kind for k, _ in cuda.live) for kind, _ in cuda.live}
        clock = session.clock("throughput", streams=3)
        assert clock.name == "throughput+streams=3+graph"
        assert sum(kind == "stream" for kind, _ in cuda.live) == alone["stream"] + 2
        assert (clock.time(session.launch, 2) > 0).all()
        session.clock("throughput", streams=1)
        assert sum(kind == "stream" for kind, _ in cuda.live) == alone["stream"]


def test_queued_copies_inputs_in_and_outputs_out(trt10, cuda):
    with load() as session:
        clock = session.clock("queued")
        before = cuda.clock_ms
        clock.time(session.launch, 9)
        copies = 2 * fake_cuda.COPY_MS
        assert cuda.clock_ms - before == pytest.approx(10 * (fake_cuda.LAUNCH_MS + copies))
        np.testing.assert_allclose(clock.parts["h2d_ms"], fake_cuda.COPY_MS)
        np.testing.assert_allclose(clock.parts["d2h_ms"], fake_cuda.COPY_MS)
        assert (clock.parts["enqueue_ms"] > 0).all()


def test_other_shapes_in_between_do_not_matter(trt10):
    with load() as session:
        clocks = [session.clock(mode) for mode in ("isolated", "queued")]
        session.run({"x": np.ones((8, 4), np.float32)})
        for clock in clocks:
            np.testing.assert_allclose(clock.time(session.launch, 2), fake_cuda.LAUNCH_MS)


def test_where_no_graph_can_be_captured_each_mode_says_so(trt10):
    trt10.misbehave.add("no-capture")
    with load() as session:
        assert session.clock("isolated").name == "isolated"
        assert "no CUDA graph" in session.clock("isolated").note
        throughput = session.clock("throughput")
        assert throughput.name == "throughput+streams=1+sync"
        assert "no CUDA graph" in throughput.note


def test_what_is_refused(trt10):
    with load() as session:
        with pytest.raises(UsageError, match="unknown latency mode 'queue'") as caught:
            session.clock("queue")
        assert "queued" in caught.value.hint
        for mode in ("graph", "queued", "throughput"):
            with pytest.raises(UsageError, match="L2 cache cannot be flushed"):
                session.clock(mode, l2_flush=True)


@pytest.mark.parametrize("mode", ["graph", *MODES])
def test_nothing_is_staged(trt10, mode):
    with load(staged=False) as session, pytest.raises(RunError, match="nothing is staged"):
        session.clock(mode)


def test_siblings_that_are_refused_keep_nothing(trt10):
    with load() as session:
        trt10.misbehave.add("no-context")
        with pytest.raises((RunError, UnsupportedError)):
            session.clock("throughput", streams=2)


def test_samples_of_queued_have_parts_and_conditions(trt10):
    with load() as session:
        taken = sample(session.launch, session.clock("queued"), warmup_seconds=0.01, duration_seconds=0.02)

    assert set(taken.parts_ms) == {"h2d_ms", "gpu_ms", "d2h_ms", "latency_ms", "enqueue_ms"}
    assert all(part.shape == taken.values_ms.shape for part in taken.parts_ms.values())
    assert taken.conditions["transfers"] == "pinned"
    assert taken.conditions["host_wait"] == "blocking"
