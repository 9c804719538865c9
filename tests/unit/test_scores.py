"""Task scores against values that are worked out by hand or by a slow, obvious loop."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_trt.accuracy.scores import cosines, masks_iou, tokens, topk
from pytest_trt.errors import InputsError

RNG = np.random.default_rng(0)


def test_top1_is_one_where_the_class_is_the_same():
    expected = np.array([[0.1, 0.9, 0.0], [5.0, 1.0, 2.0], [0.0, 0.0, 0.0]])
    actual = np.array([[0.0, 0.1, 0.2], [3.0, 1.0, 2.0], [1.0, 1.0, 0.0]])

    assert topk(actual, expected, 3).tolist() == [0.0, 1.0, 1.0]  # of equal values the first


@pytest.mark.parametrize(("label", "hits"), [(0, [1.0, 1.0]), (1, [0.0, 1.0]), (2, [0.0, 0.0])])
def test_a_label_stands_behind_equal_values_of_earlier_classes(label: int, hits: list[float]):
    actual = np.array([[0.4, 0.4, 0.2, 0.0]])

    assert [float(topk(actual, np.array([label]), 1, k=k)[0]) for k in (1, 2)] == hits


def test_topk_against_labels_counts_those_ahead():
    actual = RNG.standard_normal((50, 7)).astype(np.float16)
    labels = RNG.integers(0, 7, 50)
    slow = [float(label in np.argsort(-row, kind="stable")[:3]) for row, label in zip(actual, labels, strict=True)]

    assert topk(actual, labels, 50, k=3).tolist() == slow


def test_positions_of_one_sample_are_a_share():
    expected = np.zeros((2, 4, 3))
    expected[..., 1] = 1
    actual = expected.copy()
    actual[1, 0, 2] = 9

    assert topk(actual, expected, 2).tolist() == [1.0, 0.75]


def test_classes_may_lie_on_another_axis():
    expected = RNG.standard_normal((2, 5, 4, 4))
    actual = RNG.standard_normal((2, 5, 4, 4))
    same = (actual.argmax(1) == expected.argmax(1)).reshape(2, -1).mean(axis=1)

    assert topk(actual, expected, 2, axis=1).tolist() == same.tolist()


def test_without_a_batch_the_whole_array_is_one_sample():
    assert topk(np.array([1.0, 2.0]), np.array([3.0, 4.0]), 1).tolist() == [1.0]
    assert cosines(np.ones((5, 3)), np.ones((5, 3)), 1).tolist() == pytest.approx([1.0])


def test_nan_is_no_class():
    assert topk(np.array([[np.nan, np.nan]]), np.array([[0.0, 1.0]]), 1).tolist() == [0.0]


@pytest.mark.parametrize(
    ("actual", "expected", "asked", "message"),
    [
        (np.ones((2, 1)), np.ones((2, 1)), {}, "one class always agrees"),
        (np.ones((2, 3)), np.ones((2, 3)), {"k": 3}, "3 best of 3 classes always agree\n.*or let k be 2 or less"),
        (np.ones((2, 3)), np.ones((2, 3)), {"k": 9}, "9 best of 3 classes always agree"),
        (np.ones((2, 3)), np.array([0, 3]), {}, "integers from 0 to 2"),
        (np.ones((2, 3)), np.array([0, 1, 2]), {}, "do not fit"),
        (np.ones((2, 3)), np.ones((2, 3)), {"axis": 2}, "no axis 2"),
        (np.ones((2, 3)), np.ones((2, 3)), {"axis": 0}, "that of the samples"),
    ],
)
def test_classes_that_say_nothing_are_refused(actual, expected, asked, message):
    with pytest.raises(InputsError, match=message):
        topk(actual, expected, 2, **asked)


def test_masks_above_a_threshold():
    expected = np.array([[0.9, 0.8, 0.1, 0.2], [0.1, 0.1, 0.1, 0.1]])
    actual = np.array([[0.9, 0.1, 0.7, 0.2], [0.0, 0.0, 0.0, 0.0]])

    assert masks_iou(actual, expected, 2, threshold=0.5).tolist() == [1 / 3, 1.0]  # two empty masks agree
    assert masks_iou(actual, expected, 2, threshold=0.75).tolist() == [0.5, 1.0]
    assert masks_iou(actual > 0.5, expected > 0.5, 2).tolist() == [1 / 3, 1.0]


def test_classes_of_a_mask_are_averaged_over_those_that_occur():
    expected, actual = RNG.integers(0, 4, (3, 6, 6)), RNG.integers(0, 4, (3, 6, 6))
    actual[0], expected[0] = 7, 7
    slow = []
    for a, e in zip(actual, expected, strict=True):
        parts = [((a == c) & (e == c)).sum() / ((a == c) | (e == c)).sum() for c in np.union1d(a, e)]
        slow.append(np.mean(parts))

    assert masks_iou(actual, expected, 3) == pytest.approx(slow)
    logits = [np.moveaxis(np.eye(8)[side], -1, 1) for side in (actual, expected)]
    assert masks_iou(*logits, 3, axis=1) == pytest.approx(slow)


def test_floats_are_no_masks_by_themselves():
    with pytest.raises(InputsError, match="floats are no masks"):
        masks_iou(np.ones((1, 4)), np.ones((1, 4)), 1)


def test_padding_is_no_token():
    expected = RNG.standard_normal((3, 4, 10))
    actual = expected.copy()
    actual[0, 3] = -expected[0, 3]  # in the padding of the first, not of the second
    actual[1, 3] = -expected[1, 3]
    mask = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]])

    assert tokens(actual, expected, 3, mask=mask).tolist() == [1.0, 0.75, 1.0]
    assert tokens(actual, expected, 3).tolist() == [0.75, 0.75, 1.0]
    ids = [side.argmax(-1) for side in (actual, expected)]
    assert tokens(*ids, 3, mask=mask).tolist() == [1.0, 0.75, 1.0]


def test_a_mask_must_fit():
    with pytest.raises(InputsError, match="does not fit tokens"):
        tokens(np.ones((2, 3, 5)), np.ones((2, 3, 5)), 2, mask=np.ones((2, 4)))


def test_cosines_are_per_sample():
    actual = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]], dtype=np.float32)
    expected = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.0]], dtype=np.float32)

    assert cosines(actual, expected, 4) == pytest.approx([1.0, 2**-0.5, 1.0, 0.0])


def test_other_shapes_are_refused():
    for score in (masks_iou, tokens, cosines):
        with pytest.raises(InputsError, match="cannot be scored"):
            score(np.ones((2, 3)), np.ones((2, 4)), 2)
