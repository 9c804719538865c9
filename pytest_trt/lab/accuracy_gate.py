"""Is it right: the verdict on the outputs of a case's engine, at every point at which they are judged.

It stands apart from ``Lab`` as ``latency_gate`` does: there engines are built and loaded, here they are judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_trt.baselines.anchors import accuracy_sentences
from pytest_trt.errors import AccuracyFailure, EngineFailure
from pytest_trt.lab.again import bisect_again
from pytest_trt.lab.engine_gate import judge_against_baseline
from pytest_trt.lab.explaining import explain_into
from pytest_trt.lab.points import judge_points
from pytest_trt.lab.score_gate import judge_scores
from pytest_trt.record import Record, accuracy_section
from pytest_trt.report.terminal import metric_lines
from pytest_trt.spec.case import Case

if TYPE_CHECKING:
    from pytest_trt.accuracy.comparison import Comparison
    from pytest_trt.accuracy.tolerance import ToleranceSet
    from pytest_trt.backends import Session
    from pytest_trt.lab import Lab

__all__ = ["judge"]


def judge(
    lab: Lab,
    case: Case,
    record: Record,
    session: Session,
    limits: ToleranceSet,
    tolerance: Mapping[str, Any] | None = None,
) -> Comparison:
    """Compare what *session* computes with what is expected within *limits*, and fill ``record.accuracy``. *tolerance*
    is what a test said of the limits, for the command that does the same again.

    Raises AccuracyFailure, MetricError and EngineFailure, as ``Lab.check`` says.
    """
    from pytest_trt.accuracy.comparison import Comparison

    again = lab.reproduce(case, tolerance)
    judged = judge_points(lab, case, session, limits)
    comparison = Comparison.merge([*judged.corners, *judged.elsewhere])
    failed = [c for c in judged.regressions if not c.ok]
    if comparison.ok and failed:
        comparison = Comparison.merge(failed)
    # The figures are always the corners': a baseline must not take other points, or a new regression, for drift.
    record.accuracy = {
        **accuracy_section(Comparison.merge(judged.corners)),
        "ok": comparison.ok and not judged.refused,
        "summary": comparison.summary,
        "points": judged.rows,
        "not_judged": judged.missed,
    }
    match = lab.match(case, record)
    drift = accuracy_sentences(match, record.accuracy["outputs"]) if match.gates else []
    record.accuracy["drift"] = drift
    worse = judge_scores(lab, record, match, judged.scored)
    explained = explain_into(lab, case, record, limits, bisect_again(lab, case, tolerance), failed=not comparison.ok)
    if not comparison.ok:
        remarks = [f"remark       {text}" for text in (record.engine or {}).get("remarks", ())]
        told = [*judged.evidence(), *metric_lines(record, doubtful=True), *remarks]
        evidence = [comparison.detail, *explained, "", *told, again]
        raise AccuracyFailure(f"{case}: {comparison.summary}", "\n".join(evidence))
    if judged.refused:
        evidence = [*judged.evidence(), "", again]
        raise EngineFailure(
            f"{case}: the engine refuses {len(judged.refused)} shapes within its profile: {judged.refused[0]}",
            "\n".join(evidence),
        )
    if drift and match.gates_on("accuracy"):
        told = [*drift, *metric_lines(record, doubtful=True)]
        evidence = [*told, f"baseline     {match.file}", "", again]
        raise AccuracyFailure(f"{case}: accuracy regressed against the baseline", "\n".join(evidence))
    if worse is not None:
        raise worse
    judge_against_baseline(lab.settings, record, match, again)
    return comparison
