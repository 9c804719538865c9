from __future__ import annotations

import pytest
from history_rows import commit, row

from pytest_trt.errors import UsageError
from pytest_trt.history.git import GitState
from pytest_trt.history.query import along, in_order, pick, select, series
from pytest_trt.history.rows import Row

ROWS = [row(1), row(2), row(3, branch="topic"), row(3, branch="topic", run="again"), row(4, id="net-fp32-b1-fake")]


def nothing(_: str) -> str | None:
    return None


def numbers(rows: list[Row]) -> list[int]:
    return [int(found.commit[:4], 16) for found in rows]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, [1, 2, 3, 3, 4]),
        ({"case": "net-*"}, [4]),
        ({"environment": "nvidia-*"}, [1, 2, 3, 3, 4]),
        ({"environment": "amd-*"}, []),
        ({"branch": "topic"}, [3, 3]),
        ({"commits": {commit(1), commit(4)}}, [1, 4]),
        ({"commits": set()}, []),
    ],
)
def test_filters(filters: dict[str, object], found: list[int]):
    assert numbers(select(ROWS, **filters)) == found  # type: ignore[arg-type]


def test_brackets_of_an_id_are_no_pattern():
    special = row(id="net-fp16-b8[-JIT_CONVOLUTIONS]-tensorrt")

    assert select([special], case=special.id) == [special]


def test_an_old_commit_that_is_measured_late_stands_where_it_belongs():
    late = row(1, run="late", time="2026-12-31T00:00:00+00:00")

    assert [found.run for found in in_order([row(2), late, row(1)])] == ["run-0001", "late", "run-0002"]


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("2026-01-02T01:00:00+09:00", "2026-01-01T20:00:00+00:00"),
        ("2026-01-01T23:00:00Z", "2026-01-01T21:00:00-05:00"),
        ("2026-01-01T19:00:00-05:00", None),  # told by when it was measured
    ],
)
def test_committers_live_in_different_time_zones(older: str, newer: str | None):
    rows = [
        row(run=run, branch="main", time="2026-01-02T12:00:00+00:00", git=GitState(commit(number), "main", False, date))
        for number, (run, date) in enumerate((("new", newer), ("old", older)))
    ]

    assert [found.run for found in in_order(rows)] == ["old", "new"]
    assert [found.run for found in pick(rows, "main", nothing)] == ["new"]


def test_the_line_of_commits_orders_and_leaves_out_what_is_not_on_it():
    line = {commit(2): 0, commit(1): 1}
    rows = [row(1), row(2), row(3), row(2, dirty=True, run="dirty")]

    assert [numbers(along(rows, line)[0]), along(rows, line)[1]] == [[2, 1], 2]
    assert numbers(along([row(2, dirty=True)], line)[0]) == [2]
    assert [numbers(along(rows, {})[0]), along(rows, {})[1]] == [[1, 2, 2, 3], 0]


def test_a_series_is_a_case_on_a_device_with_a_clock():
    newer = {**(row().environment or {}), "driver": "999"}
    rows = [row(1), row(2, clock="sync"), row(3, id="b"), row(4, environment=newer)]

    assert [numbers(found) for found in series(rows).values()] == [[1, 4], [2], [3]]


@pytest.mark.parametrize(
    ("selector", "runs"),
    [
        ("latest", ["run-0004"]),
        ("latest~1", ["run-0003"]),
        ("run-0002", ["run-0002"]),
        ("agai", ["again"]),
        ("topic", ["run-0003", "again"]),
        ("main", ["run-0004"]),
        (commit(3)[:6], ["run-0003", "again"]),
        ("v1.0", ["run-0002"]),
    ],
)
def test_a_side_is_picked(selector: str, runs: list[str]):
    tags = {"v1.0": commit(2)}

    assert [found.run for found in pick(ROWS, selector, tags.get)] == runs


def test_clean_runs_of_a_commit_win():
    rows = [row(1), row(1, dirty=True, run="dirty"), row(2, dirty=True)]

    assert [found.run for found in pick(rows, commit(1)[:8], nothing)] == ["run-0001"]
    assert [found.run for found in pick(rows, commit(2)[:8], nothing)] == ["run-0002"]


@pytest.mark.parametrize(
    ("selector", "said"),
    [
        ("latest~5", "the history holds 5 runs"),
        ("latest~9", "the history holds 5 runs"),
        ("mian", "no run, commit or branch of the history is called so; did you mean 'main'"),
        ("v9", "its commit was not measured"),
        ("run-000", "no run, commit or branch"),
    ],
)
def test_nothing_is_guessed(selector: str, said: str):
    with pytest.raises(UsageError, match=said):
        pick(ROWS, selector, {"v9": commit(9)}.get)


def test_a_hash_that_begins_two_commits_is_refused():
    rows = [row(git=GitState("abcd1" + "0" * 35)), row(git=GitState("abcd2" + "0" * 35), run="b")]

    with pytest.raises(UsageError, match="begins 2 commits"):
        pick(rows, "abcd", nothing)
