"""Holding a stream back until everything is enqueued: then no time passes on the device between two commands.

nvbench does it with a kernel that spins on a flag. Here the stream itself waits for the flag, a word of pinned memory
(``cuStreamWaitValue32``): nothing has to be compiled, and no multiprocessor is busy with waiting.

It cannot last. A launch that waits for the device would wait for ever, so only CUDA graphs should be held, which
cannot do that; and a thread sets the flag when the host has not come back within the limit.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

from pytest_trt.backends.buffers import PinnedBuffer
from pytest_trt.backends.cuda import check, driver, threads_run
from pytest_trt.errors import RunError

if TYPE_CHECKING:
    from types import TracebackType

    from pytest_trt.backends.cuda import Stream

__all__ = ["Hold"]

_LIMIT_S = 2.0


class Hold:
    """``with hold:`` what is enqueued in *stream* inside begins when the block ends, also by an exception.

    ``expired`` says that the last block took longer than *limit_s* (at most twice that), and was not held to its end.
    Raises RunError where the driver or the device has no such waiting, and where no thread could end it. Free it with
    ``close``, which may be called twice.
    """

    def __init__(self, stream: Stream, *, limit_s: float = _LIMIT_S) -> None:
        if not threads_run():
            raise RunError("this cuda-python stops every thread while it waits", hint="12.9.1 and later do not")
        self._stream, self._limit_s = stream, limit_s
        self._flag = PinnedBuffer()
        self._flag.reserve(4)
        # The stream waits for a number that no earlier block has set.
        self._number = self._flag.view(np.dtype(np.uint32), (1,))
        self._number[0] = 0
        self._turn, self._held, self.expired = 0, False, False
        self._lock = threading.Lock()
        self._closing = threading.Event()
        try:
            with self:
                pass
            stream.synchronize()
        except RunError:
            self._flag.close()
            raise
        self._watch = threading.Thread(target=self._watch_over, name="pytest-trt-hold", daemon=True)
        self._watch.start()

    def __enter__(self) -> Hold:
        with self._lock:
            self._turn += 1
            self.expired = False
            wait = driver().CUstreamWaitValue_flags.CU_STREAM_WAIT_VALUE_GEQ
            arguments = (self._stream.handle, self._flag.pointer, self._turn, int(wait))
            check(driver().cuStreamWaitValue32(*arguments), "cuStreamWaitValue32")
            self._held = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._release()

    def close(self) -> None:
        if not self._closing.is_set():
            self._release()
            self._closing.set()
            self._watch.join()
            self._stream.drain()
            self._flag.close()
            self._number = np.zeros(1, np.uint32)  # the view would keep the pinned memory

    def _release(self) -> None:
        # Under the lock: the watch must not write the number of a block that is over.
        with self._lock:
            self._number[0] = self._turn
            self._held = False

    def _watch_over(self) -> None:
        seen = 0
        while not self._closing.wait(self._limit_s):
            with self._lock:
                if self._held and self._turn == seen:
                    self._number[0] = self._turn
                    self._held, self.expired = False, True
                seen = self._turn
