"""One case, explained and bisected: which stage, then which nodes or which tensor."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pytest_trt.backends import get_backend
from pytest_trt.diagnosis.attribution import Attribution
from pytest_trt.diagnosis.conversion import as_computed
from pytest_trt.diagnosis.culprits import Culprits, find_culprits
from pytest_trt.diagnosis.deviation import squared_error
from pytest_trt.diagnosis.numerics import NonFinite, Pair, Rounding, first_nonfinite, quantization, rounding
from pytest_trt.diagnosis.observe import by_suspicion, values
from pytest_trt.diagnosis.stages import Subject, attribute_case
from pytest_trt.diagnosis.taps import Divergence, first_divergence
from pytest_trt.errors import PrecisionError, TrtError
from pytest_trt.spec.precision import get_precision

if TYPE_CHECKING:
    from pytest_trt.accuracy.comparison import Comparison
    from pytest_trt.backends import BuildRequest, Feeds
    from pytest_trt.diagnosis.conversion import Candidate, Conversion
    from pytest_trt.diagnosis.deviation import Results
    from pytest_trt.diagnosis.workbench import Converter
    from pytest_trt.spec.model import Model

__all__ = ["Bisection", "Explanation", "bisect", "explain"]

# Ranges need few samples, and each costs a run per group of tensors.
_SAMPLES_FOR_NUMERICS = 2
# Relative rms errors that rounding alone explains; an engine may round elsewhere than the typed model does.
_NOISE = {"fp32": 1e-6, "tf32": 1e-3, "fp16": 1e-3, "bf16": 1e-2}
_NOISE_OF_OTHERS = 3e-2
# An error that is spread over so many nodes that this is not enough has no culprits worth a list.
_EVALUATIONS, _BUILDS = 120, 40
_TYPED_BACKEND = "onnxruntime-cpu"


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
        first = self.nonfinite
        return {
            **self.attribution.to_json(),
            "nonfinite": None if first is None else {"node": first.node, "op": first.op_type, "tensor": first.tensor},
            "saturated": {p.tensor: round(p.saturated_share, 6) for p in self.pairs if p.saturated},
            "used": {p.tensor: round(p.used, 4) for p in self.pairs},
            "overflowed": {r.node: r.overflowed for r in self.roundings if r.overflowed},
            "vanished": {r.node: r.vanished for r in self.roundings if r.vanished},
        }


@dataclass(frozen=True)
class Bisection:
    """What a case's error was narrowed down to: ``culprits`` for the conversion, ``divergence`` for the engine. Neither
    where the explanation leaves nothing to search."""

    explanation: Explanation
    culprits: Culprits | None = None
    divergence: Divergence | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "explanation": self.explanation.to_json(),
            "culprits": None if self.culprits is None else self.culprits.to_json(),
            "divergence": None if self.divergence is None else self.divergence.to_json(),
        }


def explain(subject: Subject, *, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> Explanation:
    """Attribute the error of *subject*, and look at the numbers of its typed model, for about *seconds*."""
    start = clock()
    attribution = attribute_case(subject, seconds=seconds, clock=clock)
    bench, case = subject.bench, subject.case
    if attribution.stage("conversion") is None:
        return Explanation(attribution)
    if clock() - start > seconds:
        return Explanation(attribution, notes=("values not looked at: the time for explanations was over",))
    feeds = [sample.feeds for sample in subject.samples[:_SAMPLES_FOR_NUMERICS]]
    try:
        typed = as_computed(bench.typed_model(case)[0], case.precision)
        pairs = tuple(quantization(typed, feeds))
        rounded = tuple(_roundings(typed, feeds))
        nonfinite = first_nonfinite(typed, bench.graph(case), feeds) if _is_infinite(attribution) else None
    except TrtError as error:
        return Explanation(attribution, notes=(f"values not looked at: {error.message}",))
    return Explanation(attribution, nonfinite, pairs, rounded)


def _is_infinite(attribution: Attribution) -> bool:
    return any(stage.error is not None and math.isinf(stage.error) for stage in attribution.stages)


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
) -> Bisection:
    """Explain *subject*, then search: nodes of the recipe where the conversion is to blame, a tensor of the engine
    where parser or fusion is. Raises what building and running raises.

    *anew* searches nodes in any case: which of those that the manifest excludes are needed? *on_engine* judges every
    set of nodes by an engine of the case's own backend in place of ONNX Runtime on the CPU. *limit* bounds evaluations
    (120 by default) and builds (40).
    """
    explanation = explain(subject, seconds=seconds)
    culprit = explanation.attribution.culprit
    if anew or culprit == "conversion" or (on_engine and culprit in ("parser", "fusion")):
        return Bisection(explanation, culprits=_culprits(bench, subject, on_engine, limit or _EVALUATIONS))
    if culprit in ("parser", "fusion"):
        return Bisection(explanation, divergence=_divergence(subject, group, limit or _BUILDS))
    return Bisection(explanation)


def _culprits(bench: Converter, subject: Subject, on_engine: bool, limit: int) -> Culprits:
    case, conversion = subject.case, bench.conversion(subject.case)
    request = bench.request(case) if on_engine else _typed_request(bench, subject)
    run = _runner(subject, request, case.backend if on_engine else _TYPED_BACKEND)

    def judge(model: Model) -> Comparison:
        return subject.judge(run(model))

    return find_culprits(
        conversion, judge, rank=lambda c: _rank(conversion, subject, c), limit=limit, progress=bench.progress
    )


def _rank(conversion: Conversion, subject: Subject, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    feeds = [sample.feeds for sample in subject.samples[:1]]
    try:
        typed = as_computed(
            type(conversion.model).from_proto(conversion.apply().proto, conversion.model.name),
            conversion.precision.name,
        )
        return by_suspicion(candidates, typed, conversion.model, feeds)
    except TrtError as error:
        subject.bench.progress(f"nodes are searched in graph order: {error.message}")
        return candidates


def _typed_request(bench: Converter, subject: Subject) -> BuildRequest:
    case = replace(subject.case, backend=_TYPED_BACKEND, tactics=(), options=())
    return bench.request(case)


def _runner(subject: Subject, request: BuildRequest, backend_name: str) -> Callable[[Model], list[dict[str, Any]]]:
    """Build an engine of a model as *request* asks, and run it on the samples of *subject*."""
    from pytest_trt.backends.isolation import build

    bench = subject.bench
    own = subject.case.backend == backend_name
    backend = bench.backend(backend_name) if own else get_backend(backend_name)

    def run(model: Model) -> list[dict[str, Any]]:
        wanted, settings = replace(request, model=model), bench.settings
        if model.proto is bench.graph(subject.case).proto:
            wanted = replace(wanted, precision=get_precision("fp32"))  # everything excluded
        with bench.device_lock(backend_name):
            built = build(backend, wanted, isolate=settings.isolate, timeout_s=settings.build_timeout)
            with closing(backend.load(built.plan, wanted)) as session:
                return subject.cut([session.run(sample.feeds) for sample in subject.samples])

    return run


def _divergence(subject: Subject, group: int, limit: int) -> Divergence:
    bench, case = subject.bench, subject.case
    typed = bench.typed_model(case)[0]
    shown = as_computed(typed, case.precision)
    outputs = [spec.name for spec in typed.outputs]
    feeds = [sample.feeds for sample in subject.samples]
    found = subject.run_graph(shown)
    run = _runner(subject, bench.request(case), case.backend)
    plain = run(typed)
    worst = math.sqrt(squared_error(plain, found, found))
    noise = _NOISE.get(case.precision, _NOISE_OF_OTHERS)
    # Between what rounding explains and what the outputs show, on a scale of factors.
    threshold = math.sqrt(noise * worst) if math.isfinite(worst) else math.sqrt(noise)

    def deviations(tensors: list[str], rows: Results) -> dict[str, tuple[float, bool]]:
        wanted = found if set(tensors) <= set(outputs) else subject.cut(values(shown, tensors, feeds))
        errors = {}
        for tensor in tensors:
            actual, expected = ([{tensor: row[tensor]} for row in several] for several in (rows, wanted))
            error = math.sqrt(squared_error(actual, expected, expected))
            errors[tensor] = error, error > threshold
        return errors

    return first_divergence(
        typed, plain, run, deviations, lambda rows: not subject.judge(rows).ok, group=group, limit=limit
    )
