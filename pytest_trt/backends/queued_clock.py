"""The mode ``queued``: trtexec's method and definitions, one query queued ahead of the one that is waited for.

A query copies its inputs in, computes, and copies its outputs out, on three streams that wait for each other. While
one is waited for, the next is in the streams already::

    h2d, gpu, d2h   between the events around the copies in, the computation, the copies out
    latency         their sum: no gaps, no queueing
    enqueue         the host's time for enqueueing the computation
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.backends.clocks import EventClock, GraphClock, SyncClock
from pytest_trt.backends.cuda import Event, NotedStream, Stream, check

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["QueueDefaults", "QueuedClock"]

Answer = tuple[Any, ...]  # of a call of CUDA

# Queries whose events are held at once.
_BLOCK = 128

PARTS = ("h2d_ms", "gpu_ms", "d2h_ms", "latency_ms", "enqueue_ms")


@dataclass(frozen=True)
class QueueDefaults:
    """How trtexec of one release measures when nothing is said: with a CUDA graph, with copies, and whether the host
    spins while it waits."""

    graph: bool
    transfers: bool
    spin: bool


class _Query:
    """Its six events, and the calls that go before and behind its computation."""

    def __init__(self, *, blocking: bool) -> None:
        self._resources = ExitStack()
        with ExitStack() as stack:
            events = []
            for _ in range(6):
                events.append(Event(blocking=blocking))
                stack.callback(events[-1].close)
            self._resources = stack.pop_all()
        self.input, self.compute, self.output = zip(events[::2], events[1::2], strict=True)
        self.before: list[functools.partial[Answer]] = []
        self.behind: list[functools.partial[Answer]] = []
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
        self._queries: list[_Query] = []
        self._resources = ExitStack()
        with ExitStack() as stack:
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
        """Run *count* queries, each block of them behind one that is not timed; return ms of GPU compute, shape
        ``(count,)``. Raises RunError."""
        # Where trtexec uses no graph by default, a graph would hide the launch gaps that its users see.
        enqueue = self._base.launcher(launch) if self._graph else launch
        rows = np.empty((count, len(PARTS)), dtype=np.float64)
        for first in range(0, count, _BLOCK):
            queries = self._noted(min(_BLOCK, count - first) + 1)
            self._run(queries, enqueue)
            rows[first : first + len(queries) - 1] = [self._parts_of(query) for query in queries[1:]]
        self.parts = {name: rows[:, column].copy() for column, name in enumerate(PARTS)}
        return self.parts["gpu_ms"]

    def close(self) -> None:
        self._in.drain()
        self._out.drain()
        while self._queries:
            self._queries.pop().close()
        self._resources.close()
        super().close()

    def _host_wait(self) -> str:
        return "spin" if self._defaults.spin else "blocking"

    def _noted(self, count: int) -> list[_Query]:
        """*count* queries, their calls as shapes and addresses are now."""
        while len(self._queries) < count:
            self._queries.append(_Query(blocking=not self._defaults.spin))
        for query in self._queries[:count]:
            query.before, query.behind = [], []
            if self._defaults.transfers:
                upstream = NotedStream(self._in, query.before)
                upstream.record(query.input[0])
                self._upload(upstream)
                upstream.record(query.input[1])
                NotedStream(self._stream, query.before).wait_for(query.input[1])
            NotedStream(self._stream, query.before).record(query.compute[0])
            NotedStream(self._stream, query.behind).record(query.compute[1])
            if self._defaults.transfers:
                downstream = NotedStream(self._out, query.behind)
                downstream.wait_for(query.compute[1])
                downstream.record(query.output[0])
                self._download(downstream)
                downstream.record(query.output[1])
        return self._queries[:count]

    def _run(self, queries: Sequence[_Query], enqueue: Callable[[], None]) -> None:
        """Where the device is faster than the host, all that the host does counts. So answers are looked at in the end,
        and durations read: in a loop that slept, each line of it takes a microsecond."""
        last = "output" if self._defaults.transfers else "compute"
        waits = [getattr(query, last)[1].wait for query in queries]
        answers: list[Answer] = []
        now = time.perf_counter_ns
        for index, query in enumerate(queries):
            answers += [call() for call in query.before]
            started = now()
            enqueue()
            spent = now() - started
            answers += [call() for call in query.behind]
            query.enqueue_ms = spent / 1e6
            if index:
                waits[index - 1]()
        waits[-1]()
        calls = [call for query in queries for call in (*query.before, *query.behind)]
        for call, answer in zip(calls, answers, strict=True):
            check(answer, call.func.__name__)

    def _parts_of(self, query: _Query) -> tuple[float, ...]:
        gpu = _elapsed(query.compute)
        transfers = self._defaults.transfers
        h2d, d2h = (_elapsed(query.input), _elapsed(query.output)) if transfers else (0.0, 0.0)
        return h2d, gpu, d2h, h2d + gpu + d2h, query.enqueue_ms


def _elapsed(events: tuple[Any, ...]) -> float:
    start, end = events
    return float(end.since(start))
