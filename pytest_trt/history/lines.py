"""Rows, changes and shifts -> lines of text. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from pytest_trt.history.change_points import Shift
from pytest_trt.history.compare import Change
from pytest_trt.history.rows import Row

__all__ = ["change_lines", "row_lines", "run_lines", "shift_lines"]


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Cells under their headers, each column as wide as its widest cell."""
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (header, *rows)
    ]


def run_lines(rows: Sequence[Row]) -> list[str]:
    """A line per run, oldest first."""
    runs: dict[str, list[Row]] = {}
    for row in rows:
        runs.setdefault(row.run, []).append(row)
    cells = []
    for run, mine in runs.items():
        outcomes = [row.outcome for row in mine]
        counts = ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in dict.fromkeys(sorted(outcomes)))
        slugs = ", ".join(dict.fromkeys(row.slug for row in mine if row.slug))
        cells.append((run, mine[0].time[:16], mine[0].revision, _branch(mine[0]), counts, slugs or "-"))
    return columns(("run", "time", "commit", "branch", "cases", "environment"), cells)


def row_lines(rows: Sequence[Row]) -> list[str]:
    """A line per row, oldest first."""
    cells = [
        (
            row.time[:16],
            row.revision,
            _branch(row),
            row.id + (" *" if row.simulated else ""),
            _form(row.median_ms, "{:.4g}"),
            row.series.clock or "-",
            _form(row.rmse, "{:.2e}"),
            _form(row.plan_bytes, "{:.2f}", 1e-6),
            row.outcome,
        )
        for row in rows
    ]
    header = ("time", "commit", "branch", "case", "median ms", "clock", "rel. RMSE", "plan MB", "result")
    return columns(header, cells) + (["* simulated"] if any(row.simulated for row in rows) else [])


def change_lines(changes: Sequence[Change], names: tuple[str, str]) -> list[str]:
    """A line per case, then what a reader must know about each of them."""
    from pytest_trt.latency.verdict import change_of

    cells = []
    for change in changes:
        verdict = change.verdict
        ratio, low, high = (change_of(r) for r in (verdict.ratio, verdict.low, verdict.high)) if verdict else ("-",) * 3
        cells.append(
            (
                change.series.id,
                _median(change.before),
                _median(change.after),
                f"{ratio} ({low} … {high})" if verdict else "-",
                _pair(change, "plan_bytes", "{:.2f}", 1e-6),
                _pair(change, "rmse", "{:.2e}"),
                ("improved" if verdict.improved else verdict.outcome.value) if verdict else change.note,
            )
        )
    header = ("case", f"{names[0]} ms", f"{names[1]} ms", "change", "plan MB", "rel. RMSE", "verdict")
    lines = columns(header, cells)
    for change in changes:
        # What passed has said all in its row.
        if change.verdict and (change.verdict.outcome.value != "pass" or change.verdict.improved):
            lines.append(f"{change.series.id}: {change.verdict.sentence}")
        if change.differences:
            lines.append(f"{change.series.id}: besides the code: {'; '.join(change.differences)}")
    return lines


def shift_lines(shift: Shift, count: int | None) -> list[str]:
    """What changed, by how much, and where to look; *count* is the number of commits in between, None if unknown."""
    word = "slower" if shift.ratio > 1 else "faster"
    runs = f"{shift.runs[0]} runs before, {shift.runs[1]} after"
    lines = [f"  {word} by {abs(shift.ratio - 1):.1%}: {shift.before_ms:.4g} → {shift.after_ms:.4g} ms ({runs})"]
    lines.append(f"    between {_where(shift.before)} and {_where(shift.after)}")
    if shift.commits:
        first, last = (commit[:12] for commit in shift.commits)
        found = "" if count is None else f"   # {count} commit{'s' if count != 1 else ''}"
        lines.append(f"    git log --oneline {first}..{last}{found}")
    elif shift.before.commit:
        lines.append("    one and the same commit: it is not the code")
    if shift.differences:
        lines.append(f"    besides the code: {'; '.join(shift.differences)}")
    return lines


def _where(row: Row) -> str:
    return f"{row.revision} ({row.time[:10]})" if row.git else f"run {row.run}"


def _branch(row: Row) -> str:
    return (row.git.branch if row.git else None) or "-"


def _median(rows: Sequence[Row]) -> str:
    found = [row.median_ms for row in rows if row.median_ms]
    return f"{median(found):.4g}" + (f" ({len(found)} runs)" if len(found) > 1 else "") if found else "-"


def _pair(change: Change, name: str, form: str, factor: float = 1.0) -> str:
    old, new = (_form(getattr(side[-1], name), form, factor) if side else "-" for side in (change.before, change.after))
    return old if old == new else f"{old} → {new}"


def _form(value: float | None, form: str, factor: float = 1.0) -> str:
    return "-" if value is None else form.format(value * factor)
