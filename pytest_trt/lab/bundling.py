"""A failing case as a folder: gathered from the Lab, reduced as far as time allows, and written."""

from __future__ import annotations

import json
import shlex
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trt.accuracy.metrics import plain
from pytest_trt.backends import get_backend
from pytest_trt.counted import counted
from pytest_trt.errors import Failure, TrtError, UsageError
from pytest_trt.lab.command_lines import parse_version
from pytest_trt.spec.shapes import ShapeRange

if TYPE_CHECKING:
    from pytest_trt.diagnosis.bundle.contents import Contents
    from pytest_trt.diagnosis.bundle.write import Story
    from pytest_trt.diagnosis.hunt import Bisection
    from pytest_trt.diagnosis.reducing import Reduction
    from pytest_trt.diagnosis.stages import Subject
    from pytest_trt.lab.workshop import Workshop
    from pytest_trt.record import Record

__all__ = ["bundle_failure"]

_BUILT_FOR_SHAPES = ("tensorrt", "onnxruntime-tensorrt")
_NAMED = 5
# During a run of tests; by hand a search may take longer.
_SEARCH, _PIECES = 24, 40
_PIECES_BY_HAND = 200
_REDUCING = 0.75  # of the time that is left: a reduction that finds no end must not cost the error curve


def bundle_failure(
    lab: Workshop,
    record: Record,
    subject: Subject,
    summary: str,
    found: Bisection | None,
    *,
    searched_for: float | None = None,
) -> list[str]:
    """Write the failing case of *subject* into ``settings.bundle``, note that in *record*, and return what to say.

    *found* is its explanation. Nodes and tensors are searched, and the model is reduced, as long as
    ``settings.explain_seconds`` allow. Where they were searched already, the reduction may take *searched_for* seconds.
    What fails here is said, not raised: the failure itself must not be lost.
    """
    settings, case = lab.settings, subject.case
    if settings.bundle is None:
        return []
    lab.progress(f"bundling {case.id}")
    seconds = settings.explain_seconds if searched_for is None else searched_for
    started = time.monotonic()
    try:
        from pytest_trt.diagnosis.bundle.contents import of_piece
        from pytest_trt.diagnosis.bundle.write import write_bundle

        subject, contents = _whole(lab, subject, summary)
        place = settings.bundle.absolute()
        if (place / contents.name).exists():  # before anything is searched for it
            written = _shown(place / contents.name, lab.root)
            return [f"bundle       {written}, written before: the same failure; give another folder to write it anew"]
        reduction: Reduction | None = None
        if found is not None:
            found, reduction, notes = _reduce(lab, subject, found, searched_for is not None, seconds)
            contents = replace(contents, notes=(*contents.notes, *notes))
        story, piece = _story(lab, record, contents, found), None
        if reduction is not None:
            story = replace(story, extra={"reduction": reduction.to_json()})
            small = of_piece(contents, reduction)
            piece = small, replace(_story(lab, record, small, found), extra=story.extra)
        late = time.monotonic() - started > seconds
        folder, said = write_bundle(
            place,
            contents,
            story,
            limit=settings.bundle_size,
            draw=lambda folder: _draw(subject, contents, found, folder, late),
            reduced=piece,
        )
    except (TrtError, Failure) as error:
        return [f"no bundle    {error}"]
    if record.accuracy is not None:
        record.accuracy["bundle"] = str(folder)
    lines = [f"bundle       {_shown(folder, lab.root)}", *(f"  note         {note}" for note in said)]
    return [*lines, f"  reduced      {_described(reduction)}"] if reduction is not None else lines


def _whole(lab: Workshop, subject: Subject, summary: str) -> tuple[Subject, Contents]:
    """The case with samples that fail: those of its explanation, or else all, which may fail only together. One file
    takes samples of one shape: where values decide on shapes, it is the first sample that fails alone."""
    from pytest_trt.diagnosis.bundle.contents import shows

    contents = _at_its_shapes(lab, subject, summary)
    if not contents.is_uniform:
        return _alone(lab, subject, contents, summary)
    if shows(contents) or subject.given is not None:
        return subject, contents
    every = type(subject)(lab, subject.case, subject.point, lab.settings.samples, subject.limits, subject.shapes)
    contents = _at_its_shapes(lab, every, summary)
    few, many = counted(len(subject.samples), "sample"), counted(len(every.samples), "sample")
    note = f"close with {few} alone: all {len(every.samples)} are here" if shows(contents) else f"close with all {many}"
    return every, replace(contents, notes=(*contents.notes, note))


def _alone(lab: Workshop, subject: Subject, contents: Contents, summary: str) -> tuple[Subject, Contents]:
    """The first sample of *subject* that fails by itself, or the first one where none does."""
    from pytest_trt.diagnosis.bundle.contents import shows

    count = len(contents.feeds)
    number = next((i for i in range(count) if shows(contents.sample(i))), 0)
    given = [subject.samples[number]], [dict(subject.uncut[number])], subject.reference
    one = type(subject)(lab, subject.case, subject.point, limits=subject.limits, given=given)
    note = f"the outputs of the {counted(count, 'sample')} differ in shape: sample {number} alone is here"
    found = _at_its_shapes(lab, one, summary)
    return one, replace(found, notes=(*found.notes, note))


def _at_its_shapes(lab: Workshop, subject: Subject, summary: str) -> Contents:
    """The case at the shapes that fail. Where an engine is built for shapes, it is seen whether it fails when it is
    built for these alone; if not, the profile stays."""
    from pytest_trt.diagnosis.bundle.contents import of_case, reshaped

    case = subject.case
    contents = of_case(
        lab,
        subject,
        summary,
        synthetic=lab.inputs(case, lab.profile(case).at("opt")).synthetic,
        allow_nonfinite=lab.manifest(case).allow_nonfinite,
    )
    profile = lab.profile(case)
    if case.backend not in _BUILT_FOR_SHAPES or profile.is_static or contents.typed is None:
        return contents
    lab.progress(f"building {case.id} for the shapes that fail alone")
    rows = _built_for(lab, subject, contents)
    if not subject.judge(subject.cut(rows)).ok:
        return contents
    return reshaped(
        contents,
        {name: ShapeRange(r.min, contents.profile.ranges[name].opt, r.max) for name, r in profile.ranges.items()},
        "built for these shapes alone the engine is close: the profile stays; compare with --shapes=opt",
    )


def _built_for(lab: Workshop, subject: Subject, contents: Contents) -> list[dict[str, Any]]:
    from pytest_trt.backends.isolation import build

    backend, settings, case = lab.backend(subject.case.backend), lab.settings, subject.case
    request = replace(contents.request, profile=contents.profile, profiles=(), timing_cache=lab.timings(case.backend))
    with lab.device_lock(case.backend):
        built = build(backend, request, isolate=settings.isolate, timeout_s=settings.build_timeout)
        with closing(backend.load(built.plan, request)) as session:
            return [session.run(feeds) for feeds in contents.feeds]


def _reduce(
    lab: Workshop, subject: Subject, found: Bisection, searched: bool, seconds: float
) -> tuple[Bisection, Reduction | None, list[str]]:
    """*found* after a search, the smallest piece that fails, and why there is none."""
    from pytest_trt.diagnosis.hunt import bisect
    from pytest_trt.diagnosis.reducing import STAGES, reduce_case

    if found.explanation.attribution.culprit == "none":
        return found, None, ["not reduced: the samples that were explained are close by themselves"]
    if found.explanation.attribution.culprit not in STAGES:
        return (
            found,
            None,
            [f"not reduced: the culprit is {found.explanation.attribution.culprit}, no piece of the graph"],
        )
    started = time.monotonic()
    try:
        if not searched:
            found = bisect(lab, subject, explanation=found.explanation, limit=_SEARCH, seconds=seconds / 2)
        left = _REDUCING * (seconds - (time.monotonic() - started))
        limit = _PIECES_BY_HAND if searched else _PIECES
        return found, reduce_case(lab, subject, found, limit=limit, seconds=left), []
    except TrtError as error:
        return found, None, [f"not reduced: {error.message}"]


def _story(lab: Workshop, record: Record, contents: Contents, found: Bisection | None) -> Story:
    from pytest_trt.diagnosis.bundle.write import Story
    from pytest_trt.diagnosis.present import bisection_lines

    case, settings = contents.case, lab.settings
    given = {"backend": case.backend, "tactics": ",".join(case.tactics), "fake": settings.fake or ""}
    words = " ".join(f"--{name}={shlex.quote(value)}" for name, value in given.items() if value)
    installed = get_backend("tensorrt").probe().versions.get("tensorrt")
    return Story(
        record.environment or lab.environment(case.backend).to_json(),
        found.to_json() if found is not None else None,
        bisection_lines(found, case.precision) if found is not None else ["not explained"],
        [f"pytest-trt {command} . {words}" for command in ("compare", "bisect")] if contents.model is not None else [],
        parse_version(None, installed),
    )


def _draw(subject: Subject, contents: Contents, found: Bisection | None, folder: Path, late: bool) -> list[str]:
    """The pictures, and the numbers of the curve; a line for each that cannot be drawn."""
    from pytest_trt.diagnosis.bundle.pictures import draw_curve, draw_histogram
    from pytest_trt.diagnosis.observe import layer_errors

    said = []
    try:
        draw_histogram(subject.cut(contents.actual), subject.expected, folder / "error_histogram.svg")
    except UsageError as error:
        said.append(_not_drawn("error histogram", error))
    if contents.model is None or contents.typed is None:
        return said
    if late:
        return [*said, "no error curve: the time for explanations was over"]
    try:
        layers = layer_errors(contents.typed, contents.model, contents.case.precision, contents.feeds[:1])
        rows = {name: plain(error) for name, error in layers.items()}
        (folder / "layers.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
        draw_curve(layers, found.divergence if found is not None else None, folder / "error_curve.svg")
    except TrtError as error:
        said.append(_not_drawn("error curve", error))
    return list(dict.fromkeys(said))


def _not_drawn(what: str, error: TrtError) -> str:
    return str(error) if "matplotlib" in error.message else f"no {what}: {error.message}"


def _shown(folder: Path, root: Path) -> Path:
    return folder.relative_to(root) if folder.is_relative_to(root) else folder


def _described(found: Reduction) -> str:
    names = ", ".join(found.cut.nodes[:_NAMED]) + (", …" if len(found.cut.nodes) > _NAMED else "")
    end = "" if found.minimal else "; a limit was reached, it may not be the smallest"
    if not found.backend_agrees:
        end += "; the backend itself is close there, ONNX Runtime is not"
    piece = f"{len(found.cut.nodes)} of {counted(found.total, 'node')}"
    fail = "fails" if len(found.cut.nodes) == 1 else "fail"
    return f"{piece} still {fail}: {names}; {counted(found.evaluations, 'evaluation')}{end}"
