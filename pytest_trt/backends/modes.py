"""The ways to time a launch, by name, and what a session without one of them says.

``graph``: launches back to back, each a CUDA graph where it can be captured; the default everywhere.
``queued``: as trtexec times, one query queued ahead. ``isolated``: the device is idle before each launch.
``throughput``: batches of launches on several streams at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from pytest_trt.errors import UnsupportedError, UsageError, nearest

__all__ = ["MODES", "check_mode"]

MODES = ("graph", "queued", "isolated", "throughput")


def check_mode(backend: str, mode: str, has: Sequence[str], *, l2_flush: bool, flushes: bool = False) -> None:
    """Refuse what *backend* cannot time: *has* are its modes, *flushes* says whether it can flush the device's L2.

    Raises UsageError for an unknown mode and for ``l2_flush`` without ``isolated``, UnsupportedError for the rest.
    """
    if mode not in MODES:
        raise UsageError(f"unknown latency mode {mode!r}", hint=nearest(mode, MODES))
    if mode not in has:
        raise UnsupportedError(
            f"{backend} has no latency mode {mode!r}", hint=f"its modes: {', '.join(has)}; graph is the default"
        )
    if l2_flush and mode != "isolated":
        raise UsageError(
            f"the L2 cache cannot be flushed in mode {mode!r}: launches follow each other there",
            hint="add --trt-latency-mode=isolated, or leave --trt-l2-flush out",
        )
    if l2_flush and not flushes:
        raise UnsupportedError(f"{backend} has no L2 cache to flush", hint="leave --trt-l2-flush out")
