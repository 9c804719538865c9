"""Judging one case at the points of its profile, and on the inputs on which it failed before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_trt.counted import counted
from pytest_trt.errors import RunError, TrtError
from pytest_trt.lab.task_scores import Scored, score_samples
from pytest_trt.spec.shape_points import left_out, points
from pytest_trt.spec.shapes import Shape, format_shape

if TYPE_CHECKING:
    from pytest_trt.accuracy.comparison import Comparison
    from pytest_trt.accuracy.tolerance import ToleranceSet
    from pytest_trt.backends import Session
    from pytest_trt.lab.workshop import Workshop
    from pytest_trt.spec.case import Case
    from pytest_trt.spec.inputs import Sample

__all__ = ["Judged", "judge_points", "shapes_text"]

_CORNERS = ("opt", "min", "max")
# All samples are judged at opt; at the other corners a few are enough to see that the shape works, elsewhere one.
_SAMPLES_AT_OTHER_CORNERS = 4
_SAMPLES_ELSEWHERE = 1


@dataclass
class Judged:
    """What was found. ``corners`` alone is what baselines are compared with: they know no other points.

    ``rows`` has a row per point for the record: shapes, samples, reference, ok; that of opt says whether its first
    sample, run once more, ``repeats``. ``refused`` are the points at which the engine did not run, ``missed`` what
    could not be judged; a sentence each.
    ``scored`` are the metrics at opt, or what kept them from being computed; None where an output does not fit.
    """

    corners: list[Comparison] = field(default_factory=list)
    elsewhere: list[Comparison] = field(default_factory=list)
    regressions: list[Comparison] = field(default_factory=list)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    scored: list[Scored] | TrtError | None = None

    @property
    def failed(self) -> list[str]:
        """The points at which outputs are not close, with their shapes."""
        return [f"{name} ({_text(row)})" for name, row in self.rows.items() if not row["ok"] and "refused" not in row]

    def evidence(self) -> list[str]:
        """Lines that name the points that failed, that were refused and that were not judged."""
        told = (("not close at", self.failed), ("refused", self.refused), ("not judged", self.missed))
        return [f"{what:<12} {line}" for what, lines in told for line in lines]


def judge_points(lab: Workshop, case: Case, session: Session, limits: ToleranceSet) -> Judged:
    """Run *session* at every point that ``settings.shapes`` asks for, and on the saved regressions of the model.

    A RunError at opt is raised, as one of the reference at a corner is. Elsewhere the first is noted as refused: the
    engine does not run a shape that its profile allows, or was rebuilt for it. The second is noted as not judged: the
    model itself does not run at this shape.
    """
    judged, settings = Judged(), lab.settings
    profile, specs = lab.profile(case), lab.model(case.model).inputs
    for name, shapes in points(profile, specs, settings.shapes, settings.seed).items():
        usual = None if name == "opt" else _SAMPLES_AT_OTHER_CORNERS if name in _CORNERS else _SAMPLES_ELSEWHERE
        try:
            samples, expected, source = lab.expected(case, shapes, settings.samples or usual)
        except RunError as error:
            if name in _CORNERS:
                where = f"{case} at {name} ({shapes_text(shapes)})"
                hint = (
                    error.hint or "the model itself does not run there, no engine of it: mend the profile, or the model"
                )
                raise RunError(f"{where}: {error.message}", hint=hint) from error
            judged.missed.append(f"{name} ({shapes_text(shapes)}): {error.message}")
            continue
        found = judged.corners if name in _CORNERS else judged.elsewhere
        _judge(lab, case, session, limits, judged, found, name, samples, expected, source)
    above = left_out(profile, specs, settings.shapes)
    if above:
        judged.missed.append(f"{counted(above, 'point')} more than a case is judged at")
    saved = lab.regressions(case)
    judged.missed += saved.left_out
    if saved.samples:
        outputs, source = lab.expected_of(case, saved.samples, f"regressions {saved.fingerprint}")
        for sample, expected_outputs in zip(saved.samples, outputs, strict=True):
            _judge(
                lab,
                case,
                session,
                limits,
                judged,
                judged.regressions,
                sample.origin,
                [sample],
                [expected_outputs],
                source,
            )
    return judged


def _judge(
    lab: Workshop,
    case: Case,
    session: Session,
    limits: ToleranceSet,
    judged: Judged,
    found: list[Comparison],
    name: str,
    samples: Sequence[Sample],
    expected: Sequence[Mapping[str, Any]],
    source: str,
) -> None:
    shapes = {key: array.shape for key, array in samples[0].feeds.items()}
    row: dict[str, Any] = {
        "shapes": {key: list(shape) for key, shape in shapes.items()},
        "samples": len(samples),
        "reference": source,
    }
    judged.rows[name] = row
    try:
        with lab.device_lock(case.backend):  # somebody else may be measuring
            outputs = [sample.cut(session.run(sample.feeds)) for sample in samples]
            if name == "opt":  # what does not repeat is no baseline
                row["repeats"] = _same(outputs[0], samples[0].cut(session.run(samples[0].feeds)))
    except RunError as error:
        if name == "opt":
            raise RunError(f"{case} at {name} ({shapes_text(shapes)}): {error.message}", hint=error.hint) from error
        judged.refused.append(f"{name} ({shapes_text(shapes)}): {error.message}")
        row |= {"ok": False, "refused": error.message}
        return
    # A regression may hold NaN, or values that overflow: then both sides must do the same.
    nonfinite = True if found is judged.regressions else None
    comparisons = [
        lab.judge(case, actual, sample, wanted, limits, allow_nonfinite=nonfinite)
        for actual, sample, wanted in zip(outputs, samples, expected, strict=True)
    ]
    row["ok"] = all(comparison.ok for comparison in comparisons)
    found += comparisons
    if name == "opt" and not any(comparison.misfit for comparison in comparisons):
        try:
            judged.scored = score_samples(lab, case, samples, outputs, expected)
        except TrtError as error:
            judged.scored = error  # outputs that are not close say more


def _same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two runs gave the same outputs, bit for bit."""
    return all(array.tobytes() == second[name].tobytes() for name, array in first.items())


def shapes_text(shapes: Mapping[str, Shape]) -> str:
    """``x 31x4, mask 31x1``."""
    return ", ".join(f"{name} {format_shape(shape)}" for name, shape in shapes.items())


def _text(row: Mapping[str, Any]) -> str:
    return shapes_text({name: tuple(shape) for name, shape in row["shapes"].items()})
