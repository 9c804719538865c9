"""A session on a loaded plan: what is staged, what repeats it, and who else uses the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.backends.clocks import LaunchQueue, SyncClock, pick_clock
from pytest_trt.backends.cuda import Stream
from pytest_trt.backends.isolated_clock import IsolatedClock
from pytest_trt.backends.modes import MODES, check_mode
from pytest_trt.backends.queued_clock import QueuedClock
from pytest_trt.backends.tensorrt.execution import Execution
from pytest_trt.backends.tensorrt.loading import LoadedEngine
from pytest_trt.backends.tensorrt.versions.trtexec import queue_defaults
from pytest_trt.backends.throughput_clock import ThroughputClock
from pytest_trt.backends.transfers import median_ms
from pytest_trt.errors import InputsError, RunError, nearest

if TYPE_CHECKING:
    from types import TracebackType

    from pytest_trt.backends import Array, BuildRequest, Feeds, Outputs, Plan
    from pytest_trt.backends.clocks import GraphClock

__all__ = ["TensorRTSession"]


class TensorRTSession(Execution):
    """Runs one engine. Not thread-safe; siblings may run in other threads. Memory is freed by ``close``.

    *trt* is the module to run with: TensorRT's, or that of its lean runtime for a version-compatible plan. *plan* may
    be an engine that another session has loaded.
    """

    def __init__(self, trt: Any, plan: Plan | LoadedEngine, request: BuildRequest) -> None:
        self._closed = False
        self._clock: GraphClock | SyncClock | None = None
        self._other_clocks: dict[tuple[str, bool], IsolatedClock | QueuedClock | ThroughputClock] = {}
        self._staged: dict[str, Array] | None = None
        self._ready = False  # whether the staged inputs are what the device holds
        super().__init__(trt, plan if isinstance(plan, LoadedEngine) else LoadedEngine(trt, plan, request), request)

    def run(self, feeds: Feeds, *, copy: bool = True) -> Outputs:
        """Copy *feeds* in, compute, return the outputs. Staged inputs stay staged.

        An array from ``pinned`` is not copied on the host. Without *copy* the outputs that need no conversion are views
        of buffers that the next run writes to. Raises InputsError (names, types) or RunError (shapes outside the
        profile, values that do not fit the engine's type, a failed kernel).
        """
        self._bring(feeds)
        self._enqueue()
        outputs = self._collect(copy=copy)
        self._restore()
        return outputs

    def pinned(self, name: str, shape: tuple[int, ...]) -> Array:
        """The buffer that input *name* is uploaded from, as an array of *shape* and of the model's type.

        Write to it and pass it to ``run``. It is that buffer until a larger shape is used. Other arrays that are fed or
        staged go through it, staged ones again after each run. Raises InputsError, RunError for a shape outside the
        profile, and UnsupportedError where the engine wants another type or format.
        """
        self._check_open()
        found = {binding.name: binding for binding in self._inputs}
        if name not in found:
            raise InputsError(f"the engine has no input {name!r}", hint=nearest(name, found))
        return found[name].pinned(tuple(shape), self._profile)

    def stage(self, feeds: Feeds) -> None:
        """Copy *feeds* to the device, where every ``launch`` reads them. Raises as ``run`` does."""
        self._staged = None
        self._bring(feeds)
        self._staged = {name: np.array(array) for name, array in feeds.items()}
        self._ready = True

    def launch(self) -> None:
        """Enqueue one computation on the staged inputs. Raises RunError."""
        # The hot path: what is added to TensorRT's own call is one check and no further call of ours.
        if not self._ready:
            raise RunError("nothing is staged", hint="call stage(feeds) before launch()")
        if not self._execute(self._handle):
            raise self._failure()

    def synchronize(self) -> None:
        """Wait for all that was launched. Raises RunError when one of it failed."""
        self._check_open()
        self._stream.synchronize()

    def clock(
        self, mode: str = "graph", *, l2_flush: bool = False, streams: int = 1
    ) -> GraphClock | SyncClock | IsolatedClock | QueuedClock | ThroughputClock:
        """The clock for ``launch``, as ``Session.clock`` says. Where no CUDA graph can be captured, launches are plain
        ones and ``note`` says why. A clock of ``throughput`` is good until something else is staged."""
        check_mode("tensorrt", mode, MODES, l2_flush=l2_flush, flushes=True)
        base = self._best_clock()
        if mode == "graph":
            return base
        key = (mode, l2_flush)
        if mode == "throughput" and key in self._other_clocks:
            self._other_clocks.pop(key).close()  # its siblings hold what was staged then
        if key not in self._other_clocks:
            self._other_clocks[key] = self._make_clock(base, mode, l2_flush, streams)
        return self._other_clocks[key]

    def queue(self, depth: int) -> LaunchQueue:
        """Launches of what is staged, as the clock launches it, at most *depth* under way. Close it before this.

        Staging or running something of another shape makes it useless.
        """
        return LaunchQueue(self._stream, self._best_clock().launcher(self.launch), depth)

    def transfers_ms(self, feeds: Feeds) -> dict[str, float]:
        """Median time of copying all inputs in (``h2d_ms``) and all outputs out (``d2h_ms``), pinned memory."""
        self._bring(feeds)
        self._enqueue()
        self._stream.synchronize()
        times = {
            "h2d_ms": median_ms(self._stream, self._upload),
            "d2h_ms": median_ms(self._stream, self._download),
        }
        self._restore()
        return times

    def sibling(self) -> TensorRTSession:
        """Another session on the same engine, with a context, a stream and buffers of its own.

        The engine lives as long as any of them. Raises UnsupportedError where TensorRT lets one context use a profile.
        """
        self._check_open()
        return TensorRTSession(self._trt, self._loaded, self._request)

    def close(self) -> None:
        """Free everything; the engine only when no sibling uses it. May be called twice."""
        if not self._closed:
            self._closed, self._ready = True, False
            while self._other_clocks:
                self._other_clocks.popitem()[1].close()
            if self._clock is not None:
                self._clock.close()
            self._resources.close()

    def __enter__(self) -> TensorRTSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _best_clock(self) -> GraphClock | SyncClock:
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

    def _make_clock(
        self, base: GraphClock | SyncClock, mode: str, l2_flush: bool, streams: int
    ) -> IsolatedClock | QueuedClock | ThroughputClock:
        if mode == "throughput":
            if self._staged is None:
                raise RunError("nothing is staged", hint="call stage(feeds) before clock()")
            return ThroughputClock(self, self._staged, streams)
        if mode == "queued":
            return QueuedClock(self._stream, base, queue_defaults(self._trt), self._upload_in, self._download_in)
        return IsolatedClock(self._stream, base, self.launch, l2_flush=l2_flush)

    def _upload_in(self, stream: Stream) -> None:
        for binding in self._inputs:
            binding.upload(stream)

    def _download_in(self, stream: Stream) -> None:
        for binding in self._outputs:
            binding.download(stream)

    def _check_open(self) -> None:
        if self._closed:
            raise RunError("the session is closed")

    def _bring(self, feeds: Feeds) -> None:
        """Put *feeds* on the device, in place of what is staged there."""
        self._check_open()
        arrays = self._encode(feeds)
        self._ready = False
        moved = True  # where an error ends it, too: buffers that a graph holds may be gone by then
        try:
            moved = self._put(arrays)
        finally:
            if moved and self._clock is not None:
                self._clock.invalidate()

    def _restore(self) -> None:
        """Bring staged inputs back after others were run."""
        if self._staged is not None:
            self._bring(self._staged)
            self._ready = True
