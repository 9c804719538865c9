"""Quantiles against values of printed tables."""

from __future__ import annotations

import math

import pytest

from pytest_trt.latency.student import chi_square_quantile, t_quantile


@pytest.mark.parametrize(
    ("probability", "dof", "value"),
    [
        (0.975, 1, 12.706),
        (0.975, 2, 4.303),
        (0.975, 8, 2.306),
        (0.995, 5, 4.032),
        (0.95, 30, 1.697),
        (0.975, 60, 2.000),
        (0.9995, 120, 3.373),
        (0.975, 1e6, 1.960),
        (0.975, math.inf, 1.960),
        (0.025, 8, -2.306),
        (0.5, 3, 0.0),
    ],
)
def test_t(probability: float, dof: float, value: float):
    assert t_quantile(probability, dof) == pytest.approx(value, abs=1e-3)


def test_t_goes_over_into_the_normal_without_a_step():
    assert t_quantile(0.999, 0.999e6) == pytest.approx(t_quantile(0.999, 1.001e6), rel=1e-5)


@pytest.mark.parametrize("dof", [2, 2.5, 10, 49, 50, 51, 1e3, 1e5, 9.9e5])
@pytest.mark.parametrize("probability", [0.001, 0.4, 0.6, 0.975, 0.999])
def test_t_is_scipys(probability: float, dof: float):
    stats = pytest.importorskip("scipy.stats")
    assert t_quantile(probability, dof) == pytest.approx(stats.t.ppf(probability, dof), rel=1e-6)


@pytest.mark.parametrize(("probability", "dof"), [(0.0, 3), (1.0, 3), (0.975, 0.5)])
def test_t_is_not_defined_everywhere(probability: float, dof: float):
    with pytest.raises(ValueError, match="is not defined"):
        t_quantile(probability, dof)


@pytest.mark.parametrize(
    ("probability", "dof", "value"), [(0.999, 1, 10.83), (0.999, 4, 18.47), (0.95, 10, 18.31), (0.999, 30, 59.70)]
)
def test_chi_square(probability: float, dof: float, value: float):
    assert chi_square_quantile(probability, dof) == pytest.approx(value, rel=0.035)


@pytest.mark.parametrize("dof", [2, 2.5, 10, 100])
@pytest.mark.parametrize("probability", [0.9, 0.99, 0.999])
def test_chi_square_is_near_scipys(probability: float, dof: float):
    stats = pytest.importorskip("scipy.stats")
    assert chi_square_quantile(probability, dof) == pytest.approx(stats.chi2.ppf(probability, dof), rel=0.025)


def test_chi_square_is_never_negative():
    assert chi_square_quantile(1e-4, 1) == 0
    assert chi_square_quantile(0.05, 2) < 0.11
