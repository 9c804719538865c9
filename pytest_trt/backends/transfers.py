"""How long a copy between host and device takes."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from pytest_trt.backends.cuda import Event, Stream

__all__ = ["median_ms"]

_ROUNDS = 20


def median_ms(stream: Stream, copy: Callable[[], None]) -> float:
    """The median time in ms of *copy*, which enqueues into *stream*, over 20 rounds, each waited for."""
    start, end = Event(), Event()
    try:
        times = []
        for _ in range(_ROUNDS):
            stream.record(start)
            copy()
            stream.record(end)
            stream.synchronize()
            times.append(end.since(start))
    finally:
        start.close()
        end.close()
    return statistics.median(times)
