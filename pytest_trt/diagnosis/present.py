"""The words of a diagnosis: values in, lines of text out."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_trt.counted import counted

if TYPE_CHECKING:
    from pytest_trt.diagnosis.attribution import Attribution, Stage
    from pytest_trt.diagnosis.cost import LatencyCost
    from pytest_trt.diagnosis.culprits import Accuracy, Culprits
    from pytest_trt.diagnosis.hunt import Bisection, Explanation
    from pytest_trt.diagnosis.nonfinite import NonFinite
    from pytest_trt.diagnosis.numerics import Range, Rounding
    from pytest_trt.diagnosis.pairs import Pair
    from pytest_trt.diagnosis.taps import Divergence

__all__ = ["attribution_lines", "bisection_lines", "explanation_lines", "numerics_lines"]

_SHOWN = 5
_SHOWN_NODES = 20
# Values beyond the scale are what calibration chose; more than this share, or a scale that is far off, is worth a word.
_NOTABLE_SATURATION = 0.001
_COARSE = 0.2
_CLIPPED = 1.05  # a scale holds half a step more than its ends say
# A node that makes an error at least doubles what it reads.
_NO_STEP = 0.5
# The relative rms error of a float32 model whose sums are taken in another order stays below this.
_FLOAT32 = 1e-5

_ADVICE = {
    "reference": "the model itself is not what is expected, before any recipe: look at the stored outputs, or at it",
    "conversion": "search the nodes: {command}",
    "parser": "search the tensor: {command}",
    "fusion": "search the tensor: {command}",
    "lottery": "builds differ: pin the tactics with a timing cache; how far apart they are: pytest … --trt-builds=10",
    "run-to-run": "runs of one engine differ: a race or uninitialized memory; repeat under compute-sanitizer",
    "rounding": "no fault: the engine is off by no more than another order of its sums; a tolerance has to leave room"
    " for that, and pytest-trt tolerances proposes one",
    "none": "",
}


def explanation_lines(explanation: Explanation, command: str = "pytest-trt bisect") -> list[str]:
    """The table of an explanation, then what its values look like. *command* is what searches on."""
    lines = attribution_lines(explanation.attribution, command)
    lines += numerics_lines(explanation.nonfinite, explanation.pairs, explanation.roundings)
    return [*lines, *(f"  note         {note}" for note in explanation.notes)]


def attribution_lines(found: Attribution, command: str = "pytest-trt bisect") -> list[str]:
    """One line per stage: its error against the reference, what it adds, and its share of the squared error."""
    samples = f"{counted(found.samples, 'sample')} at {found.point}"
    lines = [f"where the error enters ({samples}; relative rms error against the reference)"]
    width = max(len(stage.title) for stage in found.stages)
    lines.append(f"  {'':12} {'':{width}}  {'error':>8}  {'added':>8}  {'share':>6}")
    lines += [f"  {stage.word:12} {stage.title:{width}}  {_stage(stage)}".rstrip() for stage in found.stages]
    part = f", {_percent(found.share)} of the squared error" if found.culprit != "none" and found.share > 0 else ""
    lines.append(f"  culprit      {' or '.join(found.suspects)}{part}")
    advice = _ADVICE[found.culprit] if len(found.suspects) == 1 else "run the stages that are missing: {command}"
    if advice := advice.format(command=command):
        lines.append(f"  next         {advice}")
    return [*lines, *(f"  rounding     {note}" for note in found.notes)]


def _stage(stage: Stage) -> str:
    if stage.error is None or stage.added is None or stage.share is None:
        return stage.note
    verdict = {True: "close", False: "not close", None: ""}[stage.ok]
    note = f" ({stage.note})" if stage.note else ""
    error, added = (_error(x) if stage.comparable or math.isfinite(x) else "n/a" for x in (stage.error, stage.added))
    return f"{error:>8}  {added:>8}  {_percent(stage.share):>6}  {verdict}{note}"


def _error(value: float) -> str:
    return "0" if value == 0 else "NaN/inf" if math.isinf(value) else f"{value:.2g}"


def _percent(share: float) -> str:
    text = f"{100 * share:.1f}%"
    return {"0.0%": "<0.1%" if share else "0%", "100.0%": "100%" if share == 1 else ">99.9%"}.get(text, text)


def numerics_lines(nonfinite: NonFinite | None, pairs: Sequence[Pair], roundings: Sequence[Rounding]) -> list[str]:
    """What is worth knowing about the values; empty where nothing is."""
    lines = []
    if nonfinite is not None:
        at = f"{nonfinite.found.nonfinite} of {counted(nonfinite.found.count, 'value')}"
        lines.append(f"  first NaN/inf  {nonfinite.node} ({nonfinite.op_type}) makes {nonfinite.tensor!r}: {at}")
        if nonfinite.float32 is not None:
            lines.append(f"    in float32   {_range(nonfinite.float32)}")
        lines += [f"    reads        {name!r}: {_range(found)}" for name, found in nonfinite.inputs.items()]
    overflowing = sorted((r for r in roundings if r.overflowed), key=lambda r: -r.overflowed / r.count)
    lines += [f"  overflow     {_rounding(r, r.overflowed)} become infinite" for r in overflowing[:_SHOWN]]
    vanishing = sorted((r for r in roundings if r.vanished), key=lambda r: -r.vanished / r.count)
    lines += [f"  underflow    {_rounding(r, r.vanished)} become 0" for r in vanishing[:_SHOWN]]
    saturated = sorted(
        (p for p in pairs if p.saturated_share > _NOTABLE_SATURATION or p.used > 1.5), key=lambda p: -p.saturated_share
    )
    lines += [f"  saturation   {_pair(p)}" for p in saturated[:_SHOWN]]
    clipped = sorted((p for p in pairs if p.used > _CLIPPED and p not in saturated), key=lambda p: -p.used)
    lines += [f"  clipped      {_pair(p)}" for p in clipped[:_SHOWN]]
    coarse = sorted((p for p in pairs if p.used < _COARSE and p.used > 0), key=lambda p: p.used)
    lines += [f"  coarse scale {_pair(p)}" for p in coarse[:_SHOWN]]
    hidden = sum(max(0, len(found) - _SHOWN) for found in (overflowing, vanishing, saturated, clipped, coarse))
    return [*lines, f"  and {counted(hidden, 'more such line')}"] if hidden else lines


def _rounding(found: Rounding, count: int) -> str:
    share = f"{count} of {counted(found.count, 'value')} ({_percent(count / found.count)})"
    return f"{found.node} ({found.op_type}): {share}"


def _pair(pair: Pair) -> str:
    what = "weight" if pair.is_weight else "activation"
    readers = ", ".join(pair.readers[:3]) + (", …" if len(pair.readers) > 3 else "")
    return (
        f"{pair.tensor!r} ({what} of {readers or 'nothing'}): {_percent(pair.saturated_share)} saturated; real values "
        f"{_range(pair.values)}, the scale holds {_kept(*pair.kept)} ({pair.used:.2g} × used)"
    )


def _kept(low: float, high: float) -> str:
    """One integer more on the negative side is not worth two numbers."""
    return f"±{high:.3g}" if abs(low + high) < 0.01 * high else f"{low:.3g} … {high:.3g}"


def _range(found: Range) -> str:
    if found.low is None or found.high is None:
        return f"no finite value among {found.count}"
    bad = f", {found.nonfinite} NaN or infinite" if found.nonfinite else ""
    return f"{found.low:.4g} … {found.high:.4g}{bad}"


def bisection_lines(found: Bisection, precision: str) -> list[str]:
    """The explanation, then the nodes or the tensor that was found."""
    lines = explanation_lines(found.explanation)
    # What was advised has been done.
    lines = [line for line in lines if "pytest-trt bisect" not in line] if found.culprits or found.divergence else lines
    if found.culprits is not None:
        lines += ["", *_culprits(found.culprits, found.cost, precision)]
    if found.divergence is not None:
        lines += ["", *_divergence(found.divergence)]
    return lines


def _culprits(found: Culprits, latency: LatencyCost | None, precision: str) -> list[str]:
    how = found.found
    said = {
        "found": "the fewest nodes that must stay float32; without any one of them the model is not close",
        "empty": "the typed model is close with nothing excluded",
        "nothing": f"not even the model without any typed node is close: no exclusion helps, {_elsewhere(found.after)}",
        "unfinished": "a limit was reached: a set that is close, perhaps not the smallest",
        "unstable": "the set was close once and not when it was run again: results are not repeatable",
    }
    if not found.after.ok:
        said["unfinished"] = "a limit was reached before any set was found that is close"
    lines = [said[how.outcome]]
    lines += [f"  {node.entry} ({node.op_type})" for node in found.nodes[:_SHOWN_NODES]]
    if len(found.nodes) > _SHOWN_NODES:
        lines.append(f"  and {len(found.nodes) - _SHOWN_NODES} more: the list below has all of them")
    lines.append(f"  before       {_accuracy(found.before)}")
    if found.configured is not None:
        lines.append(f"  manifest     {_accuracy(found.configured)}")
    if how.outcome != "empty":
        lines.append(f"  after        {_accuracy(found.after)}")
    if latency is not None:
        lines.append(f"  latency      {_latency(latency)}")
    cost = f"{counted(found.evaluations, 'evaluation')} of {counted(found.candidates, 'node')}, {found.seconds:.0f} s"
    lines.append(f"  cost         {cost}")
    if how.contradictions:
        lines.append(
            f"  note         a larger set was worse than a smaller one, {counted(len(how.contradictions), 'time')}:"
            " errors cancel"
        )
    if found.nodes and len(found.nodes) == found.candidates:
        lines.append(
            f"  note         these are all nodes that compute in {precision}: what is left is the float32 model, and no"
            " recipe to write; test it as fp32"
        )
    elif found.nodes:
        entries = ",\n    ".join(json.dumps(entry, ensure_ascii=False) for entry in found.exclude_nodes)
        lines += ["", f"[precision.{precision}]", f"exclude_nodes = [\n    {entries},\n]"]
    return lines


def _elsewhere(left: Accuracy) -> str:
    if 0 < left.error < _FLOAT32:
        return f"the tolerance asks for less than the {left.error:.2g} that float32 itself rounds off"
    return "the fault lies elsewhere"


def _accuracy(found: Accuracy) -> str:
    # A cosine is that of the pairs that are finite: beside NaN it would look like agreement.
    cosine = "" if found.cosine is None or math.isinf(found.error) else f", cosine {found.cosine:.6g}"
    return f"{'close' if found.ok else 'not close'}: relative rms error {_error(found.error)}{cosine}"


def _latency(found: LatencyCost) -> str:
    ratio = (
        f"{found.before_ms:.4g} → {found.after_ms:.4g} ms: × {found.ratio:.3f} ({found.low:.3f} to {found.high:.3f})"
    )
    return f"{ratio}, {found.clock} clock" + (f"; {found.simulated}" if found.simulated else "")


def _divergence(found: Divergence) -> list[str]:
    made = f"made by {found.node} ({found.op_type})" if found.node else "an output that no node makes"
    where = f"{found.tensor!r}, {made}"
    differs = "diverges" if found.between != "runs" else "is not the same in every run"
    said = {
        "found": f"the first tensor of the engine that {differs}: {where}",
        "vanished": "the fault vanished while tapped: to mark any tensor as an output repairs the engine",
        "unfinished": f"a limit was reached; the first tensor seen so far that {differs}: {where}",
        "none": "the outputs do not diverge from the typed model"
        if found.between != "runs"
        else "the runs are the same",
    }
    lines = [said[found.outcome]]
    near = [tap for tap in found.taps if tap.tensor == found.tensor or not tap.diverges][-_SHOWN:]
    lines += [f"  {'diverges' if tap.diverges else 'equal':12} {tap.tensor!r}: {_error(tap.error)}" for tap in near]
    if found.before > found.error * _NO_STEP:
        lines.append(
            f"  note         what the node reads is off by {_error(found.before)} already: the error grows from node to"
            " node, and no single one makes it"
        )
    if found.hiding:
        names = ", ".join(map(repr, found.hiding))
        lines.append(
            f"  note         the fault vanished while tapped: {names}; it lies in the kernels that fuse them away"
        )
    if found.missing:
        lines.append(f"  note         not seen, since the engine lacks them: {', '.join(map(repr, found.missing))}")
    lines.append(f"  cost         {counted(found.builds, 'build')}")
    return lines
