"""A query loop on CUDA alone, with trtexec's definitions: what the mode ``queued`` is held against.

Written apart from our clocks: what it is given is the engine's context and the addresses of its tensors.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trt.backends.cuda import native

__all__ = ["EventLoop", "loop_beside"]

Copy = tuple[int, int, int]  # target, source, bytes


def ask(result: tuple[Any, ...]) -> Any:
    if int(result[0]) != 0:
        raise RuntimeError(f"CUDA says {result[0]!r}")
    return result[1] if len(result) > 1 else None


class EventLoop:
    """Two queries at a time on three streams; each has events around copies in, computation, copies out.

    *streams* are for these three, its own where none are given. *execute* takes the handle of a stream and enqueues
    the engine there. Without *transfers* nothing is copied; with *graph* the computation is captured once; with *spin*
    the host does not sleep while it waits.
    """

    def __init__(
        self, execute: Any, copies_in: Sequence[Copy], copies_out: Sequence[Copy], *, graph: bool, transfers: bool,
        spin: bool, streams: Sequence[Any] = (),
    ) -> None:  # fmt: skip
        from cuda.bindings import runtime

        self._cuda = runtime
        flags = runtime.cudaStreamNonBlocking
        self._own = [] if streams else [ask(runtime.cudaStreamCreateWithFlags(flags)) for _ in range(3)]
        self._input, self._compute, self._output = streams or self._own
        self._blocking = 0 if spin else runtime.cudaEventBlockingSync
        self._events: list[list[Any]] = []
        self._answers: list[tuple[Any, ...]] = []
        self._in, self._out, self._transfers = copies_in, copies_out, transfers
        self._enqueue = functools.partial(execute, native(self._compute))
        self._graph = self._captured() if graph else None
        self._work = self._enqueue if self._graph is None else self._launch

    def time(self, count: int) -> NDArray[np.float64]:
        """*count* queries behind one that is not counted; ms of GPU compute, copies in and out, shape (count, 3)."""
        while len(self._events) < count + 1:
            self._events.append([ask(self._cuda.cudaEventCreateWithFlags(self._blocking)) for _ in range(6)])
        wait, last = self._cuda.cudaEventSynchronize, 5 if self._transfers else 3
        # Where the host is slower than the device, each line in this loop is in the times: answers are read later.
        for number in range(count + 1):
            self._send(*self._events[number])
            if number:
                self._answers.append(wait(self._events[number - 1][last]))
        self._answers.append(wait(self._events[count][last]))
        while self._answers:
            ask(self._answers.pop())
        return np.array([self._read(*events) for events in self._events[1 : count + 1]], dtype=np.float64)

    def close(self) -> None:
        for stream in (self._input, self._compute, self._output):
            ask(self._cuda.cudaStreamSynchronize(stream))
        for stream in self._own:
            ask(self._cuda.cudaStreamDestroy(stream))
        for events in self._events:
            for event in events:
                ask(self._cuda.cudaEventDestroy(event))
        if self._graph is not None:
            ask(self._cuda.cudaGraphExecDestroy(self._graph))

    def _launch(self) -> None:
        ask(self._cuda.cudaGraphLaunch(self._graph, self._compute))

    def _captured(self) -> Any:
        cuda = self._cuda
        self._enqueue()
        ask(cuda.cudaStreamSynchronize(self._compute))
        ask(cuda.cudaStreamBeginCapture(self._compute, cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal))
        self._enqueue()
        graph = ask(cuda.cudaStreamEndCapture(self._compute))
        found = ask(cuda.cudaGraphInstantiate(graph, 0))
        ask(cuda.cudaGraphDestroy(graph))
        return found

    def _send(self, h2d: Any, h2d_end: Any, start: Any, end: Any, d2h: Any, d2h_end: Any) -> None:
        cuda, note, record = self._cuda, self._answers.append, self._cuda.cudaEventRecord
        if self._transfers:
            note(record(h2d, self._input))
            self._copy(self._in, cuda.cudaMemcpyKind.cudaMemcpyHostToDevice, self._input)
            note(record(h2d_end, self._input))
            note(cuda.cudaStreamWaitEvent(self._compute, h2d_end, 0))
        note(record(start, self._compute))
        self._work()
        note(record(end, self._compute))
        if self._transfers:
            note(cuda.cudaStreamWaitEvent(self._output, end, 0))
            note(record(d2h, self._output))
            self._copy(self._out, cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost, self._output)
            note(record(d2h_end, self._output))

    def _copy(self, copies: Sequence[Copy], kind: Any, stream: Any) -> None:
        for target, source, nbytes in copies:
            self._answers.append(self._cuda.cudaMemcpyAsync(target, source, nbytes, kind, stream))

    def _read(self, h2d: Any, h2d_end: Any, start: Any, end: Any, d2h: Any, d2h_end: Any) -> tuple[float, float, float]:
        elapsed = self._cuda.cudaEventElapsedTime
        gpu = ask(elapsed(start, end))
        if not self._transfers:
            return gpu, 0.0, 0.0
        return gpu, ask(elapsed(h2d, h2d_end)), ask(elapsed(d2h, d2h_end))


def loop_beside(session: Any, how: Any, *streams: Any) -> EventLoop:
    """A loop on the engine and the memory of *session*, which has staged its inputs, measuring as *how* says."""
    own = [binding for binding in session._bindings if not binding.on_host]
    return EventLoop(
        session._context.execute_async_v3,
        [(b.device.pointer, b.host.pointer, b.nbytes) for b in own if b.is_input],
        [(b.host.pointer, b.device.pointer, b.nbytes) for b in own if not b.is_input],
        graph=how.graph,
        transfers=how.transfers,
        spin=how.spin,
        streams=streams,
    )
