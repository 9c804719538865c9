"""The mode ``queued``: trtexec's method and definitions, one query queued ahead of the one that is waited for.

A query copies its inputs in, computes, and copies its outputs out, on three streams that wait for each other. While
one is waited for, the next is in the streams already::

    h2d, gpu, d2h   between the events around the copies in, the computation, the copies out
    latency         their sum: no gaps, no queueing
    enqueue         the host's time for enqueueing the computation
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.backends.clocks import EventClock, GraphClock, SyncClock
from pytest_trt.backends.cuda import Event, Stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["QueueDefaults", "QueuedClock"]

PARTS = ("h2d_ms", "gpu_ms", "d2h_ms", "latency_ms", "enqueue_ms")


@dataclass(frozen=True)
class QueueDefaults:
    """How trtexec of one release measures when nothing is said: with a CUDA graph, with copies, and whether the host
    spins while it waits."""

    graph: bool
    transfers: bool
    spin: bool


class _Query:
    """Its six events."""

    def __init__(self, *, blocking: bool) -> None:
        self._resources = ExitStack()
        with ExitStack() as stack:
            events = []
            for _ in range(6):
                events.append(Event(blocking=blocking))
                stack.callback(events[-1].close)
            self._resources = stack.pop_all()
        self.input, self.compute, self.output = zip(events[::2], events[1::2], strict=True)
        self.enqueue_ms = 0.0

    def close(self) -> None:
        self._resources.close()


class QueuedClock(EventClock):
    """``time`` returns GPU compute times; ``parts`` holds all five times of the latest call, each of its shape.

    *base* is the clock that knows how to launch; it is not closed. *upload* and *download* enqueue the copies of all
    inputs and outputs in a stream. As in trtexec the copies of one query may run while another computes on the same
    memory: the values are the same each time.
    """

    def __init__(
        self,
        stream: Stream,
        base: GraphClock | SyncClock,
        defaults: QueueDefaults,
        upload: Callable[[Stream], None],
        download: Callable[[Stream], None],
    ) -> None:
        super().__init__(stream, base.note if defaults.graph else "")
        self._base, self._defaults = base, defaults
        self._upload, self._download = upload, download
        self._graph = defaults.graph and isinstance(base, GraphClock)
        self.transfers = "pinned" if defaults.transfers else "left out"
        self.parts: dict[str, NDArray[np.float64]] = {}
        self._resources = ExitStack()
        with ExitStack() as stack:
            self._queries = []
            for _ in range(2):
                self._queries.append(_Query(blocking=not defaults.spin))
                stack.callback(self._queries[-1].close)
            self._in = self._out = stream
            if defaults.transfers:
                self._in = Stream()
                stack.callback(self._in.close)
                self._out = Stream()
                stack.callback(self._out.close)
            self._resources = stack.pop_all()
        traits = {"graph": self._graph, "transfers": defaults.transfers, "blocking": not defaults.spin}
        self.name = "+".join(["queued", *(trait for trait, there in traits.items() if there)])

    def time(self, launch: Callable[[], None], count: int) -> NDArray[np.float64]:
        """Run *count* queries behind one that is not timed; return ms of GPU compute, shape ``(count,)``."""
        # Where trtexec uses no graph by default, a graph would hide the launch gaps that its users see.
        enqueue = self._base.launcher(launch) if self._graph else launch
        rows = np.empty((count, len(PARTS)), dtype=np.float64)
        for index in range(count + 1):
            self._send(self._queries[index % 2], enqueue)
            if index:
                before = self._wait(self._queries[(index - 1) % 2])
                if index > 1:
                    rows[index - 2] = before
        rows[count - 1] = self._wait(self._queries[count % 2])
        self.parts = {name: rows[:, column].copy() for column, name in enumerate(PARTS)}
        return self.parts["gpu_ms"]

    def close(self) -> None:
        self._in.drain()
        self._out.drain()
        self._resources.close()
        super().close()

    def _host_wait(self) -> str:
        return "spin" if self._defaults.spin else "blocking"

    def _send(self, query: _Query, enqueue: Callable[[], None]) -> None:
        compute, transfers = self._stream, self._defaults.transfers
        if transfers:
            self._copy(self._in, query.input, self._upload)
            compute.wait_for(query.input[1])
        query.enqueue_ms = compute.enclose(*query.compute, enqueue) / 1e6
        if transfers:
            self._out.wait_for(query.compute[1])
            self._copy(self._out, query.output, self._download)

    def _wait(self, query: _Query) -> tuple[float, ...]:
        transfers = self._defaults.transfers
        (query.output if transfers else query.compute)[1].wait()
        gpu = _elapsed(query.compute)
        h2d, d2h = (_elapsed(query.input), _elapsed(query.output)) if transfers else (0.0, 0.0)
        return h2d, gpu, d2h, h2d + gpu + d2h, query.enqueue_ms

    @staticmethod
    def _copy(stream: Stream, events: tuple[Any, ...], copy: Callable[[Stream], None]) -> None:
        stream.record(events[0])
        copy(stream)
        stream.record(events[1])


def _elapsed(events: tuple[Any, ...]) -> float:
    start, end = events
    return float(end.since(start))
