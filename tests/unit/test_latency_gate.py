"""The gate: three outcomes, no flips against sense, and a promise of what it detects that holds."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trt.latency.gate import BETWEEN_BUILDS, BETWEEN_LOADS, BETWEEN_PROCESSES, Outcome, Verdict, decide
from pytest_trt.latency.stats import Summary, summarize

ORDER = [Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.FAIL]

clocks = st.sampled_from(sorted(BETWEEN_PROCESSES))
errors = st.floats(0, 0.2)
thresholds = st.floats(0.001, 1)


ONE = summarize([1.0])


def summary(median_ms: float, median_se: float = 0.0) -> Summary:
    return replace(ONE, median_ms=median_ms, median_se=median_se)


def judge(
    ratio: float, se: float = 0.0, *, threshold: float = 0.05, clock: str = "simulated", rebuilt: bool = False
) -> Verdict:
    return decide(summary(2.0, se), summary(2.0 * ratio, se), threshold=threshold, clock=clock, rebuilt=rebuilt)


@pytest.mark.parametrize(
    ("ratio", "se", "clock", "outcome"),
    [
        (1.00, 0.000, "simulated", Outcome.PASS),
        (0.50, 0.000, "simulated", Outcome.PASS),
        (1.049, 0.000, "simulated", Outcome.PASS),
        (1.051, 0.000, "simulated", Outcome.FAIL),
        (2.00, 0.000, "simulated", Outcome.FAIL),
        (1.04, 0.010, "simulated", Outcome.INCONCLUSIVE),
        (1.06, 0.010, "simulated", Outcome.INCONCLUSIVE),
        (1.10, 0.010, "simulated", Outcome.FAIL),
        (1.00, 0.010, "simulated", Outcome.PASS),
        (1.00, 0.000, "graph", Outcome.PASS),
        (1.04, 0.000, "graph", Outcome.INCONCLUSIVE),
        (1.06, 0.000, "graph", Outcome.INCONCLUSIVE),
        (1.10, 0.000, "graph", Outcome.FAIL),
        (0.99, 0.000, "sync", Outcome.PASS),
        (1.04, 0.000, "sync", Outcome.INCONCLUSIVE),
        (1.12, 0.000, "sync", Outcome.FAIL),
        (1.00, 0.000, "host", Outcome.INCONCLUSIVE),
        (1.50, 0.000, "host", Outcome.INCONCLUSIVE),
        (4.00, 0.000, "host", Outcome.FAIL),
        (0.30, 0.000, "host", Outcome.PASS),
    ],
)
def test_outcomes_at_five_percent(ratio: float, se: float, clock: str, outcome: Outcome):
    assert judge(ratio, se, clock=clock).outcome is outcome


def test_the_interval_is_the_documented_one():
    verdict = decide(summary(2.0, 0.01), summary(2.2, 0.02), threshold=0.05, clock="sync")

    sigma = math.sqrt(0.01**2 + 0.02**2 + 2 * 0.01**2 + 2 * 0.015**2)
    assert math.isclose(verdict.ratio, 1.1)
    assert math.isclose(verdict.low, 1.1 * math.exp(-1.96 * sigma))
    assert math.isclose(verdict.high, 1.1 * math.exp(1.96 * sigma))
    assert math.isclose(verdict.detectable, 1.05 * math.exp(3.605 * sigma) - 1)


@given(
    ratios=st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)).map(sorted),
    threshold=thresholds,
    se=errors,
    clock=clocks,
    rebuilt=st.booleans(),
)
def test_slower_is_never_judged_better(ratios: list[float], threshold: float, se: float, clock: str, rebuilt: bool):
    faster, slower = (judge(ratio, se, threshold=threshold, clock=clock, rebuilt=rebuilt).outcome for ratio in ratios)

    assert ORDER.index(faster) <= ORDER.index(slower)


@given(limits=st.tuples(thresholds, thresholds).map(sorted), ratio=st.floats(0.2, 5), se=errors, clock=clocks)
def test_a_wider_threshold_is_never_stricter(limits: list[float], ratio: float, se: float, clock: str):
    strict, lenient = (judge(ratio, se, threshold=limit, clock=clock).outcome for limit in limits)

    assert ORDER.index(lenient) <= ORDER.index(strict)


@given(noise=st.tuples(errors, errors).map(sorted), ratio=st.floats(0.2, 5), threshold=thresholds, clock=clocks)
def test_noise_may_undo_a_verdict_but_not_turn_it_round(noise: list[float], ratio: float, threshold: float, clock: str):
    quiet, noisy = (judge(ratio, se, threshold=threshold, clock=clock).outcome for se in noise)

    assert noisy in (quiet, Outcome.INCONCLUSIVE)


@given(ratio=st.floats(0.2, 5), se=errors, threshold=thresholds, clock=clocks, rebuilt=st.booleans())
def test_figures_hang_together(ratio: float, se: float, threshold: float, clock: str, rebuilt: bool):
    verdict = judge(ratio, se, threshold=threshold, clock=clock, rebuilt=rebuilt)

    assert verdict.low <= verdict.ratio <= verdict.high
    assert verdict.detectable >= threshold - 1e-9
    assert (verdict.outcome is Outcome.FAIL) == (verdict.low > 1 + threshold)
    assert (verdict.outcome is Outcome.PASS) == (verdict.high < 1 + threshold)


@pytest.mark.parametrize("clock", ["graph", "sync", "host"])
@pytest.mark.parametrize("se", [0.0, 0.01])
def test_what_is_called_detectable_is_detected_nineteen_times_of_twenty(clock: str, se: float):
    """Simulated: medians of fresh processes scatter as the prior says, and around the median as its error says."""
    rng = np.random.default_rng(0)
    claimed = judge(1.0, se, clock=clock).detectable
    prior, runs = math.hypot(BETWEEN_PROCESSES[clock], BETWEEN_LOADS[clock]), 1500
    scatter = np.exp(math.hypot(prior, se) * rng.standard_normal((2, runs)))

    def share_of(outcome: Outcome, slowdown: float) -> float:
        verdicts = [
            decide(summary(2 * b, se), summary(2 * c * (1 + slowdown), se), threshold=0.05, clock=clock)
            for b, c in scatter.T
        ]
        return sum(v.outcome is outcome for v in verdicts) / runs

    assert 0.93 < share_of(Outcome.FAIL, claimed) < 0.97
    assert share_of(Outcome.FAIL, 0.05) < 0.04  # right at the threshold: 2.5 % by construction


def test_samples_of_equal_speed_do_not_turn_red():
    """From samples to verdict, without any scatter between processes: the 97.5 % of the interval's lower side."""
    rng = np.random.default_rng(3)
    runs = [summarize(np.exp(0.05 * rng.standard_normal(400))) for _ in range(200)]
    outcomes = [
        decide(a, b, threshold=0.01, clock="simulated").outcome for a, b in zip(runs[::2], runs[1::2], strict=True)
    ]

    assert outcomes.count(Outcome.FAIL) <= 2
    assert outcomes.count(Outcome.PASS) > 40


def test_another_plan_is_judged_against_the_noise_between_builds():
    same, other = judge(1.10, clock="graph"), judge(1.10, clock="graph", rebuilt=True)

    assert (same.outcome, other.outcome) == (Outcome.FAIL, Outcome.INCONCLUSIVE)
    sigma = math.sqrt(2) * math.hypot(BETWEEN_BUILDS, BETWEEN_PROCESSES["graph"], BETWEEN_LOADS["graph"])
    assert math.isclose(other.high, 1.10 * math.exp(1.96 * sigma))
    assert same.level == "between loads of one plan"
    assert other.level.startswith("between builds")


def test_more_loads_narrow_the_interval():
    one, nine = summary(2.0), replace(summary(2.0), loads=9)

    narrow, wide = (decide(s, s, threshold=0.05, clock="graph") for s in (nine, one))

    assert narrow.high < wide.high
    assert narrow.detectable < wide.detectable


def test_a_simulated_clock_knows_no_tactics():
    assert judge(1.2, rebuilt=True).high == judge(1.2).high


def test_an_unknown_clock_is_refused():
    with pytest.raises(ValueError, match="unknown clock 'sundial'; known: graph, sync, host, simulated"):
        judge(1.0, clock="sundial")


@pytest.mark.parametrize("threshold", [0, -0.1, math.nan])
def test_a_threshold_must_be_positive(threshold: float):
    with pytest.raises(ValueError, match="threshold must be positive"):
        judge(1.0, threshold=threshold)


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        (
            judge(1.02, 0.001),
            "+2.0% against the baseline (95 % interval +1.7% to +2.3%): no slowdown above 5.0%",
        ),
        (
            judge(0.9, 0.001),
            "-10.0% against the baseline (95 % interval -10.2% to -9.8%): no slowdown above 5.0%; faster beyond noise",
        ),
        (
            judge(1.2, 0.001),
            "+20.0% against the baseline (95 % interval +19.7% to +20.3%): slower by more than 5.0%",
        ),
        (
            judge(1.1, clock="host"),
            "+10.0% against the baseline (95 % interval -61.6% to +215.4%): "
            "cannot tell whether slower by 5.0%; a slowdown of 629% would be seen",
        ),
    ],
)
def test_the_sentence(verdict: Verdict, sentence: str):
    assert verdict.sentence == sentence


def test_as_json():
    data = json.loads(json.dumps(judge(1.2, 0.001, clock="graph").to_json(), allow_nan=False))

    assert (data["outcome"], data["clock"], data["ratio"], data["threshold"]) == ("fail", "graph", 1.2, 0.05)
    assert data["sentence"].endswith("slower by more than 5.0%")
