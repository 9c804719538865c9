"""The failing model, reduced: which piece of it still fails, run as the case runs it, on recorded activations."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from pytest_trt.accuracy.comparison import Comparison, compare
from pytest_trt.accuracy.tolerance import ToleranceSet, default_tolerance
from pytest_trt.backends import get_backend
from pytest_trt.counted import counted
from pytest_trt.diagnosis.reduction import smallest_piece
from pytest_trt.diagnosis.subgraph import Cut, Whole
from pytest_trt.errors import TrtError, UsageError
from pytest_trt.spec.build_options import IoFormat
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import apply_recipe
from pytest_trt.spec.precision.exclusions import Exclusions
from pytest_trt.spec.precision.graph import node_label
from pytest_trt.spec.shapes import Profile

if TYPE_CHECKING:
    from pytest_trt.backends import BuildRequest
    from pytest_trt.diagnosis.conversion import Conversion
    from pytest_trt.diagnosis.hunt import Bisection
    from pytest_trt.diagnosis.nonfinite import NonFinite
    from pytest_trt.diagnosis.stages import Subject
    from pytest_trt.diagnosis.taps import Divergence
    from pytest_trt.diagnosis.workbench import Converter

__all__ = ["STAGES", "Reduction", "reduce_case"]

_TYPED_BACKEND = "onnxruntime-cpu"
# Each costs an evaluation in every step in which the piece grows.
_SUSPECTS = 4
_Rows = Sequence[Mapping[str, Any]]
# What a piece of the graph can show.
STAGES = ("conversion", "parser", "fusion")


@dataclass(frozen=True)
class Reduction:
    """The smallest piece that was seen to fail. ``actual`` is what the case's backend made of it, ``comparison`` how
    that compares with ``cut.expected``; ``total`` counts the nodes of the whole. ``backend_agrees`` is False where the
    piece fails in ONNX Runtime, which was asked, and not in the case's backend."""

    cut: Cut
    typed: Model
    actual: tuple[dict[str, Any], ...]
    comparison: Comparison
    limits: ToleranceSet
    options: Mapping[str, Any]
    request: BuildRequest
    total: int
    evaluations: int
    minimal: bool
    backend_agrees: bool
    seconds: float

    @property
    def tensors(self) -> frozenset[str]:
        """The names that the piece's nodes read and write."""
        return frozenset(name for node in self.cut.model.proto.graph.node for name in (*node.input, *node.output))

    def to_json(self) -> dict[str, Any]:
        return {
            "nodes": list(self.cut.nodes),
            "of": self.total,
            "evaluations": self.evaluations,
            "minimal": self.minimal,
            "backend_agrees": self.backend_agrees,
            "summary": self.comparison.summary,
            "seconds": round(self.seconds, 1),
        }


def reduce_case(
    bench: Converter,
    subject: Subject,
    found: Bisection,
    *,
    limit: int,
    seconds: float,
) -> Reduction:
    """Reduce the model of *subject*, whose explanation, and culprits or divergence where they were searched, are in
    *found*. At most *limit* pieces are run, and none is begun after *seconds*.

    An error of the conversion is judged by ONNX Runtime, one of the engine by the case's backend: there a piece fails
    only if the engine is close neither to the float32 piece nor to the typed one. Raises TrtError: the fault is in no
    piece of the graph, or nothing can be cut from it.
    """
    started = time.monotonic()
    culprit = found.explanation.attribution.culprit
    if culprit not in STAGES:
        raise UsageError(f"nothing to reduce: the culprit is {culprit}, and no piece of the graph shows that")
    # A conversion that is close by itself is tipped over by the engine; then the search went on to a tensor.
    trial = _Trial(bench, subject, on_backend=culprit != "conversion" or found.divergence is not None)
    links = trial.whole.links
    result = smallest_piece(
        links,
        trial.suspects(found),
        trial.fails,
        limit=limit,
        may_go_on=lambda: time.monotonic() - started < seconds,
    )
    if len(result.piece) == len(links.pruned(links.whole, None)):
        raise UsageError(
            f"no smaller piece of the {counted(len(trial.whole.nodes), 'node')} was seen to fail;"
            f" {counted(result.evaluations, 'piece')} tried" + ("" if result.minimal else "; a limit was reached")
        )
    cut = trial.whole.cut(result.piece, result.suspect)
    typed = trial.typed(cut)
    actual = trial.run(cut, typed, on_backend=True)
    comparison = trial.compare(cut, actual, cut.expected)
    return Reduction(
        cut,
        typed,
        tuple(actual),
        comparison,
        trial.limits(cut),
        trial.options(cut),
        trial.request_of(cut, typed, subject.case.backend),
        len(trial.whole.nodes),
        result.evaluations,
        result.minimal,
        not comparison.ok,
        time.monotonic() - started,
    )


def _either(found: Divergence | NonFinite) -> tuple[str, str]:
    """The tensor, and its node: a recipe gives what an output is cast from another name, and the node keeps its own."""
    return found.tensor, found.node


class _Trial:
    """Makes pieces of one case's model, runs them, and says whether they fail."""

    def __init__(self, bench: Converter, subject: Subject, *, on_backend: bool) -> None:
        self.bench, self.subject, self.on_backend = bench, subject, on_backend
        self.conversion: Conversion = bench.conversion(subject.case)
        self.request = bench.request(subject.case)
        self.base = subject.limits or bench.tolerance(subject.case)
        self.whole = Whole(self.conversion.model, [sample.feeds for sample in self._failing()])

    def _failing(self) -> Sequence[Any]:
        """The first sample that fails alone; all of them where none does."""
        subject = self.subject
        _, session = self.bench.engine(subject.case)
        for sample, row, wanted in zip(subject.samples, subject.run(session), subject.expected, strict=True):
            if not self.bench.judge(subject.case, row, sample, wanted, subject.limits).ok:
                return [sample]
        return subject.samples

    def suspects(self, found: Bisection) -> list[int]:
        """What was found already, the most likely first; but for what the manifest leaves in float32 anyway."""
        labels: list[str] = []
        # Where NaN or infinity begins says more than a list of nodes that all lose a little.
        if found.explanation.nonfinite is not None and not self.on_backend:
            labels += _either(found.explanation.nonfinite)
        if found.culprits is not None and found.culprits.found.outcome == "found":
            labels += [node.output for node in found.culprits.nodes]
        if found.divergence is not None and found.divergence.outcome in ("found", "unfinished"):
            labels += _either(found.divergence)
        if found.explanation.nonfinite is not None:
            labels += _either(found.explanation.nonfinite)
        numbers = [number for label in labels if (number := self.whole.number(label)) is not None]
        kept = Exclusions(self.conversion.excluded, self.conversion.options.get("exclude_ops", ()))
        typed = [number for number in dict.fromkeys(numbers) if kept.reason(self.whole.nodes[number]) is None]
        return typed[:_SUSPECTS]

    def fails(self, piece: frozenset[int], suspect: int | None) -> bool:
        """Whether *piece* is a model that fails. One that cannot be cut, typed or run does not."""
        try:
            cut = self.whole.cut(piece, suspect)
            typed = self.typed(cut)
            actual = self.run(cut, typed, on_backend=self.on_backend)
            failed = not self.compare(cut, actual, cut.expected).ok
            if failed and self.on_backend:
                failed = not self.compare(cut, actual, self.run(cut, typed, on_backend=False)).ok
        except TrtError as error:
            self.bench.progress(f"a piece of {counted(len(piece), 'node')}: {error.message}")
            return False
        self.bench.progress(f"a piece of {counted(len(piece), 'node')}: {'not close' if failed else 'close'}")
        return failed

    def options(self, cut: Cut) -> dict[str, Any]:
        """The recipe's options, without exclusions of nodes that *cut* does not have."""
        nodes = cut.model.proto.graph.node
        names = {name for node in nodes for name in (node.name, node_label(node), *node.output) if name}
        kept = [p for p in self.conversion.excluded if p in names or any(fnmatchcase(name, p) for name in names)]
        return {**self.conversion.options, **({"exclude_nodes": kept} if kept else {})}

    def typed(self, cut: Cut) -> Model:
        """*cut* after the recipe of the case. Raises PrecisionError."""
        recipe = self.conversion.precision.make_recipe(**self.options(cut))
        return Model.from_proto(apply_recipe(recipe, cut.model.proto, self.conversion.ranges).proto, cut.model.name)

    def run(self, cut: Cut, typed: Model, *, on_backend: bool) -> list[dict[str, Any]]:
        """The outputs of an engine of *typed*, or of ONNX Runtime."""
        from pytest_trt.backends.isolation import build

        bench, case = self.bench, self.subject.case
        name = case.backend if on_backend else _TYPED_BACKEND
        backend = bench.backend(name) if name == case.backend else get_backend(name)
        request = self.request_of(cut, typed, name)
        with bench.device_lock(name):
            built = build(backend, request, isolate=bench.settings.isolate, timeout_s=bench.settings.build_timeout)
            with closing(backend.load(built.plan, request)) as session:
                return [session.run(feeds) for feeds in cut.feeds]

    def request_of(self, cut: Cut, typed: Model, backend: str) -> BuildRequest:
        """What builds *typed*, at the shapes that were recorded."""
        profile = Profile.fixed(self.request.profile.name, {n: a.shape for n, a in cut.feeds[0].items()})
        options = self.request.options
        if backend != self.subject.case.backend:
            options = type(options)()
        known = {spec.name for spec in (*typed.inputs, *typed.outputs)}
        formats = tuple(text for text in options.io_formats if IoFormat.parse(text).tensor in known)
        return replace(
            self.request,
            model=typed,
            profile=profile,
            profiles=(),
            options=replace(options, io_formats=formats),
            calibration=None,
            tactic_lock={},
        )

    def limits(self, cut: Cut) -> ToleranceSet:
        """The case's tolerances; inner tensors have no classes to agree on."""
        inner = self.base.default
        checks = (inner.rtol, inner.cosine, inner.snr_db)
        if all(value is None for value in checks):
            inner = default_tolerance(self.conversion.precision.name)
        else:
            inner = replace(inner, top1=None, topk=None)
        own = {spec.name: self.base.of(spec.name) for spec in cut.model.outputs if spec.name not in cut.inner}
        return ToleranceSet(inner, own)

    def compare(self, cut: Cut, actual: _Rows, expected: _Rows) -> Comparison:
        """NaN and infinity may be right inside of a graph: where both sides have them."""
        limits = self.limits(cut)
        rows = zip(actual, expected, strict=True)
        return Comparison.merge([compare(a, e, tolerance=limits, allow_nonfinite=True) for a, e in rows])
