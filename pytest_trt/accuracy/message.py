"""The words of a comparison: numbers in, lines of text out. Knows nothing of how they were compared."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pytest_trt.accuracy.metrics import Extreme, Metrics
from pytest_trt.accuracy.ranking import Ranking
from pytest_trt.accuracy.tolerance import Tolerance

__all__ = ["accuracy", "against", "extreme", "mismatch_count", "number", "percent", "table", "value_rows"]

# Label, value, and what the value is held against (may be empty).
Row = tuple[str, str, str]


def number(value: float, digits: int = 3) -> str:
    """Write a number with *digits* significant digits; integers in full."""
    return str(value) if isinstance(value, int) else f"{value:.{digits}g}"


def against(value: float, limit: float, digits: int = 3) -> tuple[str, str]:
    """Write a value and its limit with as many digits as it takes to tell them apart, and a limit below 1 from 1."""

    def unclear(left: str, right: str) -> bool:
        return (left == right and value != limit) or (right == "1" and limit != 1)

    while digits < 17 and unclear(number(value, digits), number(limit, digits)):
        digits += 1
    return number(value, digits), number(limit, digits)


def percent(part: int, whole: int) -> str:
    """Write a share so that only none is ``0%`` and only all is ``100%``."""
    if part in (0, whole):
        return "100%" if part else "0%"
    text = f"{100 * part / whole:.2f}%"
    return {"0.00%": "<0.01%", "100.00%": ">99.99%"}.get(text, text)


def mismatch_count(metrics: Metrics) -> str:
    return f"{metrics.mismatched} / {metrics.count} mismatched ({percent(metrics.mismatched, metrics.count)})"


def _place(extreme: Extreme) -> str:
    """Say where an extreme lies; a scalar has no place."""
    index = f"at {extreme.index}" if extreme.index else ""
    sample = "" if extreme.sample is None else f"{'of' if index else 'in'} sample {extreme.sample}"
    return " ".join(x for x in (index, sample) if x)


def extreme(label: str, found: Extreme) -> str:
    """Write one extreme in a sentence: ``worst abs 0.0132 at (3, 417), allowed 0.01``."""
    value, allowed = _value_and_limit(found)
    return " ".join(x for x in (label, value, _place(found)) if x) + (f", allowed {allowed}" if allowed else "")


def _value_and_limit(found: Extreme) -> tuple[str, str]:
    if found.allowed is None:
        return number(found.value), ""
    return against(found.value, found.allowed)


def accuracy(ranking: Ranking) -> str:
    return f"{number(ranking.actual_accuracy)} actual, {number(ranking.expected_accuracy)} expected"


def value_rows(metrics: Metrics, ranking: Ranking | None, tolerance: Tolerance) -> list[Row]:
    """Return the evidence on one output, in the fixed order of the report; what says nothing is left out."""
    rows: list[Row] = []
    judged = metrics.exact or tolerance.elementwise
    if metrics.nonfinite_actual or metrics.nonfinite_expected:
        sides = f"{metrics.nonfinite_actual} actual, {metrics.nonfinite_expected} expected"
        rows.append(("non-finite", sides, f"{metrics.nonfinite_disagreements} disagree"))
    if judged:
        limit = f"allowed {tolerance.max_mismatched:.3g} of all" if tolerance.max_mismatched else ""
        share = percent(metrics.mismatched, metrics.count)
        rows.append(("mismatched", f"{metrics.mismatched} / {metrics.count} ({share})", limit))
    rows += _extreme_rows(metrics)
    if not metrics.exact and metrics.pairs:
        rows.append(_required("cosine", metrics.cosine, tolerance.cosine, 6))
        if tolerance.snr_db is not None:
            rows.append(_required("snr (dB)", metrics.snr_db, tolerance.snr_db, 3))
    if ranking is not None:
        if tolerance.top1 is not None:
            rows.append(_required("top-1", ranking.top1, tolerance.top1, 3))
        if tolerance.topk is not None:
            rows.append(_required(f"top-{ranking.k}", ranking.topk, tolerance.topk, 3))
        if ranking.labelled:
            rows.append(("accuracy", accuracy(ranking), f"on {ranking.labelled} labels"))
    if metrics.expected_min is not None and metrics.expected_max is not None:
        scale = "" if metrics.exact or math.isnan(metrics.expected_rms) else f", rms {number(metrics.expected_rms)}"
        rows.append(("expected", f"{number(metrics.expected_min)} … {number(metrics.expected_max)}{scale}", ""))
    if metrics.exact:
        rows.append(("limit", "equality, as for all integers and booleans", ""))
    elif tolerance.elementwise:
        rows.append(("limit", _formula(metrics, tolerance), ""))
    if origin := tolerance.describe_origin(exact=metrics.exact):
        rows.append(("tolerance", origin, ""))
    return rows


def _extreme_rows(metrics: Metrics) -> list[Row]:
    rows: list[Row] = []
    # Integers have no relative row: ids and flags have no scale.
    named = [("worst abs", metrics.max_abs), ("worst rel", None if metrics.exact else metrics.max_rel)]
    shown = [(label, x, *_value_and_limit(x)) for label, x in named if x is not None and x.value > 0]
    width = max((len(value) for _, _, value, _ in shown), default=0)
    for label, found, value, allowed in shown:
        place = _place(found)
        rows.append((label, f"{value:{width}} {place}".rstrip(), f"allowed {allowed}" if allowed else ""))
    if metrics.rel_undefined and not metrics.exact:
        rows.append(("", f"{metrics.rel_undefined} more have no relative difference: expected is 0", ""))
    furthest = metrics.max_abs if metrics.exact else metrics.max_excess
    if furthest is not None and metrics.mismatched_pairs:
        actual, expected = against(furthest.actual, furthest.expected, 5)
        times = "" if metrics.exact or math.isinf(furthest.value) else f"{number(furthest.value)} × its limit"
        rows.append(("furthest off", f"actual {actual}, expected {expected} {_place(furthest)}".rstrip(), times))
    return rows


def _required(label: str, value: float, limit: float | None, digits: int) -> Row:
    if limit is None:
        return label, number(value, digits), ""
    left, right = against(value, limit, digits)
    return label, left, f"required {right}"


def _formula(metrics: Metrics, tolerance: Tolerance) -> str:
    """Write the limit of an element with its numbers: what was added to rtol·|expected|, and why so much."""
    absolute = f"{tolerance.atol:g}"
    if tolerance.atol_scale:
        parts = f"{tolerance.atol:g} + {tolerance.atol_scale:g} × rms of expected"
        absolute = f"{metrics.atol:.3g} ({parts})" if metrics.atol is not None else f"({parts}, of each sample)"
    return f"|actual - expected| ≤ {absolute} + {tolerance.rtol:g} × |expected|"


def table(rows: Sequence[Row]) -> list[str]:
    """Lay rows out in columns, indented by two."""
    label_width = max((len(label) for label, _, _ in rows), default=0) + 3
    value_width = max((len(value) for _, value, limit in rows if limit), default=0) + 3
    return [
        f"  {label.ljust(label_width)}{value.ljust(value_width) + limit if limit else value}"
        for label, value, limit in rows
    ]
