"""A verdict's sentence, level and JSON, and what becomes of it where both sides are one plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_trt.latency.verdict import Outcome, Verdict, change_of


def verdict(outcome: Outcome = Outcome.PASS, **changes: Any) -> Verdict:
    found = Verdict(outcome, ratio=1.02, low=1.01, high=1.03, threshold=0.05, detectable=0.07, clock="graph")
    return replace(found, **changes)


@pytest.mark.parametrize(
    ("ratio", "change"),
    [
        (1.0, "+0.0%"),
        (0.9996, "+0.0%"),
        (0.9994, "-0.1%"),
        (1.0006, "+0.1%"),
        (1.015, "+1.5%"),
        (0.5, "-50.0%"),
        (99.99, "+9899.0%"),
        (100.0, "over +9900%"),
        (float("inf"), "over +9900%"),
    ],
)
def test_a_ratio_is_told_as_a_change(ratio: float, change: str):
    assert change_of(ratio) == change


SEEN = "+2.0% against the baseline (95 % interval +1.0% to +3.0%): "


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (verdict(), "no slowdown above 5.0%"),
        (verdict(improved=True), "no slowdown above 5.0%; faster beyond noise"),
        (verdict(Outcome.FAIL, comparisons=2), "slower by more than 5.0%; corrected for 2 comparisons"),
        (verdict(Outcome.INCONCLUSIVE), "cannot tell whether slower by 5.0%; a slowdown of 7% would be seen"),
        (
            verdict(Outcome.INCONCLUSIVE, detectable=98.99),
            "cannot tell whether slower by 5.0%; a slowdown of 9899% would be seen",
        ),
        (verdict(Outcome.INCONCLUSIVE, detectable=99.0), "cannot tell whether slower by 5.0%; too much noise"),
        (
            verdict(noise_level="between builds", noise=0.035, noise_source="history"),
            "no slowdown above 5.0%; judged against the build lottery (3.5% between builds, by history)",
        ),
    ],
)
def test_the_sentence_says_what_is_known(found: Verdict, said: str):
    assert found.sentence == SEEN + said


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("improved", [True, False])
def test_a_plan_is_neither_slower_nor_faster_than_itself(outcome: Outcome, improved: bool):
    before = verdict(outcome, improved=improved)
    after = before.of_one_plan()

    failed = outcome is Outcome.FAIL
    assert after.outcome is (Outcome.INCONCLUSIVE if failed else outcome)
    assert (after.improved, after.noise_only) == (False, failed)
    assert ("both sides are the very same plan" in after.sentence) is failed
    assert (after.ratio, after.low, after.high) == (before.ratio, before.low, before.high)


def test_the_level_says_that_the_plan_is_another_one():
    assert verdict().level == "between processes"
    assert verdict(rebuilt=True).level == "between processes: the plan is another one than the baseline's"


def test_json_rounds_figures_and_keeps_the_rest():
    found = verdict(Outcome.FAIL, ratio=1.0234567, noise=0.0123456, improved=True, rebuilt=True, comparisons=3)

    assert found.to_json() == {
        "outcome": "fail",
        "ratio": 1.02346,
        "low": 1.01,
        "high": 1.03,
        "threshold": 0.05,
        "detectable": 0.07,
        "noise": 0.01235,
        "improved": True,
        "clock": "graph",
        "level": found.level,
        "noise_source": "the clock's prior",
        "comparisons": 3,
        "sentence": found.sentence,
    }
