"""Taking turns: order, balance, equal counts, and what it is for, on clocks whose time is invented."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pytest_trt.latency import Outcome, decide
from pytest_trt.latency.interleave import MIN_SAMPLES, Interleaved, Timed, interleave


@dataclass
class Machine:
    """Time that only launches move. ``speed`` at a moment is how much slower everything is then."""

    speed: Callable[[float], float] = lambda seconds: 1.0
    seconds: float = 0.0
    turns: list[tuple[str, int]] = field(default_factory=list)

    def now(self) -> float:
        return self.seconds


@dataclass
class InventedClock:
    machine: Machine
    side: str
    launch_ms: float
    name: str = "invented"
    launches_a_sample: int = 1
    readings: int = 0

    def time(self, launch: Callable[[], None], count: int) -> NDArray[np.float64]:
        self.machine.turns.append((self.side, count))
        times = []
        for _ in range(count):
            launch()
            times.append(self.launch_ms * self.machine.speed(self.machine.seconds))
            self.machine.seconds += times[-1] / 1e3 * self.launches_a_sample
        return np.array(times)

    def conditions(self) -> dict[str, Any]:
        self.readings += 1
        return {"reading": self.readings}


def sides(machine: Machine, old_ms: float = 1.0, new_ms: float = 1.0, rounds: int = 1) -> Iterator[tuple[Timed, Timed]]:
    for _ in range(rounds):
        old, new = (Timed(lambda: None, InventedClock(machine, *one)) for one in (("A", old_ms), ("B", new_ms)))
        yield old, new


def take(machine: Machine, pairs: Any, warmup: float = 0.0, seconds: float = 0.2) -> Interleaved:
    return interleave(pairs, warmup_seconds=warmup, round_seconds=seconds, now=machine.now)


def test_turns_are_balanced():
    machine = Machine()
    take(machine, sides(machine, 10.0, 10.0))

    # Two launches of each to warm up; then turns of one launch, after one that is not counted where the side changes.
    assert machine.turns[:4] == [("A", 1), ("B", 1)] * 2
    order = "".join(side for side, _ in machine.turns[4:])
    assert order.startswith("AABBBAA" + "BBAAABB" + "AABBBAA" + "BBAAABB")
    assert order.count("A") == order.count("B")


@pytest.mark.parametrize("seconds", [0.3, 0.37, 0.44, 0.5])
def test_either_side_is_as_often_the_first(seconds: float):
    machine = Machine()
    take(machine, sides(machine, 10.0, 10.0), seconds=seconds)

    order = "".join(side for side, _ in machine.turns[4:])
    groups = [order[first : first + 7] for first in range(0, len(order), 7)]
    assert groups.count("AABBBAA") == groups.count("BBAAABB") == len(groups) / 2


def test_both_sides_have_as_many_samples_in_every_round():
    machine = Machine()
    found = take(machine, sides(machine, 1.0, 2.0, rounds=3), warmup=0.1)

    assert found.baseline_ms.shape == found.candidate_ms.shape
    assert found.baseline_ms.shape[0] == 3
    assert found.baseline_ms.shape[1] >= MIN_SAMPLES
    assert set(found.baseline_ms.ravel()) == {1.0}
    assert set(found.candidate_ms.ravel()) == {2.0}
    assert found.clock == "invented"
    assert found.conditions == [{"before": {"reading": 1}, "after": {"reading": 2}}] * 3


def test_it_lasts_as_long_as_asked_and_no_shorter_than_needed():
    quick, slow = Machine(), Machine()
    many = take(quick, sides(quick, rounds=2), warmup=0.4, seconds=1.0)
    few = take(slow, sides(slow, 500.0, 500.0))
    no_time = take(Machine(), sides(Machine()), seconds=0.0)

    assert 0.4 + 0.1 + 2 * 1.0 <= quick.seconds < 3.2
    assert 300 < many.baseline_ms.shape[1] < 600
    assert few.baseline_ms.shape == (1, MIN_SAMPLES)
    assert no_time.baseline_ms.shape == (1, 12)  # two groups of turns of 3: the fewest that hold MIN_SAMPLES


def test_a_sample_of_many_launches_takes_as_long_as_all_of_them():
    machine = Machine()
    pair = [Timed(lambda: None, InventedClock(machine, side, 0.1, launches_a_sample=200)) for side in "AB"]
    take(machine, [tuple(pair)])

    assert {count for _, count in machine.turns} == {1}
    assert machine.seconds < 1


def test_a_turn_is_short_for_slow_launches_and_holds_several_quick_ones():
    machine = Machine()
    take(machine, sides(machine, 0.01, 0.02))

    timed = [count for _, count in machine.turns[4:]]
    assert set(timed) == {1, timed[-1]}  # what is not counted, and the turns
    assert timed[-1] > 50


def slowing(seconds: float) -> float:
    return 1 + 0.5 * seconds


def neighbour(seconds: float) -> float:
    """Twice as slow for a third of every second."""
    return 2.0 if seconds % 1 > 2 / 3 else 1.0


@pytest.mark.parametrize("speed", [slowing, neighbour])
def test_what_slows_both_cancels(speed: Callable[[float], float]):
    machine = Machine(speed)
    found = take(machine, sides(machine, 1.0, 1.05, rounds=3), seconds=1.0)
    apart = np.abs(np.diff(np.log(np.median(found.baseline_ms, axis=1))))
    verdict = decide(
        list(found.baseline_ms),
        list(found.candidate_ms),
        threshold=0.02,
        clock="simulated",
        paired=True,
        repeats="loads",
    )

    assert math.isclose(verdict.ratio, 1.05, rel_tol=0.002)
    assert verdict.outcome is Outcome.FAIL
    assert speed is neighbour or apart.max() > 0.1  # while the sides alone moved


def test_a_round_is_asked_for_when_the_one_before_is_done():
    machine, asked = Machine(), []

    def loads() -> Iterator[tuple[Timed, Timed]]:
        for pair in sides(machine, rounds=3):
            asked.append(machine.seconds)
            yield pair

    take(machine, loads(), seconds=0.2)

    assert asked[0] == 0
    assert asked[1] >= 0.2
    assert asked[2] >= 0.4


def test_clocks_are_never_mixed():
    machine = Machine()
    graph, sync = (Timed(lambda: None, InventedClock(machine, "A", 1.0, name)) for name in ("graph", "sync"))

    with pytest.raises(ValueError, match="different clocks: graph, sync"):
        take(machine, [(graph, sync)])
    with pytest.raises(ValueError, match="different clocks: graph, sync"):
        take(machine, [(graph, graph), (sync, sync)])


def test_no_rounds():
    with pytest.raises(ValueError, match="no rounds"):
        take(Machine(), [])
