"""Two commits or two runs, case by case: the ratio, its interval and the verdict of the latency gate. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median, variance
from typing import TYPE_CHECKING, Any

from pytest_trt.history.query import series
from pytest_trt.history.rows import Row, Series

if TYPE_CHECKING:
    from pytest_trt.latency.stats import Summary
    from pytest_trt.latency.verdict import Verdict

__all__ = ["Change", "compare", "pooled"]


@dataclass(frozen=True)
class Change:
    """One case on both sides: its rows, and the verdict or, in ``note``, why there is none. ``differences`` are those
    of the environment, the model and the plan."""

    series: Series
    before: tuple[Row, ...]
    after: tuple[Row, ...]
    verdict: Verdict | None = None
    note: str = ""
    differences: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.series.id,
            "device": self.series.device,
            "clock": self.series.clock,
            "before": _side_json(self.before),
            "after": _side_json(self.after),
            "verdict": self.verdict.to_json() if self.verdict else None,
            "note": self.note,
            "differences": list(self.differences),
        }


def compare(before: Sequence[Row], after: Sequence[Row], history: Sequence[Row], *, threshold: float) -> list[Change]:
    """Judge every case of *after* against the same case, device and clock in *before*; cases that only one side has
    come last. *history* are all rows: runs before the baseline, of the same plan, show how much its median moves by
    itself.

    Several runs of a side count as repeats, each a process. FAIL is corrected for the number of cases.
    """
    sides = series(before), series(after)
    both = [key for key in sides[1] if key in sides[0]]
    judged = [key for key in both if all(_measured(side[key]) for side in sides)]
    changes = [_judged(key, sides[0][key], sides[1][key], history, threshold, len(judged)) for key in judged]
    for key in (*sides[0], *sides[1]):
        before_it, after_it = (tuple(side.get(key, ())) for side in sides)
        if key not in both:
            changes.append(Change(key, before_it, after_it, note="only before" if before_it else "only after"))
    for key in both:
        before_it, after_it = (tuple(side[key]) for side in sides)
        if key not in judged:
            note, other = _unmeasured(before_it, after_it), _differences(before_it, after_it)
            changes.append(Change(key, before_it, after_it, note=note, differences=other))
    return changes


def pooled(rows: Sequence[Row]) -> Summary:
    """One summary of several runs: each run's median is a repeat, and its own standard error is the noise within it.
    One run's summary stays as it is. Raises ValueError when no row has a latency."""
    from pytest_trt.latency.stats import Summary

    summaries = [Summary.from_json(row.latency["summary"]) for row in rows if row.latency]
    if len(summaries) == 1:
        return summaries[0]
    if not summaries:
        raise ValueError("no row has a latency")
    return _as_repeats(summaries)


def _as_repeats(summaries: Sequence[Summary]) -> Summary:
    from pytest_trt.latency.stats import Summary

    count = sum(summary.count for summary in summaries)
    logs = [math.log(summary.median_ms) for summary in summaries]
    within = math.sqrt(mean(summary.median_se**2 for summary in summaries))
    between = math.sqrt(variance(logs)) if len(logs) > 1 else 0.0
    return Summary(
        count=count,
        median_ms=median(summary.median_ms for summary in summaries),
        mean_ms=sum(summary.mean_ms * summary.count for summary in summaries) / count,
        min_ms=min(summary.min_ms for summary in summaries),
        max_ms=max(summary.max_ms for summary in summaries),
        p90_ms=median(summary.p90_ms for summary in summaries),
        p95_ms=median(summary.p95_ms for summary in summaries),
        p99_ms=median(summary.p99_ms for summary in summaries),
        cov=median(summary.cov for summary in summaries),
        median_se=max(within, between) / math.sqrt(len(logs)),
        loads=len(logs),
        within_se=within,
        between_sd=between,
    )


def _judged(
    key: Series, before: Sequence[Row], after: Sequence[Row], history: Sequence[Row], threshold: float, count: int
) -> Change:
    from pytest_trt.latency.gate import decide
    from pytest_trt.latency.modes import prior_of
    from pytest_trt.latency.priors import PRIORS
    from pytest_trt.latency.stats import Summary

    differences = _differences(before, after)
    clock = prior_of(key.clock)
    if clock not in PRIORS:
        return Change(
            key, tuple(before), tuple(after), None, f"nothing is known of the clock {key.clock!r}", differences
        )
    # A run's repeats are loads of the plan. As soon as one side has several runs, a repeat is a run.
    runs = max(len(_measured(before)), len(_measured(after))) > 1
    sides = [
        _as_repeats([Summary.from_json(row.latency["summary"]) for row in rows if row.latency])
        if runs
        else pooled(rows)
        for rows in (before, after)
    ]
    verdict = decide(
        *sides,
        threshold=threshold,
        clock=clock,
        rebuilt=_plans(before) != _plans(after),
        repeats="processes" if runs else "loads",
        history=_earlier_medians(key, before, history),
        comparisons=count,
    )
    return Change(key, tuple(before), tuple(after), verdict, "", differences)


def _earlier_medians(key: Series, before: Sequence[Row], history: Sequence[Row]) -> list[float]:
    """Medians of runs before those of the baseline, of the same plan in the same environment: they differ by noise
    alone. Later ones do not count: what is in question must not widen the interval that it is judged by."""
    first = min(row.time for row in before)
    plan, environment = (before[-1].engine or {}).get("plan"), before[-1].environment
    return [
        row.median_ms
        for row in history
        if row.median_ms
        and row.time < first
        and row.series == key
        and row.environment == environment
        and plan
        and (row.engine or {}).get("plan") == plan
    ]


def _measured(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.median_ms]


def _unmeasured(before: Sequence[Row], after: Sequence[Row]) -> str:
    sides = [name for name, rows in (("before", before), ("after", after)) if not _measured(rows)]
    return f"no latency {' and '.join(sides)}"


def _plans(rows: Sequence[Row]) -> set[Any]:
    return {(row.engine or {}).get("plan") for row in rows}


def _differences(before: Sequence[Row], after: Sequence[Row]) -> tuple[str, ...]:
    return tuple(differences(before[-1], after[-1]))


def differences(before: Row, after: Row) -> list[str]:
    """What is not the same besides the code: fields of the environment (``driver: 550 → 580``), the model, the plan."""
    old, new = (_flat(row.environment or {}) for row in (before, after))
    lines = [
        f"{k}: {old.get(k) or '-'} → {new.get(k) or '-'}" for k in sorted({*old, *new}) if old.get(k) != new.get(k)
    ]
    for name, word in (("model_fingerprint", "another model"), ("plan", "another plan")):
        pair = [(row.engine or {}).get(name) for row in (before, after)]
        if all(pair) and pair[0] != pair[1]:
            lines.append(word)
    return lines


def _flat(environment: dict[str, Any]) -> dict[str, Any]:
    libraries = environment.get("libraries")
    own = {name: value for name, value in environment.items() if name != "libraries"}
    return {**own, **(libraries if isinstance(libraries, dict) else {})}


def _side_json(rows: Sequence[Row]) -> dict[str, Any] | None:
    if not rows:
        return None
    measured = _measured(rows)
    return {
        "commit": rows[-1].commit or None,
        "runs": list(dict.fromkeys(row.run for row in rows)),
        "median_ms": median(row.median_ms or 0.0 for row in measured) if measured else None,
        "plan_bytes": rows[-1].plan_bytes,
        "rmse": rows[-1].rmse,
    }
