"""What is wrong with an output: first what forbids comparing its values, then what the values violate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pytest_trt.accuracy import message
from pytest_trt.accuracy.measurement import dtype_class
from pytest_trt.accuracy.metrics import Metrics
from pytest_trt.accuracy.ranking import Ranking
from pytest_trt.accuracy.tolerance import Tolerance
from pytest_trt.errors import InputsError

__all__ = ["STRUCTURAL", "Kind", "Problem", "class_problems", "structure_problems", "value_problems"]

# In the order of their weight: the first one found is the main reason.
Kind = Literal[
    "names", "shape", "dtype", "classes", "reference", "nonfinite", "elements", "cosine", "snr_db", "top1", "topk"
]
# These do not come from metrics, so merged metrics cannot judge them anew.
STRUCTURAL = ("names", "shape", "dtype", "classes")


@dataclass(frozen=True)
class Problem:
    """One reason why an output is not close. ``text`` continues the sentence ``output "logits" …``."""

    kind: Kind
    text: str
    sample: int | None = None  # of a merged comparison


def structure_problems(a: np.ndarray[Any, Any], e: np.ndarray[Any, Any]) -> tuple[list[Problem], str | None]:
    """Return what forbids comparing the values, and a note on dtypes that differ as they may."""
    problems: list[Problem] = []
    if a.shape != e.shape:
        problems.append(Problem("shape", f"has shape {a.shape}, the reference has {e.shape}"))
    try:
        floating = [dtype_class(x.dtype) == "float" for x in (a, e)]
    except InputsError as error:
        return [*problems, Problem("dtype", f"has dtype {a.dtype}, the reference {e.dtype}: {error.message}")], None
    if floating[0] != floating[1]:
        text = f"has dtype {a.dtype}, the reference {e.dtype}: only one of them is floating-point"
        problems.append(Problem("dtype", text))
        return problems, None
    return problems, f"dtype {a.dtype} where the reference has {e.dtype}" if a.dtype != e.dtype else None


def class_problems(shape: tuple[int, ...], limit: Tolerance) -> list[Problem]:
    """Return why classes cannot be ranked: a check that was asked for must not silently be none."""
    classes = shape[-1] if shape else 1
    if classes < 2:
        return [Problem("classes", f"has shape {shape}: no axis of classes to rank, as top1, topk or labels need")]
    if limit.topk is not None and limit.k >= classes:
        return [Problem("classes", f"has {classes} classes: any two rows agree in their top {limit.k}")]
    return []


def value_problems(metrics: Metrics, ranking: Ranking | None, limit: Tolerance) -> list[Problem]:
    """Return what the numbers violate, the weightiest first."""
    problems: list[Problem] = []

    def add(kind: Kind, reason: str) -> None:
        problems.append(Problem(kind, f"is not close to the reference: {reason}"))

    def require(kind: Kind, label: str, value: float, least: float | None, digits: int) -> None:
        if least is not None and not value >= least:  # NaN satisfies nothing
            left, right = message.against(value, least, digits)
            add(kind, f"{label} {left}, required {right}")

    if metrics.nonfinite_expected and not metrics.allow_nonfinite:
        text = (
            f"has a reference that is itself NaN or infinite at {metrics.nonfinite_expected} / {metrics.count} elements"
        )
        problems.append(Problem("reference", text))
    if metrics.nonfinite_disagreements:
        share = f"{metrics.nonfinite_disagreements} / {metrics.count}"
        add("nonfinite", f"NaN or infinite on one side only, or differently, at {share} elements")
    judged = metrics.exact or limit.elementwise
    if judged and metrics.mismatched_pairs and metrics.mismatched_share > limit.max_mismatched:
        add("elements", message.mismatch_count(metrics))
    if metrics.pairs and not metrics.exact:
        require("cosine", "cosine", metrics.cosine, limit.cosine, 6)
        require("snr_db", "signal-to-noise ratio in dB", metrics.snr_db, limit.snr_db, 3)
    if ranking is not None:
        require("top1", "top-1 agreement", ranking.top1, limit.top1, 3)
        require("topk", f"top-{ranking.k} agreement", ranking.topk, limit.topk, 3)
    return problems
