"""The structure of an engine against its past: counts exactly, sizes within a tolerance."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trt.baselines.structure import MEMORY_TOLERANCE, PLAN_TOLERANCE, Drift, structure_drift

BASE = {
    "layers": 60,
    "fused": 20,
    "reformats": 4,
    "myelin": 0,
    "plan_bytes": 133_000_000,
    "device_memory_bytes": 8_400_000,
}


def drift(**changed: Any) -> Drift:
    return structure_drift(BASE, {**BASE, **changed})


def test_the_same_structure_has_not_drifted():
    assert drift() == Drift([], [])
    assert not drift()


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"layers": 61}, "layers      60 → 61"),
        ({"fused": 19}, "fused       20 → 19"),
        ({"reformats": 9}, "reformats   4 → 9"),
        ({"myelin": 1}, "myelin      0 → 1"),
        ({"plan_bytes": 265_000_000}, "plan        133 MB → 265 MB (+99 %)"),
        ({"plan_bytes": 999_700_000}, "plan        133 MB → 1000 MB (+652 %)"),
        ({"plan_bytes": 1_000_000_000}, "plan        133 MB → 1 GB (+652 %)"),
        ({"plan_bytes": 2_650_000_000}, "plan        133 MB → 2.65 GB (+1892 %)"),
        ({"device_memory_bytes": 9_000_000}, "memory      8.4 MB → 9 MB (+7 %)"),
    ],
)
def test_what_got_worse_is_a_line(changed: dict[str, int], line: str):
    found = drift(**changed)
    assert found == Drift([line], [])
    assert found


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"layers": 59}, "layers      60 → 59"),
        ({"fused": 21}, "fused       20 → 21"),
        ({"reformats": 0}, "reformats   4 → 0"),
        ({"plan_bytes": 1_234}, "plan        133 MB → 1.23 KB (-100 %)"),
        ({"device_memory_bytes": 0}, "memory      8.4 MB → 0 B (-100 %)"),
    ],
)
def test_what_got_better_is_told_but_no_drift(changed: dict[str, int], line: str):
    found = drift(**changed)
    assert found == Drift([], [line])
    assert not found


def test_a_region_less_of_the_graph_compiler_is_worth_a_look():
    assert structure_drift({"myelin": 2}, {"myelin": 1}).worse == ["myelin      2 → 1"]


@pytest.mark.parametrize(
    ("name", "tolerance"), [("plan_bytes", PLAN_TOLERANCE), ("device_memory_bytes", MEMORY_TOLERANCE)]
)
@given(before=st.integers(10**4, 10**11), share=st.floats(-1.5, 1.5))
def test_sizes_may_move_within_their_tolerance(name: str, tolerance: float, before: int, share: float):
    after = round(before * (1 + share * tolerance))
    found = structure_drift({name: before}, {name: after})
    lines = len(found.worse), len(found.better)
    if abs(share) <= 0.99:
        assert lines == (0, 0)
    if abs(share) >= 1.05:
        assert lines == ((1, 0) if share > 0 else (0, 1))


@pytest.mark.parametrize(("name", "limit"), [("plan_bytes", 2), ("device_memory_bytes", 5)])
def test_the_tolerance_itself_is_within_it(name: str, limit: int):
    assert (
        structure_drift({name: 100}, {name: 100 + limit})
        == structure_drift({name: 100}, {name: 100 - limit})
        == Drift()
    )
    assert structure_drift({name: 100}, {name: 100 + limit + 1}).worse


def test_memory_that_was_none_has_no_percentage():
    assert structure_drift({"device_memory_bytes": 0}, {"device_memory_bytes": 2048}).worse == [
        "memory      0 B → 2.05 KB"
    ]


@pytest.mark.parametrize("odd", [None, "60", True, [60]])
def test_what_either_lacks_is_not_compared(odd: Any):
    assert structure_drift({"layers": odd}, {"layers": 70}) == Drift()
    assert structure_drift({"layers": 70}, {"layers": odd}) == Drift()
    assert structure_drift({}, BASE) == Drift()


@given(st.integers(0, 2**45), st.integers(0, 2**45))
def test_sizes_are_short_at_any_magnitude(before: int, after: int):
    found = structure_drift({"plan_bytes": before}, {"plan_bytes": after})
    for line in (*found.worse, *found.better):
        assert "e+" not in line
