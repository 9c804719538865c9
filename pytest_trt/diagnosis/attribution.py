"""Where the error enters: the typed model, the parser, fusion and tactics, another build, or another run.

Every stage is held against the reference by the comparison that judges the case. What a step adds is the squared error
between the outputs before and after it, in units of the reference's energy, so that the shares of independent errors
add up, and an error that two steps cancel is still seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pytest_trt.accuracy.comparison import Comparison
from pytest_trt.accuracy.metrics import plain
from pytest_trt.diagnosis.deviation import Results, squared_error

__all__ = ["Attribution", "Culprit", "Measured", "Stage", "attribute"]

Culprit = Literal["reference", "conversion", "parser", "fusion", "lottery", "run-to-run", "rounding", "none"]

# Of a squared error: less of it is not worth a word.
_NOTABLE = 0.05
# The steps of the way to the engine; what comes behind it is held against the engine itself.
_STEPS = ("reference", "conversion", "parser", "fusion")
_UNLIKE = ("names", "shape", "dtype")
# Engines that may add up in another order than the typed model, or than one another. Two runs of one engine may not.
_ENGINES = ("parser", "fusion", "lottery")


@dataclass(frozen=True)
class Measured:
    """One stage as it was run: its outputs, one mapping for each sample, and their judgement. ``outputs`` is None where
    the stage was not run, and ``note`` says why. ``reordered`` are the conversion's with its sums in another order.
    """

    word: Culprit
    title: str
    outputs: Results | None = None
    comparison: Comparison | None = None
    note: str = ""
    reordered: Results | None = None


@dataclass(frozen=True)
class Stage:
    """One row of the table; None where the stage was not run.

    ``error`` is the relative rms error against the reference, ``added`` that of the step alone, ``share`` its part of
    the squared error (0 … 1). Outputs of another shape or kind are not ``comparable``: their error is infinite.
    """

    word: Culprit
    title: str
    error: float | None = None
    added: float | None = None
    share: float | None = None
    ok: bool | None = None
    summary: str = ""
    note: str = ""
    comparable: bool = True


@dataclass(frozen=True)
class Attribution:
    """Where the error of a case enters. ``culprit`` holds the largest part of it. It is ``none`` where every engine is
    close to the reference, ``rounding`` where none is and all that they add is what another order of sums adds too."""

    stages: tuple[Stage, ...]
    culprit: Culprit
    share: float  # of the squared error; NaN without any error
    samples: int
    point: str = "opt"
    seconds: float = 0.0
    notes: tuple[str, ...] = field(default=())

    def stage(self, word: Culprit) -> Stage | None:
        """The row of a word, None where the case has no such stage."""
        return next((stage for stage in self.stages if stage.word == word), None)

    @property
    def suspects(self) -> tuple[str, ...]:
        """The culprit, behind the steps right before it that were not run: what those add is in its share."""
        words = [stage.word for stage in self.stages if stage.word in _STEPS]
        if self.culprit not in words:
            return (self.culprit,)
        end = start = words.index(self.culprit)
        while start and (before := self.stage(words[start - 1])) is not None and before.error is None:
            start -= 1
        return tuple(words[start : end + 1])

    def to_json(self) -> dict[str, Any]:
        rows = [
            {
                "stage": s.word,
                "title": s.title,
                "error": plain(s.error),
                "added": plain(s.added),
                "share": plain(s.share),
                "ok": s.ok,
                "summary": s.summary,
                "note": s.note,
            }
            for s in self.stages
        ]
        return {
            "culprit": self.culprit,
            "suspects": list(self.suspects),
            "share": plain(self.share),
            "samples": self.samples,
            "point": self.point,
            "seconds": round(self.seconds, 2),
            "stages": rows,
            "notes": list(self.notes),
        }


def attribute(
    measured: Sequence[Measured], expected: Results, *, point: str = "opt", seconds: float = 0.0
) -> Attribution:
    """Split the error among the stages in *measured*, which stand in their order; *expected* is the reference.

    Several rows of ``lottery`` or ``run-to-run`` are engines and runs beside the first one, which is the last of the
    steps; the one that is furthest off counts.
    """
    errors = {id(m): squared_error(m.outputs, expected, expected) for m in measured if m.outputs is not None}
    gross, before = {}, expected
    for m in measured:
        if m.word in _STEPS and m.outputs is not None:
            gross[id(m)] = squared_error(m.outputs, before, expected)
            before = m.outputs
    for m in measured:
        if m.word not in _STEPS and m.outputs is not None:
            gross[id(m)] = squared_error(m.outputs, before, expected)
    rounding = _rounding(measured, expected)
    added = _net(measured, gross, rounding)
    shares = _shares(measured, added)
    stages = tuple(
        Stage(
            m.word,
            m.title,
            math.sqrt(errors[id(m)]),
            math.sqrt(gross[id(m)]),
            shares[id(m)],
            None if m.comparison is None else m.comparison.ok,
            "" if m.comparison is None else m.comparison.summary,
            m.note or (_unlike(m) if math.isinf(gross[id(m)]) else ""),
            not _unlike(m),
        )
        if id(m) in errors
        else Stage(m.word, m.title, note=m.note)
        for m in measured
    )
    culprit, share = _culprit(stages)
    notes = _rounding_notes(measured, gross, rounding)
    return Attribution(stages, culprit, share, len(expected), point, seconds, notes)


def _unlike(measured: Measured) -> str:
    """Why outputs cannot be compared, where that is so."""
    outputs = () if measured.comparison is None else measured.comparison.outputs
    return next((f'"{o.name}" {p.text}' for o in outputs for p in o.problems if p.kind in _UNLIKE), "")


def _rounding(measured: Sequence[Measured], expected: Results) -> float:
    """How far another order of sums moves the typed model; 0 where it is not known, or no number."""
    moved = [squared_error(m.reordered, m.outputs, expected) for m in measured if m.reordered and m.outputs]
    return max((value for value in moved if math.isfinite(value)), default=0.0)


def _rounding_notes(measured: Sequence[Measured], gross: dict[int, float], rounding: float) -> tuple[str, ...]:
    """Say how far another order of sums moves the typed model, where that is a good part of what the engine adds."""
    engine = max((gross[id(m)] for m in measured if m.word in _ENGINES and id(m) in gross), default=0.0)
    if not engine or rounding < _NOTABLE * engine:
        return ()
    return (
        f"sums moved by one part in a million move the typed model by {math.sqrt(rounding):.2g}: that much of"
        f" {', '.join(_ENGINES[:-1])} and {_ENGINES[-1]} is not in their shares",
    )


def _net(measured: Sequence[Measured], gross: dict[int, float], rounding: float) -> dict[int, float]:
    """What each stage adds by itself: a step of the engine is more than what another run or build of it differs by.
    All but the runs of one engine are more than what another order of sums makes of the typed model."""

    def most(word: str) -> float:
        return max((gross[id(m)] for m in measured if m.word == word and id(m) in gross), default=0.0)

    run, build = most("run-to-run"), most("lottery")
    engine = max(run, build, rounding)
    noise = {"parser": engine, "fusion": engine, "lottery": max(run, rounding)}
    return {id(m): _beyond(gross[id(m)], noise.get(m.word, 0.0)) for m in measured if id(m) in gross}


def _beyond(value: float, noise: float) -> float:
    return 0.0 if value <= noise else value - noise


def _shares(measured: Sequence[Measured], added: dict[int, float]) -> dict[int, float]:
    """Parts of the whole; of several rows with one word the largest has it. Infinity takes all, where it begins."""
    counted: dict[str, int] = {}
    for m in measured:
        if id(m) in added and (m.word not in counted or added[id(m)] > added[counted[m.word]]):
            counted[m.word] = id(m)
    infinite = [key for key in counted.values() if math.isinf(added[key])]
    total = sum(added[key] for key in counted.values())
    shares = dict.fromkeys(added, 0.0)
    for key in counted.values():
        if infinite:
            shares[key] = 1.0 if key == infinite[0] else 0.0
        else:
            shares[key] = added[key] / total if total else 0.0
    return shares


def _culprit(stages: Sequence[Stage]) -> tuple[Culprit, float]:
    ran = [stage for stage in stages if stage.error is not None]
    asked = next((s for s in reversed(ran) if s.word in _STEPS), None)
    engines = [s for s in ran if s is asked or s.word not in _STEPS]
    if all(stage.ok for stage in engines):
        return "none", max((stage.share or 0.0 for stage in ran), default=math.nan)
    worst = max(ran, key=lambda stage: stage.share or 0.0)
    if worst.share:
        return worst.word, worst.share
    # Where nothing at all was added, engine and reference are equal, and still bad: what is expected is no number.
    return ("rounding" if any(stage.added for stage in ran) else "reference"), 0.0
