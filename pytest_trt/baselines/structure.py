"""An engine's structure against its own past: layers, fusions, reformats, sizes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["MEMORY_TOLERANCE", "PLAN_TOLERANCE", "Drift", "structure_drift"]

# Another tactic for some layers brings other kernels and padding of the weights: a percent or so of a plan. Weights
# in another type change it by a factor.
PLAN_TOLERANCE = 0.02
# Activations share memory by how long each lives, so one more reformat or another workspace moves the peak by some
# percent; a lost fusion or a tensor in a wider type moves it by much more.
MEMORY_TOLERANCE = 0.05

# Count -> whether more of it is worse. Regions of the graph compiler have no better and worse: one more or fewer
# means that TensorRT cuts the graph elsewhere, which is worth a look either way.
_COUNTS: dict[str, bool | None] = {"layers": True, "fused": False, "reformats": True, "myelin": None}
_BYTES = {"plan_bytes": ("plan", PLAN_TOLERANCE), "device_memory_bytes": ("memory", MEMORY_TOLERANCE)}


@dataclass(frozen=True)
class Drift:
    """What differs between two builds, a line each: ``reformats   4 → 9``, ``plan        133 MB → 265 MB (+99 %)``.
    True where something is worse."""

    worse: list[str] = field(default_factory=list)
    better: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.worse)


def structure_drift(baseline: Mapping[str, Any], actual: Mapping[str, Any]) -> Drift:
    """Compare two ``structure`` sections: ``layers``, ``fused``, ``reformats``, ``myelin`` (any change counts),
    ``plan_bytes`` and ``device_memory_bytes`` (beyond a tolerance). What either of them lacks is not compared."""
    drift = Drift()
    for name, more_is_worse in _COUNTS.items():
        pair = _numbers(baseline.get(name), actual.get(name))
        if pair is not None and pair[0] != pair[1]:
            grew = pair[1] > pair[0]
            is_worse = more_is_worse is None or grew == more_is_worse
            (drift.worse if is_worse else drift.better).append(f"{name:<12}{pair[0]:g} → {pair[1]:g}")
    for name, (label, tolerance) in _BYTES.items():
        pair = _numbers(baseline.get(name), actual.get(name))
        if pair is not None and abs(pair[1] - pair[0]) > tolerance * pair[0]:
            line = f"{label:<12}{_size(pair[0])} → {_size(pair[1])}{_change(*pair)}"
            (drift.worse if pair[1] > pair[0] else drift.better).append(line)
    return drift


def _numbers(before: Any, after: Any) -> tuple[float, float] | None:
    # A baseline file may have been edited by hand.
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (before, after)):
        return before, after
    return None


def _change(before: float, after: float) -> str:
    return f" ({(after - before) / before:+.0%})".replace("%", " %") if before else ""


def _size(count: float) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}" if count < 999.5 * scale else f"{count / scale:.0f} {unit}"
    return f"{count:g} B"
