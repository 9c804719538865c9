"""What a verdict rests on: the prior, until repeats, history or the other half of a pair say it better."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pytest_trt.latency import PRIORS, Outcome, Prior, Verdict, decide
from pytest_trt.latency.stats import batch_count, median_error
from pytest_trt.latency.student import t_quantile

Array = NDArray[np.float64]


def still(*medians: float) -> list[list[float]]:
    """Repeats without any noise within."""
    return [[median] * 40 for median in medians]


def half_width(verdict: Verdict) -> float:
    return math.log(verdict.high / verdict.ratio)


def judge(baseline: Any, candidate: Any, clock: str = "graph", **how: Any) -> Verdict:
    return decide(baseline, candidate, threshold=how.pop("threshold", 0.03), clock=clock, **how)


def medians(count: int, spread: float) -> list[float]:
    """So many numbers around 1 whose logarithms have exactly the standard deviation *spread*."""
    logs = np.linspace(-1, 1, count)
    return list(np.exp(spread * logs / logs.std(ddof=1)))


def test_enough_history_replaces_the_prior():
    verdict = judge(still(1.0), still(1.01), "sync", history=medians(12, 0.004))

    assert half_width(verdict) == pytest.approx(t_quantile(0.975, 11) * 0.004 * math.sqrt(2))
    assert verdict.noise == pytest.approx(0.004)
    assert verdict.noise_source == "12 recorded medians"


def test_a_little_history_has_a_part_beside_the_prior():
    verdict = judge(still(1.0), still(1.01), "sync", history=medians(5, 0.02))

    assert verdict.noise == pytest.approx(math.sqrt((4 * PRIORS["sync"].processes ** 2 + 4 * 0.02**2) / 8))
    assert verdict.noise_source == "the clock's prior and 5 recorded medians"


@pytest.mark.parametrize("paired", [True, False])
def test_loads_that_differ_are_not_made_equal_by_a_quiet_history(paired: bool):
    """Nine loads, 2 % apart: other engines may have been steadier."""
    sides = still(*medians(9, 0.02)), still(*medians(9, 0.02)[::-1])
    verdict = judge(*sides, repeats="loads", history=medians(30, 0.0005), paired=paired)
    steady = judge(still(*[1.0] * 9), still(*[1.0] * 9), repeats="loads", history=medians(30, 0.0005), paired=paired)

    assert half_width(verdict) > 0.01
    assert half_width(steady) < 0.003


def test_one_earlier_median_says_nothing_about_noise():
    assert judge(still(1.0), still(1.01), "sync", history=[3.0]) == judge(still(1.0), still(1.01), "sync")


def test_history_decides_where_the_prior_cannot():
    sides = still(1.0), still(1.018)

    assert judge(*sides, "sync").outcome is Outcome.INCONCLUSIVE
    assert judge(*sides, "sync", history=medians(12, 0.001)).outcome is Outcome.PASS
    assert judge(still(1.0), still(1.06), "graph").outcome is Outcome.FAIL
    assert judge(still(1.0), still(1.06), "graph", history=medians(12, 0.03)).outcome is Outcome.INCONCLUSIVE


def test_a_shared_machine_needs_a_longer_history():
    """Eight calm processes do not promise a ninth: one in six was twice as slow."""
    eight, thirty = (judge(still(1.0), still(2.4), "host", history=medians(n, 0.02)) for n in (8, 30))

    assert (eight.outcome, thirty.outcome) == (Outcome.INCONCLUSIVE, Outcome.FAIL)


def test_repeats_narrow_the_interval_and_replace_the_prior():
    one = judge(still(1.0), still(1.0), "sync")
    three = judge(still(0.999, 1.0, 1.001), still(0.999, 1.0, 1.001), "sync")
    ten = judge(still(*medians(10, 0.001)), still(*medians(10, 0.001)), "sync")

    assert half_width(ten) < half_width(three) < half_width(one) / 1.5
    assert [v.noise_source for v in (one, three, ten)] == [
        "the clock's prior",
        "the clock's prior and the repeats",
        "the repeats",
    ]
    assert ten.noise == pytest.approx(0.001)


def test_repeats_that_differ_widen_the_interval():
    calm, wild = (judge(still(1.0, 1.0 + d), still(1.0, 1.0 + d), "sync", threshold=0.05) for d in (0.0, 0.03))

    assert half_width(wild) > 2 * half_width(calm)


def test_repeats_on_a_shared_machine_do_not_add_up():
    """The neighbours of one run are those of all its repeats."""
    one, ten = (judge(still(*[1.0] * n), still(*[1.0] * n), "host") for n in (1, 10))

    assert half_width(ten) == pytest.approx(half_width(one))


def test_repeats_cannot_agree_better_than_their_samples_let_them():
    noisy = np.exp(0.05 * np.random.default_rng(0).standard_normal(200))
    one = judge([noisy], [noisy], "simulated")
    many = judge([noisy] * 5, [noisy] * 5, "simulated")

    assert half_width(many) == pytest.approx(half_width(one) * math.sqrt(math.pi / 2 * (1 - 0.43 / 5) / 5), rel=0.05)
    assert (one.noise_level, many.noise_level) == ("within process", "within process")


def test_loads_of_one_process_that_agree_take_no_noise_away():
    same, other = still(1.0, 1.0, 1.0), still(1.0, 1.0, 1.08)
    alike, apart = judge(same, same, repeats="loads"), judge(same, other, repeats="loads")

    share = math.pi / 2 * (1 - 0.43 / 3) / 3
    sigma = math.sqrt(2 * (PRIORS["graph"].processes ** 2 + share * PRIORS["graph"].loads ** 2))
    assert half_width(alike) == pytest.approx(1.96 * sigma, rel=1e-4)
    assert half_width(apart) > 1.5 * half_width(alike)
    assert apart.ratio == 1
    assert alike.noise_level == "between loads of one plan"


def test_more_loads_narrow_the_interval():
    widths = [half_width(judge(still(*[1.0] * n), still(*[1.0] * n), repeats="loads")) for n in (1, 3, 9)]

    assert widths == sorted(widths, reverse=True)
    assert widths[2] < widths[0] / 2


def test_history_of_whole_runs_replaces_the_loads_prior():
    loads = still(1.0, 1.0, 1.0)
    verdict = judge(loads, loads, repeats="loads", history=medians(12, 0.001))

    assert half_width(verdict) == pytest.approx(t_quantile(0.975, 11) * 0.001 * math.sqrt(2))


@pytest.mark.parametrize(("count", "sees"), [(0, False), (9, False), (21, True)])
def test_history_of_engines_beside_themselves_replaces_the_loads_prior_of_a_cpu(count: int, sees: bool):
    sides = still(1.0, 1.0, 1.0), still(1.15, 1.15, 1.15)
    verdict = judge(*sides, "host", paired=True, repeats="loads", history=medians(count, 0.01) if count else ())

    assert (verdict.outcome is Outcome.FAIL) is sees
    assert ("prior" in verdict.noise_source) is not sees


def test_repeats_that_differ_like_builds_are_taken_for_builds():
    verdict = judge(still(1.0, 1.03, 0.98), still(1.05, 1.06, 1.0))

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.noise_level == "between builds"
    assert verdict.sentence.endswith(
        "by the clock's prior and the repeats, which differ more than processes of one plan do)"
    )
    assert judge(still(1.0, 1.001, 0.999), still(1.05, 1.051, 1.049)).noise_level == "between processes"


def test_builds_that_are_repeats_become_less_uncertain_with_their_number():
    one, nine = (judge(still(*[1.0] * n), still(*[1.0] * n), repeats="builds") for n in (1, 9))

    assert half_width(nine) < half_width(one) / 2
    assert judge(still(1.0), still(1.0), rebuilt=True).high == one.high


def pair(rng: np.random.Generator, factor: float = 1.0, repeats: int = 1, samples: int = 60) -> tuple[Array, Array]:
    """Two sides on a machine that gets 2.5 times slower and back: what both see at a time is the same."""
    weather = np.exp(np.cumsum(0.1 * rng.standard_normal((repeats, samples)), axis=1))
    own = np.exp(0.01 * rng.standard_normal((2, repeats, samples)))
    return 50 * weather * own[0], 50 * factor * weather * own[1]


@pytest.mark.parametrize(("factor", "outcome"), [(1.0, Outcome.PASS), (1.1, Outcome.FAIL), (0.9, Outcome.PASS)])
def test_what_both_halves_of_a_pair_see_cancels(factor: float, outcome: Outcome):
    sides = pair(np.random.default_rng(1), factor)

    paired = judge(*sides, "host", paired=True)
    assert paired.outcome is outcome
    assert paired.ratio == pytest.approx(factor, rel=0.01)
    assert paired.improved == (factor < 1)
    assert judge(*sides, "host").outcome is Outcome.INCONCLUSIVE


def test_pairs_are_matched_sample_by_sample():
    baseline, candidate = pair(np.random.default_rng(2))

    shuffled = np.random.default_rng(0).permutation(candidate, axis=1)
    assert half_width(judge(baseline, shuffled, "simulated", paired=True)) > 3 * half_width(
        judge(baseline, candidate, "simulated", paired=True)
    )


def test_the_interval_of_a_pair_is_that_of_its_ratios():
    ratios = np.exp(0.05 * np.random.default_rng(6).standard_normal(200))
    verdict = judge(np.full(200, 3.0), 3.0 * ratios, "simulated", paired=True)

    assert verdict.ratio == pytest.approx(np.median(ratios))
    assert half_width(verdict) == pytest.approx(
        t_quantile(0.975, batch_count(200) - 1) * median_error(np.log(ratios)), rel=1e-6
    )


def test_pairs_of_several_processes_show_how_far_their_ratios_scatter():
    verdict = judge(still(*[1.0] * 10), still(*medians(10, 0.02)), "sync", paired=True)

    assert (verdict.noise, verdict.noise_source) == (pytest.approx(0.02), "the repeats")


@pytest.mark.parametrize(("within", "level"), [(0.009, "between processes"), (0.011, "within process")])
def test_the_larger_part_of_the_noise_names_its_level(within: float, level: str):
    noisy = np.exp(0.05 * np.random.default_rng(6).standard_normal(400))
    prior = Prior(processes=median_error(np.log(noisy)) * 0.01 / within, pairs=0.0)

    assert judge([noisy], [noisy], prior=prior).noise_level == level


def test_pairs_of_more_processes_narrow_the_interval():
    one, six = (judge(*pair(np.random.default_rng(3), repeats=n), "host", paired=True) for n in (1, 6))

    assert half_width(six) < half_width(one) / 1.5


def test_the_order_of_paired_processes_does_not_matter():
    baseline, candidate = pair(np.random.default_rng(4), repeats=4)
    order = [2, 0, 3, 1]

    found, other = (
        judge(b, c, "host", paired=True) for b, c in ((baseline, candidate), (baseline[order], candidate[order]))
    )
    assert (found.ratio, found.high) == pytest.approx((other.ratio, other.high))


def test_a_pair_has_two_loads():
    sides = still(1.0), still(1.0)
    prior = Prior(processes=0.5, pairs=0.003, loads=0.02, builds=0.03)

    widths = [
        half_width(judge(*sides, paired=True, prior=prior, **how))
        for how in ({}, {"repeats": "loads"}, {"repeats": "builds"}, {"rebuilt": True})
    ]
    variances = [0.003**2, 0.003**2 + 2 * 0.02**2, 0.003**2 + 2 * 0.03**2, 0.003**2 + 2 * 0.03**2]
    assert widths == pytest.approx([1.96 * math.sqrt(v) for v in variances], rel=1e-4)


@pytest.mark.parametrize("figures", [{"processes": -0.1}, {"pairs": math.nan}, {"loads": math.inf}, {"weight": -1}])
def test_a_prior_has_sensible_figures(figures: dict[str, Any]):
    with pytest.raises(ValueError, match="finite and not negative"):
        Prior(**{"processes": 0.1, "pairs": 0.1, **figures})
