"""Accuracy against its own past: what counts as worse, and what is rounding."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trt.baselines.drift import ERROR_GROWTH, TOP1_DROP, accuracy_drift


def drift(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return accuracy_drift({"y": old}, {"y": new})


@given(st.floats(0, 1e3), st.floats(0, 1))
def test_what_stays_is_no_drift(rmse: float, top1: float):
    assert drift({"rmse": rmse, "top1": top1}, {"rmse": rmse, "top1": top1}) == []


@given(st.floats(1e-6, 1e3), st.floats(0, ERROR_GROWTH))
def test_an_error_may_grow_up_to_the_factor(rmse: float, factor: float):
    assert drift({"rmse": rmse}, {"rmse": rmse * factor}) == []


@given(st.floats(1e-6, 1e3), st.floats(ERROR_GROWTH * 1.0001, 1e3))
def test_an_error_beyond_the_factor_is_told(rmse: float, factor: float):
    (sentence,) = drift({"rmse": rmse}, {"rmse": rmse * factor})

    assert sentence.startswith("output 'y': rmse ")
    assert sentence.endswith("more than 2 times the baseline's")


def test_the_sentence_has_both_values():
    assert drift({"rmse": 1e-4}, {"rmse": 3.456e-4}) == [
        "output 'y': rmse 0.0001 → 0.000346, more than 2 times the baseline's"
    ]


@pytest.mark.parametrize("before", [0.0, 1e-9, 1e-6])
def test_errors_of_rounding_may_grow_freely(before: float):
    assert drift({"rmse": before}, {"rmse": 2e-6}) == []
    assert len(drift({"rmse": before}, {"rmse": 2.1e-6})) == 1


def test_top1_may_drop_by_two_points():
    assert drift({"top1": 0.95}, {"top1": 0.95 - TOP1_DROP + 1e-9}) == []
    assert drift({"top1": 0.95}, {"top1": 0.92}) == ["output 'y': top-1 agreement 0.950 → 0.920"]
    assert drift({"top1": 0.9}, {"top1": 1.0}) == []


def test_every_output_has_its_say():
    stored = {"a": {"rmse": 1.0, "top1": 1.0}, "b": {"rmse": 1.0}, "c": {"rmse": 1.0}}
    found = accuracy_drift(stored, {"a": {"rmse": 9.0, "top1": 0.5}, "b": {"rmse": 1.0}})

    assert [line.partition(":")[0] for line in found] == [
        "output 'a'",
        "output 'a'",
        "output 'c' of the baseline is gone",
    ]


def test_a_new_output_has_no_past():
    assert accuracy_drift({}, {"y": {"rmse": 9.0}}) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({}, {"rmse": 9.0, "top1": 0.0}),
        ({"rmse": None, "top1": None}, {"rmse": 9.0, "top1": 0.0}),
        ({"rmse": 1.0, "top1": 1.0}, {}),
    ],
)
def test_a_figure_that_one_side_lacks_is_not_compared(old: dict[str, Any], new: dict[str, Any]):
    assert drift(old, new) == []
