"""Queries as trtexec lists them: which are its own, which count, and which are no durations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from pytest_trt.errors import InputsError
from pytest_trt.latency.trtexec_times import after_warmup, durations, is_query


@pytest.mark.parametrize(
    ("entry", "expected"),
    [({"computeMs": 1.0}, True), ({"latencyMs": 1.0}, False), (["computeMs"], False), (1.0, False)],
)
def test_what_is_a_query_of_trtexec(entry: Any, expected: bool):
    assert is_query(entry) is expected


@pytest.mark.parametrize(
    ("began", "counts"),
    [(199.9, False), (200, True), (200.1, True), (-1.0, False), (None, True), ("5", True), (True, True), ([], True)],
)
def test_what_began_while_it_warmed_up_does_not_count(began: Any, counts: bool):
    queries = [{"startComputeMs": began, "computeMs": 1.0}, {"computeMs": 2.0}]

    assert after_warmup(queries, 200.0) == (queries if counts else queries[1:])


def test_whole_milliseconds_are_durations_too():
    found = durations("times.json", [{"computeMs": 1, "h2dMs": 3}, {"computeMs": 2, "h2dMs": 4}], "h2d")

    assert found.dtype == np.float64
    assert found.tolist() == [3.0, 4.0]


@pytest.mark.parametrize("value", [0, 0.0, -1.0, math.inf, math.nan, True, "1.0", None, [1.0]])
def test_what_is_no_duration(value: Any):
    with pytest.raises(InputsError, match=r"^times\.json: query 1: computeMs is ") as caught:
        durations("times.json", [{"computeMs": 1.0}, {"computeMs": value}])
    assert repr(value) in caught.value.message


@pytest.mark.parametrize("query", [{"computeMs": 1.0}, {"latencyMs": 1.0}, 3, ["latencyMs"]])
def test_what_has_not_what_was_asked_for_is_named(query: Any):
    with pytest.raises(InputsError, match=r"^times\.json: query 1 has no latencyMs"):
        durations("times.json", [{"computeMs": 1.0, "latencyMs": 1.0}, query], "latency")


def test_an_unknown_metric_is_answered_with_the_known_ones():
    with pytest.raises(InputsError, match="unknown metric 'gpu'; known: compute, latency, h2d, d2h"):
        durations("times.json", [], "gpu")
