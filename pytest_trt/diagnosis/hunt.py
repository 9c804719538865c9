"""One case, explained and bisected: which stage, then which nodes or which tensor."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.diagnosis.attribution import Attribution
from pytest_trt.diagnosis.conversion import as_computed
from pytest_trt.diagnosis.culprits import Culprits, find_culprits
from pytest_trt.diagnosis.nonfinite import NonFinite, first_nonfinite
from pytest_trt.diagnosis.numerics import Rounding, rounding
from pytest_trt.diagnosis.observe import by_suspicion
from pytest_trt.diagnosis.pairs import Pair, quantization
from pytest_trt.diagnosis.rebuilding import TYPED_BACKEND, runner, typed_request
from pytest_trt.diagnosis.stages import STAGES, Subject, attribute_case
from pytest_trt.diagnosis.taps import Divergence
from pytest_trt.diagnosis.tracing import Taps, check_taps, trace_error, trace_noise
from pytest_trt.errors import PrecisionError, TrtError
from pytest_trt.spec.model import Model

if TYPE_CHECKING:
    from pytest_trt.accuracy.comparison import Comparison
    from pytest_trt.backends import Feeds
    from pytest_trt.diagnosis.conversion import Candidate, Conversion
    from pytest_trt.diagnosis.cost import LatencyCost
    from pytest_trt.diagnosis.workbench import Converter

__all__ = ["Bisection", "Explanation", "Taps", "bisect", "explain"]

# Ranges need few samples, and each costs a run per group of tensors.
_SAMPLES_FOR_NUMERICS = 2
# An error that is spread over so many nodes that this is not enough has no culprits worth a list.
_EVALUATIONS, _BUILDS = 120, 40


@dataclass(frozen=True)
class Explanation:
    """Where the error of a case enters, and what the values of its typed model look like."""

    attribution: Attribution
    nonfinite: NonFinite | None = None
    pairs: tuple[Pair, ...] = ()
    roundings: tuple[Rounding, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Return the table of stages, and of the values what loses something."""
        return {
            **self.attribution.to_json(),
            "nonfinite": None if self.nonfinite is None else self.nonfinite.to_json(),
            "pairs": [pair.to_json() for pair in self.pairs],
            "roundings": [row.to_json() for row in self.roundings],
        }


@dataclass(frozen=True)
class Bisection:
    """What a case's error was narrowed down to: ``culprits`` for the conversion, ``divergence`` for the engine. Neither
    where the explanation leaves nothing to search. ``cost`` is that of excluding the culprits, where it was measured.
    """

    explanation: Explanation
    culprits: Culprits | None = None
    divergence: Divergence | None = None
    cost: LatencyCost | None = None

    def with_note(self, note: str) -> Bisection:
        """The same, with one more note on the explanation."""
        return replace(self, explanation=replace(self.explanation, notes=(*self.explanation.notes, note)))

    def to_json(self) -> dict[str, Any]:
        return {
            "explanation": self.explanation.to_json(),
            "culprits": None if self.culprits is None else self.culprits.to_json(),
            "divergence": None if self.divergence is None else self.divergence.to_json(),
            "cost": None if self.cost is None else self.cost.to_json(),
        }


def explain(
    subject: Subject,
    *,
    seconds: float = 60.0,
    stages: Collection[str] = STAGES,
) -> Explanation:
    """Attribute the error of *subject*, and look at the numbers of its typed model, for about *seconds*."""
    start = time.monotonic()
    attribution = attribute_case(subject, seconds=seconds, stages=stages)
    bench, case = subject.bench, subject.case
    if "conversion" not in stages or attribution.stage("conversion") is None:
        return Explanation(attribution)
    if time.monotonic() - start > seconds:
        return Explanation(attribution, notes=("values not looked at: the time for explanations was over",))
    feeds = [sample.feeds for sample in subject.samples[:_SAMPLES_FOR_NUMERICS]]
    try:
        typed = as_computed(bench.typed_model(case)[0], case.precision)
        pairs = tuple(quantization(typed, feeds))
        rounded = tuple(_roundings(typed, feeds))
        nonfinite = None
        if attribution.culprit == "reference" and _has_nonfinite(subject, attribution):
            nonfinite = first_nonfinite(bench.graph(case), None, feeds)
        # What comes after may hide it: nothing is left of x / inf.
        elif _is_infinite(attribution) or any(row.overflowed for row in rounded):
            nonfinite = first_nonfinite(typed, bench.graph(case), feeds)
    except TrtError as error:
        return Explanation(attribution, notes=(f"values not looked at: {error.message}",))
    return Explanation(attribution, nonfinite, pairs, rounded)


def _has_nonfinite(subject: Subject, attribution: Attribution) -> bool:
    """Whether NaN or infinity is in what the float32 model says, or in what is expected of it."""
    arrays = [np.asarray(array) for row in subject.expected for array in row.values()]
    return _is_infinite(attribution) or any(not np.isfinite(a).all() for a in arrays if a.dtype.kind == "f")


def _is_infinite(attribution: Attribution) -> bool:
    return any(s.error is not None and math.isinf(s.error) and s.comparable for s in attribution.stages)


def _roundings(typed: Model, feeds: Sequence[Feeds]) -> Sequence[Rounding]:
    try:
        return rounding(typed, feeds)
    except PrecisionError:  # nothing is stored in 16 bits
        return ()


def bisect(
    bench: Converter,
    subject: Subject,
    *,
    anew: bool = False,
    on_engine: bool = False,
    group: int = 8,
    limit: int | None = None,
    seconds: float = 600.0,
    stages: Collection[str] = STAGES,
    explanation: Explanation | None = None,
    taps: Taps = "outputs",
) -> Bisection:
    """Explain *subject*, then search: nodes of the recipe where the conversion is to blame, a tensor of the engine
    where parser or fusion is, or where the typed model is close by itself and the engine is not, or where its runs
    differ. Raises what building and running raises.

    *anew* searches nodes in any case: which of those that the manifest excludes are needed? *on_engine* judges every
    set of nodes by an engine of the case's own backend in place of ONNX Runtime on the CPU; where none of them helps,
    the tensor is searched as well. *limit* bounds evaluations (120 by default) and builds (40); none begins after
    *seconds*, of which explaining *stages* is a part, unless there is an *explanation* already. *taps*: inner tensors
    are looked at as outputs, or as debug tensors.
    """
    start = time.monotonic()

    def late() -> bool:
        return time.monotonic() - start > seconds

    check_taps(bench.backend(subject.case.backend), taps)
    if explanation is None:
        explanation = explain(subject, seconds=seconds, stages=stages)
    culprit = explanation.attribution.culprit
    found = Bisection(explanation)
    if anew or culprit == "conversion" or (on_engine and culprit in ("parser", "fusion")):
        try:
            found = replace(found, culprits=_culprits(bench, subject, on_engine, limit or _EVALUATIONS, late))
        except PrecisionError as error:
            if anew or culprit == "conversion":
                raise
            found = found.with_note(f"no nodes are searched: {error.message}")
    if _leads_to_the_engine(culprit, found.culprits, on_engine):
        if bench.is_prebuilt(subject.case) or not bench.model(subject.case.model).has_graph:
            return found.with_note("no tensor is searched: inner tensors of a finished plan cannot be looked at")
        trace = trace_noise if culprit == "run-to-run" else trace_error
        found = replace(found, divergence=trace(subject, taps, group=group, limit=limit or _BUILDS, late=late))
    return found


def _leads_to_the_engine(culprit: str, culprits: Culprits | None, on_engine: bool) -> bool:
    """Whether a tensor of the engine is searched after the nodes, if these were."""
    if culprit in ("parser", "fusion", "run-to-run"):
        # Nodes that ONNX Runtime judged say nothing of an engine; those that mend the engine do.
        return not (on_engine and culprits is not None and culprits.nodes and culprits.after.ok)
    if culprit != "conversion" or culprits is None:
        return False
    # Most of the error may be the conversion's, and what tips it over the engine's.
    return culprits.found.outcome == ("nothing" if on_engine else "empty")


def _culprits(bench: Converter, subject: Subject, on_engine: bool, limit: int, late: Callable[[], bool]) -> Culprits:
    case, conversion = subject.case, bench.conversion(subject.case)
    # A layer that no set touches keeps the tactic that the engine itself has.
    own = replace(bench.request(case), timing_cache=bench.timings(case.backend)) if on_engine else None
    request = own or typed_request(subject)
    run = runner(subject, request, case.backend if on_engine else TYPED_BACKEND)

    def judge(model: Model) -> Comparison:
        return subject.judge(run(model))

    return find_culprits(
        conversion,
        judge,
        rank=lambda c: _rank(conversion, subject, c),
        limit=limit,
        late=late,
        progress=bench.progress,
    )


def _rank(conversion: Conversion, subject: Subject, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    feeds = [sample.feeds for sample in subject.samples[:1]]
    try:
        typed = as_computed(
            Model.from_proto(conversion.apply().proto, conversion.model.name),
            conversion.precision.name,
        )
        return by_suspicion(candidates, typed, conversion.model, feeds)
    except TrtError as error:
        subject.bench.progress(f"nodes are searched in graph order: {error.message}")
        return candidates
