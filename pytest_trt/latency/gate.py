"""The verdict on two latencies. Pure.

Both medians are uncertain: by what shows within a run (``Summary.median_se``) and by what cannot show there. The
second is given as a documented prior at three levels: between processes; between loads of one plan, which differ for
a reason that no reading shows (more loads make it smaller); between builds of one model (other tactics). The interval
of the ratio is normal on the logarithm::

    ln(candidate / baseline) ± z · sqrt(side_c² + side_b²),  z = 1.96
    side² = median_se² + between_processes² + between_loads² / loads   [+ between_builds² where plans differ]

FAIL when the whole interval lies above 1 + threshold, PASS when it lies below, INCONCLUSIVE otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pytest_trt.latency.stats import Summary

__all__ = ["BETWEEN_BUILDS", "BETWEEN_LOADS", "BETWEEN_PROCESSES", "Outcome", "Verdict", "decide"]

# Relative standard deviations of medians, by clock. Between fresh processes that load one plan into an otherwise empty
# GPU: NVIDIA H200 with a CUDA graph 0.03–0.06 %, plain enqueue 0.4–0.6 %; ONNX Runtime on a shared 2-core machine
# 36–38 %. Rounded up, since other machines were not recorded.
BETWEEN_PROCESSES = {"graph": 0.002, "sync": 0.01, "host": 0.38, "simulated": 0.0}

# The same plan loaded again, in a process that has used the GPU before: 32 engines on an H200, measured when they
# were built and again from the cache, differed by 0.5 % in the median, 7.6 % at most, at one and the same clock.
BETWEEN_LOADS = {"graph": 0.015, "sync": 0.015, "host": 0.0, "simulated": 0.0}

# Builds of one model, which may choose other tactics: 1.5 and 2.2 % for two models rebuilt on an NVIDIA H200. A
# plan of another digest is judged at this level.
BETWEEN_BUILDS = 0.022

_Z = 1.96
_Z_POWER = 1.645  # one-sided 95 %


class Outcome(str, Enum):
    """PASS: no regression of the threshold's size. FAIL: a regression. INCONCLUSIVE: the data cannot tell."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Verdict:
    """``ratio`` is candidate / baseline with its 95 % interval ``low``–``high``; ``detectable`` is the smallest
    slowdown (a share: 0.05 is 5 %) that this data would turn red with 95 % probability."""

    outcome: Outcome
    ratio: float
    low: float
    high: float
    threshold: float
    detectable: float
    clock: str
    rebuilt: bool = False

    @property
    def level(self) -> str:
        """The level of noise that this was judged against."""
        return (
            "between builds: the plan is another one than the baseline's"
            if self.rebuilt
            else "between loads of one plan"
        )

    @property
    def sentence(self) -> str:
        """One plain sentence."""
        change = (
            f"{self.ratio - 1:+.1%} against the baseline (95 % interval {self.low - 1:+.1%} to {self.high - 1:+.1%})"
        )
        said = {
            Outcome.PASS: f"no slowdown above {self.threshold:.1%}",
            Outcome.FAIL: f"slower by more than {self.threshold:.1%}",
            Outcome.INCONCLUSIVE: (
                f"cannot tell whether slower by {self.threshold:.1%}; a slowdown of {self.detectable:.0%} would be seen"
            ),
        }[self.outcome]
        improved = "; faster beyond noise" if self.high < 1 else ""
        return f"{change}: {said}{improved}"

    def to_json(self) -> dict[str, Any]:
        return {
            "outcome": self.outcome.value,
            **{k: round(getattr(self, k), 5) for k in ("ratio", "low", "high", "threshold", "detectable")},
            "clock": self.clock,
            "level": self.level,
            "sentence": self.sentence,
        }


def decide(baseline: Summary, candidate: Summary, *, threshold: float, clock: str, rebuilt: bool = False) -> Verdict:
    """Judge *candidate* against *baseline*; *threshold* is the share that counts as a regression.

    *clock* names the prior (see BETWEEN_PROCESSES); *rebuilt* says that the two plans differ.
    Raises ValueError for an unknown clock or a threshold ≤ 0.
    """
    if not threshold > 0:  # nan as well
        raise ValueError(f"threshold must be positive, got {threshold}")
    if clock not in BETWEEN_PROCESSES:
        raise ValueError(f"unknown clock {clock!r}; known: {', '.join(BETWEEN_PROCESSES)}")
    sides = [
        side.median_se**2 + BETWEEN_PROCESSES[clock] ** 2 + BETWEEN_LOADS[clock] ** 2 / side.loads
        for side in (baseline, candidate)
    ]
    builds = 2 * BETWEEN_BUILDS**2 if rebuilt and clock != "simulated" else 0.0
    sigma = math.sqrt(sum(sides) + builds)
    log_ratio = math.log(candidate.median_ms / baseline.median_ms)
    low, high = math.exp(log_ratio - _Z * sigma), math.exp(log_ratio + _Z * sigma)
    limit = 1 + threshold
    outcome = Outcome.FAIL if low > limit else Outcome.PASS if high < limit else Outcome.INCONCLUSIVE
    detectable = limit * math.exp((_Z + _Z_POWER) * sigma) - 1
    return Verdict(outcome, math.exp(log_ratio), low, high, threshold, detectable, clock, rebuilt)
