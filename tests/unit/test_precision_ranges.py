"""Activation ranges: against exact statistics, against a plain loop, and on distributions that have bitten others."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from networks import attention, conv_net

from pytest_trt.errors import PrecisionError, UsageError
from pytest_trt.spec.precision.ranges import METHODS, Histogram, _divergences, calibration_tensors, make_collector

FINITE = st.floats(-(2.0**100), 2.0**100, width=32)
every_method = pytest.mark.parametrize("method", METHODS)


def gather(method: str, *samples: np.ndarray, **options: float) -> float:
    collector = make_collector(method, **options)
    for sample in samples:
        collector.update(sample)
    low, high = collector.range()
    assert low == -high
    return high


def gaussian(size: int = 200_000) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(size).astype(np.float32)


@given(st.lists(arrays(np.float32, st.integers(1, 20), elements=FINITE), min_size=1))
def test_minmax_is_the_largest_magnitude_of_all_samples(samples):
    assert gather("minmax", *samples) == max(float(np.abs(s).max()) for s in samples)


@given(st.lists(arrays(np.float32, st.integers(1, 20), elements=FINITE), min_size=1))
def test_a_histogram_loses_no_value_and_never_exceeds_the_largest(samples):
    histogram = Histogram()
    for sample in samples:
        histogram.update(sample)
    assert histogram.zeros + histogram.counts.sum() == sum(s.size for s in samples)
    for method in ("percentile", "entropy"):
        assert 0 <= gather(method, *samples) <= gather("minmax", *samples)


@pytest.mark.parametrize("percentile", [50.0, 90.0, 99.0, 99.99, 100.0])
def test_a_percentile_is_exact_to_one_bin(percentile):
    values = gaussian()
    exact = np.percentile(np.abs(values), percentile)
    assert gather("percentile", values, percentile=percentile) == pytest.approx(
        exact, abs=float(np.abs(values).max()) / 1024
    )


def test_zeros_count_in_a_percentile():
    values = np.concatenate([np.zeros(900), np.linspace(0.01, 1, 100)])
    assert gather("percentile", values, percentile=95) == pytest.approx(np.percentile(values, 95), abs=0.02)
    # Here the percentile itself is a zero; nothing is cut off then.
    assert gather("percentile", values, percentile=50) == 1.0


@every_method
def test_the_order_and_the_grouping_of_samples_hardly_matter(method):
    values = gaussian(20_000) * np.linspace(0.01, 3, 20_000, dtype=np.float32)
    at_once = gather(method, values)
    growing = gather(method, *np.array_split(values, 50))
    assert growing == pytest.approx(at_once, rel=0.05)


@given(st.integers(1, 40), st.integers(0, 40))
def test_widening_keeps_counts_where_their_values_are(first, doublings):
    histogram = Histogram("percentile", percentile=100)
    histogram.update(np.full(3, first, np.float32))
    histogram.update(np.full(1, first * 2.0**doublings, np.float32))
    # A bin takes its upper edge in: the largest value lies in the last bin when it sets the width.
    bin_of_first = math.ceil(first / histogram.bin_width) - 1
    assert histogram.counts[bin_of_first] in (3, 4)
    assert histogram.counts.sum() == 4
    assert histogram.bin_width * 2048 < 2 * first * 2.0**doublings + 1e-9


def test_entropy_clips_one_outlier_of_a_gaussian():
    values = gaussian()
    clean = gather("entropy", values)
    assert 3.0 < clean <= np.abs(values).max()
    spoiled = values.copy()
    spoiled[0] = 100.0
    assert gather("minmax", spoiled) == 100.0
    assert 3.0 < gather("entropy", spoiled) < 10.0
    assert 3.0 < gather("percentile", spoiled) < 5.0


def test_entropy_does_not_cut_off_what_lies_behind_gaps():
    """Grey levels 0 to 16, as the images of digits have: a threshold at the first level would fit them perfectly."""
    values = np.random.default_rng(0).integers(0, 17, 10_000) / 16
    assert gather("entropy", values.astype(np.float32)) == 1.0


def plain_divergence(counts: list[int], size: int) -> float:
    """The definition, bin by bin."""
    inside, outside, total = counts[:size], sum(counts[size:]), sum(counts)
    p = [*inside[:-1], inside[-1] + outside]
    q = [0.0] * size
    edges = [size * level // 128 for level in range(129)]
    for level, (start, stop) in enumerate(itertools.pairwise(edges)):
        mass, filled = sum(inside[start:stop]), [j for j in range(start, stop) if p[j] > 0]
        if level == 127 and mass == 0 and outside > 0:
            mass = 1e-4
        for j in filled:
            q[j] = mass / len(filled)
    return sum(pj / total * math.log(pj / qj) for pj, qj in zip(p, q, strict=True) if pj > 0)


@pytest.mark.parametrize("seed", range(6))
def test_divergences_agree_with_the_definition(seed):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(5 * np.exp(-np.arange(400) / rng.integers(20, 200)))
    counts[rng.integers(200, 400, 3)] += 7
    counts[0] += 1
    sizes = np.array([128, 129, 200, 255, 256, 257, 399, 400])
    expected = [plain_divergence(counts.tolist(), int(size)) for size in sizes]
    np.testing.assert_allclose(_divergences(counts.astype(np.float64), sizes), expected, atol=1e-12)


@every_method
def test_only_zeros_give_an_empty_range(method):
    assert gather(method, np.zeros(10, np.float32)) == 0.0


@every_method
def test_one_value_is_its_own_range(method):
    assert gather(method, np.array([-2.5], np.float32)) == pytest.approx(2.5, rel=1e-6)


@every_method
def test_half_precision_samples_and_empty_ones_are_taken(method):
    assert gather(method, np.zeros((0, 3), np.float32), np.array([1.5], np.float16)) == pytest.approx(1.5, rel=1e-6)


@every_method
def test_ranges_can_be_stored_as_json(method):
    collector = make_collector(method)
    collector.update(gaussian(1000))
    assert tuple(json.loads(json.dumps(collector.range()))) == collector.range()


@every_method
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_with_the_tensors_name(method, bad):
    collector = make_collector(method, tensor="layer3.out")
    with pytest.raises(PrecisionError, match=r"'layer3\.out' has 2 NaN or infinite of 4 values"):
        collector.update(np.array([1, bad, 2, bad], np.float32))


@every_method
def test_no_samples_are_refused(method):
    with pytest.raises(PrecisionError, match="'t': no values were seen"):
        make_collector(method, tensor="t").range()


def test_unknown_methods_and_percentiles_are_refused():
    with pytest.raises(UsageError, match="unknown calibration method 'entropi'") as caught:
        make_collector("entropi")
    assert caught.value.hint == "did you mean 'entropy'?"
    with pytest.raises(UsageError, match="not 101"):
        make_collector("percentile", percentile=101)


def test_calibration_asks_for_the_activations_that_int8_needs():
    assert calibration_tensors(conv_net(), {}) == ["x", "r1", "f"]
    assert calibration_tensors(conv_net(), {"exclude_nodes": ["conv2"]}) == ["x", "f"]
    assert calibration_tensors(attention(-1e4), {}) == ["x"]
    assert calibration_tensors(attention(-1e4), {"attention": True}) == ["x", "q", "kt", "p", "v"]
