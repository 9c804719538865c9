"""Clocks of a CUDA stream: how long one launch takes on the device, in ms; and a queue that keeps it busy.

Events around each launch on the stream that computes, differences taken per pair: offsets from one far event, as
trtexec takes them, would lose microseconds to float32. The clocks of the modes ``queued``, ``isolated`` and
``throughput`` are in modules of their own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.backends.cuda import Event, check, runtime
from pytest_trt.backends.host_conditions import host_conditions
from pytest_trt.backends.nvml import device_conditions
from pytest_trt.errors import RunError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_trt.backends.cuda import Graph, Stream

__all__ = ["EventClock", "GraphClock", "LaunchQueue", "SyncClock", "pick_clock"]

# Launches that may wait in the stream at once; the driver's queue holds about a thousand commands.
_IN_FLIGHT = 256


class EventClock:
    """What clocks of a stream share: pairs of events, made once, and readings."""

    name = "events"
    transfers = "left out"

    def __init__(self, stream: Stream, note: str = "") -> None:
        self.note = note  # why this clock and not a better one
        self._stream = stream
        self._pairs: list[tuple[Event, Event]] = []

    def conditions(self) -> dict[str, Any]:
        """What the device (nothing without nvidia-ml-py) and the host do now, and how this clock measures.

        ``transfers``: whether copies are part of the work: ``left out``, or in which memory. ``host_wait``: how the
        host waits for the device: ``spin``, ``yield``, ``blocking``, or ``auto`` where CUDA chooses.
        """
        found = runtime()
        device = check(found.cudaGetDevice(), "cudaGetDevice")
        bus_id = check(found.cudaDeviceGetPCIBusId(32, device), "cudaDeviceGetPCIBusId")
        readings = {**device_conditions(bus_id.decode().partition("\0")[0]), **host_conditions()}
        return {**readings, "transfers": self.transfers, "host_wait": self._host_wait()}

    def close(self) -> None:
        while self._pairs:
            for event in self._pairs.pop():
                event.close()

    def _host_wait(self) -> str:
        found = runtime()
        schedule = check(found.cudaGetDeviceFlags(), "cudaGetDeviceFlags") & int(found.cudaDeviceScheduleMask)
        known = {"spin": "Spin", "yield": "Yield", "blocking": "BlockingSync"}
        return next((k for k, v in known.items() if schedule == int(getattr(found, f"cudaDeviceSchedule{v}"))), "auto")

    def _events(self, count: int) -> list[tuple[Event, Event]]:
        while len(self._pairs) < count:
            self._pairs.append((Event(), Event()))
        return self._pairs[:count]


class GraphClock(EventClock):
    """CUDA events around one CUDA-graph launch, queued back to back: no launch gaps inside the times."""

    name = "graph"

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self._graph: Graph | None = None
        self._captured: Callable[[], None] | None = None

    def prepare(self, launch: Callable[[], None]) -> None:
        """Capture *launch*. Raises RunError when that is not possible."""
        self.invalidate()
        launch()  # lazy initialization inside the first enqueue cannot be captured
        self._stream.synchronize()
        self._graph = self._stream.capture(launch)
        self._captured = launch
        self._graph.launch(self._stream)  # the first launch uploads the graph
        self._stream.synchronize()

    def invalidate(self) -> None:
        """Forget the graph: the shapes or addresses that it holds are no longer those of the engine."""
        if self._graph is not None:
            self._graph.close()
        self._graph = self._captured = None

    def time(self, launch: Callable[[], None], count: int) -> NDArray[np.float64]:
        """Launch *count* times; return ms per launch, shape ``(count,)``. Raises RunError."""
        graph, stream = self._captured_graph(launch), self._stream
        times = np.empty(count, dtype=np.float64)
        for first in range(0, count, _IN_FLIGHT):
            pairs = self._events(min(_IN_FLIGHT, count - first))
            graph.launch(stream)  # one ahead and not timed: the device is busy when the first event arrives
            for start, end in pairs:
                stream.record(start)
                graph.launch(stream)
                stream.record(end)
            stream.synchronize()
            times[first : first + len(pairs)] = [end.since(start) for start, end in pairs]
        return times

    def launcher(self, launch: Callable[[], None]) -> Callable[[], None]:
        """What enqueues the graph of *launch* once; as long as shapes and addresses stay. Raises RunError."""
        return functools.partial(self._captured_graph(launch).launch, self._stream)

    def _captured_graph(self, launch: Callable[[], None]) -> Graph:
        if self._graph is None or self._captured != launch:
            self.prepare(launch)
        assert self._graph is not None
        return self._graph

    def close(self) -> None:
        self.invalidate()
        super().close()


class SyncClock(EventClock):
    """CUDA events around one plain enqueue, the stream synchronized after each: launch gaps count."""

    name = "sync"

    def time(self, launch: Callable[[], None], count: int) -> NDArray[np.float64]:
        """Launch *count* times; return ms per launch, shape ``(count,)``. Raises RunError."""
        ((start, end),) = self._events(1)
        times = np.empty(count, dtype=np.float64)
        for index in range(count):
            self._stream.enclose(start, end, launch)
            self._stream.synchronize()
            times[index] = end.since(start)
        return times

    def launcher(self, launch: Callable[[], None]) -> Callable[[], None]:
        """*launch* itself: there is no graph."""
        return launch

    def invalidate(self) -> None:
        """Nothing to forget: every launch is enqueued anew."""


class LaunchQueue:
    """Launches that wait in a stream, at most *depth* of them: the device has always a next one, and none is late."""

    def __init__(self, stream: Stream, launch: Callable[[], None], depth: int) -> None:
        self._stream, self._launch = stream, launch
        self._pushed = 0
        self._done: list[Event] = []
        try:
            for _ in range(depth):
                self._done.append(Event())
        except RunError:
            self.close()
            raise

    def push(self) -> None:
        """Enqueue one launch; wait for the oldest one first when *depth* of them are under way. Raises RunError."""
        done = self._done[self._pushed % len(self._done)]
        if self._pushed >= len(self._done):
            done.wait()
        self._launch()
        self._stream.record(done)
        self._pushed += 1

    def drain(self) -> None:
        """Wait for all of them. Raises RunError."""
        self._stream.synchronize()

    def close(self) -> None:
        """Free the events. May be called twice."""
        while self._done:
            self._done.pop().close()


def pick_clock(stream: Stream, launch: Callable[[], None]) -> GraphClock | SyncClock:
    """A GraphClock when *launch* can be captured, otherwise a SyncClock whose ``note`` says why not."""
    clock = GraphClock(stream)
    try:
        clock.prepare(launch)
    except RunError as error:
        clock.close()
        return SyncClock(stream, note=f"no CUDA graph: {error.message}")
    return clock
