"""Old and new engine side by side: where the old one is found, and what its turns with the new one say."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from pytest_trt.errors import InputsError, ProfileError, RunError, UsageError
from pytest_trt.lab.turns import History, clock_of, judge_turns, loads_of
from pytest_trt.spec.case import Case

if TYPE_CHECKING:
    from pytest_trt.artifacts.engines import StoredEngine
    from pytest_trt.backends import Backend, BuildRequest, Feeds, Plan, Session
    from pytest_trt.lab import Lab
    from pytest_trt.latency.gate import Verdict
    from pytest_trt.settings import Settings

__all__ = ["NotAtHand", "OldEngine", "Reloaded", "find_engine", "judge_beside"]


@dataclass(frozen=True)
class OldEngine:
    """The engine that a baseline stands for, and where it was found."""

    stored: StoredEngine
    origin: str


class NotAtHand(Exception):  # noqa: N818 - no error: the stored number is judged instead
    """Why there is no old engine to take turns with."""


def find_engine(lab: Lab, case: Case, name: str, entry: Mapping[str, Any], present: str) -> OldEngine:
    """The engine of the recording *entry*, the ``recent`` one or the ``anchor``: the one that it was recorded with, in
    the cache, or the *present* one (by its plan's digest) where it is the same. For the recent one that is the plan
    which ``--trt-baseline-engine`` names, if it does.

    A plan from a file is executed only where its digest was named: by ``--trt-trust``, the manifest, or the baseline
    itself, which says the digest of the engine that it was recorded with. Raises UnsafeModelError.
    """
    from pytest_trt.artifacts.engines import stored_engine
    from pytest_trt.artifacts.prebuilt import read_plan

    settings = lab.settings
    if settings.ab == "off":
        raise NotAtHand("--trt-ab=off")
    if settings.baseline_engine is not None and name == "recent":
        _only_one(lab, case)
        named = (settings.trust, lab.manifest(case).trust, entry.get("plan"))
        path = lab.root / settings.baseline_engine
        return OldEngine(read_plan(path, ",".join(filter(None, named)) or None), path.name)
    if not entry:
        raise NotAtHand("there is no baseline")
    if not entry.get("plan"):
        raise NotAtHand("the baseline does not say which engine it was recorded with")
    if entry["plan"] == present:
        return OldEngine(lab.engine(case)[0], "the very same plan")
    found = stored_engine(lab.store, entry["engine"]) if entry.get("engine") else None
    if found is None:
        raise NotAtHand("the baseline's engine is not in the cache")
    if found.plan_digest != entry["plan"]:
        raise NotAtHand("the cache holds another build of the baseline's engine")
    return OldEngine(found, "from the cache")


def _only_one(lab: Lab, case: Case) -> None:
    """A plan is one model's, in one precision: against others it would judge something else."""
    lab.judged_against_plan = lab.judged_against_plan or case
    if replace(lab.judged_against_plan, profile=case.profile) != case:
        raise UsageError(
            f"--trt-baseline-engine is one engine, and both {lab.judged_against_plan} and {case} are measured",
            hint="select one of them, with --trt-precision, --trt-tactics or by its path",
        )


def judge_beside(
    lab: Lab, case: Case, old: OldEngine, clock: str, limit: float, history: History = lambda _: ()
) -> tuple[Verdict, dict[str, Any]]:
    """Let *old* and the case's engine take turns; the verdict, and what the record says besides. Raises NotAtHand where
    *old* cannot run the case; what is the reason for that itself where it was named by ``--trt-baseline-engine``."""
    import numpy as np

    feeds = lab.samples(case, lab.profile(case).at("opt"), 1)[0][0].feeds
    present = lab.engine(case)[0]
    with lab.device_lock(case.backend), ExitStack() as stack:
        try:
            request = _request(lab, case, old.stored.plan)
            loads = stack.enter_context(Reloaded(lab.backend(case.backend), old.stored.plan, request))
            _try(loads, feeds, clock, lab.settings)
        except (RunError, InputsError, ProfileError) as error:
            if lab.settings.baseline_engine is not None:
                raise
            raise NotAtHand(f"the baseline's engine cannot run this case: {error.message}") from error
        same = old.stored.plan_digest == present.plan_digest
        verdict, found = judge_turns(
            lab.settings,
            clock,
            (loads.again, feeds),
            (lambda: lab.reload(case), feeds),
            threshold=limit,
            same=same,
            # One request, two builds: nothing but the lottery can be between them. Where the request changed, the
            # difference is what was asked for: these two engines.
            rebuilt=not same and old.stored.digest == present.digest,
            comparisons=lab.comparisons,
            history=history,
        )
    ratios = np.median(found.candidate_ms / found.baseline_ms, axis=1)
    first = loads_of(lab.settings, clock)
    about = {
        "origin": old.origin,
        "baseline_plan": old.stored.plan_digest,
        "same_plan": same,
        "rounds": len(found.baseline_ms),
        "samples": found.baseline_ms.shape[1],
        "baseline_ms": _rounded(np.median(np.median(found.baseline_ms, axis=1))),
        "candidate_ms": _rounded(np.median(np.median(found.candidate_ms, axis=1))),
        "round_ratios": [_rounded(ratio) for ratio in ratios],
        # After as many loads in every run: what it says of their noise must not depend on how it came out.
        "equals": {"loads": first, "ratio": _rounded(np.median(ratios[:first]))} if same else None,
        "conditions": found.conditions,
    }
    return verdict, about


def _try(loads: Reloaded, feeds: Feeds, clock: str, settings: Settings) -> None:
    """Load the old engine and run it once. Raises what keeps it from running, or from being timed by *clock*."""
    session = loads.again()
    session.stage(feeds)
    name = clock_of(session, settings).name
    if name != clock:
        raise RunError(f"its clock is {name}, and the present engine's is {clock}")
    session.run(feeds)


def _request(lab: Lab, case: Case, plan: Plan) -> BuildRequest:
    """What *plan* is loaded with: the case's request, with the profiles that the plan holds."""
    request = lab.blueprint(case)
    if case.backend != "tensorrt":
        return request
    from pytest_trt.spec.interface import hold

    held = cast(Any, lab.backend("tensorrt")).interface(plan, request.options).profiles  # no other has plans
    return replace(request, profiles=hold(lab.profile(case), held))


class Reloaded:
    """An engine that is loaded again and again, each time beside the one before where both fit."""

    def __init__(self, backend: Backend, plan: Plan, request: BuildRequest) -> None:
        self._backend, self._plan, self._request = backend, plan, request
        self._session: Session | None = None

    def __enter__(self) -> Reloaded:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def again(self) -> Session:
        """Raises RunError."""
        try:
            session = self._backend.load(self._plan, self._request)
        except RunError:
            if self._session is None:
                raise
            self.close()  # two at once may be too much for the device
            session = self._backend.load(self._plan, self._request)
        self.close()
        self._session = session
        return session

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None


def _rounded(value: Any) -> float:
    return float(f"{float(value):.5g}")
