"""What the exclusions that a bisection found cost in latency: two engines of the case that take turns."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_trt.errors import TrtError
from pytest_trt.lab.ab import Reloaded
from pytest_trt.lab.turns import clock_of, take_turns

if TYPE_CHECKING:
    from pytest_trt.diagnosis.cost import LatencyCost
    from pytest_trt.diagnosis.hunt import Bisection
    from pytest_trt.lab import Lab
    from pytest_trt.spec.case import Case

__all__ = ["cost_of_exclusions", "with_cost"]


def with_cost(lab: Lab, case: Case, found: Bisection) -> Bisection:
    """*found* with what its exclusions cost; what cannot be measured says so, since what was found must not be lost."""
    if found.culprits is None or not found.culprits.nodes:
        return found.with_note("latency not measured: no exclusion was found that could cost something")
    try:
        return replace(found, cost=cost_of_exclusions(lab, case, found.culprits.exclude_nodes))
    except TrtError as error:
        return found.with_note(f"latency not measured: {error.message}")


def cost_of_exclusions(lab: Lab, case: Case, excluded: Collection[str]) -> LatencyCost:
    """Build *case* with nothing excluded and with *excluded*, from the same tactic timings, and let both take turns.

    Raises what building and loading raise, PrecisionError for a recipe that changes nothing.
    """
    from pytest_trt.backends.isolation import build
    from pytest_trt.diagnosis.cost import LatencyCost
    from pytest_trt.latency.gate import decide
    from pytest_trt.latency.modes import prior_of
    from pytest_trt.latency.stats import summarize
    from pytest_trt.spec.model import Model

    conversion, settings, backend = lab.conversion(case), lab.settings, lab.backend(case.backend)
    wanted = replace(lab.request(case), timing_cache=lab.timings(case.backend))
    feeds = lab.samples(case, lab.profile(case).at("opt"), 1)[0][0].feeds
    simulated, sides = "", []
    with lab.device_lock(case.backend), ExitStack() as stack:
        for nodes in ((), tuple(excluded)):
            model = Model.from_proto(conversion.apply(nodes).proto, conversion.model.name)
            request = replace(wanted, model=model)
            built = build(backend, request, lab.progress, isolate=settings.isolate, timeout_s=settings.build_timeout)
            simulated = str(built.facts.get("simulated") or "")
            sides.append(stack.enter_context(Reloaded(backend, built.plan, request)))
        before, after = sides
        session = before.again()
        session.stage(feeds)
        clock = clock_of(session, settings).name
        found = take_turns(settings, clock, (before.again, feeds), (after.again, feeds))
    # The two engines are the question: the lottery of building either is not asked about.
    verdict = decide(
        list(found.baseline_ms),
        list(found.candidate_ms),
        threshold=lab.threshold(case),
        clock=prior_of(clock),
        paired=True,
        repeats="loads",
    )
    return LatencyCost(
        summarize(*found.baseline_ms).median_ms,
        summarize(*found.candidate_ms).median_ms,
        verdict.ratio,
        verdict.low,
        verdict.high,
        clock,
        len(found.baseline_ms),
        simulated,
    )
