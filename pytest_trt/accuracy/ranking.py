"""Do both outputs pick the same class? Counts over rows that can be merged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.accuracy.metrics import plain
from pytest_trt.errors import InputsError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Ranking", "rank"]

# Elements per block of rows.
_BLOCK = 1 << 18


@dataclass(frozen=True)
class Ranking:
    """Agreement of argmax over *rows*; with labels, also how often either side is right."""

    rows: int
    k: int
    top1_agreeing: int  # rows whose argmax is the same
    topk_agreeing: int  # rows whose expected argmax is among the k greatest actual values
    labelled: int = 0  # rows with a label
    actual_correct: int = 0
    expected_correct: int = 0

    @property
    def top1(self) -> float:
        """Share of rows whose argmax agrees; NaN without rows."""
        return self.top1_agreeing / self.rows if self.rows else math.nan

    @property
    def topk(self) -> float:
        """Share of rows whose expected class is among the k best; NaN without rows."""
        return self.topk_agreeing / self.rows if self.rows else math.nan

    @property
    def actual_accuracy(self) -> float:
        """Share of labelled rows that actual gets right; NaN without labels."""
        return self.actual_correct / self.labelled if self.labelled else math.nan

    @property
    def expected_accuracy(self) -> float:
        """Share of labelled rows that expected gets right; NaN without labels."""
        return self.expected_correct / self.labelled if self.labelled else math.nan

    @classmethod
    def merged(cls, parts: Sequence[Ranking]) -> Ranking:
        """Return the counts of all *parts* together; they share one k."""
        counted = ("rows", "top1_agreeing", "topk_agreeing", "labelled", "actual_correct", "expected_correct")
        return cls(k=parts[0].k, **{name: sum(getattr(p, name) for p in parts) for name in counted})

    def to_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {"rows": self.rows, "k": self.k, "top1": plain(self.top1), "topk": plain(self.topk)}
        if self.labelled:
            row["labelled"] = self.labelled
            row["actual_accuracy"] = self.actual_accuracy
            row["expected_accuracy"] = self.expected_accuracy
        return row


def rank(actual: NDArray[Any], expected: NDArray[Any], *, k: int, labels: ArrayLike | None = None) -> Ranking:
    """Compare the classes that two arrays of one shape pick along their last axis; all other axes are rows.

    *labels* is one class number per row, in any shape of that many elements. Among equal values
    the first one ranks first, as argmax has it. Raises InputsError when there is no axis of at least two
    classes, or when the labels do not fit.
    """
    if actual.shape != expected.shape or actual.ndim == 0 or actual.shape[-1] < 2:
        raise InputsError(f"no classes to rank in shapes {actual.shape} and {expected.shape}")
    classes = actual.shape[-1]
    rows = math.prod(actual.shape[:-1])
    truth = None if labels is None else _labels(labels, rows, classes)
    step = max(1, _BLOCK // classes)
    a_rows, e_rows = (x.reshape(rows, classes) for x in (actual, expected))
    top1 = topk = actual_correct = expected_correct = 0
    for start in range(0, rows, step):
        a, e = (_rankable(x[start : start + step]) for x in (a_rows, e_rows))
        a_best, e_best = a.argmax(axis=-1), e.argmax(axis=-1)
        top1 += int(np.count_nonzero(a_best == e_best))
        value = np.take_along_axis(a, e_best[:, None], axis=-1)
        ahead = a > value
        ahead |= (a == value) & (np.arange(classes) < e_best[:, None])
        # NaN is among nobody's best.
        topk += int(np.count_nonzero((np.count_nonzero(ahead, axis=-1) < k) & (value == value)[:, 0]))
        if truth is not None:
            part = truth[start : start + step]
            actual_correct += int(np.count_nonzero(a_best == part))
            expected_correct += int(np.count_nonzero(e_best == part))
    labelled = 0 if truth is None else rows
    return Ranking(rows, k, top1, topk, labelled, actual_correct, expected_correct)


def _rankable(block: NDArray[Any]) -> NDArray[Any]:
    # float16 is slow to compare and ml_dtypes lack some of the operations; float32 holds all of them exactly.
    return block if block.dtype.kind in "biu" or block.dtype.itemsize >= 4 else block.astype(np.float32)


def _labels(labels: ArrayLike, rows: int, classes: int) -> NDArray[Any]:
    truth = np.asarray(labels).reshape(-1)
    if truth.dtype.kind not in "iu":
        raise InputsError(f"labels must be integers, not {truth.dtype}")
    if truth.size != rows:
        raise InputsError(f"{truth.size} labels for {rows} rows", hint="give one label per row of the output")
    if truth.size and not (int(truth.min()) >= 0 and int(truth.max()) < classes):
        raise InputsError(
            f"labels run from {truth.min()} to {truth.max()}, the output has {classes} classes",
            hint="label numbers count from 0; some models have an extra background class",
        )
    return truth
