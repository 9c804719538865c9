"""Why a case is not close: the diagnosis of it, wired to the Lab."""

from __future__ import annotations

import shlex
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_trt.errors import TrtError, UsageError, nearest
from pytest_trt.spec.shape_points import points

if TYPE_CHECKING:
    from pytest_trt.accuracy.tolerance import ToleranceSet
    from pytest_trt.diagnosis.hunt import Explanation
    from pytest_trt.diagnosis.stages import Subject
    from pytest_trt.lab.workshop import Workshop
    from pytest_trt.record import Record
    from pytest_trt.spec.case import Case

__all__ = ["explain_into", "subject_at"]

# Enough to see where an error enters; each stage runs them all.
_SAMPLES = 8
_CORNERS = ("opt", "min", "max")


def explain_into(
    lab: Workshop, case: Case, record: Record, limits: ToleranceSet, command: str, *, failed: bool
) -> list[str]:
    """Explain *case* where the accuracy section of *record* says that it fails, else at opt, if the settings ask for
    that; fill ``record.explanation`` and return the table. A case that *failed* is bundled as well, where a folder is
    given. What cannot be explained says so: the failure must not be lost."""
    settings = lab.settings
    wanted = settings.explain == "on" or (settings.explain == "fail" and failed)
    if not wanted and not (failed and settings.bundle):
        return []
    lab.progress(f"explaining {case.id}")
    lines, subject, found = [""], None, None
    with _said(lines, "not explained:", failed):
        subject = _subject(lab, case, record, limits)
        if wanted:
            told, found = _explained(subject, record, command)
            lines += told
    if subject is not None and failed and settings.bundle:
        from pytest_trt.diagnosis.hunt import Bisection
        from pytest_trt.lab.bundling import bundle_failure

        summary = str((record.accuracy or {}).get("summary", ""))
        with _said(lines, "no bundle   ", failed):
            lines += bundle_failure(lab, record, subject, summary, None if found is None else Bisection(found))
    return lines


@contextmanager
def _said(lines: list[str], what: str, failed: bool) -> Iterator[None]:
    """Add what goes wrong to *lines*, also what nobody foresaw where the case *failed*: that must not be replaced."""
    try:
        yield
    except TrtError as error:
        lines.append(f"{what} {error.message}")
    except Exception as error:
        if not failed:
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        at = f"{Path(place.filename).name}:{place.lineno}"
        said = " ".join(str(error).split())
        lines.append(f"{what} {type(error).__name__}: {said}, at {at}; a bug of pytest-trt or of what it calls")


def _explained(subject: Subject, record: Record, command: str) -> tuple[list[str], Explanation | None]:
    from pytest_trt.diagnosis.hunt import explain
    from pytest_trt.diagnosis.present import explanation_lines

    try:
        found = explain(subject, seconds=subject.bench.settings.explain_seconds)
    except TrtError as error:
        return [f"not explained: {error.message}"], None
    record.explanation = found.to_json()
    if subject.point != "opt":
        command += f" --point={shlex.quote(subject.point)}"
    return explanation_lines(found, command), found


def _subject(lab: Workshop, case: Case, record: Record, limits: ToleranceSet) -> Subject:
    rows = (record.accuracy or {}).get("points", {})
    point = next((name for name, row in rows.items() if not row["ok"] and "refused" not in row), "opt")
    return subject_at(lab, case, point, lab.settings.samples or _SAMPLES, limits)


def subject_at(
    lab: Workshop, case: Case, point: str, limit: int | None = None, limits: ToleranceSet | None = None
) -> Subject:
    """*case* at a point that ``settings.shapes`` asks for, or on a saved regression, by the name that reports give it.
    Raises UsageError for any other."""
    from pytest_trt.diagnosis.stages import Subject

    saved = [sample for sample in lab.regressions(case).samples if sample.origin == point]
    if saved:
        outputs, source = lab.expected_of(case, saved, f"regressions {lab.regressions(case).fingerprint} {point}")
        return Subject(lab, case, point, limits=limits, given=(saved, outputs, source))
    if point in _CORNERS:
        return Subject(lab, case, point, limit, limits)
    known = points(lab.profile(case), lab.model(case.model).inputs, lab.settings.shapes, lab.settings.seed)
    if point not in known:
        names = {*_CORNERS, *known, *(sample.origin for sample in lab.regressions(case).samples)}
        raise UsageError(f"{case} has no point {point!r}", hint=nearest(point, names))
    return Subject(lab, case, point, limit, limits, known[point])
