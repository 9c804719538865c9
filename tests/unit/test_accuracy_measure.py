"""measure() against an obvious element-by-element oracle, and the cases that no random draw finds."""

from __future__ import annotations

import json
import math
import tracemalloc
from unittest import mock

import ml_dtypes
import numpy as np
import pytest
from accuracy_oracle import assert_agrees
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pytest_trt.accuracy import Metrics, measure
from pytest_trt.accuracy.measurement import root_mean_square
from pytest_trt.errors import InputsError, UsageError

INF, NAN = math.inf, math.nan
few = settings(max_examples=80, deadline=None)


def floats(dtype):
    width = np.dtype(dtype).itemsize * 8
    bound = {16: 60000.0, 32: 3.0000000054977558e38, 64: 1e150}[width]
    special = st.sampled_from([0.0, -0.0, INF, -INF, NAN, 1.0, -1.0, float(np.finfo(dtype).smallest_subnormal)])
    ordinary = st.floats(-bound, bound, width=width, allow_subnormal=True)
    close = st.floats(0.9375, 1.0625, width=width)
    return st.one_of(special, close, ordinary)


@st.composite
def array_pairs(draw):
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    pair = [draw(hnp.arrays(d, shape, elements=floats(d))) for d in draw(st.tuples(*[st.sampled_from("efd")] * 2))]
    if draw(st.booleans()):  # mostly alike, as outputs are
        keep = draw(hnp.arrays(np.bool_, shape))
        with np.errstate(over="ignore"):
            pair[0] = np.where(keep, pair[1], pair[0]).astype(pair[0].dtype)
    return pair


@few
@given(
    array_pairs(),
    st.sampled_from([0.0, 1e-3, 0.5]),
    st.sampled_from([0.0, 1e-5, 2.0]),
    st.booleans(),
    st.integers(1, 9),
)
def test_floats_agree_with_the_oracle(measure, pair, rtol, atol, allow, chunk):
    """Whatever the values, widths, shapes and chunk borders: counts and extremes exactly, sums but for rounding."""
    actual, expected = pair
    with (
        mock.patch("pytest_trt.accuracy.chunks.CHUNK", chunk),
        mock.patch("pytest_trt.accuracy.compiled.BLOCK", 3),
    ):
        m = measure(actual, expected, rtol=rtol, atol=atol, allow_nonfinite=allow)
    assert_agrees(m, actual, expected, rtol, atol, allow)
    reference = expected[np.isfinite(expected)].astype(np.float64)
    scale = math.sqrt((reference**2).mean()) if len(reference) else 0.0
    assert root_mean_square(expected) == pytest.approx(scale, rel=1e-12)


INTS = ("int8", "uint8", "int32", "int64", "uint64")


@st.composite
def int_pairs(draw):
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4))
    pair = []
    for name in draw(st.tuples(*[st.sampled_from(INTS)] * 2)):
        info = np.iinfo(name)
        edges = [v for v in (info.min, info.max, 2**53, 2**53 + 1, -1, 0, 1) if info.min <= v <= info.max]
        pair.append(
            draw(hnp.arrays(name, shape, elements=st.one_of(st.sampled_from(edges), st.integers(info.min, info.max))))
        )
    return pair


@few
@given(int_pairs(), st.integers(1, 5))
def test_integers_agree_with_python_integers(pair, chunk):
    """Widths and signs may differ; the count is that of Python's unbounded integers."""
    with mock.patch("pytest_trt.accuracy.chunks.CHUNK", chunk):
        m = measure(*pair, rtol=10.0, atol=10.0)  # tolerances do not apply
    a, e = ([int(v) for v in x.reshape(-1)] for x in pair)
    distances = [abs(x - y) for x, y in zip(a, e, strict=True)]

    assert m.exact
    assert m.mismatched == sum(d != 0 for d in distances)
    assert (m.expected_min, m.expected_max) == (min(e, default=None), max(e, default=None))
    if distances:
        greatest = max(distances)
        if any(x.dtype == np.uint64 for x in pair) and min(a + e) < 0:  # the one pair of types without a common one
            assert m.max_abs.value == pytest.approx(greatest, rel=1e-15)
        else:
            assert (m.max_abs.value, m.max_abs.index) == (
                greatest,
                np.unravel_index(distances.index(greatest), pair[0].shape),
            )
        assert m.mean_abs == pytest.approx(sum(distances) / len(distances), rel=1e-12)


@pytest.mark.parametrize(
    ("actual", "expected", "distance"),
    [
        (np.array([2**53 + 1]), np.array([2**53]), 1),
        (np.array([np.iinfo(np.int64).min]), np.array([np.iinfo(np.int64).max]), 2**64 - 1),
        (np.array([2**53 + 1], np.uint64), np.array([2**53], np.int64), 1),
        (np.array([-1], np.int64), np.array([2**64 - 1], np.uint64), 2**64),
        (np.array([2**53 + 1], ">i8"), np.array([2**53], "<i8"), 1),
        (np.array([2**64 - 1], ">u8"), np.array([2**64 - 2], "<u8"), 1),
    ],
)
def test_integers_are_exact_where_float64_is_not(actual, expected, distance):
    m = measure(actual, expected, rtol=1.0, atol=1.0)

    assert m.mismatched == 1
    assert m.max_abs.value == distance
    assert m.max_abs.allowed == 0
    assert m.mean_abs == pytest.approx(distance)
    assert measure(expected, expected, rtol=0.0, atol=0.0).mismatched == 0


def test_distances_between_signed_and_unsigned():
    """Without a negative number they are exact; with one, what differs is at least 1 apart."""
    exact = measure(np.array([255, 0], np.uint8), np.full(2, 2**64 - 1, np.uint64), rtol=0.0, atol=0.0)
    assert (exact.max_abs.value, exact.max_abs.index) == (2**64 - 1, (1,))

    mixed = measure(np.array([-1, 2**53]), np.array([0, 2**53 + 1], np.uint64), rtol=0.0, atol=0.0)
    assert (mixed.mismatched, mixed.mean_abs) == (2, 1.0)


def test_the_furthest_off_is_found_beside_0_by_0(measure):
    m = measure(np.array([0.0, 1.5, 3.0]), np.array([0.0, 1.0, 1.0]), rtol=0.25, atol=0.0)
    assert (m.max_excess.value, m.max_excess.index) == (8.0, (2,))


def test_booleans_equal_zero_and_one():
    m = measure(np.array([True, False, True]), np.array([1, 0, 2], np.uint8), rtol=0.0, atol=0.0)

    assert (m.mismatched, m.max_abs.index) == (1, (2,))
    assert measure(np.array([True, False]), np.array([True, True]), rtol=0.0, atol=0.0).mismatched == 1


NONFINITE = [
    # actual, expected, disagrees
    (NAN, NAN, False),
    (INF, INF, False),
    (-INF, -INF, False),
    (INF, -INF, True),
    (NAN, INF, True),
    (INF, NAN, True),
    (NAN, 1.0, True),
    (1.0, NAN, True),
    (INF, 1.0, True),
    (1.0, -INF, True),
]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize(("actual", "expected", "disagrees"), NONFINITE)
def test_nonfinite_cases(measure, dtype, allow, actual, expected, disagrees):
    """Both NaN or the same infinity agree, if that is allowed; anything else never does, however wide the limit."""
    m = measure(
        np.array([actual, 3.0], dtype), np.array([expected, 3.0], dtype), rtol=1.0, atol=1e300, allow_nonfinite=allow
    )

    assert m.nonfinite_disagreements == disagrees
    assert m.mismatched == (disagrees or not allow)
    assert m.mismatched_pairs == 0
    assert (m.nonfinite_actual, m.nonfinite_expected) == (not math.isfinite(actual), not math.isfinite(expected))
    assert (m.pairs, m.cosine, m.max_abs.index) == (1, 1.0, (1,))


def test_nonfinite_without_tolerance_is_mismatched_all_the_same(measure):
    m = measure(np.array([NAN, 1.0, 5.0]), np.array([1.0, 1.0, 1.0]), rtol=None, atol=None)

    assert (m.mismatched, m.mismatched_pairs) == (1, 0)
    assert m.max_abs.value == 4.0
    assert m.max_abs.allowed is None


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_narrow_floats_of_ml_dtypes(measure, name):
    dtype = np.dtype(getattr(ml_dtypes, name))
    m = measure(np.array([1.0, 2.0, 0.5], dtype), np.array([1.0, 1.5, 0.5], np.float32), rtol=0.1, atol=0.1)

    assert (m.mismatched, m.max_abs.value, m.max_abs.index) == (1, 0.5, (1,))
    assert m.max_abs.allowed == pytest.approx(0.25)


def test_int4_of_ml_dtypes_is_exact():
    m = measure(np.array([-8, 7], ml_dtypes.int4), np.array([-8, 6], np.int32), rtol=1.0, atol=1.0)

    assert (m.exact, m.mismatched, m.max_abs.value) == (True, 1, 1)


def test_a_scalar_has_the_empty_index(measure):
    m = measure(np.float32(1.5), np.float32(1.0), rtol=0.0, atol=0.1)

    assert (m.count, m.mismatched, m.max_abs.index, m.max_abs.value) == (1, 1, (), 0.5)
    assert m.max_excess.value == pytest.approx(5.0)


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_an_empty_array_has_no_extremes(measure, dtype):
    m = measure(np.empty((0, 3), dtype), np.empty((0, 3), dtype), rtol=0.0, atol=0.0)

    assert (m.count, m.mismatched, m.mismatched_share) == (0, 0, 0.0)
    assert (m.max_abs, m.max_rel, m.max_excess, m.expected_min) == (None, None, None, None)
    assert math.isnan(m.rmse)


def test_denormals_are_not_flushed(measure):
    tiny = np.float32(1e-45)
    m = measure(np.array([tiny, 0.0], np.float32), np.array([0.0, tiny], np.float32), rtol=0.0, atol=0.0)

    assert m.mismatched == 2
    assert (m.rel_undefined, m.max_rel.value, m.max_rel.index) == (1, 1.0, (1,))


def test_signs_of_zero_are_equal(measure):
    m = measure(np.array([0.0, -0.0]), np.array([-0.0, 0.0]), rtol=0.0, atol=0.0)

    assert (m.mismatched, m.rel_undefined, m.max_rel.value, m.cosine) == (0, 0, 0.0, 1.0)
    assert m.snr_db == INF


def test_zero_against_something_has_no_direction(measure):
    m = measure(np.array([1.0, 0.0]), np.array([0.0, 0.0]), rtol=0.0, atol=0.0)

    assert (m.cosine, m.snr_db, m.max_excess.value) == (0.0, -INF, INF)


def test_overflow_of_squares_gives_nan_and_no_warning(measure):
    """A cosine that cannot be known satisfies no requirement."""
    m = measure(np.array([1e200, 1.0]), np.array([1e200, 2.0]), rtol=0.0, atol=0.0)

    assert (m.pairs, m.nonfinite_actual, m.mismatched) == (2, 0, 1)
    assert math.isnan(m.cosine)
    assert math.isnan(m.snr_db)


def test_the_limit_is_strict_and_asymmetric(measure):
    """Exactly on the limit is close, and rtol is of expected."""
    assert measure(np.array([1.5]), np.array([1.0]), rtol=0.25, atol=0.25).mismatched == 0
    assert measure(np.array([2.0]), np.array([1.0]), rtol=0.5, atol=0.0).mismatched == 1
    assert measure(np.array([1.0]), np.array([2.0]), rtol=0.5, atol=0.0).mismatched == 0


def test_strided_arrays_are_read_in_c_order(measure):
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    actual = base.T.copy()
    actual[5, 1] += 1

    m = measure(actual, base.T, rtol=0.0, atol=0.0)

    assert (m.mismatched, m.max_abs.index) == (1, (5, 1))


def test_extra_memory_does_not_grow_with_the_arrays(measure):
    actual = np.ones((8, 1 << 21), np.float32)
    expected = np.asfortranarray(actual)
    for e in (actual, expected):
        tracemalloc.start()
        measure(actual, e, rtol=1e-3, atol=1e-3)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

        assert peak < 64 << 20  # one float64 copy alone would be 128 MiB


@pytest.mark.parametrize("dtype", ["complex64", "U3", "O", "datetime64[s]"])
def test_what_cannot_be_compared_is_refused(dtype):
    values = np.zeros(2, dtype)
    with pytest.raises(InputsError, match="cannot be compared"):
        measure(values, values, rtol=0.0, atol=0.0)


def test_bad_arguments_are_refused():
    one = np.ones(1)
    with pytest.raises(InputsError, match=r"shapes \(1,\) and \(2,\)"):
        measure(one, np.ones(2), rtol=0.0, atol=0.0)
    with pytest.raises(InputsError, match="only one is floating-point"):
        measure(one, np.ones(1, int), rtol=0.0, atol=0.0)
    with pytest.raises(UsageError, match="both rtol and atol"):
        measure(one, one, rtol=0.1, atol=None)
    for bad in (-1.0, NAN, INF):
        with pytest.raises(UsageError, match="atol must be finite"):
            measure(one, one, rtol=0.1, atol=bad)


@few
@given(st.lists(array_pairs(), min_size=2, max_size=4), st.booleans())
def test_merging_equals_measuring_all_at_once(measure, pairs, allow):
    flat = [[x.reshape(-1).astype(np.float64) for x in pair] for pair in pairs]
    merged = Metrics.merged([measure(a, e, rtol=1e-3, atol=1e-3, allow_nonfinite=allow) for a, e in flat])
    joined = [np.concatenate(side) for side in zip(*flat, strict=True)]
    whole = measure(*joined, rtol=1e-3, atol=1e-3, allow_nonfinite=allow)

    starts = np.cumsum([0, *(len(a) for a, _ in flat)])
    exactly = "count pairs mismatched rel_undefined nonfinite_actual nonfinite_expected nonfinite_disagreements "
    exactly += "expected_min expected_max rtol atol allow_nonfinite exact mismatched_pairs"
    for name in exactly.split():
        assert getattr(merged, name) == getattr(whole, name), name
    for name in ("max_abs", "max_rel", "max_excess"):
        part, all_of_it = getattr(merged, name), getattr(whole, name)
        if all_of_it is None:
            assert part is None
        else:
            assert (part.value, starts[part.sample] + part.index[0]) == (all_of_it.value, all_of_it.index[0])
            assert (part.allowed, part.actual, part.expected) == (
                all_of_it.allowed,
                all_of_it.actual,
                all_of_it.expected,
            )
    for name in ("mean_abs", "rmse", "snr_db"):
        assert getattr(merged, name) == pytest.approx(getattr(whole, name), rel=1e-12, nan_ok=True), name
    assert merged.cosine == pytest.approx(whole.cosine, abs=1e-12, nan_ok=True)


def test_json_holds_no_nan(measure):
    m = measure(np.array([NAN, 1.0]), np.array([NAN, 0.0]), rtol=0.0, atol=0.0)

    row = json.loads(json.dumps(m.to_json(), allow_nan=False))

    assert row["snr_db"] == "-inf"
    assert row["max_excess"]["value"] == "inf"
    assert row["max_abs"] == {
        "value": 1.0,
        "index": [1],
        "actual": 1.0,
        "expected": 0.0,
        "allowed": 0.0,
        "sample": None,
    }
    assert row["max_rel"] is None
