"""TensorRT's log, kept: what it warned of goes into the facts of a build, what it complained of into the error."""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pytest_trt.backends.build_child import log_line
from pytest_trt.backends.tensorrt.versions import progress_monitor

__all__ = ["Messages", "monitor", "process_logger", "throttled"]

_ERRORS = ("INTERNAL_ERROR", "ERROR")


class Messages:
    """What was said in a capture: the first half and the last half of *limit* messages, and how many warned.

    A build of a large model says tens of thousands of things; why it failed is among the last, what it was told
    among the first.
    """

    def __init__(self, limit: int = 2000) -> None:
        self.warnings = 0
        self.first_warnings: list[str] = []  # different ones, three at most
        self._first: list[str] = []
        self._last: deque[str] = deque(maxlen=limit // 2)
        self._room = limit - limit // 2
        self._dropped = 0

    def add(self, severity: str, text: str) -> None:
        line = f"{severity}: {' '.join(text.split())}"
        if severity == "WARNING":
            self.warnings += 1
            shown = text.strip()[:200]
            if len(self.first_warnings) < 3 and shown not in self.first_warnings:
                self.first_warnings.append(shown)
        if len(self._first) < self._room:
            self._first.append(line)
            return
        self._dropped += len(self._last) == self._last.maxlen
        self._last.append(line)

    def text(self) -> str:
        """One message a line, as ``SEVERITY: text``; a line in between says how many are left out."""
        gap = [f"… {self._dropped} messages left out …"] if self._dropped else []
        return "\n".join([*self._first, *gap, *self._last])


@functools.lru_cache(maxsize=4)
def process_logger(trt: Any) -> Any:
    """The one logger of this process. TensorRT keeps the first one it is given for as long as it is loaded,
    so a logger per build would leave it with a dead pointer.

    It has ``capture()``, a context manager that gives the Messages that arrive inside it, and
    ``complaints()``, the last errors as text.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]  # a base of an untyped library
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._last_errors: deque[str] = deque(maxlen=8)
            self._listeners: list[tuple[Messages, Callable[[str], None] | None]] = []

        def log(self, severity: Any, msg: str) -> None:
            # Called from TensorRT's threads, thousands of times in a build: almost all of it is VERBOSE.
            name = severity.name
            if name == "VERBOSE":
                return
            if name in _ERRORS:
                self._last_errors.append(msg)
            log_line(f"[{name}] {msg}")  # a build in a process of its own may not live to tell
            for messages, on_info in tuple(self._listeners):
                messages.add(name, msg)
                if on_info is not None and name == "INFO":
                    on_info(msg)

        @contextmanager
        def capture(self, on_info: Callable[[str], None] | None = None) -> Iterator[Messages]:
            messages = Messages()
            listener = (messages, on_info)
            self._last_errors.clear()
            self._listeners.append(listener)
            try:
                yield messages
            finally:
                self._listeners.remove(listener)

        def complaints(self) -> str:
            """What TensorRT said when it failed; empties the memory of it."""
            lines = list(dict.fromkeys(text.strip() for text in self._last_errors))
            self._last_errors.clear()
            return "\n  ".join(lines)

    return Logger()


def throttled(progress: Callable[[str], None], *, every_s: float = 1.0) -> Callable[[str], None]:
    """Pass a line to *progress* at most once in *every_s* seconds, cut to its first 120 characters."""
    last = -every_s

    def say(text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= every_s:
            last = now
            progress(text.strip().splitlines()[0][:120] if text.strip() else "")

    return say


def monitor(trt: Any, say: Callable[[str], None]) -> Any | None:
    """A progress monitor that reports phases and steps through *say*; None where TensorRT has none.

    Ctrl-C ends the build at the next step: ``interrupted`` is then True.
    """
    base: Any = progress_monitor(trt)
    if base is None:
        return None

    class Monitor(base):  # type: ignore[misc]  # a base of an untyped library
        def __init__(self) -> None:
            base.__init__(self)
            self.interrupted = False
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, _parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                say(f"{phase_name}: {step + 1}/{self._steps.get(phase_name, step + 1)}")
            except KeyboardInterrupt:  # an exception cannot cross TensorRT's frames; the builder raises it again
                self.interrupted = True
            return not self.interrupted

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Monitor()
