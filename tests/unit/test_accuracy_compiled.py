"""The compiled pass: that it gives what NumPy gives, when it is taken, and what is done without it.

Most tests of measure() run with both passes (the fixture `measure`); here is what they do not reach.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import fields
from fractions import Fraction
from unittest import mock

import numpy as np
import pytest

from pytest_trt.accuracy import compiled, kernels, measure
from pytest_trt.accuracy.compiled import LEAST, CompiledPass, float_pass
from pytest_trt.accuracy.passes import FloatPass
from pytest_trt.errors import UsageError

SUMS = ("sum_abs", "sum_square", "sum_actual_square", "sum_expected_square")


@pytest.fixture
def numba():
    return pytest.importorskip("numba", reason="the extra `fast` is not installed")


@pytest.fixture
def forget():
    """What was loaded counts neither before nor after."""
    with mock.patch.multiple(compiled, _numba=compiled._numba.__wrapped__, _load=compiled._load.__wrapped__):
        yield


def outputs(kind, size=1_500_000):
    """Two segments, the last chunk and the last block of it short."""
    rng = np.random.default_rng(21)
    expected = rng.standard_normal(size).astype(np.float32)
    noise = np.float32(2.5e-3) * rng.standard_normal(size).astype(np.float32)
    return {
        "noise": lambda: ((expected + noise).astype(np.float16).astype(np.float32), expected),
        "rounding": lambda: (expected * (1 + noise), expected),
        "wrong": lambda: (np.where(np.arange(size) % 1000, expected + noise, expected + 1), expected),
        "negated": lambda: (-expected, expected),
        "equal": lambda: (expected.copy(), expected),
        "relu": lambda: (np.maximum(expected + noise, 0), np.maximum(expected, 0)),
        "a little NaN": lambda: (np.where(np.arange(size) == 700_000, np.nan, expected + noise), expected),
        "much infinity": lambda: (expected + noise, np.where(np.arange(size) % 7, expected, -np.inf)),
        "float64": lambda: ((expected + noise).astype(np.float64), expected.astype(np.float64)),
        "float16": lambda: ((expected + noise).astype(np.float16), expected),
    }[kind]()


@pytest.mark.parametrize("limits", [(1e-2, 2e-2, 0.0), (0.0, 0.0, 0.0), (1e-3, 0.0, 1e-3), (None, None, 0.0)])
@pytest.mark.parametrize(
    "kind",
    ["noise", "rounding", "wrong", "negated", "equal", "relu", "a little NaN", "much infinity", "float64", "float16"],
)
def test_both_passes_find_the_same(numba, kind, limits):
    actual, expected = outputs(kind)
    actual = actual.astype(expected.dtype) if kind != "float16" else actual
    rtol, atol, scale = limits
    by_numpy, by_numba = (
        measure(actual, expected, rtol=rtol, atol=atol, atol_scale=scale, compiled=by) for by in (False, True)
    )
    rounded = {*SUMS, "sum_product"}
    if scale:  # so are the limits: the rms is from a sum
        rounded |= {"atol", "max_abs", "max_rel", "max_excess"}
        assert by_numba.atol == pytest.approx(by_numpy.atol, rel=1e-14)
        for name in ("max_abs", "max_rel", "max_excess"):
            found, known = (getattr(m, name) for m in (by_numba, by_numpy))
            assert (found and found.index) == (known and known.index)
            assert (found and found.value) == (known and pytest.approx(known.value, rel=1e-14))
    for name in {field.name for field in fields(by_numpy)} - rounded:
        assert getattr(by_numba, name) == getattr(by_numpy, name), name
    for name in SUMS:
        assert getattr(by_numba, name) == pytest.approx(getattr(by_numpy, name), rel=1e-12), name
    norm = math.sqrt(by_numpy.sum_actual_square * by_numpy.sum_expected_square)
    assert by_numba.sum_product == pytest.approx(by_numpy.sum_product, abs=1e-12 * norm)


def fused_limit(rtol, atol, magnitude):
    """Return atol + rtol·magnitude, rounded once."""
    return float(Fraction(rtol) * Fraction(magnitude) + Fraction(atol))


def test_no_limit_is_rounded_once(measure):
    """Differences right between the limit as it is written and what a fused multiplication and addition makes of it."""
    rng = np.random.default_rng(22)
    told_apart = 0
    for _ in range(400):
        e, rtol = np.float32(rng.uniform(1, 2)), rng.uniform(0.1, 0.9)
        a = np.float32(e + 1.01 * rtol * e)
        diff = abs(float(a) - float(e))
        atol = diff - rtol * float(e) + rng.uniform(-1, 1) * math.ulp(diff)
        limit, fused = atol + rtol * float(e), fused_limit(rtol, atol, float(e))
        told_apart += (diff > limit) != (diff > fused)
        found = measure(np.full(40, a), np.full(40, e), rtol=rtol, atol=atol)
        assert found.mismatched == 40 * (diff > limit)
    assert told_apart > 30


@pytest.mark.parametrize("kind", ["noise", "rounding", "wrong", "float64"])
def test_limits_next_to_the_greatest_differences_are_kept(measure, kind):
    """No block is passed over that has one mismatch, by a hair."""
    actual, expected = outputs(kind, 20_000)
    diff = np.abs(actual.astype(np.float64) - expected)
    magnitude = np.abs(expected.astype(np.float64))
    for greatest, scale in ((diff.max(), 1.0), ((diff / magnitude).max(), magnitude)):
        for limit in (greatest, np.nextafter(greatest, 0), greatest * (1 - 1e-15), greatest * (1 - 1e-9)):
            limits = {"rtol": 0.0, "atol": limit} if scale is not magnitude else {"rtol": limit, "atol": 0.0}
            assert measure(actual, expected, **limits).mismatched == np.count_nonzero(diff > limit * scale)


def test_quotients_a_unit_in_the_last_place_apart_are_told_apart(measure):
    """Though the product of the lesser one with a limit may be the difference that has the greater one."""
    rng = np.random.default_rng(23)
    unit = 2.0**-51
    for _ in range(60):
        expected = np.floor(rng.uniform(1.05, 1.15, 60) / unit) * unit
        diff = (np.floor(1.9 * expected / unit) + rng.integers(0, 4, 60)) * unit
        with mock.patch("pytest_trt.accuracy.compiled.BLOCK", 1):
            found = measure(expected - diff, expected, rtol=1.0, atol=0.0)
        quotients = diff / expected
        for extreme in (found.max_rel, found.max_excess):
            assert (extreme.value, extreme.index) == (quotients.max(), (quotients.argmax(),))


def test_a_quotient_beyond_float64_is_not_that_by_zero(measure):
    expected = np.array([0.0, 1.0, 1e-300])
    found = measure(np.full(3, 1e30), expected, rtol=0.0, atol=0.0)
    assert (found.max_rel.value, found.max_rel.index, found.rel_undefined) == (math.inf, (2,), 1)


def test_sums_keep_what_is_small(measure):
    """One accumulator for all would lose it."""
    size = 1 << 22
    expected = np.full(size, 1.0, np.float32)
    expected[0] = 2.0**26
    found = measure(expected, expected, rtol=0.0, atol=0.0)
    assert found.sum_expected_square == pytest.approx(2.0**52 + size - 1, rel=1e-15)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("place", [0, 2047, 2048, 4999])
def test_one_value_that_is_not_finite_is_seen_anywhere(measure, value, side, place):
    pair = [np.linspace(-1, 1, 5000, dtype=np.float32) for _ in range(2)]
    pair[side][place] = value
    found = measure(*pair, rtol=1e30, atol=1e30)
    assert (found.pairs, found.mismatched, found.nonfinite_disagreements) == (4999, 1, 1)
    assert math.isfinite(found.sum_square + found.sum_product + found.expected_max)


def test_it_is_taken_for_large_arrays_of_fitting_types(numba):
    def taken(count, *dtypes):
        return float_pass(*(np.broadcast_to(np.zeros((), dtype), count) for dtype in dtypes), None)

    assert taken(LEAST, "f4", "f4") is CompiledPass
    assert taken(LEAST, "f2", ">f4") is CompiledPass
    assert taken(LEAST, "f8", "f8") is CompiledPass
    assert taken(LEAST - 1, "f4", "f4") is FloatPass
    assert taken(LEAST, "f4", "f8") is FloatPass
    assert taken(LEAST, ">f8", ">f8") is FloatPass


@pytest.mark.parametrize("size", ["small", "large"])
def test_it_is_loaded_when_it_is_needed(numba, size):
    count = LEAST if size == "large" else LEAST - 1
    code = (
        "import sys, numpy\nfrom pytest_trt.accuracy import measure\n"
        f"x = numpy.zeros({count}, numpy.float32)\nmeasure(x, x, rtol=0.0, atol=0.0)\nprint('numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == [str(size == "large")]


@pytest.mark.usefixtures("forget")
def test_without_numba_numpy_does_it():
    large = np.broadcast_to(np.float32(1), LEAST)
    with mock.patch.dict(sys.modules, {"numba": None}):
        assert float_pass(large, large, None) is FloatPass
        with pytest.raises(UsageError, match="numba") as error:
            measure(np.ones(3), np.ones(3), rtol=0.0, atol=0.0, compiled=True)
    assert "pytest-trt[fast]" in error.value.hint


@pytest.mark.usefixtures("forget")
def test_a_numba_that_does_not_compile_is_none(numba):
    """Interpreted, the loops would take minutes."""
    large = np.broadcast_to(np.float32(1), LEAST)
    with mock.patch.object(numba.config, "DISABLE_JIT", 1):
        assert float_pass(large, large, None) is FloatPass


@pytest.mark.usefixtures("forget")
def test_it_compiles_where_nothing_can_be_kept(numba):
    from numba.core.caching import CacheImpl

    with mock.patch.object(CacheImpl, "_locator_classes", []):
        with pytest.raises(RuntimeError, match="cannot cache"):
            numba.njit(cache=True)(kernels.search_blocks)
        found = compiled._load(np.dtype(np.float32))
    table = np.empty((1, kernels.COLUMNS))
    found.measure_blocks(np.float32([1, 2]), np.float32([3, -2]), 2, table)
    assert table[0].tolist() == [5, 13, -1, 20, 6, 4, 2, -2, 3]


def test_compiled_code_is_kept_for_the_next_process(numba, tmp_path):
    code = (
        "import numpy\nfrom pytest_trt.accuracy import compiled\n"
        "found = compiled._load(numpy.dtype('f4'))\n"
        "print(sum(len(x.stats.cache_hits) for x in found), sum(len(x.stats.cache_misses) for x in found))"
    )
    told = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            check=True,
            capture_output=True,
            text=True,
        )
        told.append(done.stdout.split())
    assert told == [["0", "2"], ["2", "0"]]


def test_the_compiler_may_not_disregard_nan():
    """What shows here that it may depends on the processor and on LLVM: so the flags themselves are held."""
    assert kernels.MEASURE_OPTIONS["fastmath"] == {"reassoc", "contract"}
    assert "fastmath" not in kernels.SEARCH_OPTIONS
