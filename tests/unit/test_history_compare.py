from __future__ import annotations

import json

import pytest
from history_rows import commit, row

from pytest_trt.history.compare import compare, pooled
from pytest_trt.history.lines import change_lines
from pytest_trt.history.rows import Row


def runs(number: int, *medians: float, **fields: object) -> list[Row]:
    return [row(number, median, run=f"{number}-{i}", **fields) for i, median in enumerate(medians)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("after", "outcome"), [([1.2], "fail"), ([1.0], "pass"), ([1.05], "inconclusive"), ([0.8], "pass")]
)
def test_one_run_a_side_is_judged_as_loads_of_a_plan(after: list[float], outcome: str):
    (change,) = compare(runs(1, 1.0), runs(2, *after), [], threshold=0.05)

    assert change.verdict is not None
    assert change.verdict.outcome.value == outcome
    assert change.verdict.ratio == pytest.approx(after[0], rel=1e-3)
    assert change.verdict.noise_level == "between loads of one plan"
    assert change.verdict.improved is (after == [0.8])


def test_runs_of_a_commit_are_repeats():
    (change,) = compare(runs(1, 1.0, 1.002, 0.998), runs(2, 1.06, 1.058, 1.061), [], threshold=0.05)

    assert change.verdict is not None
    assert change.verdict.ratio == pytest.approx(1.06, rel=1e-3)
    assert "repeats" in change.verdict.noise_source
    assert change.verdict.high / change.verdict.low < 1.01


def test_another_plan_widens_the_interval_and_is_said():
    same, other = (compare(runs(1, 1.0), runs(2, 1.06, plan=plan), [], threshold=0.03)[0] for plan in ("cd" * 32, "ef"))

    assert same.verdict is not None
    assert other.verdict is not None
    assert other.verdict.rebuilt
    assert other.verdict.high > same.verdict.high
    assert "another plan" in other.differences


def test_earlier_runs_of_the_plan_replace_the_prior():
    noisy = [row(number, 1.0 + 0.04 * (-1) ** number) for number in range(10)]
    before, after = [row(20)], [row(21, 1.08)]

    (alone,) = compare(before, after, [], threshold=0.05)
    (known,) = compare(before, after, [*noisy, *before, *after], threshold=0.05)
    (foreign,) = compare(before, after, [row(n, 1.0 + 0.04 * (-1) ** n, plan="ef") for n in range(10)], threshold=0.05)

    assert alone.verdict is not None
    assert known.verdict is not None
    assert known.verdict.noise > alone.verdict.noise
    assert "10 recorded medians" in known.verdict.noise_source
    assert foreign.verdict == alone.verdict


def test_later_runs_do_not_excuse_a_slowdown():
    later = [row(number, 1.0 + 0.1 * (number % 2)) for number in range(30, 40)]

    (change,) = compare([row(20)], [row(21, 1.2)], later, threshold=0.05)

    assert change.verdict is not None
    assert change.verdict.outcome.value == "fail"


def test_the_number_of_cases_is_corrected_for():
    before, after = ([row(n, id=f"case-{i}") for i in range(9)] for n in (1, 2))

    changes = compare(before, after, [], threshold=0.05)

    assert [change.verdict.comparisons for change in changes if change.verdict] == [9] * 9


def test_what_cannot_be_judged_is_named():
    before = [row(1, id="gone"), row(1, None, id="blind"), row(1, id="foreign", clock="sundial")]
    after = [row(2, id="new"), row(2, None, id="blind"), row(2, id="foreign", clock="sundial")]

    notes = {change.series.id: change.note for change in compare(before, after, [], threshold=0.05)}

    assert notes == {
        "gone": "only before",
        "new": "only after",
        "blind": "no latency before and after",
        "foreign": "nothing is known of the clock 'sundial'",
    }


@pytest.mark.parametrize(("clock", "prior"), [("queued+transfers+graph", "graph"), ("throughput+streams=4", "sync")])
def test_a_mode_is_judged_by_the_prior_of_its_kind(clock: str, prior: str):
    (change,) = compare([row(1, clock=clock)], [row(2, 1.03, clock=clock)], [], threshold=0.05)
    (known,) = compare([row(1, clock=prior)], [row(2, 1.03, clock=prior)], [], threshold=0.05)

    assert change.verdict == known.verdict


def test_clocks_are_not_mixed():
    changes = compare([row(1)], [row(2, clock="sync")], [], threshold=0.05)

    assert [change.verdict for change in changes] == [None, None]


def test_differences_besides_the_code_are_listed():
    newer = {**(row().environment or {}), "driver": "580.1", "libraries": {"cuda": "12.8", "tensorrt": "11.0"}}

    (change,) = compare([row(1)], [row(2, environment=newer)], [], threshold=0.05)

    assert change.differences == ("driver: 570.86.15 → 580.1", "tensorrt: 10.16.1 → 11.0")


def test_runs_are_pooled_without_losing_the_noise_between_them():
    together = pooled(runs(1, 1.0, 1.1, 1.2))

    assert together.median_ms == pytest.approx(1.1, rel=1e-3)
    assert (together.loads, together.count) == (3, 120)
    assert together.between_sd == pytest.approx(0.0912, abs=1e-3)
    assert together.within_se == pytest.approx(pooled([row()]).median_se)
    assert (together.min_ms, together.max_ms) == (pytest.approx(0.999), pytest.approx(1.2012))
    assert pooled([row()]).loads == 1
    with pytest.raises(ValueError, match="no row has a latency"):
        pooled([row(median_ms=None)])


def test_the_table_and_the_json_say_the_same():
    changes = compare([row(1), row(1, None, id="gone", git=None)], [row(2, 1.2)], [], threshold=0.05)

    lines = change_lines(changes, ("v1", "v2"))
    content = json.loads(json.dumps([change.to_json() for change in changes]))

    assert lines[0].split() == ["case", "v1", "ms", "v2", "ms", "change", "plan", "MB", "rel.", "RMSE", "verdict"]
    assert lines[1].startswith("digits-fp16-b8-tensorrt  1      1.2 ")
    assert "+20.0%" in lines[1]
    assert lines[1].endswith("fail")
    assert lines[2].endswith("only before")
    assert lines[3].startswith("digits-fp16-b8-tensorrt: +20.0% against the baseline")
    assert content[0]["verdict"]["outcome"] == "fail"
    assert (content[0]["before"]["commit"], content[0]["after"]["median_ms"]) == (commit(1), 1.2)
    assert (content[1]["before"]["commit"], content[1]["before"]["median_ms"]) == (None, None)
    assert content[1]["after"] is None
