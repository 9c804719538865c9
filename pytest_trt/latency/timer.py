"""From a session to samples: warm up until the device is, then sample until the median is known well enough."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pytest_trt.latency.stability import STRETCHES, half_width, settled

if TYPE_CHECKING:
    from pytest_trt.backends import Clock, Milliseconds

__all__ = ["INTERVAL", "MIN_SAMPLES", "Samples", "sample"]

MIN_SAMPLES = 10
INTERVAL = 0.002
_MAX_SAMPLES = 20_000
_MAX_BLOCK = 2000
_BLOCK_SECONDS = (0.01, 0.1)
# Below these the interval is no reason to end: few samples show too little noise, and a short time no drift.
_ENOUGH_SAMPLES = 200
_ENOUGH_BLOCKS = 5
# Warming up ends after so many times the time that it was given, although the device is still changing.
_PATIENCE = 5
# So often at most while a load is sampled: around every block of one that lasts up to 1.6 s, as the default's do.
_READINGS = 16


@dataclass(frozen=True)
class Samples:
    """Durations in ms in the order taken, the clock's name, and what was read around them.

    ``conditions`` holds one value where a reading stayed the same, and all of them, in order, where it did not.
    ``parts_ms``: what a clock tells apart (mode ``queued``: h2d, gpu, d2h, latency, enqueue), each like ``values_ms``.
    ``ended`` says what ended the sampling: the ``interval`` was narrow enough, the ``time`` was up, or the ``count``
    had reached its limit. ``half_width`` is half the 95 % confidence interval of the median, relative, as these samples
    show it. ``warm``: whether the durations had settled when the warm-up of ``warmup_seconds`` ended.
    """

    values_ms: Milliseconds
    clock: str
    warmup_count: int
    conditions: dict[str, Any] = field(default_factory=dict)
    parts_ms: dict[str, Milliseconds] = field(default_factory=dict)
    ended: Literal["interval", "time", "count"] = "time"
    half_width: float = float("inf")
    warm: bool = False
    warmup_seconds: float = 0.0

    def course(self) -> dict[str, Any]:
        """How warm-up and sampling went, JSON-able; ``half_width`` is None where it is not known."""
        return {
            "ended": self.ended,
            "half_width": float(f"{self.half_width:.3g}") if np.isfinite(self.half_width) else None,
            "warm": self.warm,
            "warmup_seconds": round(self.warmup_seconds, 3),
        }


def sample(
    launch: Callable[[], None],
    clock: Clock,
    *,
    warmup_seconds: float,
    duration_seconds: float,
    interval: float = INTERVAL,
    now: Callable[[], float] = time.perf_counter,
) -> Samples:
    """Warm up, then sample until the median is known to ± *interval* (a share; 0: never) or the time is up.

    The warm-up lasts *warmup_seconds*, and longer while durations still change, up to five times as long. Sampling
    lasts *duration_seconds* at most, except that MIN_SAMPLES are always taken. The interval counts from 200 samples
    in 5 blocks on. Both go in blocks of 10 to 100 ms, so that a clock which batches its events can do so; conditions
    are read before the first block and after each one, in a long run after some of them.
    """
    pace = _Pace(launch, clock, now)
    warmed, warmup, warm = _warm_up(pace, warmup_seconds)
    readings = [clock.conditions()]
    blocks: list[Milliseconds] = []
    parts: list[dict[str, Milliseconds]] = []
    started = read_at = now()
    ended: Literal["interval", "time", "count"] | None = None
    while ended is None:
        blocks.append(pace.take(duration_seconds / 10))
        parts.append(dict(getattr(clock, "parts", {})))
        values = np.concatenate(blocks)
        width = half_width(values)
        if values.size >= _ENOUGH_SAMPLES and len(blocks) >= _ENOUGH_BLOCKS and width < interval:
            ended = "interval"
        elif values.size >= _MAX_SAMPLES:
            ended = "count"
        elif values.size >= MIN_SAMPLES and now() - started >= duration_seconds:
            ended = "time"
        elif now() - read_at >= duration_seconds / _READINGS:
            readings.append(clock.conditions())
            read_at = now()
    readings.append(clock.conditions())
    return Samples(
        values_ms=values,
        clock=clock.name,
        warmup_count=warmed,
        conditions=_over_time(readings),
        parts_ms={name: np.concatenate([part[name] for part in parts]) for name in parts[0]},
        ended=ended,
        half_width=width,
        warm=warm,
        warmup_seconds=warmup,
    )


class _Pace:
    """Takes blocks of launches that last about as long as they should."""

    def __init__(self, launch: Callable[[], None], clock: Clock, now: Callable[[], float]) -> None:
        self._launch, self._clock, self.now = launch, clock, now
        self._each = 0.0

    def take(self, seconds: float) -> Milliseconds:
        """A block of about *seconds*, within limits; of one launch as long as it is unknown how long that takes."""
        wanted = float(np.clip(seconds, *_BLOCK_SECONDS)) / max(self._each, 1e-6)
        count = int(np.clip(round(wanted), 1, _MAX_BLOCK)) if self._each else 1
        started = self.now()
        block = self._clock.time(self._launch, count)
        # The first launch may compile or load, so only the latest block counts; and a clock may do more than launch.
        self._each = max((self.now() - started) / count, float(np.median(block)) / 1e3, 1e-9)
        return block


def _warm_up(pace: _Pace, seconds: float) -> tuple[int, float, bool]:
    """Launch until it is warm; return how often, how long, and whether it is."""
    started, count = pace.now(), 0
    last: list[Milliseconds] = []
    while True:
        last = [*last, pace.take(seconds / 4)][-STRETCHES:]
        count += last[-1].size
        elapsed = pace.now() - started
        warm = settled(last)
        if elapsed >= seconds * (1 if warm else _PATIENCE):
            return count, elapsed, warm


def _over_time(readings: list[dict[str, Any]]) -> dict[str, Any]:
    """One value where a reading did not change, all of them where it did; None where it was not given."""
    names = {name: None for reading in readings for name in reading}
    series = {name: [reading.get(name) for reading in readings] for name in names}
    return {k: values[0] if all(value == values[0] for value in values) else values for k, values in series.items()}
