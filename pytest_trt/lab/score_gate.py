"""Did a task metric get worse: the verdict on the scores of a case that was just run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_trt.baselines.anchors import recordings
from pytest_trt.counted import counted
from pytest_trt.errors import AccuracyFailure, BaselineFailure, Failure, TrtError

if TYPE_CHECKING:
    from pytest_trt.accuracy.drop import Drop
    from pytest_trt.accuracy.drop_test import Known
    from pytest_trt.baselines.state import Match
    from pytest_trt.lab import Lab
    from pytest_trt.lab.task_scores import Scored
    from pytest_trt.record import Record
    from pytest_trt.spec.metrics import MetricSpec

__all__ = ["DEFAULT_ALPHA", "DEFAULT_POWER", "judge_scores"]

DEFAULT_ALPHA = 0.05
DEFAULT_POWER = 0.8
# Without a max_drop, of the baseline's mean.
_SHARE = 0.01
# Metrics whose scores are no counts, even where all of them happen to be 1.
_CONTINUOUS = ("cosine", "iou")
_WORST_FIRST = ("fail", "inconclusive", "pass")
_SHOWN = 5


def judge_scores(
    lab: Lab, record: Record, match: Match, scored: Sequence[Scored] | TrtError | None
) -> TrtError | Failure | None:
    """Fill ``metrics`` of *record*'s accuracy, and return what is to be raised for them, the first of all.

    A mean beyond its limit is red in any case, a drop where the baseline gates. *scored* may be the error that kept
    the scores from being made.
    """
    if scored is None or isinstance(scored, TrtError):
        return scored
    accuracy = record.accuracy or {}
    rows: dict[str, dict[str, Any]] = {}
    red: TrtError | Failure | None = None
    for one in scored:
        try:
            row, failure = _judge(lab, record, match, one)
        except TrtError as error:
            return error
        rows[one.spec.name] = row
        red = red or failure
        if row.get("beyond"):
            accuracy["ok"] = False  # which is never recorded as a baseline
    if rows:
        accuracy["metrics"] = rows
    return red


def _judge(lab: Lab, record: Record, match: Match, one: Scored) -> tuple[dict[str, Any], Failure | None]:
    from pytest_trt.accuracy.drop_test import Known
    from pytest_trt.accuracy.score_store import pack

    new, spec = Known.of(one.scores), one.spec
    row: dict[str, Any] = {"definition": dict(one.definition), "samples": one.samples, **pack(new)}
    beyond = _beyond(spec, new.mean)
    if beyond:
        row["beyond"] = beyond
        text = "\n".join([_about(one, new), "", lab.reproduce(record.case)])
        return row, AccuracyFailure(f'{record.case}: metric "{spec.name}" is {new.mean:.4g}, {beyond}', text)
    verdicts: dict[str, tuple[Drop, Known]] = {}
    why = "there is no baseline"
    for name, entry in recordings(match).items():
        stored = (entry.get("metrics") or {}).get(spec.name)
        why = _unlike(stored, one.definition)
        if stored is not None and not why:
            verdicts[name] = _drop(lab, one, stored, new)
    if not verdicts:
        row["not_compared"] = why
        if lab.settings.baseline == "strict" and match.gates:
            return row, BaselineFailure(
                f'{record.case}: metric "{spec.name}" is not compared: {why}',
                'accept       pytest … --trt-update-baselines=all --trt-reason="…"',
            )
        return row, None
    worst = min(verdicts, key=lambda name: _WORST_FIRST.index(verdicts[name][0].outcome))
    drop, old = verdicts[worst]
    gates = match.gates_on("accuracy")
    row["verdict"] = {**drop.to_json(), "against": worst, "gates": gates}
    fatal = ("fail", "inconclusive") if lab.settings.inconclusive == "fail" else ("fail",)
    if not gates or drop.outcome not in fatal:
        return row, None
    head = "got worse" if drop.outcome == "fail" else "may have got worse"
    entry = recordings(match)[worst]
    evidence = [
        _about(one, new),
        f"baseline     {match.file}, recorded {entry['recorded']}{' (the anchor)' if worst == 'anchor' else ''}",
        *_moved(one, drop, old, new),
        f"test         {drop.design}",
        "",
        lab.reproduce(record.case),
    ]
    return row, AccuracyFailure(f'{record.case}: metric "{spec.name}" {head}: {drop.sentence}', "\n".join(evidence))


def _beyond(spec: MetricSpec, mean: float) -> str:
    if spec.limit is None:
        return ""
    if spec.lower_is_better:
        return f"allowed {spec.limit:g}" if mean > spec.limit else ""
    return f"required {spec.limit:g}" if mean < spec.limit else ""


def _unlike(stored: Mapping[str, Any] | None, definition: Mapping[str, Any]) -> str:
    """Why scores of *definition* cannot be compared with *stored* ones; nothing where they can."""
    if stored is None:
        return "the baseline has no scores of this metric; pytest … --trt-update-baselines=all records them"
    past = stored.get("definition", {})
    differing = sorted(key for key in {*past, *definition} if past.get(key) != definition.get(key))
    if not differing:
        return ""
    if differing == ["digest"]:
        return f"the file of {definition['metric']} is not the one of the baseline's scores"
    return f"the baseline's scores are of another definition ({', '.join(differing)})"


def _drop(lab: Lab, one: Scored, stored: Mapping[str, Any], new: Known) -> tuple[Drop, Known]:
    from pytest_trt.accuracy.drop_test import judge_drop
    from pytest_trt.accuracy.score_store import unpack

    old, spec, settings = unpack(stored), one.spec, lab.settings
    alpha = next((value for value in (settings.alpha, spec.alpha) if value is not None), DEFAULT_ALPHA)
    power = next((value for value in (settings.power, spec.power) if value is not None), DEFAULT_POWER)
    drop = judge_drop(
        old,
        new,
        paired=stored.get("samples") == one.samples and old.scores is not None and old.count == new.count,
        max_drop=spec.max_drop if spec.max_drop is not None else _SHARE * abs(old.mean),
        alpha=alpha,
        power=power,
        lower_is_better=spec.lower_is_better,
        continuous=spec.metric in _CONTINUOUS,
    )
    return drop, old


def _about(one: Scored, new: Known) -> str:
    parts = ", ".join(f"{key} {value}" for key, value in one.definition.items() if key not in ("metric", "digest"))
    what = f"{one.definition['metric']}{f' ({parts})' if parts else ''}"
    return f"metric       {what}: {new.mean:.4g} on {counted(new.count, 'sample')}"


def _moved(one: Scored, drop: Drop, old: Known, new: Known) -> list[str]:
    """Which samples became worse, the worst ones first; nothing where the samples are others."""
    if not drop.paired or old.scores is None or new.scores is None:
        return []
    falls = (new.scores - old.scores) if one.spec.lower_is_better else (old.scores - new.scores)
    worst = [int(index) for index in falls.argsort(kind="stable")[::-1][:_SHOWN] if falls[index] > 0]
    named = ", ".join(f"{index} ({old.scores[index]:.4g} → {new.scores[index]:.4g})" for index in worst)
    lower = int((falls > 0).sum())
    count = f"{counted(lower, 'sample')} {'is' if lower == 1 else 'are'} worse, {int((falls < 0).sum())} better"
    return [f"moved        {count}; most of all: {named}"]
