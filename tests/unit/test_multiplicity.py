"""Corrections for the number of cases in a run."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_trt.latency.gate import TAIL, Outcome, decide
from pytest_trt.latency.multiplicity import comparisons_of


@pytest.mark.parametrize(
    ("cases", "confirmed", "comparisons"),
    [(0, False, 1), (1, False, 1), (30, False, 30), (1, True, 1), (40, True, 1), (41, True, 2), (1000, True, 5)],
)
def test_as_many_as_keep_a_run_of_unchanged_cases_green(cases: int, confirmed: bool, comparisons: int) -> None:
    assert comparisons_of(cases, confirmed=confirmed) == comparisons


@pytest.mark.parametrize("cases", [1, 40, 41, 160, 161, 5000])
def test_no_run_is_red_more_often_than_one_case_is(cases: int) -> None:
    once = TAIL / comparisons_of(cases, confirmed=False)
    twice = (TAIL / comparisons_of(cases, confirmed=True)) ** 2

    assert cases * once <= TAIL * 1.0001
    assert cases * twice <= TAIL * 1.0001


def test_a_correction_asks_more_of_a_fail() -> None:
    base = np.full(100, 1.0)
    slower = np.full(100, 1.05)
    verdicts = [decide(base, slower, threshold=0.03, clock="sync", comparisons=n).outcome for n in (1, 10**6)]

    assert verdicts == [Outcome.FAIL, Outcome.INCONCLUSIVE]
