"""Is the engine the one that was asked for, and the one that was recorded? Census, structure and tactics.

Each of the three has its own option: ``off`` looks away, ``warn`` writes a line into the report, ``fail`` fails the
case.
"""

from __future__ import annotations

from typing import Any

from pytest_trt.baselines.store import Match
from pytest_trt.baselines.structure import structure_drift
from pytest_trt.baselines.tactic_lock import make_lock, tactic_changes
from pytest_trt.errors import EngineFailure
from pytest_trt.record import Record
from pytest_trt.settings import Settings

__all__ = ["judge_against_baseline", "judge_census"]

_NO_LOCK = (
    "the baseline holds no tactics: --trt-lock compared nothing; record them with --trt-lock=warn"
    " --trt-update-baselines=all"
)


def judge_census(settings: Settings, record: Record, reproduce: str) -> None:
    """Raise EngineFailure when the engine does not run in what was asked, as far as the inspector shows it."""
    engine = record.engine or {}
    refusal = engine.get("not_honoured")
    if not refusal or settings.census == "off":
        return
    if settings.census == "warn":
        _warn(record, f"census: {refusal}")
        return
    raise EngineFailure(
        f"{record.case}: the engine does not run in {record.case.precision}", f"{refusal}\n\n{reproduce}"
    )


def judge_against_baseline(settings: Settings, record: Record, match: Match, reproduce: str) -> None:
    """Compare the engine's structure and tactics with the recorded ones. Raises EngineFailure; a baseline that is
    stale warns at most."""
    engine, stored = record.engine or {}, match.entry or {}
    if settings.structure != "off" and stored.get("structure") and engine.get("structure"):
        drift = structure_drift(stored["structure"], engine["structure"])
        for line in drift.better:
            _note(record, "structure_better", line)
        _settle(settings.structure, record, match, "structure", drift.worse, reproduce)
    if settings.lock != "off" and engine.get("tactics") is not None:
        # What is locked travels with the record, so that accepting it later needs no engine.
        engine["lock"] = make_lock(str(engine.get("tensorrt")), engine.pop("tactics"), engine.pop("timing", None))
        if stored.get("lock"):
            _settle(settings.lock, record, match, "tactics", tactic_changes(stored["lock"], engine["lock"]), reproduce)
        elif stored and not settings.update_baselines:
            _warn(record, _NO_LOCK)


def _settle(mode: str, record: Record, match: Match, what: str, lines: list[str], reproduce: str) -> None:
    if not lines:
        return
    for line in lines:
        _note(record, f"{what}_changed", line)
    differ = f"{what} {'differ' if what.endswith('s') else 'differs'}"
    if mode == "fail" and match.gates_on("engine"):
        evidence = [*lines, f"baseline     {match.file}", "", reproduce]
        raise EngineFailure(f"{record.case}: the engine's {differ} from the baseline", "\n".join(evidence))
    first = [" ".join(line.split()) for line in lines[:3]]  # columns are for several lines
    shown = "; ".join(first) + (f"; and {len(lines) - 3} more" if len(lines) > 3 else "")
    _warn(record, f"{differ} from the baseline: {shown}")


def _warn(record: Record, text: str) -> None:
    _note(record, "remarks", text)


def _note(record: Record, key: str, text: str) -> None:
    engine: dict[str, Any] = record.engine or {}
    engine[key] = [*engine.get(key, ()), text]  # the list may be that of the engine's stored facts
    record.engine = engine
