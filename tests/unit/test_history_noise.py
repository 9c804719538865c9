"""What earlier runs say of the noise, and that the gate hears it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from history_rows import row
from records import ENVIRONMENT

from pytest_trt.history.noise import medians_of_plan, ratios_of_equals
from pytest_trt.history.rows import Row

PLAN = "ab" * 32
ID = "digits-fp16-b8-tensorrt"


def measured(number: int, ms: float, **given: Any) -> Row:
    found = row(number, ms, **{"plan": PLAN, **given})
    return replace(found, environment=given.get("environment", dict(ENVIRONMENT)))


def test_medians_are_of_the_same_engine_clock_and_environment() -> None:
    rows = [
        measured(1, 1.0),
        measured(2, 1.25),
        measured(3, 2.0, plan="cd" * 32),
        measured(4, 3.0, clock="sync"),
        measured(5, 4.0, id="other"),
        measured(6, 5.0, environment={**ENVIRONMENT, "driver": "another"}),
    ]

    assert medians_of_plan(rows, ID, PLAN, "graph", ENVIRONMENT) == pytest.approx([1.0, 1.25])
    assert medians_of_plan(rows, ID, PLAN, "host", ENVIRONMENT) == []


def test_only_the_latest_runs_count() -> None:
    rows = [measured(number, 1.0 + number) for number in range(80)]

    assert medians_of_plan(rows, ID, PLAN, "graph", ENVIRONMENT) == pytest.approx([1.0 + n for n in range(30, 80)])


def test_ratios_are_of_engines_beside_themselves_over_as_many_loads() -> None:
    def judged(number: int, **verdict: Any) -> Row:
        return replace(measured(number, 1.0, id=f"case{number}"), verdict={"outcome": "pass", **verdict})

    rows = [
        judged(1, equals={"loads": 9, "ratio": 1.001}),
        judged(2, equals={"loads": 3, "ratio": 1.002}),
        judged(3, ratio=1.003),
        judged(4, equals={"loads": 9, "ratio": 0.999}),
        measured(5, 1.0),
    ]

    assert ratios_of_equals(rows, "graph", ENVIRONMENT, 9) == [1.001, 0.999]
    assert ratios_of_equals(rows, "sync", ENVIRONMENT, 9) == []
