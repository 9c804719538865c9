"""Clocks on a simulated device that works while the host goes on: what is inside a duration, and what is not."""

from __future__ import annotations

import contextlib
import sys
import time

import numpy as np
import pytest
import queueing_cuda
from fake_cuda import cudaError_t
from queueing_cuda import CALL_MS, COPY_IN_MS, COPY_OUT_MS, KERNEL_MS

from pytest_trt.backends import cuda
from pytest_trt.backends.buffers import DeviceBuffer, PinnedBuffer
from pytest_trt.backends.clocks import GraphClock, SyncClock, pick_clock
from pytest_trt.backends.hold import Hold
from pytest_trt.backends.isolated_clock import IsolatedClock
from pytest_trt.backends.queued_clock import QueuedClock, QueueDefaults
from pytest_trt.errors import RunError, UnsupportedError


@pytest.fixture
def refusing(device, monkeypatch):
    """The driver cannot hold a stream."""
    for name, module in queueing_cuda.modules(device, refuses=True).items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def launch(device, stream):
    return lambda: device.kernel(stream)


@pytest.fixture
def graph(device, stream, launch):
    clock = pick_clock(stream, launch)
    assert clock.name == "graph"
    yield clock
    clock.close()


@pytest.fixture
def sync(device, stream):
    clock = SyncClock(stream, note="no CUDA graph")
    yield clock
    clock.close()


def test_a_synchronized_launch_contains_the_gap_before_it(device, sync, launch):
    np.testing.assert_allclose(sync.time(launch, 5), KERNEL_MS + CALL_MS)


def test_graphs_back_to_back_contain_no_gap(device, graph, launch):
    np.testing.assert_allclose(graph.time(launch, 300), KERNEL_MS)


@pytest.mark.parametrize(("schedule", "said"), [(0, "auto"), (1, "spin"), (2, "yield"), (4, "blocking")], ids=str)
def test_conditions_tell_how_it_is_measured(device, graph, schedule, said):
    device.schedule = schedule
    found = graph.conditions()

    assert found["transfers"] == "left out"
    assert found["host_wait"] == said
    assert found["cpus"] >= 1


def test_conditions_are_read_from_the_device_that_computes(device, graph, monkeypatch):
    monkeypatch.setattr("pytest_trt.backends.clocks.device_conditions", lambda bus_id: {"bus_id": bus_id})

    assert graph.conditions()["bus_id"] == "0000:01:00.0"


# Holding a stream


def test_a_held_stream_begins_when_all_is_enqueued(device, stream, launch):
    hold = Hold(stream)
    before = device.host_ms
    with hold:
        launch()
        device.host_ms += 50.0  # the host is busy with something else
    stream.synchronize()

    assert not hold.expired
    assert device.queues[stream.handle].free_ms >= before + 50.0 + KERNEL_MS
    hold.close()
    hold.close()


def test_an_exception_releases_the_stream(device, stream, launch):
    hold = Hold(stream)
    with contextlib.suppress(ZeroDivisionError), hold:
        launch()
        raise ZeroDivisionError
    stream.synchronize()
    assert not hold.expired
    hold.close()


def test_a_launch_that_waits_for_the_device_is_freed(device, stream, launch):
    hold = Hold(stream, limit_s=0.05)
    with hold:
        launch()
        stream.synchronize()  # would wait for ever
    assert hold.expired
    with hold:
        launch()
    stream.synchronize()
    assert not hold.expired
    hold.close()


def test_the_limit_counts_anew_for_each_block(device, stream, launch):
    hold = Hold(stream, limit_s=0.2)
    ending = time.monotonic() + 0.7
    while time.monotonic() < ending:
        with hold:
            launch()
            time.sleep(0.01)
        assert not hold.expired
        stream.synchronize()
    hold.close()


def test_a_driver_that_cannot_hold(device, refusing, stream):
    with pytest.raises(RunError, match="cuStreamWaitValue32 failed: CUDA_ERROR_NOT_SUPPORTED"):
        Hold(stream)


def test_a_cuda_python_that_stops_every_thread_is_not_held(device, stream, graph, launch, monkeypatch):
    monkeypatch.setattr("pytest_trt.backends.hold.threads_run", lambda: False)
    clock = IsolatedClock(stream, graph, launch)

    assert (clock.name, device.held) == ("isolated+graph", 0)
    assert "stops every thread" in clock.note
    clock.close()


# isolated


def test_isolated_graphs_are_held_and_have_no_gap(device, stream, graph, launch):
    clock = IsolatedClock(stream, graph, launch)
    before = device.held

    assert clock.name == "isolated+graph+held"
    assert clock.note == ""
    np.testing.assert_allclose(clock.time(launch, 7), KERNEL_MS)
    assert device.held - before == 7
    clock.close()


def test_without_holding_the_gap_counts_and_is_said(device, refusing, stream, graph, launch):
    clock = IsolatedClock(stream, graph, launch)

    assert clock.name == "isolated+graph"
    assert "launch gaps count: cuStreamWaitValue32 failed" in clock.note
    np.testing.assert_allclose(clock.time(launch, 3), KERNEL_MS + CALL_MS)
    clock.close()


def test_plain_launches_are_never_held(device, stream, sync, launch):
    clock = IsolatedClock(stream, sync, launch)

    assert (clock.name, clock.note) == ("isolated", sync.note)
    np.testing.assert_allclose(clock.time(launch, 3), KERNEL_MS + CALL_MS)
    assert device.held == 0
    clock.close()


def test_the_first_launch_is_not_held(device, stream, graph, launch):
    clock = IsolatedClock(stream, graph, launch)
    device.calls.clear()
    clock.time(launch, 1)

    assert device.calls.index("cudaGraphLaunch") < device.calls.index("cuStreamWaitValue32")
    clock.close()


def test_the_device_is_idle_before_each_launch(device, stream, graph, launch):
    clock = IsolatedClock(stream, graph, launch)
    device.calls.clear()
    clock.time(launch, 2)

    one = ["cudaStreamSynchronize", "cuStreamWaitValue32", "cudaEventRecord", "cudaGraphLaunch", "cudaEventRecord"]
    each = [*one, "cudaStreamSynchronize", "cudaEventElapsedTime"]
    assert device.calls == ["cudaGraphLaunch", *each, *each]
    clock.close()


@pytest.mark.parametrize("held", [True, False])
def test_the_flush_is_outside_the_duration(device, stream, graph, sync, launch, held):
    base = graph if held else sync
    clock = IsolatedClock(stream, base, launch, l2_flush=True)
    device.calls.clear()

    assert clock.name == ("isolated+graph+held+l2-flush" if held else "isolated+l2-flush")
    np.testing.assert_allclose(clock.time(launch, 4), KERNEL_MS + (0 if held else CALL_MS))
    assert device.calls.count("cudaMemsetAsync") == 4
    first = device.calls.index("cudaMemsetAsync")
    assert device.calls[first + 1] == "cudaStreamSynchronize"
    clock.close()


def test_a_device_without_the_size_of_its_cache(device, stream, graph, launch):
    device.l2_bytes = 0
    with pytest.raises(UnsupportedError, match="does not tell the size of its L2 cache"):
        IsolatedClock(stream, graph, launch, l2_flush=True)


def test_a_graph_that_cannot_be_enqueued_while_held(device, stream, graph, launch, monkeypatch):
    monkeypatch.setattr("pytest_trt.backends.hold.Hold.__init__.__kwdefaults__", {"limit_s": 0.05})
    launched = device.cudaGraphLaunch

    def full(executable, raw):  # more nodes than the queue of the device takes
        answer = launched(executable, raw)
        device.cudaStreamSynchronize(raw)
        return answer

    monkeypatch.setattr(device, "cudaGraphLaunch", full)
    clock = IsolatedClock(stream, graph, launch)

    assert clock.name == "isolated+graph"
    assert clock.note == "launch gaps count: the graph cannot be enqueued while its stream is held"
    assert (clock.time(launch, 2) > KERNEL_MS).all()
    clock.close()


def test_a_sample_that_was_not_held_to_its_end_is_taken_again(device, stream, graph, launch, monkeypatch):
    clock = IsolatedClock(stream, graph, launch)
    closing = Hold.__exit__
    lost = [True, True, False]

    def leave(hold, *why):
        closing(hold, *why)
        hold.expired = lost.pop(0)

    monkeypatch.setattr(Hold, "__exit__", leave)
    before = device.held
    assert clock.time(launch, 1).shape == (1,)
    assert device.held - before == 3
    lost[:] = [True] * 3
    with pytest.raises(RunError, match="3 launches in a row"):
        clock.time(launch, 1)
    clock.close()


@pytest.mark.parametrize("call", ["cudaMalloc", "cudaDeviceGetAttribute"])
def test_isolated_without_memory_keeps_nothing(device, stream, graph, launch, call):
    device.fail[call] = cudaError_t.cudaErrorMemoryAllocation
    with pytest.raises(RunError, match=call):
        IsolatedClock(stream, graph, launch, l2_flush=True)


# queued

OLD = QueueDefaults(graph=False, transfers=True, spin=False)
NEW = QueueDefaults(graph=True, transfers=False, spin=True)


class Copies:
    """One input and one output."""

    def __init__(self) -> None:
        self.host, self.memory = PinnedBuffer(), DeviceBuffer()
        self.host.reserve(64)
        self.memory.reserve(64)

    def upload(self, stream):
        stream.upload(self.memory, self.host, 64)

    def download(self, stream):
        stream.download(self.host, self.memory, 64)

    def close(self):
        self.host.close()
        self.memory.close()


@pytest.fixture
def copies(device):
    found = Copies()
    yield found
    found.close()


def queued(stream, base, copies, defaults):
    return QueuedClock(stream, base, defaults, copies.upload, copies.download)


@pytest.fixture
def simulated_host(device, monkeypatch):
    monkeypatch.setattr(cuda.time, "perf_counter_ns", lambda: int(device.host_ms * 1e6))


def test_the_parts_of_a_query(device, stream, graph, copies, launch, simulated_host):
    clock = queued(stream, graph, copies, OLD)
    times = clock.time(launch, 20)

    assert clock.name == "queued+transfers+blocking"
    assert clock.note == ""
    np.testing.assert_allclose(times, KERNEL_MS)
    expected = {
        "h2d_ms": COPY_IN_MS + CALL_MS,  # its stream is idle when the first event comes
        "gpu_ms": KERNEL_MS,
        "d2h_ms": COPY_OUT_MS,
        "latency_ms": COPY_IN_MS + CALL_MS + KERNEL_MS + COPY_OUT_MS,
        "enqueue_ms": CALL_MS,
    }
    assert list(clock.parts) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(clock.parts[name], np.full(20, value), err_msg=name, rtol=1e-6)
    clock.close()
    clock.close()


def test_only_the_work_is_enclosed(device, stream, monkeypatch):
    made = []
    check = cuda.check
    monkeypatch.setattr(cuda, "check", lambda *given: (made.append("check"), check(*given))[1])
    record = device.cudaEventRecord
    monkeypatch.setattr(device, "cudaEventRecord", lambda *given: (made.append("record"), record(*given))[1])
    start, end = cuda.Event(), cuda.Event()
    made.clear()
    stream.enclose(start, end, lambda: made.append("work"))

    assert made == ["record", "work", "record", "check", "check"]
    start.close()
    end.close()


@pytest.mark.parametrize("refused", [0, 1])
def test_an_event_that_is_not_recorded_is_an_error(device, stream, monkeypatch, refused):
    answers = [(cudaError_t.cudaSuccess,), (cudaError_t.cudaSuccess,)]
    answers[refused] = (cudaError_t.cudaErrorInvalidValue,)
    events = cuda.Event(), cuda.Event()
    monkeypatch.setattr(device, "cudaEventRecord", lambda *_: answers.pop(0))
    with pytest.raises(RunError, match="cudaEventRecord failed: cudaErrorInvalidValue"):
        stream.enclose(*events, lambda: None)
    for event in events:
        event.close()


def test_without_transfers_latency_is_gpu_compute(device, stream, graph, copies, launch):
    clock = queued(stream, graph, copies, NEW)
    times = clock.time(launch, 5)

    assert clock.name == "queued+graph"
    np.testing.assert_array_equal(clock.parts["latency_ms"], times)
    assert not clock.parts["h2d_ms"].any()
    assert not clock.parts["d2h_ms"].any()
    assert "cudaMemcpyAsync" not in device.calls
    clock.close()


@pytest.mark.parametrize("defaults", [OLD, NEW], ids=["old", "new"])
def test_one_query_is_queued_ahead(device, stream, graph, copies, launch, defaults):
    clock = queued(stream, graph, copies, defaults)
    device.calls.clear()
    clock.time(launch, 6)

    name = "cudaGraphLaunch" if defaults.graph else "kernel"
    order = [call for call in device.calls if call in (name, "cudaEventSynchronize")]
    assert order == [name, *[name, "cudaEventSynchronize"] * 6, "cudaEventSynchronize"]
    clock.close()


def test_where_the_host_is_slower_gpu_compute_contains_the_gap(device, stream, sync, copies, launch):
    device.kernel_ms = CALL_MS / 10
    clock = queued(stream, sync, copies, QueueDefaults(graph=False, transfers=False, spin=True))

    assert (clock.time(launch, 5) >= CALL_MS).all()
    clock.close()


def test_copies_wait_for_what_they_need(device, stream, sync, copies, launch):
    clock = queued(stream, sync, copies, OLD)
    clock.time(launch, 3)
    assert clock._queries
    for query in clock._queries:
        moments = [event.raw.point.at_ms for pair in (query.input, query.compute, query.output) for event in pair]
        assert moments == sorted(moments)
    clock.close()


def test_a_missing_graph_is_said_where_it_is_the_default(device, stream, sync, copies):
    new, old = queued(stream, sync, copies, NEW), queued(stream, sync, copies, OLD)
    assert (new.name, new.note) == ("queued", "no CUDA graph")
    assert (old.name, old.note) == ("queued+transfers+blocking", "")
    new.close()
    old.close()


@pytest.mark.parametrize(("defaults", "said"), [(OLD, ("pinned", "blocking")), (NEW, ("left out", "spin"))])
def test_queued_conditions(device, stream, graph, copies, launch, defaults, said):
    clock = queued(stream, graph, copies, defaults)
    found = clock.conditions()
    assert (found["transfers"], found["host_wait"]) == said
    clock.time(launch, 1)
    assert device.blocking_events == (0 if defaults.spin else 12)
    clock.close()


def test_many_queries_go_in_blocks(device, stream, graph, copies, launch):
    clock = queued(stream, graph, copies, NEW)
    times = clock.time(launch, 300)
    np.testing.assert_allclose(times, np.full(300, KERNEL_MS))
    assert device.calls.count("cudaGraphLaunch") == 303 + 1  # one ahead of each block of 128, and the first upload
    clock.close()


@pytest.mark.parametrize("call", ["cudaEventRecord", "cudaMemcpyAsync", "cudaStreamWaitEvent"])
def test_what_cuda_refused_in_a_query_is_named(device, stream, graph, copies, launch, monkeypatch, call):
    clock = queued(stream, graph, copies, OLD)
    original, made = getattr(device, call), []

    def once(*arguments):
        answer = original(*arguments)
        made.append(call)
        return (cudaError_t.cudaErrorInvalidValue,) if len(made) == 3 else answer

    once.__name__ = call
    monkeypatch.setattr(device, call, once)
    with pytest.raises(RunError, match=f"{call} failed: cudaErrorInvalidValue"):
        clock.time(launch, 5)
    clock.close()


@pytest.mark.parametrize("call", ["cudaEventCreate", "cudaStreamCreateWithFlags"])
def test_queued_without_memory_keeps_nothing(device, stream, graph, copies, launch, call):
    def failing(*arguments):
        return (cudaError_t.cudaErrorMemoryAllocation, None)

    original = getattr(device, call)
    setattr(device, call, failing)
    with (
        pytest.raises(RunError, match="cudaErrorMemoryAllocation"),
        contextlib.closing(queued(stream, graph, copies, QueueDefaults(graph=True, transfers=True, spin=True))) as it,
    ):
        it.time(launch, 1)
    setattr(device, call, original)


def test_a_stale_graph_is_captured_anew(device, stream, graph, copies, launch):
    isolated, ahead = IsolatedClock(stream, graph, launch), queued(stream, graph, copies, NEW)
    graph.invalidate()
    device.kernel_ms = 3.0
    np.testing.assert_allclose(isolated.time(launch, 2), 3.0)
    np.testing.assert_allclose(ahead.time(launch, 2), 3.0)
    isolated.close()
    ahead.close()


def test_the_base_is_not_closed(device, stream, graph, launch):
    IsolatedClock(stream, graph, launch).close()
    assert isinstance(graph, GraphClock)
    np.testing.assert_allclose(graph.time(launch, 2), KERNEL_MS)
