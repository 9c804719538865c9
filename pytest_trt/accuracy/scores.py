"""Scores of a task, one per sample: what users of a model would notice, higher is better. Pure.

Rows of the first axis are samples where it is as long as there are samples; else the whole array is one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.accuracy.measurement import dtype_class
from pytest_trt.errors import InputsError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[Any]
    Scores = NDArray[np.float64]

__all__ = ["cosines", "masks_iou", "tokens", "topk"]


def topk(actual: ArrayLike, expected: ArrayLike, samples: int, *, k: int = 1, axis: int = -1) -> Scores:
    """The share of each sample's positions where the expected class is among the *k* greatest actual values.

    *expected* has the shape of *actual*, and then its argmax along *axis* counts; or lacks *axis* and holds the true
    classes, as labels do. Of equal values the first one ranks first. Raises InputsError for shapes that do not fit,
    fewer than two classes, and labels that are no class.
    """
    a = _samples(actual, samples)
    e = np.asarray(expected)
    axis = _axis(a, np.asarray(actual), axis)
    classes = a.shape[axis]
    if classes < 2 or k >= classes:
        least = f", or let k be {classes - 1} or less" if classes > 1 else ""
        raise InputsError(
            f"the {k} best of {classes} classes always agree" if classes > 1 else "one class always agrees",
            hint=f"name the axis of the classes{least}",
        )
    if e.shape == np.asarray(actual).shape:
        truth = _comparable(_samples(e, samples)).argmax(axis=axis)
    else:
        truth = _labels(e, a.shape[:axis] + a.shape[axis + 1 :], classes)
    ranked = np.moveaxis(_comparable(a), axis, -1)
    best = np.take_along_axis(ranked, truth[..., None], axis=-1)
    ahead = (ranked > best) | ((ranked == best) & (np.arange(classes) < truth[..., None]))
    # NaN is among nobody's best.
    hits = (np.count_nonzero(ahead, axis=-1) < k) & (best == best)[..., 0]
    return _share(hits, None)


def tokens(
    actual: ArrayLike, expected: ArrayLike, samples: int, *, axis: int = -1, mask: ArrayLike | None = None
) -> Scores:
    """The share of each sample's tokens that agree: ids where both sides hold integers, else the argmax over the
    vocabulary *axis*. Positions where *mask* (samples × positions) is zero are padding; a sample of nothing but
    padding scores 1. Raises InputsError for shapes that do not fit.
    """
    a, e = _both(actual, expected, samples)
    if dtype_class(a.dtype) != "int":
        axis = _axis(a, np.asarray(actual), axis)
        if a.shape[axis] < 2:
            raise InputsError("one token to choose from always agrees", hint="name the vocabulary's axis")
        a, e = (_comparable(side).argmax(axis=axis) for side in (a, e))
    keep = None
    if mask is not None:
        keep = np.asarray(mask) != 0
        if keep.size != a.size:
            raise InputsError(f"a mask of shape {keep.shape} does not fit tokens of shape {a.shape}")
        keep = keep.reshape(a.shape)
    return _share(a == e, keep)


def masks_iou(
    actual: ArrayLike,
    expected: ArrayLike,
    samples: int,
    *,
    threshold: float | None = None,
    axis: int | None = None,
) -> Scores:
    """Intersection over union of each sample's masks.

    With *threshold*, what lies above it is the mask; booleans are masks as they are. With *axis*, the argmax along it
    is a map of classes, as integers are by themselves: the mean over the classes that either side has. Two empty masks
    score 1. Raises InputsError where floats come with neither, and for shapes that do not fit.
    """
    a, e = _both(actual, expected, samples)
    kind = dtype_class(a.dtype)
    if axis is not None:
        axis = _axis(a, np.asarray(actual), axis)
        a, e = (_comparable(side).argmax(axis=axis) for side in (a, e))
    elif threshold is not None:
        a, e = (_comparable(side) > threshold for side in (a, e))
    elif kind == "float":
        raise InputsError("floats are no masks", hint="give a threshold, or the axis of the classes")
    score: Callable[[Array, Array], float] = _iou if a.dtype == bool else _mean_iou
    return np.array([score(x, y) for x, y in zip(a, e, strict=True)], dtype=np.float64)


def cosines(actual: ArrayLike, expected: ArrayLike, samples: int) -> Scores:
    """The cosine between each sample's values as vectors; two zero vectors score 1, one of them 0."""
    a, e = _both(actual, expected, samples)
    scores = []
    for left, right in zip(a, e, strict=True):
        x, y = (side.astype(np.float64).reshape(-1) for side in (left, right))
        lengths = float(np.linalg.norm(x)), float(np.linalg.norm(y))
        if not all(lengths):
            scores.append(float(lengths[0] == lengths[1]))
        else:
            scores.append(float(np.clip(np.dot(x / lengths[0], y / lengths[1]), -1, 1)))
    return np.array(scores, dtype=np.float64)


def _both(actual: ArrayLike, expected: ArrayLike, samples: int) -> tuple[Array, Array]:
    a, e = np.asarray(actual), np.asarray(expected)
    if a.shape != e.shape:
        raise InputsError(f"outputs of shapes {a.shape} and {e.shape} cannot be scored")
    return _samples(a, samples), _samples(e, samples)


def _samples(array: ArrayLike, samples: int) -> Array:
    found = np.asarray(array)
    return found if found.ndim and found.shape[0] == samples else found[None]


def _axis(array: Array, given: Array, axis: int) -> int:
    """*axis* of *given* as an axis of *array*, which may have one more in front. Raises InputsError."""
    if not -given.ndim <= axis < given.ndim:
        raise InputsError(f"there is no axis {axis} in shape {given.shape}")
    found = axis % given.ndim + array.ndim - given.ndim
    if found == 0:
        raise InputsError(f"axis {axis} of shape {given.shape} is that of the samples")
    return found


def _comparable(array: Array) -> Array:
    # float16 is slow to compare and ml_dtypes lack some of the operations; float32 holds all of them exactly.
    return array if array.dtype.kind in "biu" or array.dtype.itemsize >= 4 else array.astype(np.float32)


def _labels(labels: Array, shape: tuple[int, ...], classes: int) -> Array:
    if labels.size != int(np.prod(shape)):
        raise InputsError(f"labels of shape {labels.shape} do not fit classes of shape {shape}")
    if labels.dtype.kind not in "iu" or (labels.size and not (labels.min() >= 0 and labels.max() < classes)):
        raise InputsError(
            f"labels must be integers from 0 to {classes - 1}", hint="some models have an extra background class"
        )
    return labels.reshape(shape)


def _share(hits: Array, keep: Array | None) -> Scores:
    flat = hits.reshape(len(hits), -1)
    kept = np.ones_like(flat) if keep is None else keep.reshape(flat.shape)
    counts = kept.sum(axis=1)
    agreeing = (flat & kept).sum(axis=1)
    return np.where(counts > 0, agreeing / np.maximum(counts, 1), 1.0)


def _iou(a: Array, e: Array) -> float:
    union = int(np.count_nonzero(a | e))
    return int(np.count_nonzero(a & e)) / union if union else 1.0


def _mean_iou(a: Array, e: Array) -> float:
    classes, index = np.unique(np.stack([a.reshape(-1), e.reshape(-1)]), return_inverse=True)
    left, right = index.reshape(2, -1)
    both = np.bincount(left[left == right], minlength=classes.size)
    union = np.bincount(left, minlength=classes.size) + np.bincount(right, minlength=classes.size) - both
    return float(np.mean(both / union)) if classes.size else 1.0
