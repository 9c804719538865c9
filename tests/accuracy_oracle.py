"""What measure() must find, one element after the other, in Python floats: slow and obvious."""

from __future__ import annotations

import math

import numpy as np
import pytest


def oracle(actual, expected, rtol, atol, allow_nonfinite):
    """Return counts, the extremes with their first index, and the finite values of both sides and their differences."""
    found = dict.fromkeys(("mismatched", "pairs", "disagreements", "undefined", "bad_a", "bad_e"), 0)
    best = {"max_abs": (-1.0, None), "max_rel": (-1.0, None), "max_excess": (-1.0, None)}
    xs, ys, ds, reference = [], [], [], []

    def offer(name, value, index):
        if value > best[name][0]:
            best[name] = (value, index)

    with np.errstate(all="ignore"):
        for index in np.ndindex(actual.shape):
            x, y = np.float64(actual[index]), np.float64(expected[index])
            found["bad_a"] += not math.isfinite(x)
            found["bad_e"] += not math.isfinite(y)
            if math.isfinite(y):
                reference.append(y)
            if not (math.isfinite(x) and math.isfinite(y)):
                agree = (math.isnan(x) and math.isnan(y)) or x == y
                found["disagreements"] += not agree
                found["mismatched"] += not (agree and allow_nonfinite)
                continue
            d = abs(x - y)
            xs.append(x)
            ys.append(y)
            ds.append(d)
            found["pairs"] += 1
            offer("max_abs", d, index)
            if y == 0 and x != 0:
                found["undefined"] += 1
            else:
                offer("max_rel", 0.0 if y == 0 else d / abs(y), index)
            allowance = atol + rtol * abs(y)
            if d > allowance:
                found["mismatched"] += 1
                offer("max_excess", d / allowance, index)
    return found, best, xs, ys, ds, reference


def total(products):
    """Return the sum, rounded once; infinite where a term or the sum is beyond float64."""
    products = [float(p) for p in products]
    try:
        return math.fsum(products)
    except OverflowError:
        return math.inf


def assert_agrees(m, actual, expected, rtol, atol, allow_nonfinite):
    """Counts and extremes exactly, sums but for rounding."""
    found, best, xs, ys, ds, reference = oracle(actual, expected, rtol, atol, allow_nonfinite)
    assert m.count == actual.size
    assert (m.pairs, m.mismatched) == (found["pairs"], found["mismatched"])
    assert (m.nonfinite_actual, m.nonfinite_expected) == (found["bad_a"], found["bad_e"])
    assert m.nonfinite_disagreements == found["disagreements"]
    assert m.rel_undefined == found["undefined"]
    for name, (value, index) in best.items():
        extreme = getattr(m, name)
        assert (None if index is None else (value, index)) == (extreme and (extreme.value, extreme.index)), name
        if index is not None:
            assert (extreme.actual, extreme.expected) == (np.float64(actual[index]), np.float64(expected[index])), name
    assert (m.expected_min, m.expected_max) == (min(reference, default=None), max(reference, default=None))
    with np.errstate(all="ignore"):
        xx, yy, dd, xy = (
            total(p * q for p, q in zip(*pair, strict=True)) for pair in ((xs, xs), (ys, ys), (ds, ds), (xs, ys))
        )
        norm = math.sqrt(xx) * math.sqrt(yy)
    assert m.sum_abs == pytest.approx(total(ds), rel=1e-12)
    for name, sum_of_squares in (("sum_actual_square", xx), ("sum_expected_square", yy), ("sum_square", dd)):
        assert getattr(m, name) == pytest.approx(sum_of_squares, rel=1e-12, abs=1e-300), name
    if math.isfinite(norm) and norm > 1e-280:  # beyond that, products leave the range of float64
        assert m.sum_product == pytest.approx(xy, rel=1e-12, abs=1e-12 * norm)
        assert m.cosine == pytest.approx(max(-1.0, min(1.0, xy / norm)), abs=1e-12)
    if not found["pairs"]:
        assert all(math.isnan(value) for value in (m.mean_abs, m.rmse, m.cosine, m.snr_db))
        return
    assert m.mean_abs == pytest.approx(total(ds) / len(ds), rel=1e-12)
    assert m.rmse == pytest.approx(math.sqrt(dd / len(ds)), rel=1e-12, abs=1e-150)
    if math.isfinite(dd + yy) and dd > 1e-280 and yy > 1e-280:
        # The quotient itself may leave the range of float64, its logarithm does not.
        assert m.snr_db == pytest.approx(10 * (math.log10(yy) - math.log10(dd)), abs=1e-9)
