"""What an error looks like: how its elements are distributed, and how it grows from layer to layer. SVG or PNG."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.counted import counted
from pytest_trt.errors import UsageError

if TYPE_CHECKING:
    from pytest_trt.diagnosis.taps import Divergence

__all__ = ["draw_curve", "draw_histogram", "relative_errors"]

_BINS = 80
_PANELS = 12  # of the outputs with the greatest errors
_LABELS = 40  # more tensors than this are not legible below one axis
_TINY = 1e-12  # below that an element counts as equal: it stands at the left end
_LINE, _ENGINE = "#1f4e79", "#c0392b"

Rows = Sequence[Mapping[str, Any]]


def relative_errors(actual: Rows, expected: Rows) -> dict[str, np.ndarray[Any, Any]]:
    """Return |actual - expected| / rms(expected) of every finite element, flat, by output; integers are left out."""
    found = {}
    for name in expected[0]:
        pairs = [(np.asarray(a[name]), np.asarray(e[name])) for a, e in zip(actual, expected, strict=True) if name in a]
        if not pairs or any(a.shape != e.shape or e.dtype.kind in "iub" for a, e in pairs):
            continue
        left, right = (np.concatenate([pair[i].astype(np.float64).ravel() for pair in pairs]) for i in (0, 1))
        finite = np.isfinite(left) & np.isfinite(right)
        left, right = left[finite], right[finite]
        if right.size:
            found[name] = np.abs(left - right) / (math.sqrt(float(np.mean(right**2))) or 1.0)
    return found


def draw_histogram(actual: Rows, expected: Rows, path: Path) -> None:
    """Write the histogram of ``relative_errors`` to *path*; its suffix is the format. Raises UsageError without
    matplotlib, and where there is nothing to draw."""
    errors = relative_errors(actual, expected)
    if not errors:
        raise UsageError("no output of floats has finite elements on both sides")
    worst = sorted(errors, key=lambda name: float(errors[name].max()), reverse=True)[:_PANELS]
    errors = {name: error for name, error in errors.items() if name in worst}
    figure, axes = _figure(len(errors))
    edges = np.linspace(math.log10(_TINY), max(0.0, *(math.log10(max(e.max(), _TINY)) for e in errors.values())), _BINS)
    for axis, (name, error) in zip(axes, errors.items(), strict=True):
        axis.hist(np.log10(np.maximum(error, _TINY)), bins=edges, color=_LINE)
        axis.set_yscale("symlog")
        unseen = sum(np.size(row[name]) for row in expected) - error.size
        beside = f"; {unseen} not finite" if unseen else ""
        title = f"{_text(name)}: {counted(error.size, 'element')}, the greatest {error.max():.3g}{beside}"
        axis.set_title(title, fontsize=9)
        axis.set_ylabel("elements")
    axes[-1].set_xlabel(f"log10 of |actual - expected| / rms(expected); equal elements are at {math.log10(_TINY):.0f}")
    _save(figure, path)


def draw_curve(layers: Mapping[str, float], divergence: Divergence | None, path: Path) -> None:
    """Write the relative rms error of each tensor, in graph order, to *path*: of the typed model against float32, and
    of the engine against the typed model where tensors of it were looked at. Raises as ``draw_histogram`` does."""
    figure, (axis,) = _figure(1)
    names = list(layers)
    if not any(error > 0 for error in layers.values()) and divergence is None:
        raise UsageError("no inner tensor differs")
    points = [(place, error) for place, error in enumerate(layers.values()) if 0 < error < math.inf]
    if points:
        axis.plot(*zip(*points, strict=True), "o-", ms=3, lw=1, color=_LINE, label="typed model against float32")
    infinite = [place for place, error in enumerate(layers.values()) if math.isinf(error)]
    for place in infinite:
        label = "NaN or infinite in the typed model" if place == infinite[0] else None
        axis.axvline(place, color=_ENGINE, lw=0.8, alpha=0.5, label=label)
    taps = {tap.tensor: tap.error for tap in divergence.taps} if divergence is not None else {}
    tapped = [(names.index(n), error) for n, error in taps.items() if n in layers and 0 < error < math.inf]
    if tapped:
        axis.plot(*zip(*sorted(tapped), strict=True), "s", ms=4, color=_ENGINE, label="engine against the typed model")
    axis.set_yscale("log")
    axis.set_ylabel("rms(actual - expected) / rms(expected)")
    axis.set_xlabel("tensor, in graph order")
    axis.grid(alpha=0.25)
    if points or tapped or infinite:
        axis.legend(fontsize=8)
    step = max(1, -(-len(names) // _LABELS))
    axis.set_xticks(range(0, len(names), step), list(map(_text, names[::step])), rotation=70, ha="right", fontsize=6)
    _save(figure, path)


def _text(name: str) -> str:
    """*name* as it is: between dollars there would be a formula."""
    return name.replace("$", r"\$")


def _figure(panels: int) -> tuple[Any, list[Any]]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("no pictures: matplotlib is not installed", hint="pip install matplotlib") from error
    figure = Figure(figsize=(9, 1.2 + 2.8 * panels), layout="constrained")
    return figure, list(figure.subplots(panels, 1, squeeze=False)[:, 0])


def _save(figure: Any, path: Path) -> None:
    from matplotlib import rc_context

    # The same numbers give the same bytes. A glyph that its font lacks is no reason for a warning: text stays text.
    with rc_context({"svg.hashsalt": "pytest-trt", "svg.fonttype": "none"}), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure.savefig(path, dpi=120, metadata={"Date": None} if path.suffix == ".svg" else None)
