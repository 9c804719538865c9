"""From results to verdicts, and to the page of the documentation."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cases import KINDS
from running import Result

__all__ = ["CLASSES", "Verdict", "page", "verdicts"]

CLASSES = {
    "passed": "passed",
    "skipped": "not supported by pytest-trt",
    "refused": "not supported by the backend",
    "differs": "ONNX Runtime differs",
    "unexplained": "unexplained",
    "crashed": "crashed",
}

# What was looked into by hand: a pattern of ids, and why ONNX Runtime alone gives other outputs than ONNX stores.
REASONS = (
    (
        r"node/training_dropout.*",
        "dropout that is on draws a mask; ONNX Runtime's generator is not NumPy's, so the same seed gives another one",
    ),
    (
        r"node/maxunpool_export_with_output_shape",
        "the indices count in the 4x4 that was pooled; ONNX Runtime takes them for places in the 5x5 of output_shape",
    ),
    (
        r"node/resize_downsample_scales_(linear|cubic)_align_corners",
        "with scales, ONNX aligns corners of the unrounded size (3.2), ONNX Runtime those of the rounded one (3)",
    ),
    (
        r"node/attention_4d_with_past_and_present_qk_matmul_bias_[34]d_mask_causal",
        "ONNX Runtime masks with the lowest float32, ONNX with -inf; the other outputs agree",
    ),
)

# A message's pattern, and what tests are grouped by; {} is the first group, listed for all tests of the row.
_MESSAGES = (
    (r"Unsupported model IR version: (\d+, max supported IR version: \d+)", "Unsupported model IR version: …"),
    (r"Opset (\d+) is under development", "Opset … is under development and support for this is limited"),
    (r"Could not find an implementation for (\w+\(\d+\))", "Could not find an implementation for …"),
    (r"Failed to find kernel for (\w+\(\d+\))", "Could not find an implementation for …"),
    (r"(\S+)\(-?\d+\) is not a registered function/op", "… is not a registered function/op"),
    (r"Numpy_type (\d+) can't be converted", "Numpy_type … can't be converted to MLDataType"),
    (r"Error (Unrecognized attribute: \w+ for operator \w+)", "Unrecognized attribute"),
    (r"Type Error: (Type .*? is invalid)", "Type Error"),
    (r"(Type parameter \(\w+\) of Optype \(\w+\) bound to different types)", "Type Error"),
    (r"layout_ == 0 was false. (Batchwise recurrent operations)", "layout_ == 0 was false"),
    (
        r"running (\w+) node\. .*Status Message: (?:/\S+ \S.*? )?([A-Z]\w+ .*)",
        "Non-zero status code returned while running …",
    ),
    (r"'?[\w./ ]+'? (is an? (?:sequence|optional|map|sparse_tensor)_type; only tensors.*)", ""),
    (r"'?[\w./ ]+'? (holds strings, which no engine takes)", ""),
    (
        r"the model is already typed: it has (.* tensors), and",
        "the model is already typed, and not by a precision's name",
    ),
)


@dataclass(frozen=True)
class Verdict:
    """``kind`` is a key of CLASSES, ``text`` the message or the reason."""

    result: Result
    kind: str
    text: str = ""

    @property
    def red(self) -> bool:
        return self.kind in ("unexplained", "crashed")


def verdicts(results: Sequence[Result], alone: Mapping[str, tuple[str, str]], backend: str) -> list[Verdict]:
    """Judge *results*; *alone* says what ONNX Runtime by itself does with those that did not pass."""
    return [_verdict(result, *alone.get(result.case.id, ("", "")), backend) for result in results]


def _verdict(result: Result, alone: str, text: str, backend: str) -> Verdict:
    if result.outcome in ("passed", "crashed", "skipped"):
        return Verdict(result, result.outcome, result.message)
    if result.outcome == "error" and alone in ("refuses", "crashes"):
        return Verdict(result, "refused", text)
    if result.outcome == "error" and not backend.startswith("onnxruntime") and ":" in result.message:
        return Verdict(result, "refused", result.message)
    reason = next((why for pattern, why in REASONS if re.fullmatch(pattern, result.case.id)), None)
    if result.outcome == "failed" and alone == "differs" and reason:
        return Verdict(result, "differs", reason)
    return Verdict(result, "unexplained", result.message or "it was not collected")


def page(found: Sequence[Verdict], backend: str, versions: str) -> str:
    """The whole page in Markdown."""
    parts = [_INTRODUCTION.format(count=len(found), versions=versions, backend=backend), _summary(found)]
    for kind, title in CLASSES.items():
        rows = [verdict for verdict in found if verdict.kind == kind]
        if rows and kind != "passed":
            parts += [f"## {title[0].upper()}{title[1:]}: {len(rows)}", _table(rows, kind)]
    return "\n\n".join(parts) + "\n"


_INTRODUCTION = """\
# ONNX's backend tests

The package onnx brings tests of its own for those who implement it: a model, inputs and outputs each. They go through
pytest-trt as any model does: collected, checked, built, run, and compared with the stored outputs at the default
tolerances. No references are computed. {count} tests, {versions}, backend `{backend}`.

```sh
python benchmarks/onnx_backend_tests --output docs/onnx-backend-tests.md
```

writes this page, and ends with 1 when something failed that nothing explains. `--match`, `--kinds` and `--sample`
choose tests, `--backend` another backend. A test that does not pass is also given to ONNX Runtime alone, without
pytest-trt: only where that refuses the model as well, or gives other values too, it counts as ONNX Runtime's. A test
whose model is typed already says so in a `trt.toml` (`precisions = ["fp16"]`), and so does one that means its NaN
(`allow_nonfinite`)."""


def _summary(found: Sequence[Verdict]) -> str:
    counts = Counter((verdict.result.case.kind, verdict.kind) for verdict in found)
    kinds = [kind for kind in KINDS if any(verdict.result.case.kind == kind for verdict in found)]
    lines = ["| tests | " + " | ".join(CLASSES.values()) + " | all |", "|---|" + "---:|" * (len(CLASSES) + 1)]
    for kind in kinds:
        numbers = [counts[kind, one] for one in CLASSES]
        lines.append(f"| {kind} | " + " | ".join(map(str, [*numbers, sum(numbers)])) + " |")
    totals = [sum(counts[kind, one] for kind in kinds) for one in CLASSES]
    lines.append("| **all** | " + " | ".join(f"**{n}**" for n in [*totals, sum(totals)]) + " |")
    return "\n".join(lines)


def _table(rows: Sequence[Verdict], kind: str) -> str:
    said = kind in ("refused", "skipped")
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for verdict in rows:
        group, detail = _group(verdict.text) if said else (" ".join(verdict.text.split())[:_MAX_MESSAGE], "")
        groups[group].append((detail, verdict.result.case.id))
    lines = [f"| {'message' if said else 'reason'} | tests | which |", "|---|---:|---|"]
    for group, members in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        which = sorted({detail for detail, _ in members if detail}) or [case_id for _, case_id in members]
        shown = which[:_SHOWN] if said else which
        more = f", … ({len(which)} in all)" if len(which) > len(shown) else ""
        lines.append(f"| {_cell(group)} | {len(members)} | {_cell(', '.join(shown))}{more} |")
    return "\n".join(lines)


_SHOWN = 20
_MAX_MESSAGE = 300


def _group(message: str) -> tuple[str, str]:
    """The row of *message*, and what tells it from others in that row."""
    text = " ".join(message.split("\n  hint:")[0].split())
    for pattern, group in _MESSAGES:
        if match := re.search(pattern, text):
            return (group, " ".join(part for part in match.groups() if part)) if group else (match[1], "")
    return text.split(" : ", 2)[-1][:_MAX_MESSAGE], ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
