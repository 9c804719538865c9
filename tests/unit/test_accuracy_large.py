"""measure() on arrays of many blocks, chunks and threads, against a plain oracle over whole arrays in float64."""

from __future__ import annotations

import math
import threading
import tracemalloc
from dataclasses import fields
from unittest import mock

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_trt.accuracy import Tolerance, compare, workers
from pytest_trt.accuracy.measurement import root_mean_square
from pytest_trt.accuracy.sums import Vector, dot
from pytest_trt.accuracy.widening import to_single
from pytest_trt.errors import UsageError

INF, NAN = math.inf, math.nan
some = settings(max_examples=60, deadline=None)


def whole(actual, expected, rtol, atol):
    """All at once and in copies; sums in extended precision."""
    with np.errstate(all="ignore"):
        a, e = (x.reshape(-1).astype(np.float64) for x in (actual, expected))
        finite = np.isfinite(a) & np.isfinite(e)
        diff = np.where(finite, np.abs(a - e), -1)
        relative = np.where(diff == 0, 0, diff / np.abs(e))
        relative[~finite | ((e == 0) & (diff > 0))] = -1
        allowance = atol + rtol * np.abs(e)
        over = finite & (diff > allowance)
        excess = np.where(over, diff / allowance, -1)
    a, e, d = (x[finite].astype(np.longdouble) for x in (a, e, diff))
    return {
        "pairs": int(finite.sum()),
        "mismatched": int(over.sum() + (~finite).sum()),
        "rel_undefined": int(((e == 0) & (d > 0)).sum()),
        **{
            name: None if values.max(initial=-1) < 0 else (values.max(), int(values.argmax()))
            for name, values in (("max_abs", diff), ("max_rel", relative), ("max_excess", excess))
        },
        "sum_abs": d.sum(),
        "sum_square": (d * d).sum(),
        "sum_actual_square": (a * a).sum(),
        "sum_expected_square": (e * e).sum(),
        "sum_product": (a * e).sum(),
        "scale_product": np.sqrt((a * a).sum() * (e * e).sum()),
    }


def agrees(m, actual, expected, rtol, atol):
    truth = whole(actual, expected, rtol, atol)
    for name in ("pairs", "mismatched", "rel_undefined"):
        assert getattr(m, name) == truth[name], name
    for name in ("max_abs", "max_rel", "max_excess"):
        found = getattr(m, name)
        assert (found and (found.value, np.ravel_multi_index(found.index, actual.shape))) == truth[name], name
    for name in ("sum_abs", "sum_square", "sum_actual_square", "sum_expected_square"):
        assert getattr(m, name) == pytest.approx(float(truth[name]), rel=1e-12), name
    assert m.sum_product == pytest.approx(float(truth["sum_product"]), abs=1e-12 * float(truth["scale_product"]))


def perturbed(expected, kind, rng):
    """Return what differs from float32 *expected* in one of the ways that outputs do."""
    noise = rng.standard_normal(expected.shape).astype(np.float32)
    tiny = np.float32(rng.choice([1e-7, 1e-6, 1e-4, 1e-2]))
    return {
        "equal": expected.copy,
        "rounding": lambda: expected * (1 + tiny * noise),
        "noise": lambda: expected + tiny * noise,
        "one factor": lambda: expected * np.float32(1.001),
        "last place": lambda: np.nextafter(expected, np.float32(INF)),
        "float16": lambda: expected.astype(np.float16).astype(np.float32),
        "relu": lambda: np.maximum(expected + tiny * noise, 0),
        "opposite": lambda: -expected,
        "unrelated": lambda: noise,
        "vanishing": lambda: expected * np.float32(1e-6),
        "huge": lambda: expected * np.float32(1e20),
        "one off": lambda: np.where(np.arange(expected.size) == expected.size // 3, expected + 1, expected),
        "special": lambda: np.where(np.abs(noise) > 3, np.float32(rng.choice([NAN, INF, -INF])), expected + tiny),
    }[kind]()


KINDS = (
    *("equal", "rounding", "noise", "one factor", "last place", "float16"),
    *("relu", "opposite", "unrelated", "vanishing", "huge", "one off"),
)


@some
@given(
    kind=st.sampled_from([*KINDS, "special"]),
    base=st.sampled_from(["normal", "relu", "grid", "denormal", "wide"]),
    dtypes=st.sampled_from(["ff", "ef", "fe", "ee", "fd", "dd", ">ff"]),
    limits=st.sampled_from([(0.0, 0.0), (1e-2, 1e-3), (1e-3, 0.0), (0.0, 1e-2), (1e-7, 1e-7), (0.5, 2.0)]),
    size=st.one_of(st.integers(1, 20_000), st.sampled_from([8_192, 40_001, 70_000])),
    chunk=st.sampled_from([5_000, 8_192, 20_000, 1 << 17]),
    swap=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_large_arrays_agree_with_the_oracle(measure, kind, base, dtypes, limits, size, chunk, swap, seed):
    """Counts and extremes exactly, sums to 1e-12, whichever of the shortcuts a chunk takes."""
    rng = np.random.default_rng(seed)
    expected = rng.standard_normal(size).astype(np.float32)
    if base == "relu":
        expected = np.maximum(expected, 0)
    elif base == "grid":
        expected = np.round(expected * 8) / 8
    elif base == "denormal":
        expected *= np.float32(1e-40)
    elif base == "wide":
        expected *= np.float32(10) ** rng.integers(-30, 15, size).astype(np.float32)
    with np.errstate(all="ignore"):
        actual = perturbed(expected, kind, rng)
        sides = (expected, actual) if swap else (actual, expected)
        pair = [x.astype(d) for x, d in zip(sides, (dtypes[:-1], dtypes[-1]), strict=True)]
    rtol, atol = limits
    with mock.patch("pytest_trt.accuracy.chunks.CHUNK", chunk), mock.patch("pytest_trt.accuracy.chunks.SEGMENT", 2):
        m = measure(*pair, rtol=rtol, atol=atol)
    agrees(m, *pair, rtol, atol)


@pytest.mark.parametrize("kind", KINDS)
def test_a_chunk_of_full_size_agrees_with_the_oracle(measure, kind):
    rng = np.random.default_rng(3)
    expected = rng.standard_normal((3, 150_001)).astype(np.float32)
    actual = perturbed(expected.reshape(-1), kind, rng).reshape(expected.shape)
    agrees(measure(actual, expected, rtol=1e-3, atol=1e-4), actual, expected, 1e-3, 1e-4)


@pytest.mark.parametrize("kind", ["one factor", "last place", "float16"])
@pytest.mark.parametrize("rtol", [9.99e-4, 1e-3, 1.001e-3, 1e-7, 4e-4])
def test_limits_between_the_relative_differences_are_kept(measure, kind, rtol):
    """Differences that float32 quotients cannot tell apart, and limits right among them."""
    rng = np.random.default_rng(9)
    expected = rng.standard_normal(50_000).astype(np.float32)
    actual = perturbed(expected, kind, rng)
    agrees(measure(actual, expected, rtol=rtol, atol=0.0), actual, expected, rtol, 0.0)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_nonfinite_reference_takes_no_part_in_relative_differences(measure, value):
    """A quotient with it may look like the greatest difference of all."""
    expected = np.array([1.0, value, 2.0], np.float32)
    m = measure(np.array([1.01, 5.0, 2.0], np.float32), expected, rtol=0.5, atol=0.0)
    assert (m.max_rel.index, m.mismatched) == ((0,), 1)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
@pytest.mark.parametrize("other", ["same", np.float32, np.float64])
def test_narrow_types_agree_with_the_oracle(measure, dtype, other):
    rng = np.random.default_rng(4)
    values = rng.standard_normal(40_000)
    actual = (values * (1 + 0.1 * rng.standard_normal(values.size))).astype(dtype)
    expected = values.astype(dtype if other == "same" else other)
    agrees(measure(actual, expected, rtol=0.1, atol=0.01), actual, expected, 0.1, 0.01)
    agrees(measure(expected, actual, rtol=0.1, atol=0.01), expected, actual, 0.1, 0.01)


@pytest.mark.parametrize(
    "dtype",
    [
        np.dtype(np.float16),
        np.dtype(">f2"),
        np.dtype(">f4"),
        *(
            np.dtype(getattr(ml_dtypes, name))
            for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz")
        ),
    ],
)
def test_every_bit_pattern_is_widened_as_a_cast_does(dtype):
    width = 8 * min(dtype.itemsize, 2)
    patterns = np.arange(1 << width).astype(f"u{width // 8}")
    values = patterns.view(dtype) if dtype.itemsize <= 2 else np.arange(-8, 8).astype(dtype)
    for part in (values, values[np.isfinite(values.astype(np.float32))]):
        wide = to_single(part, np.empty(part.shape, np.float32))
        np.testing.assert_array_equal(wide, part.astype(np.float32))
        np.testing.assert_array_equal(np.signbit(wide), np.signbit(part.astype(np.float32)))


@pytest.mark.parametrize("size", [0, 1, 8191, 8192, 8193, 100_000])
def test_sums_of_blocks_are_those_of_the_whole(size):
    x, y = np.random.default_rng(5).standard_normal((2, size))
    wide = x.astype(np.longdouble)
    assert dot(x, y) == pytest.approx(float((wide * y).sum()), abs=1e-13 * max(size, 1))
    assert Vector(x).square() == pytest.approx(float((wide * wide).sum()), rel=1e-13)
    assert Vector(x).total() == pytest.approx(float(wide.sum()), abs=1e-13 * max(size, 1))


def many_threads(count):
    return mock.patch("pytest_trt.accuracy.workers.available", return_value=count)


@pytest.mark.parametrize("kind", [*KINDS, "special"])
def test_the_number_of_threads_changes_nothing(measure, kind):
    """Bit for bit, sums included."""
    rng = np.random.default_rng(6)
    expected = np.round(rng.standard_normal(300_000), 2).astype(np.float32)
    actual = perturbed(expected, kind, rng)
    found = []
    for threads in (1, 2, 5):
        with mock.patch("pytest_trt.accuracy.chunks.CHUNK", 10_000), many_threads(threads):
            m = measure(actual, expected, rtol=1e-3, atol=1e-3, allow_nonfinite=True)
        found.append([repr(getattr(m, field.name)) for field in fields(m)])
    assert found[0] == found[1] == found[2]


def test_work_is_spread_and_comes_back_in_order():
    here, both = [], threading.Barrier(2, timeout=30)

    def worker():
        here.append(threading.get_ident())
        both.wait()  # nobody gets past this alone
        return lambda job: job * job

    with many_threads(2):
        assert workers.in_order(50, worker) == [job * job for job in range(50)]
    assert len(set(here)) == 2


def test_one_job_needs_no_thread():
    with many_threads(64):
        assert workers.in_order(1, lambda: lambda _: threading.get_ident()) == [threading.get_ident()]
        assert workers.in_order(0, lambda: lambda job: job) == []


def test_an_error_in_any_thread_is_raised():
    def fail(job):
        raise KeyError(job)

    with many_threads(3), pytest.raises(KeyError):
        workers.in_order(20, lambda: fail)


@pytest.mark.parametrize("dtypes", ["ff", "ed", "dd"])
@pytest.mark.parametrize(
    "limits",
    [(1e-3, 1e-3, 0.0), (0.0, 0.0, 1e-3), (1e-2, 0.0, 1e-2), (0.0, 1e-9, 10.0), (9.9e-4, 0.0, 1e-6), (0.0, 0.0, 0.7)],
)
@pytest.mark.parametrize("kind", [*KINDS, "special"])
def test_a_limit_that_the_scale_sets_is_the_same_as_one_given(measure, kind, limits, dtypes):
    """Only the segments that may hold a mismatch are read again; the result is that of judging all of them."""
    rng = np.random.default_rng(7)
    expected = rng.standard_normal(60_000).astype(np.float32)
    actual = perturbed(expected, kind, rng)
    with np.errstate(all="ignore"):
        pair = [x.astype(d) for x, d in zip((actual, expected), dtypes, strict=True)]
    rtol, atol, scale = limits
    with mock.patch("pytest_trt.accuracy.chunks.CHUNK", 3_000):
        found = measure(*pair, rtol=rtol, atol=atol, atol_scale=scale)
        given = measure(*pair, rtol=rtol, atol=found.atol)
    assert found.atol == pytest.approx(atol + scale * root_mean_square(pair[1]), rel=1e-14)
    assert repr(found) == repr(given)


def test_the_scale_is_that_of_all_finite_expected_values(measure):
    """Also where actual is not finite, and a reference without a finite value has the scale 0."""
    m = measure(np.array([NAN, 1.0, 1.0]), np.array([5.0, 1.0, INF]), rtol=0.0, atol=1.0, atol_scale=2.0)
    assert m.atol == pytest.approx(1 + 2 * math.sqrt(13))
    assert measure(np.array([1.0]), np.array([NAN]), rtol=0.0, atol=0.5, atol_scale=2.0).atol == 0.5


def test_a_scale_beyond_float64_is_no_limit():
    """An infinite allowance would accept anything."""
    far = np.full(3, 1e300)
    with pytest.raises(UsageError, match="rms"):
        compare({"x": far}, {"x": far}, tolerance=Tolerance(rtol=0.0, atol=0.0, atol_scale=1e-3))


def test_fifty_million_pairs_need_less_than_64_megabytes(measure):
    base = np.resize(np.random.default_rng(8).standard_normal(1 << 20).astype(np.float32), 50_000_001)
    actual, expected = base[1:], base[:-1]  # 200 MB that serve as both
    with many_threads(workers.MAX_THREADS):
        tracemalloc.start()
        found = measure(actual, expected, rtol=1e-3, atol=0.0, atol_scale=1e-2)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert found.mismatched > 40_000_000
    assert found.count == 50_000_000
    assert peak < 64 << 20
