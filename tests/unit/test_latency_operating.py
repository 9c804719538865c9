"""An operating table on invented noise: samples that hang together, within processes that differ, fixed seeds.

``benchmarks/gate_power.py`` does the same on recordings.
"""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pytest_trt.latency import PRIORS, Outcome, decide

RUNS, SAMPLES = 250, 400
Array = NDArray[np.float64]


def recorded(rng: np.random.Generator, repeats: int, between: float, *, within: float = 0.01) -> Array:
    """Samples of AR(1) noise in repeats whose levels differ, every 50th sample ten times slower."""
    noise = rng.standard_normal((repeats, SAMPLES))
    for column in range(1, SAMPLES):
        noise[:, column] = 0.6 * noise[:, column - 1] + 0.8 * noise[:, column]
    samples: Array = np.exp(between * rng.standard_normal((repeats, 1)) + within * noise)
    samples[rng.random(samples.shape) < 0.02] *= 10
    return samples


def outcomes(clock: str, repeats: int, factor: float, between: float, **how: Any) -> dict[Outcome, float]:
    rng = np.random.default_rng([repeats, int(1e4 * factor)])
    sides = recorded(rng, 2 * RUNS * repeats, between).reshape(RUNS, 2, repeats, SAMPLES)
    found = [decide(b, factor * c, threshold=0.03, clock=clock, **how).outcome for b, c in sides]
    return {outcome: found.count(outcome) / RUNS for outcome in Outcome}


@pytest.mark.parametrize(("clock", "repeats"), [("graph", 1), ("graph", 3), ("sync", 3)])
def test_unchanged_passes_and_a_slowdown_is_seen(clock: str, repeats: int):
    between = PRIORS[clock].processes
    same, slower = (outcomes(clock, repeats, factor, between) for factor in (1.0, 1.06))

    assert same[Outcome.FAIL] == 0
    assert same[Outcome.PASS] > 0.97
    assert slower[Outcome.PASS] == 0
    assert slower[Outcome.FAIL] > 0.95


@pytest.mark.parametrize("repeats", [1, 3, 6])
def test_right_at_the_threshold_it_is_red_as_rarely_as_promised(repeats: int):
    """2.5 % and no more: without regard to what hangs together it would be 12 % for one repeat."""
    clock = "simulated" if repeats == 1 else "sync"
    found = outcomes(clock, repeats, 1.03, PRIORS[clock].processes)

    assert found[Outcome.FAIL] < 0.055
    assert found[Outcome.PASS] < 0.055
    assert found[Outcome.INCONCLUSIVE] > 0.9


def test_noise_that_the_prior_does_not_know_is_seen_in_repeats():
    """Processes five times further apart than the prior says: four repeats a side show it."""
    found = outcomes("sync", 4, 1.03, 5 * PRIORS["sync"].processes, prior=PRIORS["sync"])

    assert found[Outcome.FAIL] < 0.06


def test_a_shared_machine_is_not_judged_but_said_to_be_undecided():
    rng = np.random.default_rng(0)
    baseline, candidate = recorded(rng, 1, 0.05), 1.5 * recorded(rng, 1, 0.05)
    verdict = decide(baseline, candidate, threshold=0.03, clock="host")

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "cannot tell" in verdict.sentence
    assert verdict.detectable > 3
    assert math.isclose(verdict.ratio, 1.5, rel_tol=0.2)


def test_a_verdict_needs_no_scipy():
    code = (
        "import sys, pytest_trt.latency as latency\n"
        "latency.decide([[1.0, 1.1, 1.2]] * 3, [[1.0, 1.1, 1.2]] * 3, threshold=0.03, clock='sync', history=[1, 1.1])\n"
        "print('scipy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
