"""Tactics against a lock: what changed, in how much of the engine, and what cannot be seen."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trt.baselines.tactic_lock import make_lock, share_of_equal, tactic_changes

ENGINES = st.dictionaries(st.text(min_size=1, max_size=6), st.sampled_from("abc"), max_size=30)


def lock(layers: dict[str, str], tensorrt: str = "10.13.3.9") -> dict[str, Any]:
    return make_lock(tensorrt, layers)


def test_a_lock_is_json_and_keeps_its_timing():
    made = make_lock("10.13.3.9", {"conv1": "sm90 0x1"}, {"key": ("0x1", 0.25)})
    assert json.loads(json.dumps(made)) == {
        "tensorrt": "10.13.3.9",
        "layers": {"conv1": "sm90 0x1"},
        "timing": {"key": ["0x1", 0.25]},
    }
    assert "timing" not in make_lock("8.6.0", {})


def test_each_change_is_a_line():
    before = lock({"conv1": "a 0x1", "conv2": "b 0x2", "pool": "0x3"})
    after = lock({"conv1": "a 0x9", "pool": "0x3", "conv2 + relu": "b 0x2"})
    assert tactic_changes(before, after) == [
        "layer conv1: tactic a 0x1 → a 0x9",
        "layer conv2 is gone (tactic b 0x2)",
        "layer conv2 + relu is new (tactic b 0x2)",
    ]
    assert share_of_equal(before, after) == 1 / 4


@given(ENGINES)
def test_the_same_tactics_are_no_change(layers: dict[str, str]):
    assert tactic_changes(lock(layers), lock(dict(reversed(layers.items())))) == []
    assert share_of_equal(lock(layers), lock(layers)) == (1 if layers else None)


@given(ENGINES, ENGINES)
def test_lines_and_share_agree(before: dict[str, str], after: dict[str, str]):
    lines, share = tactic_changes(lock(before), lock(after)), share_of_equal(lock(before), lock(after))
    assert len(lines) <= 10
    assert share == share_of_equal(lock(after), lock(before))
    if share is not None:
        assert (share == 1) == (not lines)
        if len(lines) > 3:  # not summarised: one line for each layer that is not equal
            assert len(lines) == round((1 - share) * len(before.keys() | after.keys()))


def test_ten_changes_are_listed_and_eleven_summarised():
    before = {f"conv{n}": "a" for n in range(20)}
    assert len(tactic_changes(lock(before), lock({**before, **{f"conv{n}": "b" for n in range(10)}}))) == 10
    assert tactic_changes(lock(before), lock({**before, **{f"conv{n}": "b" for n in range(11)}})) == [
        "11 of 20 locked layers have another tactic; the first, conv0: a → b"
    ]


def test_a_summary_names_what_came_and_went():
    before = {"stem": "a", **{f"conv{n}": "a" for n in range(9)}}
    after = {"stem": "b", "block1": "a", "block2": "a"}
    assert tactic_changes(lock(before), lock(after)) == [
        "1 of 10 locked layers have another tactic; the first, stem: a → b",
        "9 layers are gone: conv0, conv1, conv2, …",
        "2 layers are new: block1, block2",
    ]


def test_a_summary_names_three_at_most():
    gone = lock({"kept": "a", **{f"conv{n}": "a" for n in range(3)}})
    new = lock({"kept": "a", **{f"block{n}": "a" for n in range(8)}})
    assert tactic_changes(gone, new) == [
        "3 layers are gone: conv0, conv1, conv2",
        "8 layers are new: block0, block1, block2, …",
    ]


@pytest.mark.parametrize(("before", "after", "whose"), [({"x": "a"}, {}, "this build"), ({}, {"x": "a"}, "the lock")])
def test_tactics_that_are_not_visible_are_no_change(before: dict[str, str], after: dict[str, str], whose: str):
    (line,) = tactic_changes(lock(before), lock(after))
    assert line.startswith("tactics not visible")
    assert line.endswith(f"(of {whose})")
    assert share_of_equal(lock(before), lock(after)) is None


def test_two_engines_that_show_nothing_have_nothing_to_say():
    assert tactic_changes(lock({}), lock({})) == []
    assert share_of_equal(lock({}), lock({})) is None


def test_another_tensorrt_is_said_first():
    lines = tactic_changes(lock({"x": "a"}, "8.6.0"), lock({"x": "b"}))
    assert lines == ["TensorRT 8.6.0 → 10.13.3.9: its tactics may have other names", "layer x: tactic a → b"]


@pytest.mark.parametrize("odd", [{}, {"layers": None}, {"layers": ["conv1"]}])
def test_a_lock_without_layers_shows_nothing(odd: dict[str, Any]):
    assert share_of_equal(odd, lock({"x": "a"})) is None
