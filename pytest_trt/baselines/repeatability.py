"""May a run's values become a baseline? Only when they repeat, as far as the run itself shows it. Pure."""

from __future__ import annotations

import math

from pytest_trt.record import Record

__all__ = ["outputs_that_differ", "unsteady_latency"]

# In standard deviations of one load's median. The range of three loads reaches 5 once in a thousand runs.
_REACH = 5.0
_SMALLEST = 1e-3  # below a thousandth nothing is unsteady, whatever a clock without noise says


def outputs_that_differ(record: Record) -> str:
    """Why the engine's outputs are known not to repeat, or nothing: the same input gave others when it was run again.
    Builds that differ are another matter: a build that chose other tactics rounds differently, and each of them
    repeats."""
    at_opt = ((record.accuracy or {}).get("points") or {}).get("opt") or {}
    seen = ((record.streams or {}).get("repeats"), at_opt.get("repeats"))
    return "the engine gives other outputs each time, even alone" if False in seen else ""


def unsteady_latency(record: Record) -> str:
    """Why a latency is no baseline, or nothing: the medians of its loads are further apart than loads of one plan are,
    by what is known of the clock and the noise within each load."""
    from pytest_trt.latency.modes import prior_of
    from pytest_trt.latency.priors import PRIORS

    latency = record.latency or {}
    medians = [float(value) for value in latency.get("loads_ms", ()) if value > 0]
    prior = PRIORS.get(prior_of(latency.get("clock", "")))
    if len(medians) < 2 or prior is None:
        return ""
    within = float(latency["summary"].get("within_se", 0.0))
    limit = max(_SMALLEST, _REACH * math.hypot(prior.processes, prior.loads, within))
    apart = math.log(max(medians) / min(medians))
    if apart <= limit:
        return ""
    shown = ", ".join(f"{value:.4g}" for value in medians)
    return f"its loads differ by {math.expm1(apart):.0%}, more than {math.expm1(limit):.0%}: {shown} ms"
