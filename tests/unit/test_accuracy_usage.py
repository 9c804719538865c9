"""How much of a tolerance is used: above 1 exactly where outputs are not close, whatever is checked."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trt.accuracy.comparison import Comparison, compare
from pytest_trt.accuracy.tolerance import Tolerance
from pytest_trt.accuracy.usage import used_tolerance


def compared(actual: Any, expected: Any, **checks: Any) -> Comparison:
    off: dict[str, Any] = {"rtol": None, "atol": None}
    sides = ({"y": np.asarray(side)} for side in (actual, expected))
    return compare(*sides, tolerance=Tolerance(**{**off, **checks}))


@pytest.mark.parametrize(
    ("actual", "checks", "share"),
    [
        ([1.0, 2.0, 3.0], {"rtol": 0.0, "atol": 0.5}, 0.0),
        ([1.0, 2.0, 3.25], {"rtol": 0.0, "atol": 0.5}, 0.5),
        ([1.0, 2.0, 5.0], {"rtol": 0.0, "atol": 0.5}, 4.0),
        ([1.0, 2.0, 3.0], {"cosine": 0.9}, 0.0),
        ([1.0, -2.0, 3.0], {"cosine": 0.9}, (8 / 14) / 0.1),
        ([1.0, 2.0, 3.0 + math.sqrt(0.14)], {"snr_db": 20.0}, 1.0),
        ([3.0, 2.0, 1.0], {"top1": 0.5}, 2.0),
        ([1.0, 2.0, math.nan], {"rtol": 0.0, "atol": 0.5}, math.inf),
        ([1.0, 2.0], {"rtol": 0.0, "atol": 0.5}, math.inf),
        ([0.0, 0.0, 0.0], {"cosine": 0.9}, 10.0),
    ],
)
def test_the_share_of_each_check(actual: list[float], checks: dict[str, Any], share: float) -> None:
    assert used_tolerance(compared(actual, [1.0, 2.0, 3.0], **checks)) == pytest.approx(share)


@pytest.mark.parametrize(
    ("actual", "most", "share"),
    [([1, 2, 3, 4], 0.0, 0.0), ([1, 2, 3, 9], 0.0, math.inf), ([1, 2, 9, 9], 0.0, 2.0), ([1, 2, 9, 9], 0.25, 2.0)],
)
def test_integers_count_by_elements(actual: list[int], most: float, share: float) -> None:
    comparison = compared(actual, [1, 2, 3, 4], rtol=1.0, atol=1.0, max_mismatched=most)

    assert used_tolerance(comparison) == share


VALUES = st.lists(st.sampled_from([0.0, 1.0, 1.05, -1.0, 3.0, math.nan, math.inf]), min_size=3, max_size=3)
CHECKS = st.fixed_dictionaries(
    {},
    optional={
        "elements": st.sampled_from([(0.0, 0.0), (0.1, 0.0), (0.0, 0.05), (1.0, 1.0)]),
        "max_mismatched": st.sampled_from([0.0, 0.34, 0.7]),
        "cosine": st.sampled_from([-1.0, 0.9, 1.0]),
        "snr_db": st.sampled_from([-10.0, 20.0]),
        "top1": st.sampled_from([0.0, 1.0]),
    },
)


@given(VALUES, VALUES, CHECKS)
def test_more_than_all_of_it_is_used_exactly_where_outputs_are_not_close(
    actual: list[float], expected: list[float], checks: dict[str, Any]
) -> None:
    elements = checks.pop("elements", (0.5, 0.5) if checks.keys() <= {"max_mismatched"} else (None, None))
    comparison = compared(actual, expected, rtol=elements[0], atol=elements[1], **checks)

    assert (used_tolerance(comparison) <= 1) == comparison.ok
