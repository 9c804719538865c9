"""The timer: warm-up until it is warm, sampling until it is known, on clocks whose time is invented."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pytest_trt.latency.stability import half_width, settled
from pytest_trt.latency.stats import median_error
from pytest_trt.latency.timer import INTERVAL, MIN_SAMPLES, Samples, sample


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
        return self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]


class NoisyClock(InventedClock):
    """Independent noise of *spread* around 1 ms, times what *course* says of the second."""

    def __init__(self, spread: float, course: Callable[[float], float] = lambda seconds: 1.0) -> None:
        super().__init__(1.0)
        self.spread, self.course = spread, course
        self.rng = np.random.default_rng(5)

    def time(self, launch: Callable[[], None], count: int) -> NDArray[np.float64]:
        times = self.course(self.seconds) * np.exp(self.spread * self.rng.standard_normal(count))
        self.blocks.append(count)
        self.launched += count
        self.seconds += times.sum() / 1e3
        return times


def take(clock: InventedClock, warmup: float, duration: float, interval: float = 0.0) -> Samples:
    return sample(
        lambda: None, clock, warmup_seconds=warmup, duration_seconds=duration, interval=interval, now=clock.now
    )


def test_it_warms_up_and_samples_for_the_time_given():
    clock = InventedClock(1.0)
    taken = take(clock, 0.2, 0.8)

    assert clock.blocks[0] == 1  # the first launch may compile
    assert 200 <= taken.warmup_count <= 251
    assert 800 <= taken.values_ms.size <= 900
    assert taken.ended == "time"
    assert taken.clock == "invented"
    assert taken.warmup_count + taken.values_ms.size == clock.launched


@pytest.mark.parametrize(("duration", "block"), [(0.02, 20), (0.5, 100), (1.0, 200), (60.0, 200)])
def test_blocks_are_a_tenth_of_the_time_but_10_to_100_ms(duration: float, block: int):
    clock = InventedClock(0.5)
    take(clock, 0.0, duration)

    assert clock.blocks[0] == 1
    assert set(clock.blocks[1:]) == {block}


@pytest.mark.parametrize(("duration_ms", "besides_ms"), [(0.1, 0.9), (1.0, -0.9)], ids=["flushes a cache", "made up"])
def test_a_clock_that_takes_more_or_less_than_it_reports_gets_smaller_blocks(duration_ms: float, besides_ms: float):
    clock = InventedClock(duration_ms)
    reported = clock.time

    def time(launch: Callable[[], None], count: int) -> NDArray[np.float64]:
        times = reported(launch, count)
        clock.seconds += besides_ms / 1e3 * count
        return times

    clock.time = time  # type: ignore[method-assign]
    take(clock, 0.0, 1.0)

    assert set(clock.blocks[2:]) == {100}


def test_it_does_not_matter_when_the_hosts_clock_began():
    clock = InventedClock(1.0)
    clock.seconds = 1e6
    taken = take(clock, 0.2, 0.8)

    assert 0.2 <= round(taken.warmup_seconds, 6) < 0.251
    assert 800 <= taken.values_ms.size <= 900


def test_the_slow_first_launch_does_not_set_the_size_of_blocks():
    clock = InventedClock(2000.0, 1.0)
    taken = take(clock, 2.5, 1.0)

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
    assert (taken.warmup_count, taken.values_ms.size, taken.warm) == (4, MIN_SAMPLES, True)


def test_there_is_an_end_to_samples():
    clock = InventedClock(0.001)
    taken = take(clock, 0.0, 3600.0)

    assert taken.values_ms.size == 20_000
    assert taken.ended == "count"
    assert max(clock.blocks) <= 2000


def test_a_clock_that_says_zero_does_not_divide_by_it():
    clock = InventedClock(0.0)
    clock.now = lambda: float(len(clock.blocks))  # type: ignore[method-assign]

    taken = take(clock, 2.0, 2.0, interval=INTERVAL)
    assert taken.values_ms.size >= MIN_SAMPLES
    assert (taken.ended, taken.course()["half_width"], taken.warm) == ("time", None, False)


def test_samples_keep_the_order_in_which_they_were_taken():
    clock = InventedClock(1.0, *(float(i) for i in range(1, 200)))
    values = take(clock, 0.0, 0.5).values_ms

    assert (np.diff(values)[:20] == 1).all()


def test_launches_are_the_ones_that_were_asked_for():
    calls: list[int] = []
    clock = InventedClock(1.0)
    taken = sample(lambda: calls.append(1), clock, warmup_seconds=0.1, duration_seconds=0.1, now=clock.now)

    assert len(calls) == taken.warmup_count + taken.values_ms.size


def test_conditions_are_read_around_every_block():
    clock = InventedClock(1.0)
    taken = take(clock, 0.1, 0.4)

    ends = np.cumsum(clock.blocks)
    assert clock.read_at == list(ends[ends >= taken.warmup_count])


def test_a_long_run_reads_conditions_after_some_blocks():
    clock = InventedClock(1.0)
    taken = take(clock, 0.1, 16.0)

    assert (clock.read_at[0], clock.read_at[-1]) == (taken.warmup_count, clock.launched)
    assert set(clock.read_at) <= set(np.cumsum(clock.blocks))
    assert len(clock.read_at) == 17 < len(clock.blocks)


def test_conditions_that_move_are_told_in_order():
    readings = tuple({"sm_clock_mhz": mhz, "cpus": 2} for mhz in (1980, 1755, 1980))
    taken = take(InventedClock(1.0, conditions=readings), 0.0, 0.4)

    assert taken.conditions["cpus"] == 2
    assert taken.conditions["sm_clock_mhz"][:3] == [1980, 1755, 1980]
    assert set(taken.conditions["sm_clock_mhz"][3:]) == {1980}


def test_conditions_that_stay_are_one_value_and_others_two():
    before = {"sm_clock_mhz": 1980, "temperature_c": 40, "gone": 1, "throttle_reasons": []}
    after = {"sm_clock_mhz": 1980, "temperature_c": 52, "new": 2, "throttle_reasons": ["sw_power_cap"]}
    taken = take(InventedClock(0.1, conditions=(before, after)), 0.0, 0.001)

    assert taken.conditions == {
        "sm_clock_mhz": 1980,
        "temperature_c": [40, 52],
        "gone": [1, None],
        "new": [None, 2],
        "throttle_reasons": [[], ["sw_power_cap"]],
    }


def test_the_interval_ends_the_sampling():
    taken = take(NoisyClock(0.01), 0.1, 60.0, interval=0.002)

    assert taken.ended == "interval"
    assert taken.half_width == half_width(taken.values_ms) < 0.002
    assert 200 <= taken.values_ms.size <= 1000
    assert taken.course() == {
        "ended": "interval",
        "half_width": pytest.approx(taken.half_width, rel=0.01),
        "warm": True,
        "warmup_seconds": pytest.approx(taken.warmup_seconds, abs=1e-3),
    }


def test_the_interval_counts_from_200_samples_in_five_blocks_on():
    few_blocks, few_samples = (take(InventedClock(1.0), 0.0, seconds, interval=0.002) for seconds in (0.8, 0.3))

    assert (few_blocks.ended, few_blocks.values_ms.size) == ("interval", 5 * 80)
    assert (few_samples.ended, few_samples.values_ms.size) == ("interval", 7 * 30)
    assert take(InventedClock(1.0), 0.0, 0.4, interval=0.002).values_ms.size == 200


def test_the_course_is_short():
    taken = Samples(np.ones(1), "invented", 1, half_width=0.0123456, warmup_seconds=0.123456)

    assert taken.course() == {"ended": "time", "half_width": 0.0123, "warm": False, "warmup_seconds": 0.123}


@pytest.mark.parametrize(("spread", "ended"), [(0.001, "interval"), (0.3, "time")])
def test_what_ends_it_depends_on_the_noise(spread: float, ended: str):
    taken = take(NoisyClock(spread), 0.1, 2.0, interval=0.002)

    assert taken.ended == ended
    assert (taken.half_width < 0.002) == (ended == "interval")


def test_a_slow_drift_does_not_look_narrow():
    still = take(NoisyClock(0.002), 0.0, 5.0, interval=0.002)
    drifting = take(NoisyClock(0.002, lambda seconds: 1 + 0.05 * seconds), 0.0, 5.0, interval=0.002)

    assert still.ended == "interval"
    assert drifting.values_ms.size > 2 * still.values_ms.size


def test_few_samples_do_not_end_it_however_equal_they_are():
    taken = take(InventedClock(10.0), 0.0, 1.0, interval=0.002)

    assert taken.ended == "time"
    assert 100 <= taken.values_ms.size < 110


def test_the_interval_is_half_of_95_percent_over_the_median():
    values = NoisyClock(0.05).time(lambda: None, 500)

    assert half_width(values) == pytest.approx(1.96 * median_error(values) / np.median(values))
    assert half_width(np.array([1.0])) == float("inf")
    assert half_width(np.zeros(50)) == float("inf")


def test_warming_up_goes_on_while_it_gets_slower():
    clock = NoisyClock(0.001, lambda seconds: 1 + 0.3 * min(seconds, 0.7))
    taken = take(clock, 0.2, 0.3)

    assert taken.warm
    assert 0.6 < taken.warmup_seconds <= 1.0
    assert np.median(taken.values_ms) == pytest.approx(1.21, rel=0.01)


def test_warming_up_ends_although_it_never_settles():
    taken = take(NoisyClock(0.001, lambda seconds: 1 + seconds), 0.2, 0.1)

    assert not taken.warm
    assert 1.0 <= taken.warmup_seconds <= 1.2


def stretches(*medians: float, spread: float = 0.0) -> list[NDArray[np.float64]]:
    rng = np.random.default_rng(3)
    return [median * np.exp(spread * rng.standard_normal(100)) for median in medians]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (stretches(1, 1), False),
        (stretches(1, 1, 1), True),
        (stretches(2, 1, 1, 1), True),
        (stretches(1, 1, 1, 1.01), False),
        (stretches(1, 1.01, 1), False),
        (stretches(1, 1.004, 1.008), False),  # each step is small, and they add up
        (stretches(1, 1.004, 1.002), True),
        (stretches(1, 1.006, 1.003), False),
        (stretches(1.003, 1, 1.006), False),
        (stretches(1, 1.01, 1, spread=0.2), True),  # not more than noise
        (stretches(1, 1, 0), False),
    ],
)
def test_settled(found: list[NDArray[np.float64]], expected: bool):
    assert settled(found) is expected


def test_parts_are_those_of_the_samples():
    clock = InventedClock(1.0, *(float(i) for i in range(1, 500)))
    timed = clock.time

    def time(launch: Callable[[], None], count: int) -> NDArray[np.float64]:
        times = timed(launch, count)
        clock.parts = {"gpu_ms": times, "enqueue_ms": times / 2}  # type: ignore[attr-defined]
        return times

    clock.time = time  # type: ignore[method-assign]
    taken = take(clock, 0.1, 0.5)

    np.testing.assert_array_equal(taken.parts_ms["gpu_ms"], taken.values_ms)
    np.testing.assert_array_equal(taken.parts_ms["enqueue_ms"], taken.values_ms / 2)
    assert take(InventedClock(1.0), 0.1, 0.1).parts_ms == {}
