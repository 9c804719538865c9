"""The mode ``isolated``: each launch finds an idle device, and on request an empty L2 cache. nvbench's cold method."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from pytest_trt.backends.buffers import DeviceBuffer
from pytest_trt.backends.clocks import EventClock, GraphClock, SyncClock
from pytest_trt.backends.cuda import check, runtime
from pytest_trt.backends.hold import Hold
from pytest_trt.errors import RunError, UnsupportedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_trt.backends.cuda import Event, Stream

__all__ = ["IsolatedClock"]

_ATTEMPTS = 3


class IsolatedClock(EventClock):
    """CUDA events around one launch, the stream synchronized before and after.

    Where launches are graphs, the stream is held until both events and the launch are enqueued, so that the host's
    launch time is not in the sample. A plain launch may wait for the device itself and is never held: launch gaps
    count. *base* is the clock that knows how *launch* is launched; it is not closed. Raises UnsupportedError where
    the size of the L2 cache is unknown and *l2_flush* asked for.
    """

    def __init__(
        self, stream: Stream, base: GraphClock | SyncClock, launch: Callable[[], None], *, l2_flush: bool = False
    ) -> None:
        super().__init__(stream, base.note)
        self._base = base
        self._flushed: DeviceBuffer | None = None
        self._hold: Hold | None = None
        try:
            if l2_flush:
                self._flushed = _l2_sized_buffer()
            if isinstance(base, GraphClock):
                self._try_to_hold(launch)
        except (RunError, UnsupportedError):
            self.close()
            raise
        traits = {"graph": isinstance(base, GraphClock), "held": self._hold is not None, "l2-flush": l2_flush}
        self.name = "+".join(["isolated", *(trait for trait, there in traits.items() if there)])

    def time(self, launch: Callable[[], None], count: int) -> NDArray[np.float64]:
        """Launch *count* times; return ms per launch, shape ``(count,)``. Raises RunError."""
        enqueue = self._base.launcher(launch)
        enqueue()  # not held: what the first launch loads may wait for the device
        ((start, end),) = self._events(1)
        return np.array([self._time_one(enqueue, start, end) for _ in range(count)], dtype=np.float64)

    def close(self) -> None:
        if self._hold is not None:
            self._hold.close()
            self._hold = None
        if self._flushed is not None:
            self._flushed.close()
        super().close()

    def _time_one(self, enqueue: Callable[[], None], start: Event, end: Event) -> float:
        stream = self._stream
        for _ in range(_ATTEMPTS):
            if self._flushed is not None:
                self._flushed.clear(stream)
            stream.synchronize()
            if self._hold is None:
                stream.enclose(start, end, enqueue)
            else:
                with self._hold:
                    stream.enclose(start, end, enqueue)
            stream.synchronize()
            if self._hold is None or not self._hold.expired:
                return end.since(start)
        raise RunError(
            f"{_ATTEMPTS} launches in a row were not enqueued while the stream was held",
            hint="the host is too busy, or the launch waits for the device: use --trt-latency-mode=graph",
        )

    def _try_to_hold(self, launch: Callable[[], None]) -> None:
        """Hold the stream for one launch, and keep to it when that works."""
        enqueue = self._base.launcher(launch)
        enqueue()
        self._stream.synchronize()
        try:
            hold = Hold(self._stream)
        except RunError as error:
            self.note = f"launch gaps count: {error.message}"
            return
        try:
            with hold:
                enqueue()
            self._stream.synchronize()
        except RunError:
            hold.close()
            raise
        if hold.expired:
            hold.close()
            self.note = "launch gaps count: the graph cannot be enqueued while its stream is held"
        else:
            self._hold = hold


def _l2_sized_buffer() -> DeviceBuffer:
    found = runtime()
    device = check(found.cudaGetDevice(), "cudaGetDevice")
    attribute = found.cudaDeviceAttr.cudaDevAttrL2CacheSize
    nbytes = int(check(found.cudaDeviceGetAttribute(attribute, device), "cudaDeviceGetAttribute"))
    if nbytes <= 0:
        raise UnsupportedError("this device does not tell the size of its L2 cache", hint="leave --trt-l2-flush out")
    buffer = DeviceBuffer()
    buffer.reserve(nbytes)
    return buffer
