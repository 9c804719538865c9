"""The search for the fewest of many, without any model."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trt.diagnosis.bisect import heaviest_first, smallest_subset


def names(count: int) -> list[str]:
    return [f"n{index}" for index in range(count)]


def holds_with(*needed: str) -> Callable[[frozenset[str]], bool]:
    return lambda subset: set(needed) <= subset


@pytest.mark.parametrize(
    "needed", [("n0",), ("n999",), ("n3", "n997"), ("n10", "n11", "n500"), tuple(names(1000)[::125])]
)
def test_it_finds_the_members_in_evaluations_that_grow_with_members_times_log(needed: tuple[str, ...]):
    found = smallest_subset(names(1000), holds_with(*needed))

    assert (found.outcome, found.members, found.minimal) == ("found", needed, True)
    assert found.evaluations <= 3 + (len(needed) + 1) * (math.log2(1000) + 1) + 2 * len(needed)
    assert found.contradictions == ()


def test_a_good_order_of_suspicion_makes_it_faster():
    ranked = ["n700", "n300", *(name for name in names(1000) if name not in ("n300", "n700"))]

    found = smallest_subset(names(1000), holds_with("n300", "n700"), ranked=ranked)

    assert found.members == ("n300", "n700")  # in the order of the candidates
    assert found.evaluations <= 8


@given(st.integers(1, 60), st.data())
def test_any_set_is_found(count: int, data: st.DataObject):
    needed = data.draw(st.sets(st.sampled_from(names(count)), min_size=1))
    found = smallest_subset(names(count), holds_with(*needed), ranked=data.draw(st.permutations(names(count))))

    assert set(found.members) == needed
    assert found.minimal


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.data())
def test_where_errors_add_up_no_member_can_be_left_out(errors: list[int], data: st.DataObject):
    """As with quantization: every node adds some error, and enough of it must go."""
    allowed = data.draw(st.integers(0, sum(errors)))
    by_name = dict(zip(names(len(errors)), errors, strict=True))

    def holds(excluded: frozenset[str]) -> bool:
        return sum(error for name, error in by_name.items() if name not in excluded) <= allowed

    found = smallest_subset(list(by_name), holds, ranked=sorted(by_name, key=lambda name: -by_name[name]))

    assert holds(frozenset(found.members))
    assert (found.outcome == "empty") == (sum(errors) <= allowed)
    assert all(not holds(frozenset(found.members) - {name}) for name in found.members)


def test_nothing_to_find():
    found = smallest_subset(names(50), lambda subset: True)
    assert (found.outcome, found.members, found.evaluations) == ("empty", (), 1)


def test_nothing_helps():
    found = smallest_subset(names(50), lambda subset: False)
    assert (found.outcome, found.members, found.minimal, found.evaluations) == ("nothing", (), False, 2)


@given(st.integers(0, 10**6))
def test_noise_ends_in_a_set_that_was_seen_to_hold(seed: int):
    """A predicate that is wrong in one case of five: no proof is possible, but no endless search either."""
    rng = random.Random(seed)
    seen: dict[frozenset[str], list[bool]] = {}

    def holds(subset: frozenset[str]) -> bool:
        answer = ({"n5", "n40"} <= subset) != (rng.random() < 0.2)
        seen.setdefault(subset, []).append(answer)
        return answer

    found = smallest_subset(names(64), holds, limit=200)

    assert found.evaluations <= 200
    if found.outcome in ("found", "unstable"):
        answers = seen[frozenset(found.members)]
        assert answers[0] is True
        assert answers[-1] is (found.outcome == "found")


def test_a_set_that_does_not_hold_when_asked_again_is_called_unstable():
    asked: list[frozenset[str]] = []

    def holds(subset: frozenset[str]) -> bool:
        asked.append(subset)
        return "n2" in subset and asked.count(frozenset({"n2"})) < 2

    found = smallest_subset(names(8), holds)

    assert (found.outcome, found.members, found.minimal) == ("unstable", ("n2",), False)


def test_a_larger_set_that_is_worse_is_reported():
    """Two errors that cancel: n2 must not be left out without n6. What only that made necessary is dropped again."""

    def holds(subset: frozenset[str]) -> bool:
        return {"n1", "n7"} <= subset and not ("n2" in subset and "n6" not in subset)

    found = smallest_subset(names(8), holds)

    assert (found.outcome, found.members) == ("found", ("n1", "n7"))
    assert found.contradictions
    assert all(smaller < larger and holds(smaller) and not holds(larger) for smaller, larger in found.contradictions)


def test_the_limit_is_kept_and_the_best_so_far_returned():
    calls = []
    found = smallest_subset(
        names(1000), lambda subset: bool(calls.append(subset)) or {"n3", "n900"} <= subset, limit=15
    )

    assert len(calls) == found.evaluations == 15
    assert (found.outcome, found.minimal) == ("unfinished", False)
    assert {"n3", "n900"} <= set(found.members)
    assert len(found.members) < 1000


def test_the_heaviest_come_first_in_few_weighings():
    weights = dict.fromkeys(names(1000), 0.001) | {"n7": 5.0, "n500": 9.0, "n900": math.inf}
    calls = []

    def weight(subset: frozenset[str]) -> float:
        calls.append(subset)
        return sum(weights[name] for name in subset)

    found = heaviest_first(names(1000), weight, lambda subset: {"n7", "n500", "n900"} <= subset)

    assert found[:3] == ["n900", "n500", "n7"]
    assert sorted(found) == sorted(names(1000))
    assert len(calls) <= 5 * 2 * math.ceil(math.log2(1000))


def test_where_all_weigh_the_same_it_gives_up():
    calls = []
    found = heaviest_first(names(1000), lambda part: calls.append(part) or float(len(part)), {"no"}.__le__)

    assert sorted(found) == sorted(names(1000))
    assert len(calls) <= 2 * 2 * 10 + 2


def test_nothing_more_is_weighed_than_needed():
    calls = []
    found = heaviest_first(names(64), lambda subset: calls.append(subset) or float("n3" in subset), {"n3"}.__le__)

    assert found[0] == "n3"
    assert len(calls) <= 1 + 2 * 6

    calls.clear()
    assert len(heaviest_first(names(64), lambda subset: calls.append(subset) or 1.0, {"no"}.__le__, limit=9)) == 64
    assert len(calls) <= 10
    assert heaviest_first(names(3), lambda subset: 0.0, {"no"}.__le__) == names(3)


@given(st.permutations([3**power for power in range(24)]), st.integers(1, 5))
def test_with_weights_that_add_up_the_fewest_are_found(errors: list[int], count: int):
    """The heaviest are the smallest set there is; each of these outweighs all lighter ones."""
    by_name = dict(zip(names(len(errors)), errors, strict=True))
    top = sorted(by_name, key=lambda name: -by_name[name])[:count]
    allowed = sum(by_name.values()) - sum(by_name[name] for name in top)

    def holds(excluded: frozenset[str]) -> bool:
        return sum(error for name, error in by_name.items() if name not in excluded) <= allowed

    ranked = heaviest_first(list(by_name), lambda part: sum(by_name[name] for name in part), holds)
    found = smallest_subset(list(by_name), holds, ranked=ranked)

    assert len(found.members) <= len(top)
