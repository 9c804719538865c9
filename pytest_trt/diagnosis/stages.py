"""Runs the stages of a case: from the reference to another run of its engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pytest_trt.accuracy.comparison import Comparison
from pytest_trt.backends import BUILD_OPTIONS
from pytest_trt.backends.tensorrt.kernel_names import count_half_sums
from pytest_trt.counted import counted
from pytest_trt.diagnosis.attribution import Attribution, Culprit, Measured, attribute
from pytest_trt.diagnosis.conversion import as_computed
from pytest_trt.diagnosis.deviation import squared_error
from pytest_trt.diagnosis.observe import values
from pytest_trt.diagnosis.summation import reordered
from pytest_trt.errors import PrecisionError, TrtError
from pytest_trt.spec.precision.already import quantized_precisions
from pytest_trt.spec.precision.graph import low_types_in

if TYPE_CHECKING:
    from pytest_trt.accuracy.tolerance import ToleranceSet
    from pytest_trt.backends import Session
    from pytest_trt.diagnosis.deviation import Results
    from pytest_trt.diagnosis.workbench import Workbench
    from pytest_trt.spec.case import Case
    from pytest_trt.spec.inputs import Sample
    from pytest_trt.spec.model import Model
    from pytest_trt.spec.shapes import Shape

__all__ = ["STAGES", "Subject", "attribute_case"]

# So few runs show a race that happens in one run of three in 70 % of the cases.
_RUNS = 4
# The distance of a single other build may be small by chance.
_OTHER_BUILDS = 2
_LATE = "not run: the time for explanations was over"
_LEFT_OUT = "not run: left out"
# The engine itself is always looked at: what is said of it needs the others less the fewer there are.
STAGES: tuple[Culprit, ...] = ("reference", "conversion", "parser", "lottery", "run-to-run")


@dataclass
class Subject:
    """A case at one point of its profile: its samples, what is expected of them, and how they are judged.

    *point* names the point; *shapes* are its shapes where it is none of min, opt and max. *given* are samples, their
    expected outputs and who made these, in place of those of the point.
    """

    bench: Workbench
    case: Case
    point: str = "opt"
    limit: int | None = None
    limits: ToleranceSet | None = None
    shapes: Mapping[str, Shape] | None = None
    given: tuple[list[Sample], list[dict[str, Any]], str] | None = None
    samples: list[Sample] = field(init=False)
    uncut: Results = field(init=False)  # what is expected of whole batches
    expected: Results = field(init=False)
    reference: str = field(init=False)

    def __post_init__(self) -> None:
        if self.given is not None:
            self.samples, expected, self.reference = self.given
        else:
            shapes = self.shapes or self.bench.profile(self.case).at(self.point)
            self.samples, expected, self.reference = self.bench.expected(self.case, shapes, self.limit)
        self.uncut = expected
        self.expected = [sample.cut(row) for sample, row in zip(self.samples, expected, strict=True)]

    def cut(self, rows: Results) -> list[dict[str, Any]]:
        """Return *rows* without what only fills a batch."""
        return [sample.cut(row) for sample, row in zip(self.samples, rows, strict=True)]

    def run(self, session: Session) -> list[dict[str, Any]]:
        """The outputs of every sample."""
        with self.bench.device_lock(self.case.backend):
            return self.cut([session.run(sample.feeds) for sample in self.samples])

    def run_graph(self, model: Model) -> list[dict[str, Any]]:
        """The same from ONNX Runtime, *model* as it is written."""
        names = [spec.name for spec in model.outputs]
        return self.cut(values(model, names, [sample.feeds for sample in self.samples]))

    def judge(self, rows: Results) -> Comparison:
        """Compare *rows* with what is expected."""
        return Comparison.merge(
            [
                self.bench.judge(self.case, row, sample, wanted, self.limits)
                for row, sample, wanted in zip(rows, self.samples, self.expected, strict=True)
            ]
        )

    def measured(self, word: Culprit, title: str, run: Callable[[], Results], note: str = "") -> Measured:
        """Run a stage; what cannot run says why."""
        try:
            rows = run()
        except TrtError as error:
            return Measured(word, title, note=f"cannot run: {error.message}")
        return Measured(word, title, rows, self.judge(rows), note)


def attribute_case(
    subject: Subject,
    *,
    seconds: float = 60.0,
    stages: Collection[str] = STAGES,
    clock: Callable[[], float] = time.monotonic,
) -> Attribution:
    """Run the stages of *subject* and split its error among them. Beside the engine as asked, only *stages* are run;
    those that would begin after *seconds*, or whose build would take longer than what is left, are left out. Raises
    what building and running the case itself raises."""
    bench, case = subject.bench, subject.case
    start = clock()

    def left() -> float:
        return seconds - (clock() - start)

    stored, session = bench.engine(case)
    runs = [subject.run(session) for _ in range(_RUNS if "run-to-run" in stages else 1)]
    build_seconds = float(stored.facts.get("build_seconds") or 0.0)
    # Without any optimization there is no fusion to blame: all that differs from the typed model is the parser's.
    word: Culprit = "parser" if bench.build_options(case).opt_level == 0 else "fusion"
    asked = Measured(word, _asked_title(bench, case), runs[0], subject.judge(runs[0]))
    others: list[Measured | None] = [
        Measured("run-to-run", "another run", rows, subject.judge(rows)) for rows in runs[1:]
    ]
    found = [m for m in _graphs(subject, left, stages) if m.word in stages or m.word == "conversion"]
    found += [*_lowest(subject, left, build_seconds, stages), asked]
    count = _OTHER_BUILDS if "lottery" in stages else 0
    builds = [_another_build(subject, left, build_seconds) for _ in range(count)]
    found += [*_furthest(builds, asked), *_furthest(others, asked)]
    attribution = attribute(found, subject.expected, point=subject.point, seconds=clock() - start)
    return replace(attribution, notes=(*attribution.notes, *_half_sums(stored.facts.get("tactics") or {})))


def _half_sums(tactics: Mapping[str, str]) -> list[str]:
    """Say how many kernels of an engine add up in float16; nothing where none does, or none says."""
    half, told = count_half_sums(tactics.values())
    if not half:
        return []
    return [
        f"sums are in float16 in {half} of {counted(told, 'kernel')} whose names tell, and in float32 in the typed"
        " model: an error of the engine's own, which grows with the length of a sum"
    ]


def _furthest(others: list[Measured | None], asked: Measured) -> list[Measured]:
    """The one of *others* that is furthest from the engine as asked, and of how many; where none ran, why not."""
    unit = asked.outputs or ()
    ran = [(squared_error(m.outputs, unit, unit), m) for m in others if m is not None and m.outputs is not None]
    if not ran:
        return [m for m in others if m is not None][:1]
    _, worst = max(ran, key=lambda pair: pair[0])
    count = f", the furthest of {len(ran)}" if len(ran) > 1 else ""
    return [replace(worst, title=f"{worst.title}{count}")]


def _graphs(subject: Subject, left: Callable[[], float], stages: Collection[str]) -> list[Measured]:
    bench, case = subject.bench, subject.case
    untyped = bench.model(case.model)
    if not untyped.has_graph or bench.is_prebuilt(case):
        return []
    # Without a recipe of ours there is no float32 model: it came typed or quantized.
    typed_before = low_types_in(untyped.proto) or quantized_precisions(untyped.proto)
    whole = f"{'model as it came' if typed_before else 'float32 model'}, ONNX Runtime"
    if subject.reference.startswith("onnxruntime"):
        first = Measured("reference", whole, subject.expected, subject.judge(subject.expected))
    else:
        first = subject.measured("reference", whole, lambda: subject.run_graph(untyped), subject.reference)
    title = f"typed model ({case.precision}), ONNX Runtime"
    if "conversion" not in stages:
        return [first, Measured("conversion", title, note=_LEFT_OUT)]
    if left() <= 0:
        return [first, Measured("conversion", title, note=_LATE)]
    typed, note = bench.typed_model(case)[0], ""
    try:
        typed = as_computed(typed, case.precision)
    except PrecisionError as error:
        note = f"its rounding is not shown: {error.message}"
    found = subject.measured("conversion", title, lambda: subject.run_graph(typed), note)
    if found.outputs is None or note or left() <= 0:
        return [first, found]
    return [first, replace(found, reordered=_reordered(subject, typed))]


def _reordered(subject: Subject, typed: Model) -> Results | None:
    """Outputs of *typed* with its sums in another order; None where it has none, or cannot run so."""
    other = reordered(typed)
    try:
        return None if other is None else subject.run_graph(other)
    except TrtError:  # an aid, without which the shares are those of the plain distances
        return None


def _asked_title(bench: Workbench, case: Case) -> str:
    level = bench.build_options(case).opt_level
    return f"engine as asked{'' if level is None else f', optimization level {level}'}"


def _lowest(
    subject: Subject, left: Callable[[], float], build_seconds: float, stages: Collection[str]
) -> list[Measured]:
    bench, case = subject.bench, subject.case
    title = "engine, optimization level 0"
    has_levels = "opt_level" in BUILD_OPTIONS.get(case.backend, ())
    if not has_levels or bench.is_prebuilt(case) or bench.build_options(case).opt_level == 0:
        return []
    if "parser" not in stages:
        return [Measured("parser", title, note=_LEFT_OUT)]
    if left() <= build_seconds:
        return [Measured("parser", title, note=_LATE)]
    options: Mapping[str, str] = {**dict(case.options), "opt_level": "0"}
    lowest = replace(case, options=tuple(sorted(options.items())))
    return [subject.measured("parser", title, lambda: _built_anew(subject, lowest))]


def _another_build(subject: Subject, left: Callable[[], float], build_seconds: float) -> Measured | None:
    bench, case = subject.bench, subject.case
    title = "another build"
    if bench.is_prebuilt(case):
        return None
    if left() <= build_seconds:
        return Measured("lottery", title, note=_LATE)

    return subject.measured("lottery", title, lambda: _built_anew(subject, case))


def _built_anew(subject: Subject, case: Case) -> Results:
    """Outputs of a fresh build; the engine of the case stays loaded."""
    bench = subject.bench
    built = bench.build(case)
    with closing(bench.backend(case.backend).load(built.plan, bench.request(case))) as session:
        return subject.run(session)
