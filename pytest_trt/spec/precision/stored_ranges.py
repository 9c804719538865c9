"""Ranges of activations in a file, in the place of a calibration."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_trt.errors import PrecisionError

__all__ = ["read_ranges", "write_ranges"]


def read_ranges(path: Path) -> dict[str, tuple[float, float]]:
    """Return (low, high) by tensor name from JSON like ``{"relu1": [-3.5, 3.5]}``. Raises PrecisionError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PrecisionError(f"{path}: the ranges cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise PrecisionError(f'{path}: must be one object, {{"tensor": [low, high]}}')
    return {name: _pair(path, name, value) for name, value in content.items()}


def write_ranges(path: Path, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Write what ``read_ranges`` reads."""
    rows = {name: [float(low), float(high)] for name, (low, high) in sorted(ranges.items())}
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def _pair(path: Path, name: str, value: Any) -> tuple[float, float]:
    numbers = isinstance(value, list) and all(
        isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in value
    )
    if not numbers or len(value) != 2 or not value[0] <= value[1]:
        raise PrecisionError(f"{path}: the range of {name!r} must be [low, high], two finite numbers, not {value!r}")
    return float(value[0]), float(value[1])
