"""The gate: three outcomes, no flips against sense, and a promise of what it detects that holds."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pytest_trt.latency import PRIORS, Outcome, Prior, Verdict, decide, decide_all, summarize
from pytest_trt.latency.stats import Summary
from pytest_trt.latency.student import t_quantile

ORDER = [Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.FAIL]
BY_DAY = Prior(processes=0.01, pairs=0.005, loads=0.02, builds=0.03)

clocks = st.sampled_from(sorted(PRIORS))
errors = st.floats(0, 0.2)
thresholds = st.floats(0.001, 1)
durations = st.lists(st.lists(st.floats(0.1, 10), min_size=2, max_size=25), min_size=1, max_size=4)
switches = st.fixed_dictionaries(
    {
        "clock": clocks,
        "threshold": thresholds,
        "rebuilt": st.booleans(),
        "repeats": st.sampled_from(["processes", "loads", "builds"]),
        "history": st.lists(st.floats(0.9, 1.1), max_size=12),
        "comparisons": st.integers(1, 50),
    }
)

ONE = summarize([1.0])


def summary(median_ms: float, within_se: float = 0.0, loads: int = 1) -> Summary:
    """A summary of so many samples that the error within a repeat is as good as known."""
    return replace(ONE, median_ms=median_ms, within_se=within_se, loads=loads, count=400 * loads)


def judge(ratio: float, se: float = 0.0, *, threshold: float = 0.05, clock: str = "simulated", **how: Any) -> Verdict:
    return decide(summary(2.0, se), summary(2.0 * ratio, se), threshold=threshold, clock=clock, **how)


def times(samples: list[list[float]], factor: float) -> list[NDArray[np.float64]]:
    return [factor * np.asarray(repeat) for repeat in samples]


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
        (1.04, 0.000, "graph", Outcome.PASS),
        (1.048, 0.000, "graph", Outcome.INCONCLUSIVE),
        (1.052, 0.000, "graph", Outcome.INCONCLUSIVE),
        (1.06, 0.000, "graph", Outcome.FAIL),
        (1.02, 0.000, "sync", Outcome.PASS),
        (1.04, 0.000, "sync", Outcome.INCONCLUSIVE),
        (1.06, 0.000, "sync", Outcome.INCONCLUSIVE),
        (1.08, 0.000, "sync", Outcome.FAIL),
        (1.00, 0.000, "host", Outcome.INCONCLUSIVE),
        (1.50, 0.000, "host", Outcome.INCONCLUSIVE),
        (5.00, 0.000, "host", Outcome.FAIL),
        (0.20, 0.000, "host", Outcome.PASS),
    ],
)
def test_outcomes_at_five_percent(ratio: float, se: float, clock: str, outcome: Outcome):
    assert judge(ratio, se, clock=clock).outcome is outcome


@pytest.mark.parametrize(
    ("how", "variance"),
    [
        ({}, 2 * 0.01**2),
        ({"repeats": "builds"}, 2 * (0.01**2 + 0.03**2)),
        ({"rebuilt": True}, 2 * (0.01**2 + 0.03**2)),
        ({"repeats": "builds", "rebuilt": True}, 2 * (0.01**2 + 0.03**2)),
        ({"repeats": "loads"}, 2 * (0.01**2 + 0.02**2)),
        ({"repeats": "loads", "rebuilt": True}, 2 * (0.01**2 + 0.02**2 + 0.03**2)),
    ],
)
def test_the_interval_is_the_documented_one(how: dict[str, Any], variance: float):
    verdict = decide(summary(2.0), summary(2.2), threshold=0.05, clock="sync", prior=BY_DAY, **how)

    sigma = math.sqrt(variance)
    assert math.isclose(verdict.ratio, 1.1)
    assert math.isclose(verdict.low, 1.1 * math.exp(-1.96 * sigma), rel_tol=1e-5)
    assert math.isclose(verdict.high, 1.1 * math.exp(1.96 * sigma), rel_tol=1e-5)
    assert math.isclose(verdict.detectable, 1.05 * math.exp(3.605 * sigma) - 1, rel_tol=1e-4)


@given(baseline=durations, candidate=durations, slower=st.floats(1, 20), how=switches)
def test_slower_is_never_judged_better(baseline: Any, candidate: Any, slower: float, how: dict[str, Any]):
    before, after = (decide(baseline, times(candidate, f), **how).outcome for f in (1.0, slower))

    assert ORDER.index(before) <= ORDER.index(after)


@given(baseline=durations, slower=st.floats(1, 20))
def test_slower_is_never_judged_better_in_pairs(baseline: Any, slower: float):
    candidate = [list(reversed(repeat)) for repeat in baseline]
    how: dict[str, Any] = {"threshold": 0.03, "clock": "host", "paired": True}
    before, after = (decide(baseline, times(candidate, f), **how).outcome for f in (1.0, slower))

    assert ORDER.index(before) <= ORDER.index(after)


@given(baseline=durations, candidate=durations, unit=st.floats(1e-3, 1e3), how=switches)
def test_a_verdict_does_not_know_the_unit(baseline: Any, candidate: Any, unit: float, how: dict[str, Any]):
    ms, other = decide(baseline, candidate, **how), decide(times(baseline, unit), times(candidate, unit), **how)

    for name in ("ratio", "low", "high", "noise"):
        assert math.isclose(getattr(ms, name), getattr(other, name), rel_tol=1e-6, abs_tol=1e-7), name


@given(baseline=durations, candidate=durations, how=switches)
def test_the_other_way_round_is_the_inverse(baseline: Any, candidate: Any, how: dict[str, Any]):
    how["comparisons"] = 1
    there, back = decide(baseline, candidate, **how), decide(candidate, baseline, **how)

    assert math.isclose(there.ratio * back.ratio, 1, rel_tol=1e-9)
    assert math.isclose(there.low * back.high, 1, rel_tol=1e-6)
    assert math.isclose(there.high * back.low, 1, rel_tol=1e-6)


@given(baseline=durations, candidate=durations, how=switches, data=st.data())
def test_the_order_of_repeats_does_not_matter(baseline: Any, candidate: Any, how: dict[str, Any], data: Any):
    shuffled = decide(data.draw(st.permutations(baseline)), data.draw(st.permutations(candidate)), **how)

    found = decide(baseline, candidate, **how)
    for name in ("ratio", "low", "high"):
        assert math.isclose(getattr(found, name), getattr(shuffled, name), rel_tol=1e-6), name


@given(limits=st.tuples(thresholds, thresholds).map(sorted), ratio=st.floats(0.2, 5), se=errors, clock=clocks)
def test_a_wider_threshold_is_never_stricter(limits: list[float], ratio: float, se: float, clock: str):
    strict, lenient = (judge(ratio, se, threshold=limit, clock=clock).outcome for limit in limits)

    assert ORDER.index(lenient) <= ORDER.index(strict)


@given(noise=st.tuples(errors, errors).map(sorted), ratio=st.floats(0.2, 5), threshold=thresholds, clock=clocks)
def test_noise_may_undo_a_verdict_but_not_turn_it_round(noise: list[float], ratio: float, threshold: float, clock: str):
    quiet, noisy = (judge(ratio, se, threshold=threshold, clock=clock).outcome for se in noise)

    assert noisy in (quiet, Outcome.INCONCLUSIVE)


@given(baseline=durations, candidate=durations, how=switches)
def test_figures_hang_together(baseline: Any, candidate: Any, how: dict[str, Any]):
    verdict = decide(baseline, candidate, **how)
    limit = 1 + how["threshold"]

    assert verdict.low <= verdict.ratio <= verdict.high
    assert verdict.detectable >= how["threshold"] - 1e-9
    assert (verdict.outcome is Outcome.FAIL) == (verdict.low > limit)
    assert (verdict.outcome is Outcome.PASS) == (verdict.high < limit and verdict.low <= limit)
    assert not (verdict.improved and verdict.outcome is Outcome.FAIL)


@pytest.mark.parametrize(("clock", "loads"), [("graph", 1), ("graph", 3), ("sync", 1), ("host", 1)])
@pytest.mark.parametrize("se", [0.0, 0.01])
def test_what_is_called_detectable_is_detected_nineteen_times_of_twenty(clock: str, loads: int, se: float):
    """Simulated: medians of fresh processes and loads scatter as the prior says, and around it as their error says."""
    rng, prior, runs = np.random.default_rng(0), PRIORS[clock], 1500
    how: dict[str, Any] = {"threshold": 0.05, "clock": clock, "repeats": "loads" if loads > 1 else "processes"}
    claimed = decide(summary(2.0, se, loads), summary(2.0, se, loads), **how).detectable
    each = math.hypot(prior.loads if loads > 1 else 0, se) * rng.standard_normal((2, runs, loads))
    scatter = np.exp(prior.processes * rng.standard_normal((2, runs)) + np.median(each, axis=2))

    def share_of(outcome: Outcome, slowdown: float) -> float:
        verdicts = [
            decide(summary(2 * b, se, loads), summary(2 * c * (1 + slowdown), se, loads), **how) for b, c in scatter.T
        ]
        return sum(v.outcome is outcome for v in verdicts) / runs

    assert 0.93 < share_of(Outcome.FAIL, claimed) < 0.975
    assert share_of(Outcome.FAIL, 0.05) < 0.04  # right at the threshold: 2.5 % by construction


def test_another_plan_is_judged_against_the_noise_between_builds():
    same, other = judge(1.10, clock="graph"), judge(1.10, clock="graph", rebuilt=True)

    assert (same.outcome, other.outcome) == (Outcome.FAIL, Outcome.INCONCLUSIVE)
    assert (same.noise_level, other.noise_level) == ("between processes", "between builds")
    assert other.level.startswith("between builds: the plan is another one")
    assert "build lottery" in other.sentence
    assert "build lottery" not in same.sentence


def test_a_simulated_clock_knows_no_tactics():
    assert judge(1.2, rebuilt=True).high == judge(1.2).high


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"looks": 0}, "looks must be at least 1, got 0"),
        ({"clock": "sundial"}, "unknown clock 'sundial'; known: graph, sync, host, simulated"),
        ({"repeats": "moons"}, "unknown repeats 'moons'; known: processes, loads, builds"),
        ({"threshold": 0}, "threshold must be positive"),
        ({"threshold": -0.1}, "threshold must be positive"),
        ({"threshold": math.nan}, "threshold must be positive"),
        ({"threshold": math.inf}, "threshold must be positive"),
        ({"threshold": "3%"}, "threshold must be positive, a share such as 0.03 for 3 %, got '3%'"),
        ({"comparisons": 0}, "comparisons must be at least 1"),
        ({"history": [1.0, 0.0]}, "history must be finite and positive"),
        ({"history": [math.nan]}, "history must be finite and positive"),
        ({"history": [[1.0, 1.1], [1.0, 1.1]]}, "history must be .* one number each"),
        ({"paired": True}, "give the samples, not a Summary"),
    ],
)
def test_what_cannot_be_judged(how: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        judge(1.0, **how)


@pytest.mark.parametrize("paired", [True, False])
def test_the_side_that_is_wrong_is_named(paired: bool):
    with pytest.raises(ValueError, match=r"^the candidate: sample 2 is inf"):
        decide([1.0, 1.0, 1.0], [1.0, 1.0, math.inf], threshold=0.05, clock="graph", paired=paired)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("clock", ["graph", "sync", "host"])
@pytest.mark.parametrize("slower", [1.0, 2.0])
def test_one_sample_a_side_says_nothing(clock: str, slower: float, paired: bool):
    verdict = decide([1.0], [slower], threshold=0.05, clock=clock, paired=paired)

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "too much noise" in verdict.sentence
    assert json.loads(json.dumps(verdict.to_json(), allow_nan=False))["ratio"] == slower


@pytest.mark.parametrize("other", [[[1.0, 2.0]], [[1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0], [1.0, 2.0]]])
def test_pairs_have_two_halves(other: Any):
    with pytest.raises(ValueError, match="as many samples in every repeat"):
        decide([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]], other, threshold=0.05, clock="host", paired=True)


def test_data_that_is_looked_at_again_needs_more_for_any_verdict():
    once, thrice = (judge(1.0, clock="graph", looks=looks) for looks in (1, 3))

    assert thrice.low < once.low < 1 < once.high < thrice.high
    assert math.log(thrice.high) / math.log(once.high) == pytest.approx(t_quantile(1 - 0.025 / 3, 1e9) / 1.96, rel=1e-3)
    assert thrice.detectable > once.detectable


def test_many_comparisons_make_red_rarer_and_leave_green_alone():
    verdicts = [judge(1.06, clock="graph", comparisons=n) for n in (1, 100)]

    assert [v.outcome for v in verdicts] == [Outcome.FAIL, Outcome.INCONCLUSIVE]
    assert verdicts[0].high == verdicts[1].high
    assert judge(1.04, clock="graph", comparisons=100).outcome is Outcome.PASS
    assert verdicts[1].sentence.endswith("corrected for 100 comparisons")


def test_a_run_of_many_unchanged_cases_rarely_turns_red():
    """60 cases right at the threshold, where each alone turns red in 2.5 of 100 runs."""
    rng = np.random.default_rng(0)
    sigma = PRIORS["graph"].processes
    red = {"alone": 0, "together": 0}
    for _ in range(100):
        cases = {
            n: (summary(math.exp(sigma * b)), summary(1.05 * math.exp(sigma * c)))
            for n, (b, c) in enumerate(rng.standard_normal((60, 2)))
        }
        together = decide_all(cases, threshold=0.05, clock="graph")
        red["together"] += any(v.outcome is Outcome.FAIL for v in together.values())
        red["alone"] += any(decide(*c, threshold=0.05, clock="graph").outcome is Outcome.FAIL for c in cases.values())

    assert red["alone"] > 60
    assert red["together"] < 8


def test_cases_that_are_red_for_sure_make_room_for_the_next():
    cases = {name: (summary(1.0), summary(ratio)) for name, ratio in {"a": 1.5, "b": 1.0568, "c": 1.5}.items()}

    assert judge(1.0568, clock="graph", comparisons=3).outcome is Outcome.INCONCLUSIVE
    found = decide_all(cases, threshold=0.05, clock="graph")
    assert {name: (v.outcome, v.comparisons) for name, v in found.items()} == {
        "a": (Outcome.FAIL, 3),
        "b": (Outcome.FAIL, 1),
        "c": (Outcome.FAIL, 3),
    }


def test_cases_may_have_a_history_each():
    cases = {name: ([1.0] * 20, [1.04] * 20) for name in ("calm", "wild")}
    wild = list(np.exp(0.1 * np.random.default_rng(0).standard_normal(12)))

    found = decide_all(cases, threshold=0.03, clock="graph", history={"wild": wild})
    assert [found[name].outcome for name in ("calm", "wild")] == [Outcome.FAIL, Outcome.INCONCLUSIVE]


def test_a_case_alone_is_judged_as_it_is_without_others():
    sides = summary(1.0), summary(1.02)

    assert decide_all({"a": sides}, threshold=0.05, clock="graph") == {
        "a": decide(*sides, threshold=0.05, clock="graph")
    }


def test_no_cases_no_verdicts():
    assert decide_all({}, threshold=0.05, clock="graph") == {}


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        (
            judge(1.02, 0.001),
            "+2.0% against the baseline (95 % interval +1.7% to +2.3%): no slowdown above 5.0%",
        ),
        (
            judge(0.9, 0.001),
            "-10.0% against the baseline (95 % interval -10.3% to -9.7%): no slowdown above 5.0%; faster beyond noise",
        ),
        (
            judge(1.2, 0.001),
            "+20.0% against the baseline (95 % interval +19.7% to +20.3%): slower by more than 5.0%",
        ),
        (
            judge(1.1, clock="host"),
            "+10.0% against the baseline (95 % interval -72.5% to +339.8%): "
            "cannot tell whether slower by 5.0%; a slowdown of 1244% would be seen",
        ),
        (
            judge(1.01, clock="graph", repeats="builds"),
            "+1.0% against the baseline (95 % interval -8.4% to +11.3%): cannot tell whether slower by 5.0%; a "
            "slowdown of 26% would be seen; judged against the build lottery (3.5% between builds, by the clock's "
            "prior)",
        ),
    ],
)
def test_the_sentence(verdict: Verdict, sentence: str):
    assert verdict.sentence == sentence


def test_nothing_is_not_less_than_nothing():
    assert judge(0.9999).sentence.startswith("+0.0% against the baseline (95 % interval +0.0% to +0.0%)")


def test_two_samples_far_apart_are_noise_and_nothing_else():
    verdict = decide([0.1, 10.0], [10.0, 0.1], threshold=0.05, clock="simulated", comparisons=50)

    assert verdict.sentence.endswith(
        "to over +9900%): cannot tell whether slower by 5.0%; too much noise; corrected for 50 comparisons"
    )
    json.dumps(verdict.to_json(), allow_nan=False)


def test_an_improvement_has_to_be_beyond_noise():
    assert judge(0.99, clock="graph").improved
    assert not judge(0.999, clock="graph").improved
    assert not judge(1.0).improved
    assert not judge(0.99, clock="graph", comparisons=10_000).improved


def test_a_threshold_of_numpys_is_written_as_json():
    verdict = decide([1.0, 1.1], [1.0, 1.1], threshold=np.float32(0.05), clock="graph")  # type: ignore[arg-type]

    assert json.loads(json.dumps(verdict.to_json()))["threshold"] == 0.05


def test_as_json():
    data = json.loads(json.dumps(judge(1.2, 0.001, clock="graph").to_json(), allow_nan=False))

    assert (data["outcome"], data["clock"], data["ratio"], data["threshold"]) == ("fail", "graph", 1.2, 0.05)
    assert data["sentence"].endswith("slower by more than 5.0%")
    assert (data["level"], data["noise_source"], data["comparisons"]) == ("between processes", "the clock's prior", 1)
