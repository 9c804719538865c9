"""A series -> a picture: latency, error and plan size over the runs, with the change points. PNG or SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trt.errors import UsageError
from pytest_trt.history.change_points import Shift
from pytest_trt.history.rows import Row, Series
from pytest_trt.spec.case import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FORMATS", "draw", "file_name"]

FORMATS = ("svg", "png")

_LABELS = 24  # more commits than this are not legible below one axis
_Z = 1.96
_SLOWER, _FASTER, _LINE = "#c0392b", "#1e8449", "#1f4e79"


def file_name(series: Series, format: str) -> str:
    """A name without anything that a shell or a file system minds."""
    return f"{plain('_'.join(part for part in series if part))}.{format}"


def draw(series: Series, rows: Sequence[Row], shifts: Sequence[Shift], path: Path) -> None:
    """Write the picture of *rows*, in their order, to *path*; its suffix is the format. Panels without a figure in any
    row are left out. Raises UsageError without matplotlib, and where the file cannot be written."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            "plots need matplotlib, which is not installed", hint='pip install "pytest-trt[history]"'
        ) from error
    panels = [panel for panel in (_latency, _error, _size) if panel(None, rows)]
    # The same rows give the same bytes: pictures are kept in git as well.
    with rc_context({"svg.hashsalt": "pytest-trt", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 1.2 + 2.2 * max(1, len(panels))), layout="constrained")
        figure.suptitle(str(series), fontsize=10)
        axes = list(figure.subplots(max(1, len(panels)), 1, sharex=True, squeeze=False)[:, 0])
        for axis, panel in zip(axes, panels, strict=False):
            panel(axis, rows)
            axis.grid(alpha=0.25)
        if _latency in panels:
            _mark(axes[0], rows, shifts)
        step = -(-len(rows) // _LABELS)
        axes[-1].set_xticks(
            range(0, len(rows), step), [row.revision for row in rows[::step]], rotation=60, ha="right", fontsize=7
        )
        axes[-1].set_xlabel("commit")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=120, metadata={"Date": None} if path.suffix == ".svg" else None)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error}") from error


def _latency(axis: Axes | None, rows: Sequence[Row]) -> bool:
    points = [(place, row.median_ms, _reach(row)) for place, row in enumerate(rows) if row.median_ms]
    if axis is not None:
        x, y, error = ([point[i] for point in points] for i in range(3))
        axis.errorbar(x, y, yerr=error, fmt="o-", ms=3, lw=1, elinewidth=0.8, color=_LINE)
        axis.set_ylabel("median ms")
    return bool(points)


def _reach(row: Row) -> float:
    return _Z * float(((row.latency or {}).get("summary") or {}).get("median_se") or 0.0) * (row.median_ms or 0.0)


def _error(axis: Axes | None, rows: Sequence[Row]) -> bool:
    points = [(place, row.rmse) for place, row in enumerate(rows) if row.rmse is not None]
    if axis is not None:
        axis.plot(*zip(*points, strict=True), "o-", ms=3, lw=1, color=_LINE)
        if all(value > 0 for _, value in points):
            axis.set_yscale("log")
        axis.set_ylabel("relative RMSE")
    return bool(points)


def _size(axis: Axes | None, rows: Sequence[Row]) -> bool:
    points = [(place, row.plan_bytes / 1e6) for place, row in enumerate(rows) if row.plan_bytes]
    if axis is not None:
        axis.plot(*zip(*points, strict=True), "o-", ms=3, lw=1, color=_LINE)
        axis.set_ylabel("plan MB")
    return bool(points)


def _mark(axis: Any, rows: Sequence[Row], shifts: Sequence[Shift]) -> None:
    places = {(row.run, row.id): place for place, row in enumerate(rows)}
    for shift in shifts:
        first, last = (places[row.run, row.id] for row in (shift.before, shift.after))
        color = _SLOWER if shift.ratio > 1 else _FASTER
        axis.axvspan(first, last, color=color, alpha=0.15, lw=0)
        axis.annotate(
            f"{shift.ratio - 1:+.1%}", ((first + last) / 2, 1), xycoords=("data", "axes fraction"),
            xytext=(0, -10), textcoords="offset points", ha="center", fontsize=8, color=color,
        )  # fmt: skip
