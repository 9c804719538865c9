"""Two launches in turns: what disturbs both at a time cancels in their ratio. Pure, but for the clocks it is given.

A turn is a stretch of launches of one side, each timed by that side's own clock. Four turns are a group: ABBA, then
BAAB, and so on, so that neither side is always the first, and a drift hits both alike. Sample i of one side was taken
next to sample i of the other: ``decide(..., paired=True)`` judges them so.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pytest_trt.backends import Clock, Milliseconds

__all__ = ["MIN_SAMPLES", "Interleaved", "Timed", "interleave"]

MIN_SAMPLES = 8  # of each side in a round: from 6 on, their order says how uncertain the median is
_MAX_SAMPLES = 20_000
# Short against the seconds for which a neighbour disturbs a machine, long against what a change of sides costs.
_TURN_SECONDS = 0.003
_TURNS_A_GROUP = 2  # of each side


@dataclass(frozen=True)
class Timed:
    """One side: what is launched, and the clock that times it."""

    launch: Callable[[], None]
    clock: Clock


@dataclass(frozen=True)
class Interleaved:
    """Durations in ms of both sides, each of shape (rounds, samples), by the clock of that name; ``conditions`` are the
    readings of the candidate's clock before and after each round."""

    baseline_ms: Milliseconds
    candidate_ms: Milliseconds
    clock: str
    conditions: list[dict[str, Any]]


def interleave(
    rounds: Iterable[tuple[Timed, Timed]],
    *,
    warmup_seconds: float,
    round_seconds: float,
    enough: Callable[[Sequence[Milliseconds], Sequence[Milliseconds]], bool] = lambda *_: False,
    now: Callable[[], float] = time.perf_counter,
) -> Interleaved:
    """Time (baseline, candidate) of each of *rounds* in turns. A round is what is set up anew, such as a load of both
    engines: the iterable may do that when it is asked for the next one.

    The first round warms up for *warmup_seconds*, others for a quarter of that, both sides together. The first one
    lasts *round_seconds*, and until both sides have MIN_SAMPLES; the others take as many samples. After each round
    *enough* may end it: it is given the samples of both sides, an array for each round so far. Raises ValueError for no
    rounds, and for clocks of different names, whose times cannot be compared.
    """
    launches = groups = 0
    taken: list[tuple[Milliseconds, Milliseconds]] = []
    conditions, name = [], ""
    for sides in rounds:
        clocks = dict.fromkeys([*([name] if name else []), *(side.clock.name for side in sides)])
        if len(clocks) != 1:
            raise ValueError(f"the sides have different clocks: {', '.join(clocks)}")
        (name,) = clocks
        launch_ms = _warm_up(sides, warmup_seconds / (4 if taken else 1), now)
        before = sides[1].clock.conditions()
        if not taken:
            launches = _turn(launch_ms)
        found = _round(sides, launches, groups, round_seconds, now)
        groups = found[0].size // (_TURNS_A_GROUP * launches)
        taken.append(found)
        conditions.append({"before": before, "after": sides[1].clock.conditions()})
        if enough([b for b, _ in taken], [c for _, c in taken]):
            break
    if not taken:
        raise ValueError("there are no rounds")
    return Interleaved(np.stack([b for b, _ in taken]), np.stack([c for _, c in taken]), name, conditions)


def _warm_up(sides: tuple[Timed, Timed], seconds: float, now: Callable[[], float]) -> float:
    """Launch both in turns, each at least twice; return how long a sample of the slower one takes, in ms."""
    started, last = now(), [0.0, 0.0]
    first = True  # the first launch may compile or load: it says nothing about the others
    while True:
        for index, side in enumerate(sides):
            count = 1 if first else _turn(last[index])
            began = now()
            durations = side.clock.time(side.launch, count)
            # A sample may stand for many launches (throughput), and cost far more time than it says.
            last[index] = max(float(np.median(durations)), (now() - began) * 1e3 / count)
        if not first and now() - started >= seconds:
            return max(last)
        first = False


def _turn(launch_ms: float) -> int:
    return int(np.clip(_TURN_SECONDS * 1e3 / max(launch_ms, 1e-3), 1, 2000))


def _round(
    sides: tuple[Timed, Timed], launches: int, wanted: int, seconds: float, now: Callable[[], float]
) -> tuple[Milliseconds, Milliseconds]:
    """The samples of each side, in the order taken: *wanted* groups of turns, or for *seconds* where that is 0.

    The number of groups is even, so that either side was as often the first as the other.
    """
    taken: tuple[list[Milliseconds], list[Milliseconds]] = ([], [])
    fewest = wanted or math.ceil(MIN_SAMPLES / (_TURNS_A_GROUP * launches))
    most = wanted or max(fewest, _MAX_SAMPLES // (_TURNS_A_GROUP * launches))
    started, running = now(), -1
    for group in itertools.count():
        if group % 2 == 0 and group >= fewest and (group >= most or now() - started >= seconds):
            break
        for index in (0, 1, 1, 0) if group % 2 == 0 else (1, 0, 0, 1):
            side = sides[index]
            if index != running:
                side.clock.time(side.launch, 1)  # finds the caches as the other side left them: not counted
                running = index
            taken[index].append(side.clock.time(side.launch, launches))
    return np.concatenate(taken[0]), np.concatenate(taken[1])
