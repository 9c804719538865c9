"""What earlier runs say of the noise: measurements of the same engine, and engines that were held against themselves.

Pure. What the gate otherwise takes from a prior.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pytest_trt.history.rows import Row

__all__ = ["medians_of_plan", "ratios_of_equals"]

_MOST = 50  # the latest ones: a machine changes


def medians_of_plan(rows: Iterable[Row], id: str, plan: str, clock: str, environment: Mapping[str, Any]) -> list[float]:
    """The medians in ms, one per run, of the case *id* while its engine was *plan*, in exactly *environment*."""
    found = [
        row.median_ms
        for row in rows
        if row.id == id and (row.engine or {}).get("plan") == plan and _is_of(row, clock, environment)
    ]
    return [median for median in found if median][-_MOST:]


def ratios_of_equals(rows: Iterable[Row], clock: str, environment: Mapping[str, Any], loads: int) -> list[float]:
    """The ratios, one per run and case, of engines that took turns with themselves over *loads* loads of each.

    Of any case: an engine that is new has none of its own.
    """
    found = []
    for row in rows:
        equals = (row.verdict or {}).get("equals") or {}
        if equals.get("loads") == loads and _is_of(row, clock, environment):
            found.append(float(equals["ratio"]))
    return found[-_MOST:]


def _is_of(row: Row, clock: str, environment: Mapping[str, Any]) -> bool:
    return (row.latency or {}).get("clock") == clock and row.environment == dict(environment)
