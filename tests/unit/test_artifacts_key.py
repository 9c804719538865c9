"""Keys: what makes two of them equal, what is refused, and how a difference is told."""

from __future__ import annotations

import enum
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trt.artifacts.key import ABSENT, KINDS, Difference, Key, canonical, explain
from pytest_trt.errors import ArtifactError

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
ingredients = st.dictionaries(st.text(), values, max_size=5)


def digest(**given_: object) -> str:
    return Key.make("engine", given_).digest


def test_the_order_of_ingredients_does_not_matter():
    assert Key.make("engine", {"a": 1, "b": {"x": 1, "y": 2}}) == Key.make("engine", {"b": {"y": 2, "x": 1}, "a": 1})


def test_the_digest_is_pinned():
    """A change of the digest strands every existing cache: it has to come with a new KEY_SCHEMA."""
    key = Key.make("engine", {"gpu": "NVIDIA H200", "profile": {"x": [1, 8, 32]}, "workspace_bytes": None})
    assert key.digest == "87a1a30f82645afc4e9c1185319c5a7016477e77eceaeafe8fb24e5dd58c8026"


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_is_part_of_the_digest(kind: str):
    others = {Key.make(other, {"a": 1}).digest for other in KINDS if other != kind}
    assert Key.make(kind, {"a": 1}).digest not in others
    assert len(others) == len(KINDS) - 1


def test_types_are_told_apart():
    seen = [1, 1.0, "1", True, None, "None", "null", "true", [1], {"1": 1}, [], {}, "", 0, 0.0, -0.0, False]
    assert len({digest(value=value) for value in seen}) == len(seen)


def test_one_ulp_and_one_unit_far_out_are_told_apart():
    assert digest(x=0.1) != digest(x=math.nextafter(0.1, 1))
    assert digest(x=2**53) != digest(x=2**53 + 1)


def test_labels_and_values_cannot_run_into_each_other():
    assert digest(ab="c") != digest(a="bc")
    assert digest(a="1", b="2") != digest(a='1"b"2')
    assert digest(**{"a": {"b": 1}}) != digest(**{"a.b": 1})
    assert Key.make("engine", {"kind": "model"}).digest != Key.make("model", {"kind": "engine"}).digest
    assert digest(a=["x", "y"]) != digest(a=["x,y"])


def test_a_tuple_is_a_list():
    assert digest(shape=(1, 3)) == digest(shape=[1, 3])
    assert Key.make("engine", {"shape": (1, 3)}).ingredients == {"shape": [1, 3]}


def test_later_changes_of_the_source_do_not_reach_the_key():
    source = {"profile": {"x": [1]}}
    key = Key.make("engine", source)
    source["profile"]["x"].append(2)
    assert key.ingredients == {"profile": {"x": [1]}}


class Flag(enum.IntEnum):
    FP16 = 0


class Cycle(dict):
    def __init__(self) -> None:
        super().__init__(me=self)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (float("nan"), "NaN"),
        ({"deep": [1, float("inf")]}, r"x\.deep\[1\]"),
        (b"bytes", "bytes"),
        ({1: "a"}, "not a string"),
        ({1, 2}, "set"),
        (Flag.FP16, "Flag"),
        (np.float32(1.5), "numpy.float32"),
        (np.float64(1.5), "numpy.float64"),
        (Path("model.onnx"), "Path"),
        ("\ud800", "Unicode"),
        ({"\ud83d": 1}, "Unicode"),
        (1 << 2000, "1024 bits"),
        (Cycle(), "contain itself"),
        (object(), "object"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_written_down_exactly_is_refused(value: object, says: str):
    with pytest.raises(ArtifactError, match=says) as caught:
        Key.make("engine", {"x": value})
    assert "x" in caught.value.message
    assert caught.value.hint


def test_an_unknown_kind_gets_a_suggestion():
    with pytest.raises(ArtifactError, match="did you mean 'engine'"):
        Key.make("engin", {})


@given(ingredients, ingredients)
def test_different_ingredients_have_different_digests(one: dict, other: dict):
    same = canonical(one) == canonical(other)
    assert (Key.make("engine", one).digest == Key.make("engine", other).digest) is same
    assert bool(explain(one, other)) is not same


@given(ingredients)
def test_ingredients_survive_json(given_: dict):
    key = Key.make("engine", given_)
    assert Key.make("engine", json.loads(json.dumps(key.ingredients))).digest == key.digest


def test_explain_names_each_leaf():
    old = {"tensorrt": "10.3.0", "gpu": {"name": "H200", "memory_mb": 141}, "opt": None, "shape": [1, 3], "same": 1}
    new = {"tensorrt": "10.16.1", "gpu": {"name": "H200", "memory_mb": 80, "sm": 90}, "shape": [8, 3], "same": 1}
    assert explain(old, new) == [
        Difference("gpu.memory_mb", 141, 80),
        Difference("gpu.sm", ABSENT, 90),
        Difference("opt", None, ABSENT),
        Difference("shape", [1, 3], [8, 3]),
        Difference("tensorrt", "10.3.0", "10.16.1"),
    ]
    assert [str(difference) for difference in explain(old, new)] == [
        "gpu.memory_mb: 141 → 80",
        "gpu.sm: absent → 90",
        "opt: null → absent",
        "shape: [1,3] → [8,3]",
        'tensorrt: "10.3.0" → "10.16.1"',
    ]


def test_explain_sees_a_changed_type():
    assert [str(d) for d in explain({"level": 1, "on": 1}, {"level": 1.0, "on": True})] == [
        "level: 1 → 1.0",
        "on: 1 → true",
    ]


def test_explain_sees_an_emptied_group_and_a_dotted_label():
    assert [str(d) for d in explain({"a": {"b": 1}}, {"a": {}})] == ["a: absent → {}", "a.b: 1 → absent"]
    assert len(explain({"a": {"b": 1}}, {"a.b": 1})) == 2


def test_equal_ingredients_need_no_explanation():
    assert explain({"a": {"b": [1, 2]}}, {"a": {"b": (1, 2)}}) == []
