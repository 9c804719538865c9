"""``[metrics.NAME]`` of a manifest: what a task's scores are made of, and which drop of them must not go unseen."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_trt.errors import ManifestError, nearest

__all__ = ["KEYS", "KINDS", "MetricSpec", "parse_metrics"]

# Built-in metric -> the keys of its own.
KINDS: dict[str, tuple[str, ...]] = {
    "top1": ("axis", "against"),
    "topk": ("k", "axis", "against"),
    "cosine": (),
    "iou": ("threshold", "axis"),
    "tokens": ("axis", "mask"),
}
_OF_BUILT_IN = ("output",)
_OF_FUNCTIONS = ("lower_is_better", "args")
_OF_ALL = ("metric", "limit", "max_drop", "alpha", "power")
KEYS: dict[str, tuple[type, ...]] = {
    "metric": (str,),
    "output": (str,),
    "against": (str,),
    "k": (int,),
    "axis": (int,),
    "threshold": (int, float),
    "mask": (str,),
    "lower_is_better": (bool,),
    "args": (dict,),
    "limit": (int, float),
    "max_drop": (int, float),
    "alpha": (int, float),
    "power": (int, float),
}
_AGAINST = ("reference", "labels")
_LIMITS: dict[str, tuple[float, float]] = {
    "k": (1, 10**6),
    "max_drop": (1e-12, 1e12),
    "alpha": (1e-6, 0.4999),
    "power": (0.5, 0.999999),
}


@dataclass(frozen=True)
class MetricSpec:
    """One metric. ``metric`` is one of KINDS, or ``FILE.py:CALLABLE`` of the model's folder.

    None stands for: ``output`` the only one; ``axis`` and ``mask`` the metric's default; ``limit`` none; ``max_drop``
    1 % of the baseline's mean; ``alpha`` and ``power`` the settings'.
    """

    name: str
    metric: str
    output: str | None = None
    against: str = _AGAINST[0]
    k: int = 5
    axis: int | None = None
    threshold: float | None = None
    mask: str | None = None
    lower_is_better: bool = False
    args: Mapping[str, Any] = field(default_factory=dict)
    limit: float | None = None
    max_drop: float | None = None
    alpha: float | None = None
    power: float | None = None

    @property
    def source(self) -> str | None:
        """``FILE.py:CALLABLE``, or None for a built-in metric."""
        return None if self.metric in KINDS else self.metric

    def definition(self) -> dict[str, Any]:
        """What scores mean: those of unlike definitions are not compared."""
        if self.source:
            kept = {"lower_is_better": self.lower_is_better, "args": dict(self.args)}
            return {"metric": self.metric, **{key: value for key, value in kept.items() if value}}
        own = {key: getattr(self, key) for key in (*KINDS[self.metric], *_OF_BUILT_IN)}
        return {"metric": self.metric, **{key: value for key, value in own.items() if value is not None}}


def parse_metrics(table: Mapping[str, Any]) -> dict[str, MetricSpec]:
    """Read the table ``metrics``. Raises ManifestError that names the key and the nearest known one."""
    return {name: _parse(name, entry) for name, entry in table.items()}


def _parse(name: str, entry: Any) -> MetricSpec:
    where = f"metrics.{name}"
    if not isinstance(entry, Mapping):
        raise ManifestError(f'{where} must be a table, like [{where}] metric = "eval.py:score"')
    for key, value in entry.items():
        if key not in KEYS:
            raise ManifestError(f"unknown key {key!r} in [{where}]", hint=nearest(key, KEYS))
        if not isinstance(value, KEYS[key]) or (isinstance(value, bool) and bool not in KEYS[key]):
            wanted = " or ".join(kind.__name__ for kind in KEYS[key])
            raise ManifestError(f"{where}.{key} must be {wanted}, not {type(value).__name__}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ManifestError(f"{where}.{key} must be finite, not {value}")
        low, high = _LIMITS.get(key, (-math.inf, math.inf))
        if key in _LIMITS and not low <= entry[key] <= high:
            raise ManifestError(f"{where}.{key} must lie in {low:g} … {high:g}, not {value}")
    if "metric" not in entry:
        known = ", ".join(KINDS)
        raise ManifestError(f"[{where}] has no metric", hint=f'one of {known}, or a function: metric = "eval.py:score"')
    kind = entry["metric"]
    if kind not in KINDS and ":" not in kind:
        raise ManifestError(
            f"{where}.metric = {kind!r} is unknown; a function is FILE.py:CALLABLE", hint=nearest(kind, KINDS)
        )
    allowed = (*_OF_ALL, *(_OF_BUILT_IN + KINDS[kind] if kind in KINDS else _OF_FUNCTIONS))
    for key in entry:
        if key not in allowed:
            raise ManifestError(f"{where}.{key} says nothing to {kind}", hint=f"its keys: {', '.join(allowed)}")
    if entry.get("against", _AGAINST[0]) not in _AGAINST:
        raise ManifestError(f"{where}.against = {entry['against']!r}", hint=nearest(entry["against"], _AGAINST))
    try:
        json.dumps(entry.get("args", {}), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ManifestError(f"{where}.args cannot be recorded: {error}", hint="give dates as strings") from error
    if {"threshold", "axis"} <= set(entry):
        raise ManifestError(f"[{where}] has both threshold and axis", hint="keep one: masks, or classes along an axis")
    return MetricSpec(name, **entry)
