"""measure() on every dtype, byte order, layout and bit pattern, against an oracle that takes one element at a time."""

from __future__ import annotations

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

from pytest_trt.accuracy import measure, workers
from pytest_trt.accuracy.measurement import dtype_class
from pytest_trt.accuracy.relative import ceiling, least_magnitude, near

some = settings(max_examples=60, deadline=None)

NARROW = sorted(
    name
    for name, value in vars(ml_dtypes).items()
    if isinstance(value, type) and name.startswith(("bfloat", "float")) and np.dtype(value).name == name
)
FLOATS = [np.dtype(getattr(ml_dtypes, name)) for name in NARROW] + [
    np.dtype(code) for code in ("<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "g")
]
INTEGERS = [np.dtype(code) for code in ("?", "i1", "u1", ">i2", "u2", "i4", ">u4", "i8", ">i8", "u8", ">u8")] + [
    np.dtype(getattr(ml_dtypes, name)) for name in ("int4", "uint4", "int2", "uint2")
]


def test_the_types_are_all_there():
    """A list that is found by its names could be empty."""
    assert {"bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz", "float8_e8m0fnu"} <= {*NARROW}
    assert {dtype_class(dtype) for dtype in FLOATS} == {"float"}
    assert {dtype_class(dtype) for dtype in INTEGERS} == {"bool", "int"}


def patterns(draw, dtype, size):
    """Any bits at all: every NaN, both infinities, denormals, both zeros; or ordinary values."""
    if dtype.char == "g" or draw(st.booleans()):
        values = draw(hnp.arrays(np.float64, size, elements=st.floats(-8, 8) | st.sampled_from([0.0, -0.0, math.nan])))
        with np.errstate(all="ignore"):
            return values.astype(dtype)
    raw = draw(hnp.arrays(np.uint8, size * dtype.itemsize))
    values = raw.view(dtype)
    if dtype.itemsize == 8:  # squares of the rest are beyond float64: test_accuracy_measure has them
        values = np.where(np.isfinite(values) & (abs(values) > 1e140), dtype.type(3.0), values).astype(dtype)
    return values


LAYOUTS = {
    "flat": lambda x: x,
    "rows": lambda x: x.reshape(-1, 2),
    "transposed": lambda x: x.reshape(2, -1).T,
    "backwards": lambda x: x[::-1],
    "both backwards": lambda x: x.reshape(-1, 2)[::-1, ::-1],
    "every other": lambda x: np.repeat(x, 2)[::2],
    "channels last": lambda x: x.reshape(2, -1, 2).transpose(2, 0, 1),
    "unaligned": lambda x: np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(x.dtype),
}


@some
@given(st.data(), st.sampled_from(FLOATS), st.booleans(), st.integers(1, 11), st.integers(1, 3))
def test_every_bit_pattern_agrees_with_the_oracle(measure, data, dtype, mixed, chunk, segment):
    """Whatever the widths, byte orders, layouts and chunk borders."""
    size = 4 * data.draw(st.integers(0, 8), label="quarter")
    other = data.draw(st.sampled_from(FLOATS), label="other") if mixed else dtype
    expected = patterns(data.draw, other, size)
    actual = patterns(data.draw, dtype, size)
    if data.draw(st.booleans(), label="mostly alike"):
        with np.errstate(all="ignore"):
            actual = np.where(data.draw(hnp.arrays(np.bool_, size)), expected.astype(np.float64).astype(dtype), actual)
    layout = LAYOUTS[data.draw(st.sampled_from([*LAYOUTS]), label="layout")] if size else LAYOUTS["flat"]
    actual, expected = layout(actual), layout(expected)
    if data.draw(st.booleans(), label="one is contiguous"):
        expected = np.ascontiguousarray(expected)
    rtol, atol = data.draw(st.sampled_from([(0.0, 0.0), (0.1, 0.0), (0.0, 0.5), (0.25, 0.125)]), label="limits")
    allow = data.draw(st.booleans(), label="allow")
    with (
        mock.patch("pytest_trt.accuracy.chunks.CHUNK", chunk),
        mock.patch("pytest_trt.accuracy.chunks.SEGMENT", segment),
        mock.patch("pytest_trt.accuracy.compiled.BLOCK", 4),
    ):
        m = measure(actual, expected, rtol=rtol, atol=atol, allow_nonfinite=allow)
    assert_agrees(m, actual, expected, rtol, atol, allow)


@pytest.mark.parametrize("dtype", FLOATS[: len(NARROW)], ids=NARROW)
def test_every_value_of_a_narrow_type_meets_every_other(measure, dtype):
    """All pairs of 8 bits; of 16 bits, all values against their neighbours."""
    if dtype.itemsize == 1:
        values = np.arange(256, dtype=np.uint8).view(dtype)
        actual, expected = (x.reshape(-1) for x in np.broadcast_arrays(values[:, None], values[None, :]))
    else:
        expected = np.arange(1 << 16, dtype=np.uint16).view(dtype)
        actual = np.roll(expected, 1)
    with mock.patch("pytest_trt.accuracy.chunks.CHUNK", 9_000):
        found = measure(actual, expected, rtol=0.5, atol=1e-3, allow_nonfinite=True)
    assert_agrees(found, actual, expected, 0.5, 1e-3, True)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("layout", ["flat", "transposed", "backwards", "unaligned"])
def test_integers_of_every_type_and_layout_are_exact(dtype, layout):
    rng = np.random.default_rng(11)
    expected = rng.integers(0, 256, 40 * dtype.itemsize, np.uint8)
    expected = (expected & 1).view(np.bool_) if dtype == np.bool_ else expected.view(dtype)
    actual = np.where(rng.random(expected.size) < 0.3, np.roll(expected, 3), expected)
    actual, expected = LAYOUTS[layout](actual), LAYOUTS[layout](expected)
    with mock.patch("pytest_trt.accuracy.chunks.CHUNK", 7):
        m = measure(actual, expected, rtol=9.0, atol=9.0)
    pairs = [(int(actual[i]), int(expected[i]), i) for i in np.ndindex(actual.shape)]
    greatest = max(abs(x - y) for x, y, _ in pairs)
    assert greatest
    assert m.mismatched == sum(x != y for x, y, _ in pairs)
    assert (m.max_abs.value, m.max_abs.index) == (greatest, next(i for x, y, i in pairs if abs(x - y) == greatest))
    assert m.sum_product == pytest.approx(
        sum(x * y for x, y, _ in pairs), abs=1e-12 * float(sum(x * x + y * y for x, y, _ in pairs))
    )


def test_wide_integers_are_measured_in_parts():
    expected = np.arange(100, dtype=np.int64) + 2**60
    actual = expected.copy()
    actual[[3, 70]] += [1, 5]
    with mock.patch("pytest_trt.accuracy.integers._WIDE", 30):
        m = measure(actual, expected, rtol=0.0, atol=0.0)
    assert (m.mismatched, m.max_abs.index, m.max_abs.value, m.sum_abs) == (2, (70,), 5, 6.0)


@pytest.mark.parametrize("width", [4, 8])
@some
@given(data=st.data())
def test_the_least_magnitude_is_read_from_the_bits(width, data):
    values = data.draw(
        hnp.arrays(f"f{width}", st.integers(1, 20), elements=st.floats(allow_nan=False, width=8 * width))
    )
    found = least_magnitude(values)
    assert (found, math.copysign(1, found)) == (np.abs(values).min(), 1)


@some
@given(
    hnp.arrays(np.float32, st.integers(1, 20), elements=st.floats(-8, 8, width=32)),
    st.floats(0, 1e30),
    st.sampled_from([-1.0, 0.0, 1e-3, 1e3, 1e30, math.inf]),
)
def test_no_relative_difference_is_above_the_ceiling(e, greatest, known):
    found = ceiling(greatest, e, e.min().item(), e.max().item(), known)
    with np.errstate(all="ignore"):
        assert not (np.float64(greatest) / np.abs(e.astype(np.float64)) > found).any()


@some
@given(
    st.sampled_from([np.float32, np.float64]).flatmap(
        lambda dtype: hnp.arrays(
            dtype, 64, elements=st.floats(-1, 1, width=32) | st.sampled_from([0.0, -0.0, 2.0**-12, -(2.0**-13)])
        )
    ),
    st.floats(2.0**-30, 1.0),
)
def test_what_is_not_near_has_no_great_relative_difference(e, greatest):
    """Whatever the sign and the rounding: the rest may be left out."""
    e[0], known = 1, 5e3 * greatest
    where = near(e, greatest, e.min().item(), 1.0, known, np.empty(64, np.bool_))
    if where is not None:
        rest = np.abs(np.delete(e, where).astype(np.float64))
        assert (greatest / rest <= known).all()
        assert (np.abs(e[where]) <= 2.0**-11).all()  # few: the others cost time


@pytest.mark.parametrize("sign", [1, -1])
def test_the_greatest_relative_difference_may_come_late_and_close_to_0(measure, sign):
    expected = np.linspace(-1, 1, 300, dtype=np.float32)
    expected[[50, 299]] = 1e-4, sign * 1e-5
    with mock.patch("pytest_trt.accuracy.chunks.CHUNK", 100):
        m = measure(expected + np.float32(1e-3), expected, rtol=0.0, atol=0.0)
    assert m.max_rel.index == (299,)


def test_relative_differences_beyond_float64_hide_no_undefined_ones(measure):
    """The greatest is infinite already when the zeros come."""
    expected = np.array([1e-300] * 64 + [1.0] * 60 + [0.0] * 4)
    with mock.patch("pytest_trt.accuracy.chunks.CHUNK", 64):
        m = measure(np.full(128, 1e30), expected, rtol=0.0, atol=0.0)
    assert (m.max_rel.value, m.max_rel.index, m.rel_undefined) == (math.inf, (0,), 4)


def layouts_of(dtype):
    base = np.random.default_rng(12).standard_normal(600_000).astype(np.float32) * 3
    other = np.roll(base, 1)
    if np.dtype(dtype).kind in "iu":
        base, other = (x.astype(np.float64) * 2.0**58 for x in (abs(base) % 16, abs(other) % 16))
    return [x.astype(dtype) for x in (base, other)]


@pytest.mark.parametrize("layout", ["flat", "transposed", "every other"])
@pytest.mark.parametrize("dtypes", [("<f4", "<f4"), (">f4", ">f4"), ("f2", "f2"), ("f8", "f8"), (">i8", ">u8")])
def test_all_threads_together_need_less_than_64_megabytes(measure, layout, dtypes):
    """Each thread has buffers of its own, however large the arrays are; the peak of one is taken."""
    actual, expected = (LAYOUTS[layout](layouts_of(dtype)[i]) for i, dtype in enumerate(dtypes))
    spoiled = [(actual, expected)]
    if actual.dtype.kind == "f":
        spoiled.append((np.where(np.arange(actual.size).reshape(actual.shape) % 3, actual, np.nan), expected))
    for pair in spoiled:
        with mock.patch("pytest_trt.accuracy.workers.available", return_value=1):
            tracemalloc.start()
            measure(*pair, rtol=1e-3, atol=1e-3, atol_scale=1e-3)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak * workers.MAX_THREADS < 64 << 20


@pytest.mark.parametrize("layout", ["transposed", "every other", "both backwards"])
def test_threads_change_nothing_of_strided_arrays(measure, layout):
    rng = np.random.default_rng(13)
    expected = rng.standard_normal(120_000).astype(np.float32)
    actual = LAYOUTS[layout](expected + rng.standard_normal(expected.size).astype(np.float32) / 100)
    found = []
    for count in (1, 4):
        with (
            mock.patch("pytest_trt.accuracy.chunks.CHUNK", 7_001),
            mock.patch("pytest_trt.accuracy.workers.available", return_value=count),
        ):
            found.append(repr(measure(actual, LAYOUTS[layout](expected), rtol=1e-2, atol=1e-2)))
    assert found[0] == found[1]
