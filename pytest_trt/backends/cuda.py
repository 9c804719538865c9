"""CUDA through cuda-python: streams, events and graphs. Memory is in ``buffers``.

The runtime API is used, on the current device (``CUDA_VISIBLE_DEVICES`` chooses it), and the driver API for what it
lacks. Objects own what they allocate until ``close()``, which may be called twice. Works with cuda-python 12.6 and
later, 13 included.
"""

from __future__ import annotations

import functools
import gc
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pytest_trt.errors import RunError

if TYPE_CHECKING:
    from pytest_trt.backends.buffers import DeviceBuffer, PinnedBuffer

__all__ = [
    "Event",
    "Graph",
    "NotedStream",
    "Stream",
    "check",
    "driver",
    "native",
    "runtime",
    "threads_run",
]

_HINTS = {
    "cudaErrorMemoryAllocation": "the GPU has no memory left: use a smaller profile, or end other processes on it",
    "cudaErrorIllegalAddress": "the process cannot use CUDA any more; run the case alone to see whether it repeats",
}


def runtime() -> Any:
    """The runtime API's module. Importing it needs no driver."""
    from cuda.bindings import runtime as module

    return module


def driver() -> Any:
    """The driver API's module. Its calls share the context, streams and memory of the runtime API."""
    from cuda.bindings import driver as module

    return module


def check(result: tuple[Any, ...], what: str) -> Any:
    """Return the value (or values) of a cuda-python call; raise RunError that names *what* and the CUDA error."""
    error, *values = result
    if int(error) != 0:
        name = str(getattr(error, "name", error))
        raise RunError(f"{what} failed: {name}", hint=_HINTS.get(name))
    if len(values) > 1:
        return tuple(values)
    return values[0] if values else None


def native(handle: Any) -> int:
    """The integer behind *handle*; ``int(handle)`` is deprecated where cuda-python has a function for it."""
    try:
        from cuda.bindings.utils import get_cuda_native_handle
    except ImportError:
        return int(handle)
    return int(get_cuda_native_handle(handle))


def threads_run() -> bool:
    """Whether other threads run while one of them waits in a call: since the release that brought the ``utils``."""
    try:
        import cuda.bindings.utils  # noqa: F401 - whether it is there
    except ImportError:
        return False
    return True


class Event:
    """A point in a stream. The host spins while it waits for it, since sleeping adds to what it measures; a *blocking*
    one lets it sleep."""

    def __init__(self, *, blocking: bool = False) -> None:
        self._runtime = runtime()
        if blocking:
            flags = self._runtime.cudaEventBlockingSync
            self.raw: Any = check(self._runtime.cudaEventCreateWithFlags(flags), "cudaEventCreateWithFlags")
        else:
            self.raw = check(self._runtime.cudaEventCreate(), "cudaEventCreate")

    def wait(self) -> None:
        """Block until the stream has reached this event; at once when it was never recorded."""
        check(self._runtime.cudaEventSynchronize(self.raw), "cudaEventSynchronize")

    def since(self, start: Event) -> float:
        """Milliseconds from *start* to this event; both must have been reached."""
        return float(check(self._runtime.cudaEventElapsedTime(start.raw, self.raw), "cudaEventElapsedTime"))

    def close(self) -> None:
        if self.raw is not None:
            self._runtime.cudaEventDestroy(self.raw)
            self.raw = None


class Graph:
    """Work captured from a stream, ready to be launched again and again."""

    def __init__(self, raw: Any) -> None:
        self._runtime = runtime()
        try:
            self._exec: Any = check(self._runtime.cudaGraphInstantiate(raw, 0), "cudaGraphInstantiate")
        finally:
            self._runtime.cudaGraphDestroy(raw)

    def launch(self, stream: Stream) -> None:
        if self._exec is None:
            raise RunError("the CUDA graph is closed: what it computes has other shapes or addresses by now")
        check(self._runtime.cudaGraphLaunch(self._exec, stream.raw), "cudaGraphLaunch")

    def close(self) -> None:
        if self._exec is not None:
            self._runtime.cudaGraphExecDestroy(self._exec)
            self._exec = None


class Stream:
    """An ordered queue of work. ``handle`` is its integer, which TensorRT takes."""

    def __init__(self) -> None:
        self._runtime = runtime()
        # Non-blocking: TensorRT would add synchronizations to a stream that waits for the default one.
        flags = self._runtime.cudaStreamNonBlocking
        self.raw: Any = check(self._runtime.cudaStreamCreateWithFlags(flags), "cudaStreamCreate")
        self.handle = native(self.raw)

    def synchronize(self) -> None:
        check(self._runtime.cudaStreamSynchronize(self.raw), "cudaStreamSynchronize")

    def drain(self) -> None:
        """Wait for the work of this stream before its memory is freed, whatever became of it."""
        if self.raw is not None:
            self._runtime.cudaStreamSynchronize(self.raw)

    def record(self, event: Event) -> None:
        self._do("cudaEventRecord", event.raw, self.raw)

    def enclose(self, start: Event, end: Event, enqueue: Callable[[], None]) -> int:
        """Record *start*, let *enqueue* put its work here, record *end*; return the host's ns for *enqueue*.

        Where the device is faster than the host, what the host does between the two records is in the time that
        they show. So it does nothing else there, and errors of the records are raised afterwards.
        """
        record, start_raw, end_raw, stream = self._runtime.cudaEventRecord, start.raw, end.raw, self.raw
        began = record(start_raw, stream)
        started = time.perf_counter_ns()
        enqueue()
        spent = time.perf_counter_ns() - started
        ended = record(end_raw, stream)
        check(began, "cudaEventRecord")
        check(ended, "cudaEventRecord")
        return spent

    def wait_for(self, event: Event) -> None:
        """Let what is enqueued from here on begin when *event*, recorded in another stream, is reached."""
        self._do("cudaStreamWaitEvent", self.raw, event.raw, 0)

    def upload(self, target: DeviceBuffer, source: PinnedBuffer, nbytes: int) -> None:
        """Enqueue a copy of *nbytes* from the host to the device."""
        self._copy(target.pointer, source.pointer, nbytes, self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice)

    def download(self, target: PinnedBuffer, source: DeviceBuffer, nbytes: int) -> None:
        """Enqueue a copy of *nbytes* from the device to the host."""
        self._copy(target.pointer, source.pointer, nbytes, self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost)

    def fetch(self, target: PinnedBuffer, address: int, nbytes: int) -> None:
        """Enqueue a copy of *nbytes* to the host from memory of the device that somebody else owns."""
        self._copy(target.pointer, address, nbytes, self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost)

    def _copy(self, target: int, source: int, nbytes: int, kind: Any) -> None:
        if nbytes:
            self._do("cudaMemcpyAsync", target, source, nbytes, kind, self.raw)

    def _do(self, call: str, *arguments: Any) -> None:
        check(getattr(self._runtime, call)(*arguments), call)

    def capture(self, launch: Callable[[], None]) -> Graph:
        """Record what *launch* enqueues here into a graph, without running it.

        Raises RunError when something in it cannot be captured; the stream is usable again afterwards.
        """
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        collecting = gc.isenabled()
        gc.disable()  # freeing a forgotten engine calls cudaFree, which would break the capture
        try:
            check(self._runtime.cudaStreamBeginCapture(self.raw, mode), "cudaStreamBeginCapture")
            try:
                launch()
            except RunError:
                # The capture must end whatever happened, and its own error is only a consequence.
                self._runtime.cudaStreamEndCapture(self.raw)
                self._runtime.cudaGetLastError()
                raise
            ended = self._runtime.cudaStreamEndCapture(self.raw)
        finally:
            if collecting:
                gc.enable()
        if int(ended[0]) != 0:
            self._runtime.cudaGetLastError()  # reset, or TensorRT's next call would report it
        return Graph(check(ended, "cudaStreamEndCapture"))

    def close(self) -> None:
        if self.raw is not None:
            self._runtime.cudaStreamDestroy(self.raw)
            self.raw = None


class NotedStream(Stream):
    """Notes what is to be enqueued in *stream*: records, waits and copies become *calls*, which answer as CUDA does.

    They can be made again and again, with nothing of ours between them.
    """

    def __init__(self, stream: Stream, calls: list[functools.partial[tuple[Any, ...]]]) -> None:
        self._runtime, self.raw, self.handle = stream._runtime, stream.raw, stream.handle
        self._calls = calls

    def _do(self, call: str, *arguments: Any) -> None:
        self._calls.append(functools.partial(getattr(self._runtime, call), *arguments))
