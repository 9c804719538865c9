"""compare(): names, shapes, dtypes, values; merging; ranking. The wording is held by test_accuracy_message."""

from __future__ import annotations

import json
import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pytest_trt.accuracy import DEFAULTS, Comparison, Tolerance, ToleranceSet, compare, rank
from pytest_trt.errors import InputsError, UsageError

LOOSE = Tolerance(rtol=0.1, atol=0.1)
ONE = np.ones((2, 3), np.float32)


def kinds(comparison):
    return {output.name: [p.kind for p in output.problems] for output in comparison.outputs}


def test_every_output_is_reported():
    """A bad output does not hide the next one, and a missing one is bad."""
    found = compare(
        {"far": ONE + 1, "close": ONE, "shape": ONE[0], "dtype": ONE.astype(int), "extra": ONE},
        {"far": ONE, "close": ONE, "shape": ONE, "dtype": ONE, "missing": ONE},
        tolerance=LOOSE,
    )

    assert kinds(found) == {
        "far": ["elements"],
        "close": [],
        "shape": ["shape"],
        "dtype": ["dtype"],
        "missing": ["names"],
        "extra": ["names"],
    }
    assert not found.ok
    assert [output.ok for output in found.outputs] == [False, True, False, False, False, False]


def test_shape_and_dtype_are_both_told():
    assert kinds(compare({"x": ONE.astype(int)[0]}, {"x": ONE})) == {"x": ["shape", "dtype"]}


def test_broadcasting_is_no_equality():
    assert kinds(compare({"x": np.ones((1, 3))}, {"x": np.ones(3)})) == {"x": ["shape"]}


@pytest.mark.parametrize(
    ("actual", "expected"),
    [("int32", "int64"), ("bool", "uint8"), ("int32", "bool"), ("float16", "float32"), (ml_dtypes.bfloat16, "float32")],
)
def test_other_widths_are_noted(actual, expected):
    found = compare({"x": ONE.astype(actual)}, {"x": ONE.astype(expected)})

    assert found.ok
    assert found.outputs[0].notes == (f"dtype {np.dtype(actual)} where the reference has {expected}",)


@pytest.mark.parametrize(
    ("actual", "expected"), [("int64", "float32"), ("float32", "bool"), ("complex64", "complex64")]
)
def test_other_classes_are_bad(actual, expected):
    assert kinds(compare({"x": ONE.astype(actual)}, {"x": ONE.astype(expected)})) == {"x": ["dtype"]}


def test_nothing_to_compare_is_an_error():
    with pytest.raises(InputsError, match="nothing to compare"):
        compare({"x": ONE}, {})


def test_without_a_tolerance_fp32_holds():
    assert compare({"x": ONE}, {"x": ONE}).outputs[0].tolerance is DEFAULTS["fp32"]
    assert compare({"x": ONE * 1.0005}, {"x": ONE}).ok
    assert not compare({"x": ONE * 1.01}, {"x": ONE}).ok


def test_rtol_and_atol_come_together():
    assert compare({"x": ONE * 1.5}, {"x": ONE}, rtol=0.5, atol=0.1).ok
    replaced = (
        compare({"x": ONE * 1.5}, {"x": ONE}, rtol=0.5, atol=0.1, tolerance=DEFAULTS["fp16"]).outputs[0].tolerance
    )
    assert (replaced.rtol, replaced.atol, replaced.atol_scale, replaced.cosine) == (0.5, 0.1, 0.0, 0.999)
    for tolerance in (None, LOOSE):
        with pytest.raises(UsageError, match="rtol"):
            compare({"x": ONE}, {"x": ONE}, rtol=0.5, tolerance=tolerance)


def test_outputs_have_their_own_tolerances():
    tolerances = ToleranceSet(LOOSE, {"b": Tolerance(rtol=10.0, atol=10.0)})
    two = {"a": ONE + 5, "b": ONE + 5}

    assert kinds(compare(two, {"a": ONE, "b": ONE}, tolerance=tolerances)) == {"a": ["elements"], "b": []}


def test_a_tolerance_for_no_output_is_an_error():
    tolerances = ToleranceSet(LOOSE, {"logit": LOOSE})
    with pytest.raises(UsageError, match=r"tolerance for output \"logit\"(.|\n)*did you mean 'logits'"):
        compare({"logits": ONE}, {"logits": ONE}, tolerance=tolerances)


def test_atol_scale_is_relative_to_the_output():
    """The same relative error is judged alike at every scale; one large value does not decide."""
    expected = np.random.default_rng(0).standard_normal(1000)
    tolerance = Tolerance(rtol=0.0, atol=0.0, atol_scale=0.1)
    for scale in (1e-12, 1.0, 1e12):
        assert compare({"x": (expected + 0.09) * scale}, {"x": expected * scale}, tolerance=tolerance).ok
        assert not compare({"x": (expected + 0.11) * scale}, {"x": expected * scale}, tolerance=tolerance).ok


def test_the_scale_ignores_what_is_not_finite():
    expected = np.array([3.0, -3.0, math.inf])
    tolerance = Tolerance(rtol=0.0, atol=0.0, atol_scale=0.1)
    for step, ok in ((0.29, True), (0.31, False)):
        assert compare({"x": expected + step}, {"x": expected}, tolerance=tolerance, allow_nonfinite=True).ok is ok


def test_a_share_of_elements_may_be_off():
    actual = np.zeros(100)
    actual[:2] = 5

    for share, ok in ((0.02, True), (0.01, False)):
        tolerance = Tolerance(rtol=0.1, atol=0.1, max_mismatched=share)
        assert compare({"x": actual}, {"x": np.zeros(100)}, tolerance=tolerance).ok is ok
        assert compare({"x": actual.astype(int)}, {"x": np.zeros(100, int)}, tolerance=tolerance).ok is ok


def test_the_share_does_not_excuse_nan():
    actual = np.zeros(100)
    actual[7] = math.nan
    tolerance = Tolerance(rtol=0.1, atol=0.1, max_mismatched=0.5)

    assert kinds(compare({"x": actual}, {"x": np.zeros(100)}, tolerance=tolerance)) == {"x": ["nonfinite"]}


def test_a_reference_that_is_not_finite_is_bad_unless_allowed():
    values = np.array([1.0, math.nan, math.inf])

    for tolerance in (LOOSE, DEFAULTS["int8"]):
        assert kinds(compare({"x": values}, {"x": values}, tolerance=tolerance)) == {"x": ["reference"]}
        assert compare({"x": values}, {"x": values}, tolerance=tolerance, allow_nonfinite=True).ok
        disagreeing = compare({"x": -values}, {"x": values}, tolerance=tolerance, allow_nonfinite=True)
        assert kinds(disagreeing)["x"][0] == "nonfinite"


def test_int8_is_judged_as_a_whole():
    rng = np.random.default_rng(0)
    expected = rng.standard_normal((8, 100))
    noisy = expected + 0.08 * rng.standard_normal((8, 100))

    assert compare({"x": noisy}, {"x": expected}, tolerance=DEFAULTS["int8"]).ok
    assert kinds(compare({"x": 2 * expected}, {"x": expected}, tolerance=DEFAULTS["int8"])) == {"x": ["snr_db"]}
    assert kinds(compare({"x": -expected}, {"x": expected}, tolerance=DEFAULTS["int8"])) == {"x": ["cosine", "snr_db"]}


def test_a_cosine_that_is_not_known_satisfies_nothing():
    huge = np.array([1e200, 1.0])
    assert kinds(compare({"x": huge}, {"x": huge}, tolerance=Tolerance(cosine=-1.0))) == {"x": ["cosine"]}


def test_empty_and_scalar_outputs():
    found = compare({"e": np.empty((0, 4)), "s": np.float32(1)}, {"e": np.empty((0, 4)), "s": np.float32(1)})

    assert found.ok
    assert found.outputs[0].notes == ("empty: there was no value to compare",)
    assert not compare({"s": np.float32(2)}, {"s": np.float32(1)}).ok


# --- classes


def test_ranking_counts_rows_along_the_last_axis():
    expected = np.eye(4, dtype=np.float32).reshape(2, 2, 4)
    actual = expected.copy()
    actual[0, 0] = [0.5, 0.9, 0.1, 0.0]  # expected class 0 is second
    actual[1, 1] = [0.4, 0.3, 0.2, 0.1]  # expected class 3 is last

    found = rank(actual, expected, k=2, labels=[[0, 1], [2, 2]])

    assert (found.rows, found.top1, found.topk) == (4, 0.5, 0.75)
    assert (found.actual_accuracy, found.expected_accuracy) == (0.5, 0.75)


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32", ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn])
def test_ranking_takes_every_dtype(dtype):
    values = np.array([[2, 1, 3], [3, 2, 1]]).astype(dtype)
    assert rank(values, values, k=1).top1_agreeing == 2
    assert rank(values[:, ::-1], values, k=1).top1_agreeing == 0
    assert rank(values[:, ::-1], values, k=2).topk_agreeing == 1
    assert rank(values[:, [1, 0, 2]], values, k=2).topk_agreeing == 2


def test_nan_is_among_nobodys_best():
    actual = np.array([[math.nan, 1.0, 2.0]])
    expected = np.array([[9.0, 1.0, 2.0]])
    assert rank(actual, expected, k=2).topk_agreeing == 0


@settings(max_examples=50, deadline=None)
@given(
    hnp.arrays(
        np.float32, hnp.array_shapes(min_dims=1, max_dims=3, min_side=2, max_side=5), elements=st.integers(-3, 3)
    ),
    st.randoms(use_true_random=False),
    st.integers(1, 4),
)
def test_ranking_agrees_with_sorting(expected, random, k):
    actual = expected.copy().reshape(-1)
    random.shuffle(actual)
    actual = actual.reshape(expected.shape)
    rows = [*zip(actual.reshape(-1, expected.shape[-1]), expected.reshape(-1, expected.shape[-1]), strict=True)]

    found = rank(actual, expected, k=k)

    assert found.rows == len(rows)
    assert found.top1_agreeing == sum(list(a).index(max(a)) == list(e).index(max(e)) for a, e in rows)
    assert found.topk_agreeing == sum(np.argmax(e) in np.argsort(-a, kind="stable")[:k] for a, e in rows)
    assert rank(actual, expected, k=1).topk_agreeing == found.top1_agreeing


def test_agreement_of_classes_can_be_required():
    expected = np.eye(10)
    actual = expected.copy()
    actual[0] = expected[1]
    for name in ("top1", "topk"):
        for least, ok in ((0.9, True), (0.95, False)):
            tolerance = Tolerance(**{name: least}, k=1)
            found = compare({"x": actual}, {"x": expected}, tolerance=tolerance)
            assert kinds(found) == {"x": [] if ok else [name]}


@pytest.mark.parametrize(
    ("shape", "tolerance"),
    [((), Tolerance(top1=0.5)), ((5, 1), Tolerance(top1=0.5)), ((5, 3), Tolerance(topk=0.5, k=3))],
)
def test_classes_that_cannot_be_ranked_are_bad(shape, tolerance):
    """A check that was asked for must not pass because it could not be made."""
    assert kinds(compare({"x": np.ones(shape)}, {"x": np.ones(shape)}, tolerance=tolerance)) == {"x": ["classes"]}


def test_labels_give_the_accuracy_of_both_sides():
    expected = np.eye(4)
    found = compare({"x": expected[::-1]}, {"x": expected}, rtol=1.0, atol=1.0, labels=[0, 1, 2, 2])

    ranking = found.to_json()["outputs"][0]["ranking"]
    assert (ranking["labelled"], ranking["actual_accuracy"], ranking["expected_accuracy"]) == (4, 0.0, 0.75)


def test_labels_must_fit():
    two = {"a": np.eye(4), "b": np.eye(4)}
    with pytest.raises(UsageError, match="which of 2 outputs"):
        compare(two, two, labels=[0, 1, 2, 3])
    with pytest.raises(UsageError, match='labels for output "c"'):
        compare(two, two, labels={"c": [0, 1, 2, 3]})
    for labels, message in (
        ([0], "1 labels for 4 rows"),
        ([0.5] * 4, "must be integers"),
        ([0, 1, 2, 4], "has 4 classes"),
    ):
        with pytest.raises(InputsError, match=f'labels of output "b": .*{message}'):
            compare(two, two, labels={"b": labels})


# --- merging


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(2, 4), st.booleans())
def test_merging_equals_comparing_the_concatenation(data, samples, allow):
    """Verdict, reasons and numbers, for floats, integers and classes alike; atol_scale is told apart below."""
    values = st.sampled_from([0.0, 1.0, 1.05, -2.0, 2.3, math.nan, math.inf])
    parts = []
    for _ in range(samples):
        rows = data.draw(st.integers(1, 3))
        x = [data.draw(hnp.arrays(np.float64, (rows, 3), elements=values)) for _ in range(2)]
        n = [data.draw(hnp.arrays(np.int64, (rows,), elements=st.integers(0, 2))) for _ in range(2)]
        labels = data.draw(hnp.arrays(np.int64, (rows,), elements=st.integers(0, 2)))
        parts.append(({"x": x[0], "n": n[0]}, {"x": x[1], "n": n[1]}, labels))
    tolerance = Tolerance(rtol=0.1, atol=0.01, max_mismatched=0.3, cosine=0.9, snr_db=10.0, top1=0.5, topk=0.5, k=2)
    tolerances = ToleranceSet(tolerance, {"n": Tolerance(rtol=0.1, atol=0.01, max_mismatched=0.3)})
    options = {"tolerance": tolerances, "allow_nonfinite": allow}

    merged = Comparison.merge([compare(a, e, labels={"x": t}, **options) for a, e, t in parts])
    a, e = ({name: np.concatenate([p[side][name] for p in parts]) for name in ("x", "n")} for side in (0, 1))
    whole = compare(a, e, labels={"x": np.concatenate([p[2] for p in parts])}, **options)

    assert merged.samples == samples
    assert kinds(merged) == kinds(whole)
    for one, other in zip(merged.outputs, whole.outputs, strict=True):
        assert (one.notes, one.ranking) == (other.notes, other.ranking)
        assert one.metrics.mismatched == other.metrics.mismatched
        assert [p.text for p in one.problems] == [p.text for p in other.problems]


def test_merging_in_steps_counts_samples_on():
    def one(step):
        return compare({"x": np.array([1.0, 1.0 + step])}, {"x": np.ones(2)}, tolerance=LOOSE)

    # Powers of two: their sums are exact, in whatever order they are taken.
    a, b, c, d = one(0.125), one(0.25), one(1.0), one(0.5)
    at_once = Comparison.merge([a, b, c, d])
    in_steps = Comparison.merge([Comparison.merge([a, b]), Comparison.merge([c, d])])

    assert (in_steps.samples, in_steps.outputs[0].metrics.max_abs.sample) == (4, 2)
    assert in_steps == at_once


def test_merging_keeps_each_samples_scale():
    """A sample of small values is not judged by the scale of a large one."""
    tolerance = Tolerance(rtol=0.0, atol=0.0, atol_scale=0.1)
    small = compare({"x": np.array([1.2, 1.0])}, {"x": np.ones(2)}, tolerance=tolerance)
    large = compare({"x": np.full(2, 1e6)}, {"x": np.full(2, 1e6)}, tolerance=tolerance)

    merged = Comparison.merge([large, small])

    assert (merged.ok, merged.outputs[0].metrics.mismatched, merged.outputs[0].metrics.atol) == (False, 1, None)


def test_merging_keeps_what_is_wrong_with_a_sample():
    good = compare({"x": ONE}, {"x": ONE}, tolerance=LOOSE)
    missing = compare({}, {"x": ONE}, tolerance=LOOSE)
    misshapen = compare({"x": ONE[0]}, {"x": ONE}, tolerance=LOOSE)

    merged = Comparison.merge([good, missing, misshapen, missing])

    assert [(p.kind, p.sample) for p in merged.outputs[0].problems] == [("names", 1), ("shape", 2)]
    assert merged.outputs[0].metrics.count == ONE.size


def test_one_comparison_is_merged_as_it_is():
    found = compare({"x": ONE}, {"x": ONE})
    assert Comparison.merge([found]) is found


def test_what_cannot_be_merged_is_refused():
    with pytest.raises(UsageError, match="no comparisons"):
        Comparison.merge([])
    with pytest.raises(UsageError, match='output "x" was held to different tolerances'):
        Comparison.merge([compare({"x": ONE}, {"x": ONE}, tolerance=DEFAULTS[p]) for p in ("fp32", "fp16")])


def test_json_is_plain():
    found = compare({"x": np.array([math.nan, 1.0]), "y": ONE}, {"x": np.array([1.0, 0.0])})

    row = json.loads(json.dumps(found.to_json(), allow_nan=False))

    assert (row["ok"], row["samples"], row["summary"]) == (False, 1, found.summary)
    assert [(o["name"], o["ok"], o["shape"], o["dtype"]) for o in row["outputs"]] == [
        ("x", False, [2], "float64"),
        ("y", False, None, None),
    ]
    assert [p["kind"] for p in row["outputs"][0]["problems"]] == ["nonfinite", "elements"]
    assert row["outputs"][0]["metrics"]["snr_db"] == "-inf"
    assert row["outputs"][0]["tolerance"]["origin"]["rtol"] == "fp32 default"
    assert row["outputs"][1]["metrics"] is None
