"""A device that works while the host goes on: streams are queues, every call costs the host time, times are simulated.

Unlike ``fake_cuda``, where what is enqueued happens at once, this one knows gaps between commands, several streams, and
a stream that is held by a word of memory. A wait that can never end is an error after a few real seconds.
"""

from __future__ import annotations

import ctypes
import enum
import time
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import fake_cuda

CALL_MS = 0.01  # what a call costs the host
KERNEL_MS = 1.0
COPY_IN_MS, COPY_OUT_MS = 0.1, 0.2
CLEAR_MS = 5.0
L2_BYTES = 1 << 20
_DEADLOCK_S = 10.0


class CUresult(enum.IntEnum):  # the binding's own spelling
    CUDA_SUCCESS = 0
    CUDA_ERROR_NOT_SUPPORTED = 801


@dataclass
class Point:
    """One record of an event; ``at_ms`` once the stream has reached it."""

    at_ms: float | None = None


@dataclass
class Command:
    enqueued_ms: float
    takes_ms: float = 0.0
    point: Point | None = None
    after: Point | None = None
    word: tuple[int, int] | None = None  # address, and the number that it must reach
    released_ms: float | None = None


@dataclass
class Queue:
    commands: list[Command] = field(default_factory=list)
    free_ms: float = 0.0


class QueueingCuda(fake_cuda.FakeCuda):
    """``calls`` are the names of calls; ``l2_bytes`` and ``schedule`` may be changed, ``held`` counts blocks."""

    cudaEventBlockingSync = 1
    cudaDeviceScheduleMask, cudaDeviceScheduleSpin, cudaDeviceScheduleYield, cudaDeviceScheduleBlockingSync = 7, 1, 2, 4
    cudaDeviceAttr = SimpleNamespace(cudaDevAttrL2CacheSize=38)

    def __init__(self) -> None:
        super().__init__()
        self.host_ms = 0.0
        self.kernel_ms = KERNEL_MS
        self.l2_bytes, self.schedule = L2_BYTES, 0
        self.calls: list[str] = []
        self.blocking_events = 0
        self.held = 0
        self.queues: dict[int, Queue] = {}

    def driver(self, *, refuses: bool = False) -> ModuleType:
        """``cuda.bindings.driver`` on this device; one that *refuses* cannot hold a stream."""
        module = ModuleType("cuda.bindings.driver")

        def wait_value(stream: int, address: int, number: int, flags: int) -> tuple:
            assert flags == 0
            if refuses:
                return (CUresult.CUDA_ERROR_NOT_SUPPORTED,)
            assert self.holds(address, 4, "host")
            self.held += 1
            self._push(stream, "cuStreamWaitValue32", word=(address, number))
            return (CUresult.CUDA_SUCCESS,)

        module.CUstreamWaitValue_flags = SimpleNamespace(CU_STREAM_WAIT_VALUE_GEQ=0)
        module.cuStreamWaitValue32 = wait_value
        return module

    def kernel(self, stream: Any) -> None:
        """Enqueue a kernel, as a session's ``launch`` does."""
        if self.capturing is not None:
            self.capturing.append(self.kernel_ms)
        else:
            self._push(stream.raw.number, "kernel", takes_ms=self.kernel_ms)

    def cudaGraphLaunch(self, executable: Any, stream: Any) -> tuple:
        assert ("graphexec", executable.number) in self.live
        self.graph_launches += 1
        self._push(stream.number, "cudaGraphLaunch", takes_ms=sum(executable.work))
        return self._answer("cudaGraphLaunch")

    def cudaGetDeviceFlags(self) -> tuple:
        return self._answer("cudaGetDeviceFlags", self.schedule | 8)

    def cudaDeviceGetAttribute(self, attribute: int, device: int) -> tuple:
        assert attribute == 38
        return self._answer("cudaDeviceGetAttribute", self.l2_bytes)

    def cudaEventCreateWithFlags(self, flags: int) -> tuple:
        assert flags == self.cudaEventBlockingSync
        self.blocking_events += 1
        return super().cudaEventCreate()

    def cudaEventRecord(self, event: Any, stream: Any) -> tuple:
        event.point = Point()
        self._push(stream.number, "cudaEventRecord", point=event.point)
        return self._answer("cudaEventRecord")

    def cudaStreamWaitEvent(self, stream: Any, event: Any, flags: int) -> tuple:
        self._push(stream.number, "cudaStreamWaitEvent", after=event.point)
        return self._answer("cudaStreamWaitEvent")

    def cudaMemcpyAsync(self, target: int, source: int, count: int, kind: int, stream: Any) -> tuple:
        self._push(stream.number, "cudaMemcpyAsync", takes_ms=COPY_IN_MS if kind == 1 else COPY_OUT_MS)
        return self._answer("cudaMemcpyAsync")

    def cudaMemsetAsync(self, pointer: int, value: int, count: int, stream: Any) -> tuple:
        assert (value, count) == (0, self.l2_bytes)
        assert self.holds(pointer, count, "device")
        self._push(stream.number, "cudaMemsetAsync", takes_ms=CLEAR_MS)
        return self._answer("cudaMemsetAsync")

    def cudaStreamSynchronize(self, stream: Any) -> tuple:
        assert ("stream", stream.number) in self.live
        self._tick("cudaStreamSynchronize")
        queue = self._queue(stream.number)
        self._run_until(lambda: not queue.commands)
        self.host_ms = max(self.host_ms, queue.free_ms)
        return self._answer("cudaStreamSynchronize")

    def cudaEventSynchronize(self, event: Any) -> tuple:
        self._tick("cudaEventSynchronize")
        self._run_until(lambda: event.point.at_ms is not None)
        self.host_ms = max(self.host_ms, event.point.at_ms)
        return self._answer("cudaEventSynchronize")

    def cudaEventElapsedTime(self, start: Any, end: Any) -> tuple:
        self._tick("cudaEventElapsedTime")
        return self._answer("cudaEventElapsedTime", end.point.at_ms - start.point.at_ms)

    def _queue(self, number: int) -> Queue:
        return self.queues.setdefault(number, Queue())

    def _push(self, number: int, name: str, **what: Any) -> None:
        self._tick(name)
        self._queue(number).commands.append(Command(self.host_ms, **what))

    def _tick(self, name: str) -> None:
        self.calls.append(name)
        # What the host wrote before this call, it wrote by now.
        self._notice_words()
        self.host_ms += CALL_MS

    def _notice_words(self) -> None:
        for queue in self.queues.values():
            for command in queue.commands:
                if command.word and command.released_ms is None:
                    address, number = command.word
                    if ctypes.c_uint32.from_address(address).value >= number:
                        command.released_ms = self.host_ms

    def _run_until(self, done: Any) -> None:
        deadline = time.monotonic() + _DEADLOCK_S
        while True:
            self._notice_words()
            while any(self._step(queue) for queue in self.queues.values()):
                pass
            if done():
                return
            assert time.monotonic() < deadline, "the device waits for what never comes"
            time.sleep(0.005)

    @staticmethod
    def _step(queue: Queue) -> bool:
        """Do the first command of *queue* if it can be done."""
        if not queue.commands:
            return False
        command = queue.commands[0]
        begin = max(queue.free_ms, command.enqueued_ms)
        if command.after is not None:
            if command.after.at_ms is None:
                return False
            begin = max(begin, command.after.at_ms)
        if command.word is not None:
            if command.released_ms is None:
                return False
            begin = max(begin, command.released_ms)
        queue.free_ms = begin + command.takes_ms
        if command.point is not None:
            command.point.at_ms = begin
        queue.commands.pop(0)
        return True


def modules(cuda: QueueingCuda, *, refuses: bool = False) -> dict[str, ModuleType]:
    """What ``sys.modules`` must hold for *cuda* and its driver to be found."""
    found = fake_cuda.modules(cuda)
    driver = cuda.driver(refuses=refuses)
    found["cuda.bindings"].driver = driver
    return {**found, "cuda.bindings.driver": driver}
