"""What a reviewer reads when a baseline is accepted."""

from __future__ import annotations

from typing import Any

import pytest
from records import accuracy, latency, passed

from pytest_trt.baselines.changes import change_lines
from pytest_trt.baselines.entries import make_entry
from pytest_trt.record import Record

Entry = dict[str, Any]


def entry(old: Entry | None = None, median_ms: float = 1.25, **sections: Any) -> Entry:
    record = passed(median_ms=median_ms)
    for name, section in sections.items():
        setattr(record, name, section)
    return make_entry(record, "because", old)


def with_metric(**means: float) -> dict[str, Any]:
    metrics = {name: {"definition": "d", "mean": mean, "samples": [mean]} for name, mean in means.items()}
    return {**accuracy(), "metrics": metrics}


def told(old: Entry | None, new: Entry) -> list[str]:
    return change_lines("net", old, new)


def test_a_first_recording_comes_from_nothing():
    assert told(None, entry()) == ["net: none → 1.25 ms ±2.8%"]


def test_what_did_not_change_takes_one_line():
    (line,) = told(entry(), entry(entry()))

    assert line.startswith("net: 1.25 ms ±2.8% → 1.25 ms ±2.8%, +0.0% (95 % interval ")


def test_accuracy_that_got_worse_is_told():
    old = entry(accuracy=accuracy(rmse=1e-4))

    assert "  accuracy output 'y': rmse 0.0001 → 0.1, more than 2 times the baseline's" in told(
        old, entry(old, accuracy=accuracy(rmse=0.1))
    )


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        ({"iou": 0.5}, {"iou": 0.5}, []),
        ({"iou": 0.5}, {"iou": 0.25}, ["  metric iou 0.5 → 0.25"]),
        ({}, {"iou": 0.5}, ["  metric iou none → 0.5"]),
        ({"iou": 0.5, "f1": 0.25}, {"f1": 0.75}, ["  metric f1 0.25 → 0.75", "  metric iou 0.5 → none"]),
    ],
)
def test_metrics_whose_mean_moved_are_told(before: dict[str, float], after: dict[str, float], lines: list[str]):
    old = entry(accuracy=with_metric(**before))
    found = told(old, entry(old, accuracy=with_metric(**after)))

    assert [line for line in found if line.startswith("  metric")] == lines


def test_an_anchor_that_stays_is_told_with_how_far_it_is():
    first = entry(median_ms=1.0)
    second = entry(first, median_ms=2.0)
    line = told(second, entry(second, median_ms=3.0))[-1]

    assert line.startswith(f"  the anchor stays: 1 ms ±2.8%, recorded {first['recorded']}, +200.0% (95 % interval ")
    assert line.endswith("; it is still gated, --trt-update-baselines=anchor moves it")


def test_times_of_two_clocks_have_no_ratio():
    old = entry(latency=latency(1.0, "sync"))

    assert told(old, entry(old, 2.0))[0] == (
        "net: 1 ms ±2.8% → 2 ms ±2.8% (not comparable: the sync clock, then graph)"
    )


def test_a_recording_without_a_latency_says_so():
    record: Record = passed()
    record.latency = None

    assert told(None, make_entry(record, "because", None)) == ["net: none → no latency"]


def test_another_plan_widens_the_interval():
    old = entry()
    lines = [told(old, entry(old, engine={**(passed().engine or {}), "plan": plan}))[0] for plan in ("cd" * 32, "ef")]
    same, other = (float(line.partition("% interval ")[2].partition("%")[0]) for line in lines)

    assert other < same < 0


def test_outputs_and_metrics_are_written_in_the_order_of_their_names():
    """Whatever order a run has them in: a difference shows what changed."""
    outputs = {name: accuracy()["outputs"]["y"] for name in ("z", "a")}
    found = entry(accuracy={**with_metric(iou=0.5, f1=0.5), "outputs": outputs})

    assert (list(found["accuracy"]), list(found["metrics"])) == (["a", "z"], ["f1", "iou"])
