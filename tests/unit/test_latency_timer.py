"""The timer: warm-up and sampling by time, on clocks whose time is invented."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pytest_trt.latency.timer import MIN_SAMPLES, sample


class InventedClock:
    """Launches take what *durations_ms* says in turn, the last for ever; ``now`` follows."""

    name = "invented"

    def __init__(self, *durations_ms: float, conditions: tuple[dict[str, Any], ...] = ({}, {})) -> None:
        self.durations = list(durations_ms)
        self.readings = list(conditions)
        self.seconds = 0.0
        self.blocks: list[int] = []
        self.launched = 0
        self.read_at: list[int] = []

    def now(self) -> float:
        return self.seconds

    def time(self, launch: Callable[[], None], count: int) -> NDArray[np.float64]:
        self.blocks.append(count)
        times = []
        for _ in range(count):
            launch()
            times.append(self.durations.pop(0) if len(self.durations) > 1 else self.durations[0])
        self.launched += count
        self.seconds += sum(times) / 1e3
        return np.array(times)

    def conditions(self) -> dict[str, Any]:
        self.read_at.append(self.launched)
        return self.readings.pop(0)


def take(clock: InventedClock, warmup: float, duration: float) -> Any:
    return sample(lambda: None, clock, warmup_seconds=warmup, duration_seconds=duration, now=clock.now)


def test_it_warms_up_and_samples_for_the_time_given():
    clock = InventedClock(1.0)
    taken = take(clock, 0.2, 0.8)

    assert clock.blocks[0] == 1  # the first launch may compile
    assert 200 <= taken.warmup_count <= 301
    assert 800 <= taken.values_ms.size <= 900
    assert taken.clock == "invented"
    assert taken.warmup_count + taken.values_ms.size == clock.launched


def test_blocks_last_about_a_tenth_of_a_second():
    clock = InventedClock(0.5)
    take(clock, 0.3, 0.5)

    assert set(clock.blocks[1:]) == {200}


def test_the_slow_first_launch_does_not_set_the_size_of_blocks():
    clock = InventedClock(2000.0, 1.0)
    taken = take(clock, 2.5, 0.5)

    assert clock.blocks[:3] == [1, 1, 100]
    assert taken.values_ms.max() == 1.0


def test_without_warm_up_there_is_one_launch_that_does_not_count():
    clock = InventedClock(500.0, 1.0)
    taken = take(clock, 0.0, 0.1)

    assert taken.warmup_count == 1
    assert taken.values_ms.max() == 1.0


@pytest.mark.parametrize("launch_ms", [0.001, 1.0, 300.0, 20_000.0])
def test_there_are_at_least_ten_samples(launch_ms: float):
    taken = take(InventedClock(launch_ms), 0.0, 0.001)

    assert taken.values_ms.size >= MIN_SAMPLES


def test_slow_launches_are_taken_one_by_one():
    clock = InventedClock(300.0)
    taken = take(clock, 1.0, 1.0)

    assert set(clock.blocks) == {1}
    assert (taken.warmup_count, taken.values_ms.size) == (4, MIN_SAMPLES)


def test_there_is_an_end_to_samples():
    clock = InventedClock(0.001)
    taken = take(clock, 0.0, 3600.0)

    assert taken.values_ms.size == 20_000
    assert max(clock.blocks) <= 2000


def test_a_clock_that_says_zero_does_not_divide_by_it():
    clock = InventedClock(0.0)
    clock.now = lambda: float(len(clock.blocks))  # type: ignore[method-assign]

    assert take(clock, 2.0, 2.0).values_ms.size >= MIN_SAMPLES


def test_samples_keep_the_order_in_which_they_were_taken():
    clock = InventedClock(1.0, *(float(i) for i in range(1, 200)))
    values = take(clock, 0.0, 0.5).values_ms

    assert (np.diff(values)[:20] == 1).all()


def test_launches_are_the_ones_that_were_asked_for():
    calls: list[int] = []
    clock = InventedClock(1.0)
    taken = sample(lambda: calls.append(1), clock, warmup_seconds=0.1, duration_seconds=0.1, now=clock.now)

    assert len(calls) == taken.warmup_count + taken.values_ms.size


def test_conditions_are_read_after_the_warm_up_and_after_the_samples():
    clock = InventedClock(1.0)
    taken = take(clock, 0.1, 0.1)

    assert clock.read_at == [taken.warmup_count, clock.launched]


def test_conditions_that_stay_are_one_value_and_others_two():
    before = {"sm_clock_mhz": 1980, "temperature_c": 40, "gone": 1, "throttle_reasons": []}
    after = {"sm_clock_mhz": 1980, "temperature_c": 52, "new": 2, "throttle_reasons": ["sw_power_cap"]}
    taken = take(InventedClock(1.0, conditions=(before, after)), 0.0, 0.01)

    assert taken.conditions == {
        "sm_clock_mhz": 1980,
        "temperature_c": [40, 52],
        "gone": [1, None],
        "new": [None, 2],
        "throttle_reasons": [[], ["sw_power_cap"]],
    }
