"""A session on a GPU provider: inputs and outputs on the device, bound by address."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.backends.buffers import PinnedBuffer
from pytest_trt.backends.clocks import SyncClock
from pytest_trt.backends.cuda import Stream, check, runtime
from pytest_trt.backends.feeds import check_feeds
from pytest_trt.backends.isolated_clock import IsolatedClock
from pytest_trt.backends.modes import check_mode
from pytest_trt.backends.onnxruntime.gpu_buffers import BorrowedBuffer, InputBuffer
from pytest_trt.backends.onnxruntime.host_clock import HostClock
from pytest_trt.backends.onnxruntime.opening import failures, message
from pytest_trt.backends.transfers import median_ms
from pytest_trt.errors import RunError, UnsupportedError
from pytest_trt.spec.dtypes import numpy_dtype

if TYPE_CHECKING:
    import onnxruntime

    from pytest_trt.backends import Array, BuildRequest, Feeds, Outputs

__all__ = ["GpuSession"]


class _SynchronousClock(HostClock):
    """The host's clock around a run that ONNX Runtime synchronizes itself, and the readings of the device."""

    def __init__(self, stream: Stream, note: str) -> None:
        self.note = note
        self._device = SyncClock(stream)

    def conditions(self) -> dict[str, Any]:
        return self._device.conditions()

    def close(self) -> None:
        self._device.close()


class GpuSession:
    """Runs a model through an IOBinding. Not thread-safe. Memory is kept between calls and freed by ``close``.

    *asynchronous*: the provider was given *stream* to compute on; else *stream* only copies. *verify* is called after
    the first run on new inputs, and raises RunError when the engine is no longer the one that was loaded.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        request: BuildRequest,
        stream: Stream,
        *,
        asynchronous: bool,
        verify: Callable[[], None] = lambda: None,
    ) -> None:
        import onnxruntime as ort

        self._session: onnxruntime.InferenceSession | None = session
        self._stream, self._asynchronous, self._verify = stream, asynchronous, verify
        self._resources = ExitStack()
        self._device_id = int(check(runtime().cudaGetDevice(), "cudaGetDevice"))
        self._binding: Any = session.io_binding()
        self._run_options = ort.RunOptions()
        if self._asynchronous:
            # On our stream a run only enqueues: events around it are its time.
            self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._profile = request.profile
        self._inputs = {spec.name: InputBuffer(spec) for spec in request.model.inputs}
        self._outputs = {spec.name: numpy_dtype(spec.dtype) for spec in request.model.outputs}
        self._landing = {name: PinnedBuffer() for name in self._outputs}
        self._clock: SyncClock | _SynchronousClock | None = None
        self._isolated: dict[bool, IsolatedClock] = {}
        self._staged: dict[str, Array] | None = None
        self._ready = False

    def keep(self, resources: ExitStack) -> None:
        """Take over what must outlive the session; ``close`` frees it."""
        self._resources.push(resources)

    def run(self, feeds: Feeds) -> Outputs:
        """Copy *feeds* in, compute, return the outputs. Staged inputs stay staged. Raises InputsError or RunError."""
        self._put(feeds)
        self._first_run()
        self._download()
        self._stream.synchronize()
        outputs = {name: self._landing[name].view(dtype, shape).copy() for name, dtype, shape, _ in self._results()}
        self._restore()
        return outputs

    def stage(self, feeds: Feeds) -> None:
        """Copy *feeds* to the device and compute once, so that every ``launch`` finds its memory. Raises as ``run``."""
        self._staged = None
        self._put(feeds)
        self._first_run()
        self._staged = {name: array.copy() for name, array in feeds.items()}
        self._ready = True

    def launch(self) -> None:
        """Compute once on the staged inputs; on our own stream, this only enqueues. Raises RunError."""
        if not self._ready:
            raise RunError("nothing is staged", hint="call stage(feeds) before launch()")
        self._compute()

    def clock(
        self,
        mode: str = "graph",
        *,
        l2_flush: bool = False,
        streams: int = 1,  # noqa: ARG002 - throughput is refused
    ) -> SyncClock | IsolatedClock | _SynchronousClock:
        """CUDA events where the provider computes on our stream, else the host's clock; ``note`` says which and why."""
        check_mode(
            "this ONNX Runtime session", mode, ("graph", "isolated"), l2_flush=l2_flush, flushes=self._asynchronous
        )
        if self._clock is None:
            if self._asynchronous:
                self._clock = SyncClock(self._stream, note="no CUDA graph: ONNX Runtime's own launches are timed")
            else:
                note = "no CUDA events: this onnxruntime's provider computes on a stream of its own"
                self._clock = _SynchronousClock(self._stream, note)
        if mode == "graph" or isinstance(self._clock, _SynchronousClock):
            return self._clock  # a synchronous run is isolated anyway
        if l2_flush not in self._isolated:
            self._isolated[l2_flush] = IsolatedClock(self._stream, self._clock, self.launch, l2_flush=l2_flush)
        return self._isolated[l2_flush]

    def transfers_ms(self, feeds: Feeds) -> dict[str, float]:
        """Median time of copying all inputs in (``h2d_ms``) and all outputs out (``d2h_ms``), pinned memory."""
        self._put(feeds)
        self._first_run()
        times = {"h2d_ms": median_ms(self._stream, self._upload), "d2h_ms": median_ms(self._stream, self._download)}
        self._restore()
        return times

    def sibling(self) -> GpuSession:
        raise UnsupportedError("an ONNX Runtime session computes on one stream; several need several engines")

    def close(self) -> None:
        """Free everything. May be called twice."""
        if self._session is None:
            return
        self._ready = False
        while self._isolated:
            self._isolated.popitem()[1].close()
        if self._clock is not None:
            self._clock.close()
        self._stream.drain()
        self._binding = self._session = None
        for place in self._inputs.values():
            place.close()
        for landing in self._landing.values():
            landing.close()
        self._resources.close()

    def _put(self, feeds: Feeds) -> None:
        """Bring *feeds* to the device and bind them; outputs are allocated anew by the next run."""
        if self._session is None:
            raise RunError("the session is closed")
        check_feeds(self._inputs, self._profile, feeds)
        self._ready = False
        self._stream.synchronize()  # launches still under way read the buffers that follow
        for name, place in self._inputs.items():
            place.fill(feeds[name])
            self._binding.bind_input(
                name, "cuda", self._device_id, place.element_type, place.shape, place.device.pointer
            )
        for name in self._outputs:  # binding again forgets the memory of the last run, which had other shapes
            self._binding.bind_output(name, "cuda", self._device_id)
        self._upload()
        self._stream.synchronize()

    def _first_run(self) -> None:
        self._compute()
        self._stream.synchronize()
        self._verify()

    def _compute(self) -> None:
        if self._session is None:
            raise RunError("the session is closed")
        try:
            self._session.run_with_iobinding(self._binding, self._run_options)
        except failures() as error:
            raise RunError(f"onnxruntime failed while running: {message(error)}") from error

    def _upload(self) -> None:
        for place in self._inputs.values():
            self._stream.upload(place.device, place.host, place.nbytes)

    def _download(self) -> None:
        for name, dtype, shape, pointer in self._results():
            nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            self._landing[name].reserve(nbytes)
            self._stream.download(self._landing[name], BorrowedBuffer(pointer, nbytes), nbytes)

    def _results(self) -> list[tuple[str, np.dtype[Any], tuple[int, ...], int]]:
        """Name, type, shape and address of each output of the last run."""
        return [
            (name, dtype, tuple(int(size) for size in value.shape()), int(value.data_ptr()))
            for (name, dtype), value in zip(self._outputs.items(), self._binding.get_outputs(), strict=True)
        ]

    def _restore(self) -> None:
        """Bring staged inputs back after others were run."""
        if self._staged is not None:
            self._put(self._staged)
            self._first_run()
            self._ready = True
