"""A ``cuda.bindings.runtime`` in host memory: what is enqueued happens at once, time is a counter."""

from __future__ import annotations

import ctypes
import enum
from types import ModuleType, SimpleNamespace

LAUNCH_MS = 0.25  # what one execution takes
COPY_MS = 0.01
MEMORY_BYTES = 80 * 2**30


class cudaError_t(enum.IntEnum):  # the binding's own spelling
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorInvalidValue = 1
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorIllegalAddress = 700
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901


OK = cudaError_t.cudaSuccess


class Handle:
    """A stream, event or graph. Like cuda-python's objects it is no integer."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.time: float | None = None


class FakeCuda(ModuleType):
    """The module. ``fail`` maps a function's name to the error that it answers; ``live`` is what is not freed."""

    cudaError_t = cudaError_t
    cudaStreamNonBlocking = 1
    cudaHostAllocDefault = 0
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeGlobal=0, cudaStreamCaptureModeThreadLocal=1)

    def __init__(self) -> None:
        super().__init__("cuda.bindings.runtime")
        self.devices = 1
        self.fail: dict[str, cudaError_t] = {}
        self.live: dict[tuple[str, int], object] = {}
        self.clock_ms = 0.0
        self.capturing: list | None = None
        self.capture_broken = False
        self.graph_launches = 0
        self._next = 1

    def native(self, handle: Handle) -> int:
        return handle.number

    def enqueue(self, work) -> None:
        """Do *work* now, or keep it in the graph that is being captured."""
        if self.capturing is None:
            work()
        else:
            self.capturing.append(work)

    def _answer(self, name: str, *values):
        error = self.fail.get(name, OK)
        if self.devices == 0 and error == OK:
            error = cudaError_t.cudaErrorNoDevice
        return (OK, *values) if error == OK else (error, *(None for _ in values))

    def _own(self, kind: str, thing: object, number: int | None = None) -> int:
        number = number if number is not None else self._next
        self._next += 1
        self.live[kind, number] = thing
        return number

    def _disown(self, kind: str, number: int):
        if (kind, number) not in self.live:
            raise AssertionError(f"{kind} {number} is freed twice, or was never made")
        del self.live[kind, number]
        return (OK,)

    def cudaGetDeviceCount(self):
        return self._answer("cudaGetDeviceCount", self.devices)

    def cudaGetDevice(self):
        return self._answer("cudaGetDevice", 0)

    def cudaGetDeviceProperties(self, device):
        properties = SimpleNamespace(name=b"Fake GPU", major=9, minor=0, totalGlobalMem=80 * 2**30)
        return self._answer("cudaGetDeviceProperties", properties)

    def cudaDeviceGetPCIBusId(self, length, device):
        return self._answer("cudaDeviceGetPCIBusId", b"0000:01:00.0".ljust(length - 4, b"\0").ljust(length))

    def cudaRuntimeGetVersion(self):
        return self._answer("cudaRuntimeGetVersion", 12090)

    def cudaDriverGetVersion(self):
        return self._answer("cudaDriverGetVersion", 13000)

    def cudaGetLastError(self):
        return (OK,)

    def cudaStreamCreateWithFlags(self, flags):
        stream = Handle(self._next)
        self._own("stream", stream)
        return self._answer("cudaStreamCreateWithFlags", stream)

    def cudaStreamDestroy(self, stream):
        return self._disown("stream", stream.number)

    def cudaStreamSynchronize(self, stream):
        assert ("stream", stream.number) in self.live
        return self._answer("cudaStreamSynchronize")

    def cudaEventCreate(self):
        event = Handle(self._next)
        self._own("event", event)
        return self._answer("cudaEventCreate", event)

    def cudaEventDestroy(self, event):
        return self._disown("event", event.number)

    def cudaEventRecord(self, event, stream):
        event.time = self.clock_ms
        return self._answer("cudaEventRecord")

    def cudaEventElapsedTime(self, start, end):
        return self._answer("cudaEventElapsedTime", end.time - start.time)

    def cudaMalloc(self, size):
        return self._allocate("cudaMalloc", "device", size)

    def cudaHostAlloc(self, size, flags):
        return self._allocate("cudaHostAlloc", "host", size)

    def cudaFree(self, pointer):
        return self._disown("device", pointer)

    def cudaFreeHost(self, pointer):
        return self._disown("host", pointer)

    def _allocate(self, function: str, kind: str, size: int):
        assert size > 0
        if self.capturing is not None:
            self.capture_broken = True
            return (cudaError_t.cudaErrorStreamCaptureUnsupported, None)
        answer = self._answer(function, 0) if size <= MEMORY_BYTES else (cudaError_t.cudaErrorMemoryAllocation, None)
        if answer[0] != OK:
            return answer
        memory = (ctypes.c_ubyte * size)()
        return (OK, self._own(kind, memory, ctypes.addressof(memory)))

    def holds(self, pointer: int, nbytes: int, kind: str) -> bool:
        """Whether *nbytes* from *pointer* lie in one live allocation."""
        memory = self.live.get((kind, pointer))
        return memory is not None and nbytes <= len(memory)

    def cudaMemcpyAsync(self, target, source, count, kind, stream):
        device, host = (target, source) if kind == 1 else (source, target)
        if not (self.holds(device, count, "device") and self.holds(host, count, "host")):
            return (cudaError_t.cudaErrorInvalidValue,)

        def copy() -> None:
            ctypes.memmove(target, source, count)
            self.clock_ms += COPY_MS

        self.enqueue(copy)
        return self._answer("cudaMemcpyAsync")

    def cudaStreamBeginCapture(self, stream, mode):
        assert mode == 1
        self.capturing, self.capture_broken = [], False
        return self._answer("cudaStreamBeginCapture")

    def cudaStreamEndCapture(self, stream):
        work, self.capturing = self.capturing, None
        if self.capture_broken:
            return (cudaError_t.cudaErrorStreamCaptureInvalidated, None)
        graph = Handle(self._next)
        graph.work = work
        self._own("graph", graph)
        return self._answer("cudaStreamEndCapture", graph)

    def cudaGraphInstantiate(self, graph, flags):
        executable = Handle(self._next)
        executable.work = graph.work
        self._own("graphexec", executable)
        return self._answer("cudaGraphInstantiate", executable)

    def cudaGraphDestroy(self, graph):
        return self._disown("graph", graph.number)

    def cudaGraphExecDestroy(self, executable):
        return self._disown("graphexec", executable.number)

    def cudaGraphLaunch(self, executable, stream):
        assert ("graphexec", executable.number) in self.live
        self.graph_launches += 1
        for work in executable.work:
            work()
        return self._answer("cudaGraphLaunch")


def modules(cuda: FakeCuda) -> dict[str, ModuleType]:
    """What ``sys.modules`` must hold for *cuda* to be found."""
    package, bindings, utils = ModuleType("cuda"), ModuleType("cuda.bindings"), ModuleType("cuda.bindings.utils")
    package.__path__ = []
    bindings.__path__ = []
    package.bindings, bindings.runtime, bindings.utils = bindings, cuda, utils
    utils.get_cuda_native_handle = cuda.native
    return {"cuda": package, "cuda.bindings": bindings, "cuda.bindings.runtime": cuda, "cuda.bindings.utils": utils}
