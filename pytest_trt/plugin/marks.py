"""``@pytest.mark.trt`` -> frozen MarkOptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_trt.errors import UsageError, nearest
from pytest_trt.option_values import ratio, tactic_sets
from pytest_trt.settings import as_text

if TYPE_CHECKING:
    from pytest_trt.spec.case import Axes

__all__ = ["MarkOptions", "threshold_of"]


@dataclass(frozen=True)
class MarkOptions:
    """A marker's arguments, checked. ``origin`` says where the marker stands, for messages."""

    model: str
    origin: str
    axes: Axes
    threshold: float | None = None
    tolerance: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_node(cls, node: pytest.Item | pytest.Collector) -> MarkOptions:
        """Read the closest marker. Raises UsageError for a missing marker or a wrong argument."""
        from pytest_trt.spec.build_options import BuildOptions
        from pytest_trt.spec.case import Axes

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
        axes = {key: _names(where, key, known.pop(key, None)) for key in _AXES}
        sets = _sets(where, known.pop("tactics", None))
        build = {name: known.pop(name) for name in BuildOptions.names() if name in known}
        threshold = threshold_of(where, known.pop("threshold", None))
        _check_tolerances(where, known)
        return cls(
            str(marker.args[0]),
            f"@pytest.mark.trt of {where}",
            Axes(**axes, tactics=sets, options=tuple(sorted((k, as_text(v)) for k, v in build.items()))),
            threshold=threshold,
            tolerance=known,
        )


def threshold_of(where: str, value: Any) -> float | None:
    """The threshold that a test gives, ``0.03`` or ``"3%"``, by the rule of ``--trt-threshold``. Raises UsageError."""
    try:
        return None if value is None else ratio(str(value))
    except ValueError as error:
        raise UsageError(f"{where}: cannot use threshold={value!r}: {error}") from error


_AXES = ("precisions", "profiles", "backends", "graphs")


def _check_tolerances(where: str, given: Mapping[str, Any]) -> None:
    """What is no axis and no build option must be a tolerance; what is none may be any of the three, misspelt."""
    from pytest_trt.accuracy.tolerance import FIELDS
    from pytest_trt.spec.build_options import BuildOptions

    for name in given:
        if name != "outputs" and name not in FIELDS:
            known = (*_AXES, "tactics", "threshold", *BuildOptions.names(), *FIELDS)
            raise UsageError(f"{where}: @pytest.mark.trt has no argument {name!r}", hint=nearest(name, known))


def _sets(where: str, value: Any) -> tuple[tuple[str, ...], ...] | None:
    """``["-JIT_CONVOLUTIONS"]`` is one set, ``[[], ["-JIT_CONVOLUTIONS"]]`` are two."""
    if value is None:
        return None
    if isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value):
        value = [value]
    if isinstance(value, str) or not all(isinstance(v, (list, tuple)) for v in value):
        raise UsageError(f"{where}: tactics must be a list of sources, or a list of such lists, not {value!r}")
    return tactic_sets(";".join(",".join(v) for v in value))


def _names(where: str, key: str, value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str) or not all(isinstance(v, str) for v in value):
        raise UsageError(f"{where}: {key} must be a list of names, not {value!r}")
    return tuple(value)
