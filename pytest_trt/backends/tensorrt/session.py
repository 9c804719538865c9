"""A loaded plan: one engine, one execution context, one stream."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from pytest_trt.backends.clocks import SyncClock, pick_clock
from pytest_trt.backends.cuda import Event, Stream
from pytest_trt.backends.tensorrt.binding import Binding, output_allocator
from pytest_trt.backends.tensorrt.logger import process_logger
from pytest_trt.errors import InputsError, RunError, UnsupportedError, nearest

if TYPE_CHECKING:
    from types import TracebackType

    from pytest_trt.backends import BuildRequest, Feeds, Outputs
    from pytest_trt.backends.clocks import GraphClock

__all__ = ["TensorRTSession", "deserialize"]

_TRANSFER_ROUNDS = 20


def deserialize(trt: Any, plan: bytes) -> tuple[Any, Any]:
    """Return the runtime and the engine of *plan*; the engine must not outlive the runtime.

    The one place that makes a Runtime. ``engine_host_code_allowed`` stays False: a plan may not bring
    code for the host. Raises RunError when the plan is of another version or GPU, or broken.
    """
    logger = process_logger(trt)
    logger.complaints()
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        said = logger.complaints() or "no reason given"
        raise RunError(
            f"TensorRT {trt.__version__} cannot load the plan ({len(plan)} bytes): {said}",
            hint="plans run only under the TensorRT version and GPU that built them; build it again",
        )
    return runtime, engine


class TensorRTSession:
    """Runs one engine. Not thread-safe. Memory is kept between calls and freed by ``close``."""

    def __init__(self, trt: Any, plan: bytes, request: BuildRequest) -> None:
        self._trt = trt
        self._logger = process_logger(trt)
        self._profile = request.profile.name
        self._closed = False
        self._clock: GraphClock | SyncClock | None = None
        self._staged: dict[str, Any] | None = None
        self._ready = False  # whether the staged inputs are what the device holds
        self._layout: tuple[Any, ...] = ()
        with ExitStack() as stack:
            self._stream = Stream()
            stack.callback(self._stream.close)
            self._runtime, self._engine = deserialize(trt, plan)
            self._context = self._engine.create_execution_context()
            if self._context is None:
                raise self._error("no execution context could be made")
            # The plan carries DETAILED names for the inspector; annotating them would cost time in each launch.
            self._context.nvtx_verbosity = trt.ProfilingVerbosity.NONE
            specs = {spec.name: spec for spec in (*request.model.inputs, *request.model.outputs)}
            self._bindings: list[Binding] = []
            for index in range(self._engine.num_io_tensors):
                name = self._engine.get_tensor_name(index)
                binding = Binding(trt, self._engine, name, specs.get(name))
                stack.callback(binding.close)
                self._bindings.append(binding)
            stack.callback(self._release)
            self._resources = stack.pop_all()
        self._inputs = [b for b in self._bindings if b.is_input]
        self._outputs = [b for b in self._bindings if not b.is_input]
        # Inputs that no node reads are not in the engine; feeding them is no mistake.
        self._unused = {spec.name for spec in request.model.inputs} - {b.name for b in self._inputs}

    def run(self, feeds: Feeds) -> Outputs:
        """Copy *feeds* in, compute, return the outputs. Staged inputs stay staged.

        Raises InputsError (names, types) or RunError (shapes outside the profile, values that do not fit the
        engine's type, a failed kernel).
        """
        self._put(feeds)
        self._enqueue()
        self._download()
        self._stream.synchronize()
        outputs = {binding.name: binding.decode() for binding in self._outputs}
        self._restore()
        return outputs

    def stage(self, feeds: Feeds) -> None:
        """Copy *feeds* to the device, where every ``launch`` reads them. Raises as ``run`` does."""
        self._staged = None
        self._put(feeds)
        self._staged = {name: array.copy() for name, array in feeds.items()}
        self._ready = True

    def launch(self) -> None:
        """Enqueue one computation on the staged inputs. Raises RunError."""
        if not self._ready:
            raise RunError("nothing is staged", hint="call stage(feeds) before launch()")
        self._enqueue()

    def clock(self) -> GraphClock | SyncClock:
        """The clock for ``launch``: CUDA-graph launches, or plain ones whose ``note`` says why there is no graph."""
        if self._clock is None:
            if not self._ready:
                raise RunError("nothing is staged", hint="call stage(feeds) before clock()")
            dependent = [b.name for b in self._outputs if b.allocator is not None]
            if dependent:  # TensorRT waits for the size in the middle of such an enqueue: no capture survives that
                note = f"no CUDA graph: the shape of output {dependent[0]!r} depends on the data"
                self._clock = SyncClock(self._stream, note=note)
            else:
                self._clock = pick_clock(self._stream, self.launch)
        return self._clock

    def transfers_ms(self, feeds: Feeds) -> dict[str, float]:
        """Median time of copying all inputs in (``h2d_ms``) and all outputs out (``d2h_ms``), pinned memory."""
        self._put(feeds)
        self._enqueue()
        self._stream.synchronize()
        times = {
            "h2d_ms": self._median_ms(self._upload),
            "d2h_ms": self._median_ms(self._download),
        }
        self._restore()
        return times

    def sibling(self) -> TensorRTSession:
        raise UnsupportedError("several contexts on one engine are not there yet")

    def close(self) -> None:
        """Free everything. May be called twice."""
        if not self._closed:
            self._closed, self._ready = True, False
            self._resources.close()

    def __enter__(self) -> TensorRTSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _put(self, feeds: Feeds) -> None:
        """Check *feeds* and bring them to the device; have memory for the outputs that they lead to."""
        if self._closed:
            raise RunError("the session is closed")
        self._check_names(feeds)
        arrays = {b.name: b.encode(feeds[b.name], self._profile) for b in self._inputs}
        self._ready = False
        self._stream.synchronize()  # launches still under way read the buffers that follow
        for binding in self._inputs:
            array = arrays[binding.name]
            if binding.shape != array.shape and not self._context.set_input_shape(binding.name, array.shape):
                raise self._error(f"input {binding.name!r}: the shape {array.shape} was refused")
            binding.reserve(array.shape)
            binding.fill(array)
            self._context.set_tensor_address(binding.name, binding.address)
        self._shape_outputs()
        layout = tuple((b.shape, b.address) for b in self._bindings)
        if layout != self._layout:
            self._layout = layout
            if self._clock is not None:
                self._clock.invalidate()
        self._upload()
        self._stream.synchronize()

    def _check_names(self, feeds: Feeds) -> None:
        known = {b.name for b in self._inputs}
        for name in feeds:
            if name not in known | self._unused:
                raise InputsError(f"the engine has no input {name!r}", hint=nearest(name, known))
        missing = sorted(known - set(feeds))
        if missing:
            raise InputsError(
                f"no array for input {missing[0]!r}", hint=f"the engine's inputs: {', '.join(sorted(known))}"
            )

    def _shape_outputs(self) -> None:
        try:
            unknown = self._context.infer_shapes()
        except RuntimeError as error:
            raise self._error(f"shapes cannot be inferred: {error}") from error
        if unknown:
            raise self._error(f"shapes cannot be inferred, for lack of {', '.join(unknown)}")
        for binding in self._outputs:
            if binding.allocator is not None:
                continue
            shape = tuple(int(size) for size in self._context.get_tensor_shape(binding.name))
            if any(size < 0 for size in shape):
                binding.allocator = output_allocator(self._trt)
                self._context.set_output_allocator(binding.name, binding.allocator)
            else:
                binding.reserve(shape)
                self._context.set_tensor_address(binding.name, binding.address)

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            for binding in self._outputs:
                if binding.allocator is not None and binding.allocator.error is not None:
                    raise binding.allocator.error
            raise self._error("execution failed")

    def _upload(self) -> None:
        for binding in self._inputs:
            binding.upload(self._stream)

    def _download(self) -> None:
        for binding in self._outputs:
            binding.download(self._stream)

    def _restore(self) -> None:
        """Bring staged inputs back after others were run."""
        if self._staged is not None:
            self._put(self._staged)
            self._ready = True

    def _median_ms(self, copy: Callable[[], None]) -> float:
        start, end = Event(), Event()
        try:
            times = []
            for _ in range(_TRANSFER_ROUNDS):
                self._stream.record(start)
                copy()
                self._stream.record(end)
                self._stream.synchronize()
                times.append(end.since(start))
        finally:
            start.close()
            end.close()
        return statistics.median(times)

    def _error(self, what: str) -> RunError:
        said = self._logger.complaints()
        return RunError(
            f"TensorRT {self._trt.__version__}, profile {self._profile!r}: {what}" + (f"\n  {said}" if said else "")
        )

    def _release(self) -> None:
        """Let go of TensorRT's objects, in the order in which they need each other."""
        if self._clock is not None:
            self._clock.close()
        # Not checked, like every call that frees: after a failed kernel it only repeats that error.
        self._stream.drain()
        self._context = None
        self._engine = None
        self._runtime = None
