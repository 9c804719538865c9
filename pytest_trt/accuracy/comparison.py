"""Compare the outputs of an engine with their reference: names, shapes, dtypes, then values; every output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.accuracy import message
from pytest_trt.accuracy.measurement import measure
from pytest_trt.accuracy.metrics import Metrics
from pytest_trt.accuracy.problems import STRUCTURAL, Problem, class_problems, structure_problems, value_problems
from pytest_trt.accuracy.ranking import Ranking, rank
from pytest_trt.accuracy.tolerance import DEFAULTS, Tolerance, ToleranceSet
from pytest_trt.errors import InputsError, UsageError, nearest

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["Comparison", "OutputComparison", "Problem", "compare"]

_SHOWN_OUTPUTS = 12


@dataclass(frozen=True)
class OutputComparison:
    """What was found for one output. ``metrics`` is None where values could not be compared at all.

    ``shape`` and ``dtype`` are those of actual, None where it is missing; ``shape`` is None too where merged
    samples differ. ``dtype_note`` tells a difference of dtypes that is allowed.
    """

    name: str
    tolerance: Tolerance
    problems: tuple[Problem, ...] = ()
    dtype_note: str | None = None
    metrics: Metrics | None = None
    ranking: Ranking | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def notes(self) -> tuple[str, ...]:
        """What is allowed, but worth knowing."""
        notes = [] if self.dtype_note is None else [self.dtype_note]
        if self.metrics is not None and not self.metrics.count:
            notes.append("empty: there was no value to compare")
        elif self.metrics is not None and not self.metrics.pairs:
            notes.append("no element is finite on both sides: no value was compared")
        return tuple(notes)

    def lines(self) -> list[str]:
        """The evidence: what is worth knowing of an output that is close, all of it when it is not."""
        notes = [f"  note: {note}" for note in self.notes]
        if self.ok:
            return [f'output "{self.name}" is close', *(f"  {text}" for text in self._close()), *notes]
        shape = None if self.shape is None else "x".join(map(str, self.shape)) or "scalar"
        head = "   ".join(x for x in (f'output "{self.name}"', " ".join(x for x in (self.dtype, shape) if x)) if x)
        lines = [head]
        for problem in self.problems:
            # The others are told by the table.
            if self.metrics is None or problem.kind in (*STRUCTURAL, "reference", "nonfinite"):
                sample = "" if problem.sample is None else f" (sample {problem.sample})"
                lines.append(f"  {problem.text}{sample}")
            if problem.kind == "reference":
                lines.append("  where that is meant: allow_nonfinite = true in [inputs] of trt.toml")
        lines += notes
        if self.metrics is not None:
            lines += ["", *message.table(message.value_rows(self.metrics, self.ranking, self.tolerance))]
        return lines

    def _close(self) -> list[str]:
        lines = []
        if self.metrics is not None and self.metrics.max_abs is not None:
            lines.append(message.extreme("worst abs", self.metrics.max_abs))
        if self.ranking is not None and self.ranking.labelled:
            lines.append(f"accuracy {message.accuracy(self.ranking)}, on {self.ranking.labelled} labels")
        return lines

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "ok": self.ok,
            "shape": None if self.shape is None else list(self.shape),
            "dtype": self.dtype,
            "problems": [{"kind": p.kind, "text": p.text, "sample": p.sample} for p in self.problems],
            "notes": list(self.notes),
            "metrics": None if self.metrics is None else self.metrics.to_json(),
            "ranking": None if self.ranking is None else self.ranking.to_json(),
            "tolerance": self.tolerance.to_json(),
        }


@dataclass(frozen=True)
class Comparison:
    """The outputs of one sample or batch, or of several that were merged, against their reference."""

    outputs: tuple[OutputComparison, ...]
    samples: int = 1

    @property
    def ok(self) -> bool:
        return all(output.ok for output in self.outputs)

    @property
    def misfit(self) -> bool:
        """Whether an output is missing, or of a shape or type that cannot be compared."""
        return any(problem.kind in STRUCTURAL for output in self.outputs for problem in output.problems)

    @property
    def summary(self) -> str:
        """One line: the first bad output and its main reason, and how many outputs are bad."""
        bad = [output for output in self.outputs if not output.ok]
        if bad:
            others = f"; bad outputs: {len(bad)} of {len(self.outputs)}" if len(self.outputs) > 1 else ""
            return f'output "{bad[0].name}" {bad[0].problems[0].text}{others}'
        samples = f" in {self.samples} samples" if self.samples > 1 else ""
        if len(self.outputs) > 1:
            return f"all {len(self.outputs)} outputs are close to the reference{samples}"
        return f'output "{self.outputs[0].name}" is close to the reference{samples}'

    @property
    def detail(self) -> str:
        """The evidence on each output, bad ones first, in their order otherwise; of many the first ones."""
        ordered = sorted(self.outputs, key=lambda output: output.ok)
        shown, others = ordered[:_SHOWN_OUTPUTS], ordered[_SHOWN_OUTPUTS:]
        told = ["\n".join(output.lines()) for output in shown]
        if others:
            bad = [output.name for output in others if not output.ok]
            named = f": {', '.join(bad[:_SHOWN_OUTPUTS])}{', …' if len(bad) > _SHOWN_OUTPUTS else ''}" if bad else ""
            told.append(f"{len(others)} more outputs, {len(bad)} of them not close{named}")
        return "\n\n".join(told)

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict for JSON; NaN and infinities are strings."""
        return {
            "ok": self.ok,
            "samples": self.samples,
            "summary": self.summary,
            "outputs": [output.to_json() for output in self.outputs],
        }

    @classmethod
    def merge(cls, comparisons: Sequence[Comparison]) -> Comparison:
        """Return one comparison of several samples of the same outputs, judged on all their elements together.

        The result is that of comparing the concatenation, with two exceptions: an ``atol_scale`` keeps the
        scale of each sample, and a sample that is missing, misshapen or of a wrong dtype stays a problem.
        Extremes and such problems tell the number of their sample, from 0. Raises UsageError when there is
        nothing to merge, or when an output was held to different tolerances.
        """
        if not comparisons:
            raise UsageError("there are no comparisons to merge")
        if len(comparisons) == 1:
            return comparisons[0]
        parts: dict[str, list[tuple[int, OutputComparison]]] = {}
        samples = 0
        for comparison in comparisons:
            for output in comparison.outputs:
                parts.setdefault(output.name, []).append((samples, output))
            samples += comparison.samples
        return cls(tuple(_merge_output(name, found) for name, found in parts.items()), samples)


def compare(
    actual: Mapping[str, ArrayLike],
    expected: Mapping[str, ArrayLike],
    *,
    rtol: float | None = None,
    atol: float | None = None,
    tolerance: Tolerance | ToleranceSet | None = None,
    allow_nonfinite: bool = False,
    labels: ArrayLike | Mapping[str, ArrayLike] | None = None,
) -> Comparison:
    """Compare outputs by name. An element is close when::

        |actual - expected| ≤ atol + atol_scale · rms(expected) + rtol · |expected|

    Each output goes through three steps. Names: one that is missing, or that the reference lacks, is bad.
    Shape and dtype: shapes must be equal; floating-point against integer is bad, while other widths, and
    booleans as 0 and 1, are allowed and noted. Values: in float64; integers and booleans exactly.

    :param actual: what the engine gave, by output name.
    :param expected: the reference, by output name.
    :param rtol, atol: both or neither. They replace the limit of an element in *tolerance*; without a
        *tolerance* they are all that is checked. Without any of the three, the default of fp32 holds.
    :param tolerance: for all outputs, or a set with others for some.
    :param allow_nonfinite: accept NaN and infinities where both sides have the same. Without it a reference
        that is not finite is bad.
    :param labels: true classes, one per row of an output (all axes but the last are rows), to report the
        accuracy of both sides; a mapping by output name when there are several outputs.

    Raises UsageError for arguments that contradict each other, a tolerance or labels for an unknown output
    included, and InputsError when there is nothing to compare or labels do not fit.
    """
    if not expected:
        raise InputsError("the reference has no outputs: there is nothing to compare")
    tolerances = _tolerances(tolerance, rtol, atol)
    names = [*expected, *(name for name in actual if name not in expected)]
    if any(limit.floor is not None for limit in (tolerances.default, *tolerances.outputs.values())):
        raise UsageError("a multiple of the floor was not measured", hint="give rtol and atol, or snr_db")
    truths = _labels(labels, list(expected))
    for what, known in (("tolerance", tolerances.outputs), ("labels", truths)):
        for name in known:
            if name not in names:
                raise UsageError(f'{what} for output "{name}", which does not exist', hint=nearest(name, names))
    outputs = []
    for name in names:
        limit = tolerances.of(name)
        if name not in actual:
            given = ", ".join(f'"{n}"' for n in actual) or "no outputs"
            outputs.append(OutputComparison(name, limit, (Problem("names", f"is missing; the engine gave {given}"),)))
        elif name not in expected:
            outputs.append(OutputComparison(name, limit, (Problem("names", "has no reference to compare with"),)))
        else:
            a, e = np.asarray(actual[name]), np.asarray(expected[name])
            outputs.append(_compare_output(name, a, e, limit, allow_nonfinite, truths.get(name)))
    return Comparison(tuple(outputs))


def _tolerances(tolerance: Tolerance | ToleranceSet | None, rtol: float | None, atol: float | None) -> ToleranceSet:
    origin = "the arguments rtol and atol"
    if rtol is None and atol is None:
        base = DEFAULTS["fp32"] if tolerance is None else tolerance
        return base if isinstance(base, ToleranceSet) else ToleranceSet(base)
    if tolerance is None:
        return ToleranceSet(Tolerance(rtol=rtol, atol=atol, origin=dict.fromkeys(("rtol", "atol"), origin)))
    given = {name: value for name, value in (("rtol", rtol), ("atol", atol)) if value is not None}
    base = tolerance if isinstance(tolerance, ToleranceSet) else ToleranceSet(tolerance)
    return base.merged(given, origin)


def _labels(labels: ArrayLike | Mapping[str, ArrayLike] | None, outputs: Sequence[str]) -> Mapping[str, ArrayLike]:
    if labels is None or isinstance(labels, Mapping):
        return labels or {}
    if len(outputs) > 1:
        raise UsageError(f"which of {len(outputs)} outputs are the labels for?", hint="give labels={output: labels}")
    return {outputs[0]: labels}


def _compare_output(
    name: str, a: np.ndarray[Any, Any], e: np.ndarray[Any, Any], limit: Tolerance, allow: bool, labels: ArrayLike | None
) -> OutputComparison:
    found = OutputComparison(name, limit, shape=a.shape, dtype=str(a.dtype))
    problems, note = structure_problems(a, e)
    if problems:
        return replace(found, problems=tuple(problems))
    metrics = measure(a, e, rtol=limit.rtol, atol=limit.atol, atol_scale=limit.atol_scale, allow_nonfinite=allow)
    ranking: Ranking | None = None
    wanted = limit.top1 is not None or limit.topk is not None or labels is not None
    if wanted and a.size:
        problems += class_problems(a.shape, limit)
        if not problems:
            try:
                ranking = rank(a, e, k=limit.k, labels=labels)
            except InputsError as error:
                raise InputsError(f'labels of output "{name}": {error.message}', hint=error.hint) from error
    problems += value_problems(metrics, ranking, limit)
    return replace(found, problems=tuple(problems), dtype_note=note, metrics=metrics, ranking=ranking)


def _merge_output(name: str, found: Sequence[tuple[int, OutputComparison]]) -> OutputComparison:
    """Merge one output of several samples; *found* holds the number of each sample and its result."""
    outputs = [output for _, output in found]
    limit = outputs[0].tolerance
    if any(output.tolerance != limit for output in outputs):
        raise UsageError(f'output "{name}" was held to different tolerances: such comparisons cannot be merged')
    structural: dict[tuple[str, str], Problem] = {}
    for number, output in found:
        for problem in output.problems:
            if problem.kind in STRUCTURAL:
                numbered = replace(problem, sample=number + (problem.sample or 0))
                structural.setdefault((problem.kind, problem.text), numbered)
    measured = [(number, output.metrics) for number, output in found if output.metrics is not None]
    rankings = [output.ranking for output in outputs if output.ranking is not None]
    metrics = Metrics.merged([m for _, m in measured], [n for n, _ in measured]) if measured else None
    ranking = Ranking.merged(rankings) if rankings else None

    def common(get: Callable[[OutputComparison], Any]) -> Any:
        values = {get(output) for output in outputs}
        return values.pop() if len(values) == 1 else None

    return OutputComparison(
        name,
        limit,
        problems=(*structural.values(), *(value_problems(metrics, ranking, limit) if metrics is not None else ())),
        dtype_note=next((output.dtype_note for output in outputs if output.dtype_note), None),
        metrics=metrics,
        ranking=ranking,
        shape=common(lambda output: output.shape),
        dtype=common(lambda output: output.dtype),
    )
