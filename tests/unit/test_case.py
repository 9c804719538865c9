"""Case: its id is in baselines, reports and pytest's node ids, so it must not change and must be selectable."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trt.spec.case import Case

names = st.text(min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("case", "variant_id", "text"),
    [
        (Case("digits", "fp16", "b8", "tensorrt"), "fp16-b8-tensorrt", "digits[fp16, b8, tensorrt]"),
        (Case("net", "fp32", "default", "fake"), "fp32-default-fake", "net[fp32, default, fake]"),
        (
            Case("net", "int8", "b8", "tensorrt", ("-JIT_CONVOLUTIONS",)),
            "int8-b8[-JIT_CONVOLUTIONS]-tensorrt",
            "net[int8, b8, -JIT_CONVOLUTIONS, tensorrt]",
        ),
        (
            Case("net", "int8", "b8", "tensorrt", ("+A", "-B")),
            "int8-b8[+A-B]-tensorrt",
            "net[int8, b8, +A-B, tensorrt]",
        ),
        (Case("net", "fp32", "n=1,l=128", "fake"), "fp32-n=1_l=128-fake", "net[fp32, n=1,l=128, fake]"),
    ],
)
def test_ids(case: Case, variant_id: str, text: str):
    assert case.variant_id == variant_id
    assert case.id == f"{case.model}-{variant_id}"
    assert str(case) == text


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("resnet-50.v1_5", "resnet-50.v1_5"),
        ("a b", "a_b"),
        ("a::b[c]", "a_b_c_"),
        ("models/net", "models_net"),
        ("模型", "模型"),
        ("a\nb", "a_b"),
        ("x and not y", "x_and_not_y"),
    ],
)
def test_a_models_name_is_made_plain(name: str, plain: str):
    assert Case(name, "fp32", "b1", "fake").id == f"{plain}-fp32-b1-fake"


@given(model=names, profile=names)
def test_an_id_can_be_selected(model: str, profile: str):
    """No separators of node ids, no quotes and nothing that -k or a shell would take apart."""
    assert re.fullmatch(r"[\w.=-]+-fp16-[\w.=-]+-fake", Case(model, "fp16", profile, "fake").id)


def test_cases_are_values():
    cases = {
        Case("m", "fp32", "p", "fake"),
        Case("m", "fp32", "p", "fake", ()),
        Case("m", "fp32", "p", "fake", ("+A",)),
    }

    assert len(cases) == 2
    with pytest.raises(AttributeError):
        next(iter(cases)).model = "other"  # type: ignore[misc]


def test_as_json():
    case = Case("m", "fp32", "p", "fake", ("+A", "-B"))

    assert case.to_json() == {
        "model": "m",
        "precision": "fp32",
        "profile": "p",
        "backend": "fake",
        "tactics": ["+A", "-B"],
        "graph": "as-is",
        "options": [],
    }


def test_json_gives_the_case_back():
    case = Case("m", "fp32", "p", "fake", ("-B",), "opset=17", (("opt_level", "3"), ("refit", "on")))

    assert Case.from_json(case.to_json()) == case
    assert case.id == "m-fp32-p[-B][opset=17][opt_level=3,refit=on]-fake"


def test_json_of_before_an_axis_existed_has_its_default():
    old = {"model": "m", "precision": "fp32", "profile": "p", "backend": "fake", "tactics": []}

    assert Case.from_json(old) == Case("m", "fp32", "p", "fake")


def test_an_id_is_the_same_wherever_a_library_lies():
    options = (("lean_runtime", "/opt/trt/liblean.so.8"), ("plugins", "a/libone.so,/b/libtwo.so"))

    case = Case("m", "fp32", "p", "fake", options=options)
    assert case.id == "m-fp32-p[lean_runtime=liblean.so.8,plugins=libone.so_libtwo.so]-fake"
    assert case.to_json()["options"] == [list(pair) for pair in options]
