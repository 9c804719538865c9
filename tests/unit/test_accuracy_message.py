"""What a user reads: every line of .summary and .detail, held to the letter."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pytest_trt.accuracy import DEFAULTS, Comparison, Tolerance, ToleranceSet, compare, parse_tolerance
from pytest_trt.accuracy.message import against, number, percent


def logits():
    """8000 values of rms 2; four of them off."""
    expected = np.where(np.arange(8000).reshape(8, 1000) % 2, 2.0, -2.0).astype(np.float32)
    expected[0, 12] = 0.03125
    actual = expected.copy()
    actual[3, 417] += 0.25
    actual[0, 12] += 0.125
    actual[1, :2] += 0.1
    return actual, expected


def one(actual, expected, **options):
    return compare({"logits": np.asarray(actual)}, {"logits": np.asarray(expected)}, **options)


def test_elements():
    actual, expected = logits()
    tolerances = ToleranceSet(DEFAULTS["fp16"]).merged({"cosine": 0.9999}, "@pytest.mark.trt at tests/test_x.py:12")

    found = one(actual, expected, tolerance=tolerances)

    assert found.summary == 'output "logits" is not close to the reference: 4 / 8000 mismatched (0.05%)'
    assert found.detail.splitlines() == [
        'output "logits"   float32 8x1000',
        "",
        "  mismatched     4 / 8000 (0.05%)",
        "  worst abs      0.25 at (3, 417)                      allowed 0.06",
        "  worst rel      4    at (0, 12)                       allowed 1.29",
        "  furthest off   actual 2.25, expected 2 at (3, 417)   4.17 × its limit",
        "  cosine         0.999998                              required 0.9999",
        "  expected       -2 … 2, rms 2",
        "  limit          |actual - expected| ≤ 0.04 (1e-07 + 0.02 × rms of expected) + 0.01 × |expected|",
        "  tolerance      fp16 default; cosine from @pytest.mark.trt at tests/test_x.py:12",
    ]


def test_plain_limit_and_share():
    actual, expected = logits()

    found = one(actual, expected, tolerance=Tolerance(rtol=0.01, atol=0.001, max_mismatched=0.0001))

    assert found.detail.splitlines() == [
        'output "logits"   float32 8x1000',
        "",
        "  mismatched     4 / 8000 (0.05%)                              allowed 0.0001 of all",
        "  worst abs      0.25 at (3, 417)                              allowed 0.021",
        "  worst rel      4    at (0, 12)                               allowed 0.042",
        "  furthest off   actual 0.15625, expected 0.03125 at (0, 12)   95.2 × its limit",
        "  cosine         0.999998",
        "  expected       -2 … 2, rms 2",
        "  limit          |actual - expected| ≤ 0.001 + 0.01 × |expected|",
        "  tolerance      rtol, atol, max_mismatched as given",
    ]


def test_whole_outputs_and_classes():
    expected = np.eye(10)
    actual = expected[::-1] * 2.0

    found = one(
        actual,
        expected,
        tolerance=DEFAULTS["int8"].merged({"top1": 0.9, "topk": 0.95, "k": 2}, "trt.toml"),
        labels=range(10),
    )

    assert found.summary == 'output "logits" is not close to the reference: cosine 0, required 0.99'
    assert [p.text.rpartition(": ")[2] for p in found.outputs[0].problems] == [
        "cosine 0, required 0.99",
        "signal-to-noise ratio in dB -6.99, required 15",
        "top-1 agreement 0, required 0.9",
        "top-2 agreement 0.1, required 0.95",
    ]
    assert found.detail.splitlines() == [
        'output "logits"   float64 10x10',
        "",
        "  worst abs   2 at (0, 9)",
        "  worst rel   1 at (0, 0)",
        "              10 more have no relative difference: expected is 0",
        "  cosine      0                      required 0.99",
        "  snr (dB)    -6.99                  required 15",
        "  top-1       0                      required 0.9",
        "  top-2       0.1                    required 0.95",
        "  accuracy    0 actual, 1 expected   on 10 labels",
        "  expected    0 … 1, rms 0.316",
        "  tolerance   int8 default; top1, topk, k from trt.toml",
    ]


def test_integers():
    found = one(np.array([[1, 7]], np.int32), np.array([[1, 2]]), tolerance=DEFAULTS["fp16"])

    assert found.summary == 'output "logits" is not close to the reference: 1 / 2 mismatched (50.00%)'
    assert found.detail.splitlines() == [
        'output "logits"   int32 1x2',
        "  note: dtype int32 where the reference has int64",
        "",
        "  mismatched     1 / 2 (50.00%)",
        "  worst abs      5 at (0, 1)   allowed 0",
        "  furthest off   actual 7, expected 2 at (0, 1)",
        "  expected       1 … 2",
        "  limit          equality, as for all integers and booleans",
    ]


def test_scalars_have_no_place():
    found = one(np.float32(2), np.float32(1), rtol=0.5, atol=0.25)

    assert found.detail.splitlines()[:5] == [
        'output "logits"   float32 scalar',
        "",
        "  mismatched     1 / 1 (100%)",
        "  worst abs      1                      allowed 0.75",
        "  worst rel      1                      allowed 0.75",
    ]


def test_not_finite():
    found = one([math.nan, 1.0, 1.0], [1.0, 1.0, 1.0], rtol=0.1, atol=0.1)

    reason = "is not close to the reference: NaN or infinite on one side only, or differently, at 1 / 3 elements"
    assert found.summary == f'output "logits" {reason}'
    assert found.detail.splitlines() == [
        'output "logits"   float64 3',
        f"  {reason}",
        "",
        "  non-finite   1 actual, 0 expected   1 disagree",
        "  mismatched   1 / 3 (33.33%)",
        "  cosine       1",
        "  expected     1 … 1, rms 1",
        "  limit        |actual - expected| ≤ 0.1 + 0.1 × |expected|",
        "  tolerance    rtol, atol from the arguments rtol and atol",
    ]


def test_reference_not_finite():
    found = one([math.nan, 1.0], [math.nan, 1.0], tolerance=DEFAULTS["int8"])

    assert found.summary == 'output "logits" has a reference that is itself NaN or infinite at 1 / 2 elements'
    assert found.detail.splitlines()[1:3] == [
        "  has a reference that is itself NaN or infinite at 1 / 2 elements",
        "  where that is meant: allow_nonfinite = true in [inputs] of trt.toml",
    ]


def test_names_shapes_and_dtypes():
    x = np.ones((8, 1000), np.float32)
    found = compare({"b": x[:4], "c": x.astype(int), "d": x}, {"a": x, "b": x, "c": x})

    assert found.summary == 'output "a" is missing; the engine gave "b", "c", "d"; bad outputs: 4 of 4'
    assert found.detail.split("\n\n") == [
        'output "a"\n  is missing; the engine gave "b", "c", "d"',
        'output "b"   float32 4x1000\n  has shape (4, 1000), the reference has (8, 1000)',
        'output "c"   int64 8x1000\n  has dtype int64, the reference float32: only one of them is floating-point',
        'output "d"\n  has no reference to compare with',
    ]


def test_dtype_that_cannot_be_compared():
    found = one(np.ones(2, complex), np.ones(2, complex))

    text = "has dtype complex128, the reference complex128: arrays of dtype complex128 cannot be compared"
    assert found.summary == f'output "logits" {text}'


def test_classes_that_cannot_be_ranked():
    assert (
        one(np.ones((4, 1)), np.ones((4, 1)), tolerance=Tolerance(top1=0.9)).summary
        == 'output "logits" has shape (4, 1): no axis of classes to rank, as top1, topk or labels need'
    )
    assert (
        one(np.ones((4, 3)), np.ones((4, 3)), tolerance=Tolerance(topk=0.9)).summary
        == 'output "logits" has 3 classes: any two rows agree in their top 5'
    )


def test_close_outputs_are_short_and_last():
    x = np.ones((2, 2), np.float32)
    bad = {"a": x, "b": x, "c": np.empty((0, 2))}
    expected = {**bad, "c": np.empty((0, 2), np.float32)}
    found = compare({**bad, "a": x + np.float32(0.0005), "b": x + 1}, expected, labels={"a": [0, 0]})

    assert found.summary == 'output "b" is not close to the reference: 4 / 4 mismatched (100%); bad outputs: 1 of 3'
    assert found.detail.startswith('output "b"   float32 2x2\n\n  mismatched')
    assert found.detail.split("\n\n")[2:] == [
        'output "a" is close\n'
        "  worst abs 0.0005 at (0, 0), allowed 0.0011\n"
        "  accuracy 1 actual, 1 expected, on 2 labels",
        'output "c" is close\n'
        "  note: dtype float64 where the reference has float32\n"
        "  note: empty: there was no value to compare",
    ]


@pytest.mark.parametrize(
    ("names", "samples", "summary"),
    [
        ("a", 1, 'output "a" is close to the reference'),
        ("ab", 1, "all 2 outputs are close to the reference"),
        ("ab", 3, "all 2 outputs are close to the reference in 3 samples"),
    ],
)
def test_a_pass_is_one_line_too(names, samples, summary):
    outputs = {name: np.ones(2) for name in names}
    assert Comparison.merge([compare(outputs, outputs)] * samples).summary == summary


def test_merged_samples_are_named():
    actual, expected = logits()
    tolerance = DEFAULTS["fp16"]
    parts = [
        one(expected, expected, tolerance=tolerance),
        one(2 * actual, 2 * expected, tolerance=tolerance),
        one(actual[:4], expected, tolerance=tolerance),
    ]

    found = Comparison.merge(parts)

    assert found.summary == 'output "logits" has shape (4, 1000), the reference has (8, 1000)'
    assert found.detail.splitlines() == [
        'output "logits"   float32',
        "  has shape (4, 1000), the reference has (8, 1000) (sample 2)",
        "",
        "  mismatched     4 / 16000 (0.03%)",
        "  worst abs      0.5 at (3, 417) of sample 1                      allowed 0.12",
        "  worst rel      4   at (0, 12) of sample 1                       allowed 1.29",
        "  furthest off   actual 4.5, expected 4 at (3, 417) of sample 1   4.17 × its limit",
        "  cosine         0.999999                                         required 0.999",
        "  expected       -4 … 4, rms 3.16",
        "  limit          |actual - expected| ≤ (1e-07 + 0.02 × rms of expected, of each sample) + 0.01 × |expected|",
        "  tolerance      fp16 default",
    ]


def test_an_output_may_have_its_own_origin():
    tolerances = ToleranceSet(DEFAULTS["fp16"]).merged(parse_tolerance("logits:cosine=0.9"), "--trt-tolerance")
    found = one(-np.ones(2), np.ones(2), tolerance=tolerances)

    assert found.detail.splitlines()[-1] == "  tolerance      fp16 default; cosine from --trt-tolerance (logits)"


def test_numbers_are_told_apart_from_their_limits():
    assert against(0.99991, 0.9999) == ("0.99991", "0.9999")
    assert against(0.010000001, 0.01) == ("0.010000001", "0.01")
    assert against(0.01, 0.01) == ("0.01", "0.01")
    assert against(5, 0.0) == ("5", "0")


def test_a_limit_next_to_1_is_not_called_1():
    assert against(0.999894, 0.9999999, 6) == ("0.999894", "0.9999999")
    assert against(0.5, 1.0) == ("0.5", "1")
    assert against(2.0, 1.0001) == ("2", "1.0001")
    assert number(2**53 + 1) == "9007199254740993"


def test_only_none_is_0_percent_and_only_all_is_100():
    assert [percent(n, 100_000) for n in (0, 1, 460, 99_999, 100_000)] == ["0%", "<0.01%", "0.46%", ">99.99%", "100%"]


def test_of_many_outputs_the_bad_ones_are_shown_first_and_the_others_counted() -> None:
    expected = {f"o{i}": np.ones(2) for i in range(20)}
    actual = {name: array + (i >= 5) for i, (name, array) in enumerate(expected.items())}

    parts = compare(actual, expected, rtol=0, atol=0.5).detail.split("\n\n")

    assert parts[0].startswith('output "o5"')
    assert not any(part.startswith('output "o17"') for part in parts)
    assert parts[-1] == "8 more outputs, 3 of them not close: o17, o18, o19"
