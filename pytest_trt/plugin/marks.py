"""``@pytest.mark.trt`` -> frozen MarkOptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pytest_trt.errors import UsageError

__all__ = ["MarkOptions"]


@dataclass(frozen=True)
class MarkOptions:
    """A marker's arguments, checked. ``origin`` says where the marker stands, for messages."""

    model: str
    origin: str
    precisions: tuple[str, ...] | None = None
    profiles: tuple[str, ...] | None = None
    threshold: float | None = None
    tolerance: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_node(cls, node: pytest.Item | pytest.Collector) -> MarkOptions:
        """Read the closest marker. Raises UsageError for a missing marker or a wrong argument."""
        where = node.nodeid
        marker = node.get_closest_marker("trt")
        if marker is None:
            raise UsageError(f"{where}: the trt fixtures need a model", hint='add @pytest.mark.trt("models/NAME")')
        if len(marker.args) != 1 or not isinstance(marker.args[0], (str, Path)):
            raise UsageError(
                f"{where}: @pytest.mark.trt takes one model, a path, and keywords",
                hint='@pytest.mark.trt("models/NAME", profiles=["b8"])',
            )
        known = dict(marker.kwargs)
        precisions, profiles = (_names(where, key, known.pop(key, None)) for key in ("precisions", "profiles"))
        threshold = known.pop("threshold", None)
        if threshold is not None and not (isinstance(threshold, (int, float)) and 0 < threshold < 100):
            raise UsageError(f"{where}: threshold={threshold!r} must be a share such as 0.03")
        return cls(str(marker.args[0]), f"@pytest.mark.trt of {where}", precisions, profiles, threshold, known)


def _names(where: str, key: str, value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str) or not all(isinstance(v, str) for v in value):
        raise UsageError(f"{where}: {key} must be a list of names, not {value!r}")
    return tuple(value)
