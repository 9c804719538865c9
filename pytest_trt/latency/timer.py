"""From a session to samples: warm up by time, then sample by time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pytest_trt.backends import Clock, Milliseconds

__all__ = ["MIN_SAMPLES", "Samples", "sample"]

MIN_SAMPLES = 10
_MAX_SAMPLES = 20_000
_BLOCK_SECONDS = 0.1


@dataclass(frozen=True)
class Samples:
    """Durations in ms in the order taken, the clock's name, and readings of the device around them."""

    values_ms: Milliseconds
    clock: str
    warmup_count: int
    conditions: dict[str, Any] = field(default_factory=dict)


def sample(
    launch: Callable[[], None],
    clock: Clock,
    *,
    warmup_seconds: float,
    duration_seconds: float,
    now: Callable[[], float] = time.perf_counter,
) -> Samples:
    """Launch for *warmup_seconds*, then sample for *duration_seconds*, at least MIN_SAMPLES times.

    Sampling goes in blocks of about 0.1 s, so that a clock which batches its events can do so.
    """
    started, warmed = now(), 0
    per_launch_ms = 0.0
    while warmed == 0 or now() - started < warmup_seconds:
        # The first launch may compile or load; only the latest block says how long one takes.
        block = clock.time(launch, _block_size(per_launch_ms) if warmed else 1)
        warmed += block.size
        per_launch_ms = float(np.median(block))
    before = clock.conditions()
    blocks: list[Milliseconds] = []
    count, started = 0, now()
    while count < MIN_SAMPLES or (now() - started < duration_seconds and count < _MAX_SAMPLES):
        block = clock.time(launch, min(_block_size(per_launch_ms), _MAX_SAMPLES))
        blocks.append(block)
        count += block.size
    after = clock.conditions()
    return Samples(np.concatenate(blocks), clock.name, warmed, _around(before, after))


def _block_size(per_launch_ms: float) -> int:
    return int(np.clip(_BLOCK_SECONDS * 1e3 / max(per_launch_ms, 1e-3), 1, 2000))


def _around(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """One value where a reading did not change, ``[before, after]`` where it did; None where it was not given."""
    pairs = {k: [before.get(k), after.get(k)] for k in {**before, **after}}
    return {k: pair[1] if pair[0] == pair[1] else pair for k, pair in pairs.items()}
