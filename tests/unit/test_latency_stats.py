"""Summaries of samples: percentiles, spread, and an error of the median that slow drift widens."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pytest_trt.latency.stats import Summary, median_error, summarize

durations = st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=200)


@given(durations)
def test_every_figure_is_numpys(values: list[float]):
    found = summarize(values)

    assert found.count == len(values)
    assert (found.min_ms, found.max_ms) == (min(values), max(values))
    for name, percent in (("median_ms", 50), ("p90_ms", 90), ("p95_ms", 95), ("p99_ms", 99)):
        # The median of two is their mean; numpy interpolates, which may round the last digit otherwise.
        assert getattr(found, name) == pytest.approx(np.percentile(values, percent), rel=1e-14)
    assert math.isclose(found.mean_ms, math.fsum(values) / len(values), rel_tol=1e-12)
    assert math.isclose(found.cov, float(np.std(values)) / found.mean_ms, rel_tol=1e-9, abs_tol=1e-12)


@given(durations)
def test_the_order_of_the_figures(values: list[float]):
    found = summarize(values)

    assert found.min_ms <= found.median_ms <= found.p90_ms <= found.p95_ms <= found.p99_ms <= found.max_ms
    assert found.median_se >= 0


@given(durations, st.floats(0.1, 10))
def test_relative_figures_do_not_know_the_unit(values: list[float], factor: float):
    one, other = summarize(values), summarize(np.multiply(values, factor))

    assert math.isclose(other.median_ms, one.median_ms * factor, rel_tol=1e-9)
    assert math.isclose(other.cov, one.cov, rel_tol=1e-6, abs_tol=1e-9)
    assert math.isclose(other.median_se, one.median_se, rel_tol=1e-6, abs_tol=1e-9)


def ar1(rng: np.random.Generator, shape: tuple[int, int], correlation: float) -> NDArray[np.float64]:
    """Normal noise of variance 1 in rows, each value hanging on the one before."""
    noise = rng.standard_normal(shape)
    for column in range(1, shape[1]):
        noise[:, column] = correlation * noise[:, column - 1] + math.sqrt(1 - correlation**2) * noise[:, column]
    return noise


def test_percentiles_are_interpolated():
    found = summarize([4, 1, 3, 2])

    assert (found.median_ms, found.p90_ms) == (2.5, 3.7)


def test_one_sample_and_equal_samples_have_no_spread():
    assert (summarize([2.0]).median_se, summarize([2.0]).cov) == (0.0, 0.0)
    assert (summarize([2.0] * 50).median_se, summarize([2.0] * 50).cov) == (0.0, 0.0)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_few_samples_have_the_textbook_error(count: int):
    values = np.random.default_rng(0).normal(10, 1, count)

    expected = 1.2533 * np.log(values).std(ddof=1) / math.sqrt(count)
    assert math.isclose(summarize(values).median_se, expected, rel_tol=1e-12)


def test_slow_drift_widens_the_error_of_the_median_and_shuffling_hides_it():
    rng = np.random.default_rng(1)
    noise = rng.normal(1, 0.01, 2000)
    drift = noise * np.linspace(1, 1.1, 2000)

    steady, drifting, shuffled = summarize(noise), summarize(drift), summarize(rng.permutation(drift))
    assert drifting.median_se > 10 * steady.median_se
    assert drifting.median_se > 3 * shuffled.median_se
    assert math.isclose(drifting.median_ms, shuffled.median_ms, rel_tol=1e-12)


def test_a_step_in_the_middle_shows():
    rng = np.random.default_rng(2)
    step = rng.normal(1, 0.01, 1000) * np.where(np.arange(1000) < 500, 1, 1.05)

    assert summarize(step).median_se > 5 * summarize(rng.normal(1, 0.01, 1000)).median_se


@pytest.mark.parametrize("count", [10, 20, 60, 200, 2000])
def test_the_error_of_the_median_of_independent_samples(count: int):
    check_the_error(count, 0)


@pytest.mark.parametrize(("count", "correlation"), [(60, 0.5), (200, 0.5), (200, 0.9), (400, 0.95), (2000, 0.95)])
def test_the_error_of_the_median_of_samples_that_hang_together(count: int, correlation: float):
    """Also where the memory is longer than one of the stretches that a series is cut into."""
    check_the_error(count, correlation)


def test_the_error_of_the_median_of_samples_that_alternate():
    check_the_error(2000, -0.3, most=1.6)


def check_the_error(count: int, correlation: float, most: float = 1.3) -> None:
    """It agrees with how medians of many runs spread, or errs on the safe side."""
    runs = 0.02 * ar1(np.random.default_rng(count), (400, count), correlation)
    spread = np.median(runs, axis=1).std()
    claimed = np.mean([summarize(np.exp(run)).median_se for run in runs])

    assert 0.85 < claimed / spread < most


def in_ranks(above: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The numbers 0 to n - 1, the upper half of them where *above* says so: a quantile is as good as a share."""
    values = np.empty(above.size)
    values[~above], values[above] = np.split(np.arange(float(above.size)), 2)
    return values


def rank_variance(values: NDArray[np.float64]) -> float:
    """The variance of the median's rank that ``median_error`` took *values* to have."""
    return float((median_error(values) / (values.size - 1)) ** 2)


def test_stretches_that_lie_wholly_above_or_below_are_one_value_each():
    values = in_ranks(np.arange(160) // 8 % 2 == 1)

    assert rank_variance(values) == pytest.approx(0.25 * 20 / 19 / 20)


def test_the_end_of_a_series_is_no_neighbour_of_its_beginning():
    """The outer quarters lie above: at lag k the autocorrelation is 1 - 5 k / n, 1 - 4 k / n with the ends joined."""
    count = 1000
    values = in_ranks((np.arange(count) + 250) % count < 500)
    correlations = [1 - 5 * lag / count for lag in range(200)]

    assert rank_variance(values) == pytest.approx(0.25 * (2 * sum(correlations) - 1) / count)


def test_a_wild_outlier_counts_like_a_mild_one():
    values = np.random.default_rng(4).normal(1, 0.01, 400)
    mild, wild = values.copy(), values.copy()
    mild[::20], wild[::20] = 1.1, 1000

    assert summarize(wild).median_se == summarize(mild).median_se
    assert summarize(wild).median_ms == summarize(mild).median_ms


def test_a_second_mode_widens_the_error_when_it_is_near_the_middle():
    rng = np.random.default_rng(5)
    values = rng.normal(1, 0.001, 400)
    rare, often = (np.where(rng.random(400) < share, 2 * values, values) for share in (0.1, 0.48))

    assert summarize(rare).median_se < 0.001
    assert summarize(often).median_se > 0.1


@pytest.mark.parametrize("count", range(1, 50))
def test_every_number_of_samples_can_be_summarized(count: int):
    assert math.isfinite(summarize(np.arange(1.0, count + 1)).median_se)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "there are no samples"),
        ([1.0, 0.0], "must be finite and positive"),
        ([1.0, -1.0], "must be finite and positive"),
        ([1.0, math.nan], "must be finite and positive"),
        ([math.inf], "must be finite and positive"),
        ([[]], "there are no samples"),
        ([[1.0], []], "there are no samples"),
        ([[1.0], [1.0, 0.0]], "must be finite and positive"),
        ([[[1.0, 2.0]]], "repeats of them"),
        ([[1.0, 2.0], 3.0], "repeats of them"),
        ([3.0, [1.0, 2.0]], "repeats of them"),
        ([[1.0, [2.0]]], "repeats of them"),
        (3.0, "repeats of them"),
        ((value for value in (1.0, 2.0)), "repeats of them, .*, not generator"),
        ([1.0, math.nan, 1.0], "sample 1 is nan"),
        ([[1.0], [1.0, 2.0, 0.0]], "sample 2 of repeat 1 is 0"),
        (["1.0", "2.0"], "<U3 is no duration"),
        ([1.0, None], "object is no duration"),
        (np.ones(3, dtype=bool), "bool is no duration"),
        (np.ones(3, dtype=complex), "complex128 is no duration"),
    ],
)
def test_what_is_no_duration(values: Any, message: str):
    with pytest.raises(ValueError, match=message):
        summarize(values)


def test_nothing_cannot_be_summarized():
    with pytest.raises(ValueError, match="there are no samples"):
        summarize()


@given(durations)
def test_json_keeps_five_digits_and_reads_itself(values: list[float]):
    found = summarize(values)
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    again = Summary.from_json(data)

    assert again.to_json() == data
    assert again.count == found.count
    assert math.isclose(again.median_ms, found.median_ms, rel_tol=5e-5)


def test_a_stored_summary_may_have_more_keys_but_not_fewer():
    data = summarize([1, 2, 3]).to_json()

    assert Summary.from_json({**data, "clock": "graph"}) == Summary.from_json(data)
    del data["loads"]  # a file written before there were several
    assert Summary.from_json(data).loads == 1
    del data["within_se"]  # a file written before there was more than one error
    assert Summary.from_json(data).within_se == data["median_se"]
    assert Summary.from_json({**data, "loads": 4}).within_se == pytest.approx(2 * data["median_se"])
    del data["p99_ms"]
    with pytest.raises(TypeError, match="p99_ms"):
        Summary.from_json(data)


def test_the_two_errors_of_several_repeats_are_read_as_they_were_written():
    found = summarize([1.0, 1.01, 1.02], [1.3, 1.31, 1.32])
    again = Summary.from_json(found.to_json())

    assert found.within_se != pytest.approx(found.median_se * math.sqrt(2), rel=0.01)
    assert again.within_se == pytest.approx(found.within_se, rel=5e-5)
    assert again.between_sd == pytest.approx(found.between_sd, rel=5e-5)


def test_durations_are_rounded_and_counts_are_not():
    data = replace(summarize([1.23456789]), count=1_234_567).to_json()

    assert (data["count"], data["median_ms"]) == (1_234_567, 1.2346)
    del data["median_se"], data["within_se"]
    with pytest.raises(TypeError, match="median_se"):
        Summary.from_json(data)


def test_one_odd_load_does_not_move_the_median_but_widens_its_error():
    even = summarize([1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    odd = summarize([1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.08, 1.08, 1.08])

    assert (odd.loads, odd.count) == (3, 9)
    assert odd.median_ms == even.median_ms == 1.0
    assert even.median_se == 0
    assert odd.between_sd == pytest.approx(np.std(np.log([1, 1, 1.08]), ddof=1))
    assert odd.median_se == pytest.approx(odd.between_sd / np.sqrt(3))


@pytest.mark.parametrize(
    "samples",
    [
        (np.array([[1.0, 2.0, 4.0], [3.0, 5.0, 9.0]]),),
        ([[1.0, 2.0, 4.0], [3.0, 5.0, 9.0]],),
        ([np.array([1.0, 2.0, 4.0]), np.array([3.0, 5.0, 9.0])],),
        (((1, 2, 4), (3, 5, 9)),),
        ([1.0, 2.0, 4.0], [3.0, 5.0, 9.0]),
    ],
)
def test_repeats_are_given_in_any_shape(samples: Any):
    found = summarize(*samples)

    assert (found.loads, found.count, found.median_ms) == (2, 6, 3.5)


def test_repeats_may_differ_in_length():
    found = summarize([[1.0, 1.0, 1.0, 1.0], [3.0, 3.0]])

    assert (found.loads, found.count, found.median_ms) == (2, 6, 2.0)


@pytest.mark.parametrize("unit", [1e-300, 1e300])
def test_no_unit_is_too_small_or_too_large(unit: float):
    found = summarize(unit * np.array([1.0, 1.1, 1.2, 1.5]))

    assert found.mean_ms == pytest.approx(1.2 * unit)
    assert found.cov == pytest.approx(summarize([1.0, 1.1, 1.2, 1.5]).cov)
