"""The table of tolerances, how layers of overrides combine, and what they refuse."""

from __future__ import annotations

import json

import pytest

from pytest_trt.accuracy import DEFAULTS, Overrides, Tolerance, ToleranceSet, default_tolerance, parse_tolerance
from pytest_trt.errors import UsageError
from pytest_trt.spec.precision import PRECISIONS

FP16 = DEFAULTS["fp16"]


def test_every_precision_has_a_default():
    assert set(PRECISIONS) <= set(DEFAULTS)
    assert all(set(t.origin.values()) == {f"{name} default"} for name, t in DEFAULTS.items())


def test_defaults_widen_with_coarser_precisions():
    scales = [DEFAULTS[p].atol_scale for p in ("fp32", "tf32", "fp16", "bf16")]
    assert scales == sorted(scales)
    cosines = [DEFAULTS[p].cosine for p in ("fp16", "bf16", "int8", "fp8", "int4")]
    assert cosines == sorted(cosines, reverse=True)


def test_int8_judges_the_whole_and_no_element():
    assert not DEFAULTS["int8"].elementwise
    assert DEFAULTS["int8"].atol_at(3.0) is None


def test_an_unknown_precision_is_answered_with_the_nearest():
    assert default_tolerance("fp16") is FP16
    with pytest.raises(UsageError, match="did you mean 'fp16'"):
        default_tolerance("pf16")


def test_atol_grows_with_the_scale_of_the_output():
    assert Tolerance(rtol=0.0, atol=0.5, atol_scale=0.1).atol_at(20.0) == 2.5


def test_an_override_replaces_the_limit_as_a_whole():
    """What the user wrote is the whole limit; nothing of the table is added to it."""
    merged = FP16.merged({"rtol": 0.1, "atol": 0.2}, "--trt-tolerance")

    assert (merged.rtol, merged.atol, merged.atol_scale, merged.cosine) == (0.1, 0.2, 0.0, FP16.cosine)
    assert merged.describe_origin() == "fp16 default; rtol, atol from --trt-tolerance"
    scaled = FP16.merged({"rtol": 0.1, "atol_scale": 0.2}, "x")
    assert (scaled.atol, scaled.atol_scale) == (0.0, 0.2)


def test_later_layers_win_and_are_named():
    merged = FP16.merged({"cosine": 0.99, "top1": 0.9}, "[tolerance.fp16] in trt.toml").merged({"cosine": 0.98}, "--x")

    assert (merged.cosine, merged.top1) == (0.98, 0.9)
    assert merged.describe_origin() == "fp16 default; cosine from --x; top1 from [tolerance.fp16] in trt.toml"


@pytest.mark.parametrize("off", [None, False, "off"])
def test_checks_can_be_turned_off(off):
    merged = FP16.merged({"rtol": off, "atol": off}, "x")

    assert (merged.elementwise, merged.atol, merged.atol_scale, merged.cosine) == (False, None, 0.0, FP16.cosine)
    assert FP16.merged({"cosine": off}, "x").cosine is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"rtoll": 0.1}, "unknown tolerance 'rtoll'\n  hint: did you mean 'rtol'?"),
        ({"rtol": 0.1}, "rtol given without atol (or atol_scale)"),
        ({"atol": 0.1}, "atol given without rtol"),
        ({"atol": 0.1, "atol_scale": 0.1}, "atol, atol_scale given without rtol"),
        ({"rtol": None, "atol": 0.1}, "both rtol and atol, or neither"),
        ({"rtol": None, "atol": None, "cosine": None}, "checks nothing"),
        ({"rtol": None, "atol": None, "atol_scale": 0.1}, "atol_scale has no effect"),
        ({"rtol": -0.1, "atol": 0.1}, "rtol must not be negative, not -0.1"),
        ({"rtol": 0.1, "atol": float("nan")}, "atol must be a finite number, not nan"),
        ({"cosine": 1.1}, "cosine must lie in -1 … 1, not 1.1"),
        ({"cosine": True}, "cosine must be a finite number, not True"),
        ({"cosine": "high"}, "cosine must be a finite number, not 'high'"),
        ({"top1": 99}, "top1 is a share and must lie in 0 … 1, not 99"),
        ({"max_mismatched": -0.1}, "max_mismatched is a share"),
        ({"max_mismatched": None}, "max_mismatched must be a finite number, not None"),
        ({"k": 0}, "k must be a whole number from 1, not 0"),
        ({"k": 2.5}, "k must be a whole number from 1, not 2.5"),
    ],
)
def test_wrong_overrides_are_refused_with_their_origin(overrides, message):
    with pytest.raises(UsageError) as caught:
        FP16.merged(overrides, "[tolerance.fp16] in trt.toml")
    assert str(caught.value).startswith("[tolerance.fp16] in trt.toml: ")
    assert message in str(caught.value)


def test_a_tolerance_that_checks_nothing_is_refused():
    with pytest.raises(UsageError, match="checks nothing"):
        Tolerance()


def test_origins_do_not_matter_for_equality_and_show_when_missing():
    assert Tolerance(cosine=0.9) == Tolerance(cosine=0.9, origin={"cosine": "somewhere"})
    assert Tolerance(cosine=0.9).describe_origin() == "cosine as given"
    assert Tolerance(topk=0.9, k=3).describe_origin() == "topk, k as given"


def test_integers_are_told_only_what_they_are_held_to():
    merged = FP16.merged({"max_mismatched": 0.1}, "--x")

    assert FP16.describe_origin(exact=True) == ""
    assert merged.describe_origin(exact=True) == "max_mismatched from --x"


def test_json_holds_values_and_origins():
    row = json.loads(json.dumps(FP16.to_json(), allow_nan=False))

    assert row["rtol"] == FP16.rtol
    assert row["origin"]["cosine"] == "fp16 default"


def test_parse_reads_general_and_per_output_parts():
    parsed = parse_tolerance("rtol=1e-2, atol=1e-3,logits:atol=0.5,scores:0:cosine=off,boxes:k=3")

    assert parsed == Overrides(
        {"rtol": 1e-2, "atol": 1e-3}, {"logits": {"atol": 0.5}, "scores:0": {"cosine": "off"}, "boxes": {"k": 3}}
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot read ''"),
        ("rtol", "cannot read 'rtol'"),
        ("rtol=", "cannot read 'rtol='"),
        (":rtol=1", "cannot read ':rtol=1'"),
        ("logits:=1", "cannot read 'logits:=1'"),
        ("rtol=1,,atol=1", "cannot read ''"),
        ("rtol=a", "'a' is not a number, for 'rtol'"),
        ("k=2.5", "'2.5' is not a number, for 'k'"),
        ("logits:cosin=1", "unknown tolerance 'cosin' in 'logits:cosin=1'\n  hint: did you mean 'cosine'?"),
        ("rtol=1,rtol=2", "'rtol' is given twice"),
    ],
)
def test_parse_names_what_it_cannot_read(text, message):
    with pytest.raises(UsageError) as caught:
        parse_tolerance(text)
    assert message in str(caught.value)


def test_an_output_may_give_half_a_limit_when_the_layer_gives_the_rest():
    tolerances = ToleranceSet(FP16).merged(parse_tolerance("rtol=1e-2,atol=1e-3,logits:atol=0.5"), "--x")

    assert (tolerances.of("boxes").rtol, tolerances.of("boxes").atol) == (1e-2, 1e-3)
    logits = tolerances.of("logits")
    assert (logits.rtol, logits.atol) == (1e-2, 0.5)
    assert logits.describe_origin() == "fp16 default; rtol, atol from --x (logits)"
    with pytest.raises(UsageError, match=r"--x \(logits\): atol given without rtol"):
        ToleranceSet(FP16).merged(parse_tolerance("logits:atol=0.5"), "--x")


def test_a_later_layer_wins_over_an_earlier_one_that_named_the_output():
    manifest = {"cosine": 0.99, "outputs": {"logits": {"cosine": 0.9, "top1": 0.8}}}
    first = ToleranceSet(FP16).merged(manifest, "trt.toml")
    second = first.merged({"cosine": 0.95}, "--x")

    assert (first.of("logits").cosine, first.of("other").cosine) == (0.9, 0.99)
    assert (second.of("logits").cosine, second.of("logits").top1, second.of("other").cosine) == (0.95, 0.8, 0.95)


@pytest.mark.parametrize("outputs", [{"logits": 0.9}, 3])
def test_a_manifest_must_hold_a_table_per_output(outputs):
    with pytest.raises(UsageError, match="one table per output"):
        Overrides.from_mapping({"outputs": outputs})
