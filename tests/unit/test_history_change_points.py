from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from history_rows import row

from pytest_trt.errors import UsageError
from pytest_trt.history.change_points import level_shifts, noise_of, shifts
from pytest_trt.history.lines import shift_lines
from pytest_trt.history.rows import Row

pytest.importorskip("ruptures")


def noisy(levels: list[float], noise: float = 0.003, seed: int = 0) -> list[float]:
    rng = np.random.default_rng(seed)
    return [float(level * math.exp(noise * rng.standard_normal())) for level in levels]


def history(levels: list[float], **fields: object) -> list[Row]:
    return [row(number, median, **fields) for number, median in enumerate(noisy(levels))]  # type: ignore[arg-type]


@pytest.mark.parametrize("ratio", [1.03, 1.5, 0.9])
def test_a_step_is_found_where_it_is(ratio: float):
    (found,) = level_shifts(noisy([2.0] * 12 + [2.0 * ratio] * 8), noise=0.003, smallest=0.01)

    assert found.first < 12 <= found.last
    assert found.ratio == pytest.approx(ratio, rel=0.01)


def test_two_steps_are_told_apart():
    found = level_shifts(noisy([1.0] * 10 + [1.1] * 10 + [1.0] * 10), noise=0.003)

    assert [(level.index, level.ratio > 1) for level in found] == [(10, True), (20, False)]


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(noisy([1.0] * 40), id="noise"),
        pytest.param([1.0] * 20, id="constant"),
        pytest.param(noisy([1.0] * 10 + [2.0] + [1.0] * 10), id="one odd run"),
        pytest.param([1.0, 1.0, 2.0], id="too short"),
        pytest.param([], id="empty"),
    ],
)
def test_what_is_no_step_is_none(values: list[float]):
    assert level_shifts(values, noise=noise_of(values), smallest=0.01) == []


def test_series_of_one_level_are_rarely_cut():
    cut = 0
    for seed in range(100):
        values = noisy([1.0] * 20, noise=0.01, seed=seed)
        cut += bool(level_shifts(values, noise=noise_of(values, 0.007, 8)))

    assert cut <= 5


def test_two_runs_on_each_side_are_enough():
    (found,) = level_shifts([1.0, 1.0, 2.0, 2.0], noise=0.003)

    assert (found.index, found.ratio) == (2, pytest.approx(2.0))


def test_small_steps_are_left_out_one_by_one():
    levels = [1.0] * 8 + [1.02] * 8 + [1.04] * 8

    assert len(level_shifts(levels, noise=0.001, smallest=0.01)) == 2
    # Two steps of 2 % are one of 3 % to a reader who minds nothing below 2.5 %: from 1.00 to the middle of the rest.
    (found,) = level_shifts(levels, noise=0.001, smallest=0.025)
    assert found.ratio == pytest.approx(1.03, rel=1e-3)
    assert level_shifts(levels, noise=0.001, smallest=0.05) == []
    (large,) = level_shifts([1.0] * 8 + [1.02] * 8 + [1.5] * 8, noise=0.001, smallest=0.05)
    assert (large.index, large.after) == (16, pytest.approx(1.5))


def test_where_noise_blurs_the_step_the_range_is_wider():
    clear, blurred = [1.0] * 8 + [1.1] * 8, [1.0] * 7 + [1.05, 1.05] + [1.1] * 7

    width = [found.last - found.first for values in (clear, blurred) for found in level_shifts(values, noise=0.02)]

    assert width[0] == 1
    assert width[1] > 1


def test_noise_is_that_of_neighbours_whatever_the_levels_do():
    assert noise_of(noisy([1.0] * 100 + [2.0] * 100, 0.01)) == pytest.approx(0.01, rel=0.2)


def test_the_prior_of_noise_fades():
    still = [1.0] * 5

    assert noise_of(still, 0.01, 8) == pytest.approx(0.01 * math.sqrt(0.5))
    assert noise_of([1.0] * 9, 0.01, 8) == 0.0
    assert noise_of([1.0], 0.01, 8) == 0.01


def test_a_shift_names_its_commits_and_what_else_changed():
    rows = history([2.0] * 8) + [
        row(8 + number, median, plan="ef", environment={**(row().environment or {}), "driver": "580.1"})
        for number, median in enumerate(noisy([2.16] * 6, seed=1))
    ]

    (found,) = shifts(rows, smallest=0.01)

    assert found.commits == (rows[7].commit, rows[8].commit)
    assert found.runs == (8, 6)
    assert found.ratio == pytest.approx(1.08, rel=0.01)
    assert found.differences == ("driver: 570.86.15 → 580.1", "another plan")
    assert found.to_json() == {
        "before": {"run": "run-0007", "commit": rows[7].commit, "median_ms": pytest.approx(2.0, rel=0.01)},
        "after": {"run": "run-0008", "commit": rows[8].commit, "median_ms": pytest.approx(2.16, rel=0.01)},
        "ratio": found.ratio,
        "runs": [8, 6],
        "differences": list(found.differences),
    }
    lines = shift_lines(found, 3)
    assert lines[0].startswith("  slower by ")
    assert lines[2] == "    git log --oneline 0007cccccccc..0008cccccccc   # 3 commits"
    assert lines[3] == "    besides the code: driver: 570.86.15 → 580.1; another plan"


def test_a_shift_within_one_commit_is_not_the_code_s():
    rows = [row(1, median, run=f"r{n}") for n, median in enumerate(noisy([1.0] * 8 + [1.1] * 8))]

    (found,) = shifts(rows, smallest=0.01)

    assert found.commits is None
    assert "    one and the same commit: it is not the code" in shift_lines(found, None)


def test_rows_without_a_latency_are_passed_over():
    rows = history([1.0] * 8 + [1.1] * 8)
    rows.insert(8, row(50, None))

    (found,) = shifts(rows, smallest=0.01)

    assert found.before.median_ms is not None
    assert found.after.median_ms is not None


def test_the_host_s_clock_sees_little_in_few_runs():
    levels = [1.0] * 8 + [1.3] * 8

    assert len(shifts(history(levels), smallest=0.01)) == 1
    assert shifts(history(levels, clock="host"), smallest=0.01) == []


def test_a_quiet_series_shows_less_than_the_prior_of_its_clock():
    levels = noisy([1.0] * 12 + [1.001] * 12, noise=0.0001)

    (found,) = shifts([row(number, median) for number, median in enumerate(levels)], smallest=0.0005)
    assert found.runs == (12, 12)


def test_runs_outside_of_a_repository_have_no_commits():
    rows = [row(number, median, git=None) for number, median in enumerate(noisy([1.0] * 8 + [1.1] * 8))]

    (found,) = shifts(rows, smallest=0.01)

    assert found.commits is None
    assert found.to_json()["before"]["commit"] is None
    assert shift_lines(found, None)[1:] == ["    between run run-0007 and run run-0008"]


def test_without_the_library_the_way_to_it_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ruptures", None)

    with pytest.raises(UsageError, match=r"pip install \"pytest-trt\[history\]\""):
        level_shifts([1.0] * 8, noise=0.01)
