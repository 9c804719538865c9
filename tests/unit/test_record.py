"""Record: its outcome, its parts put together, and its one form as JSON."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from records import accuracy, failed, latency, passed, simulated

from pytest_trt.accuracy import DEFAULTS, compare
from pytest_trt.latency.stats import summarize
from pytest_trt.latency.timer import Samples
from pytest_trt.record import Record, accuracy_section, latency_section, merge_records, undecided_metric
from pytest_trt.spec.case import Case

WORST_FIRST = ("error", "failed", "inconclusive", "passed", "skipped")
CASE = Case("digits", "fp16", "b8", "tensorrt")


@pytest.mark.parametrize(("worse", "better"), list(itertools.combinations(WORST_FIRST, 2)))
def test_the_outcome_is_the_worst_of_the_parts(worse: str, better: str):
    assert Record(CASE, {"accuracy": worse, "latency": better}).outcome == worse
    assert Record(CASE, {"accuracy": better, "latency": worse}).outcome == worse


def test_a_case_of_which_nothing_ran_is_skipped():
    assert Record(CASE).outcome == "skipped"


def test_an_outcome_that_nobody_knows_is_an_error():
    with pytest.raises(ValueError, match="not in tuple"):
        _ = Record(CASE, {"accuracy": "okay"}).outcome


@pytest.mark.parametrize("record", [passed(), failed(), simulated(), Record(CASE)], ids=lambda r: r.outcome)
def test_json_and_back(record: Record):
    text = json.dumps(record.to_json(), allow_nan=False)
    again = Record.from_json(json.loads(text))

    assert again == record
    assert json.dumps(again.to_json()) == text
    assert json.loads(text)["id"] == record.case.id
    assert json.loads(text)["outcome"] == record.outcome


def test_json_of_before_a_section_existed_is_read():
    data = passed().to_json()
    del data["streams"]

    assert Record.from_json(data).streams is None


def test_json_without_outcomes_is_refused():
    data = passed().to_json()
    del data["outcomes"]

    with pytest.raises(KeyError, match="outcomes"):
        Record.from_json(data)


def test_the_reason_of_a_simulation():
    assert passed().simulated is None
    assert Record(CASE).simulated is None
    assert (simulated().simulated or "").startswith("computed in float32")


def test_parts_of_one_case_become_one_record():
    first = Record(CASE, {"accuracy": "passed"}, accuracy=accuracy(), engine={"fresh": True, "build_seconds": 3.0})
    second = Record(
        CASE,
        {"latency": "failed"},
        {"latency": "slower"},
        latency=latency(),
        engine={"fresh": False},
        baseline={"state": "current"},
    )
    (merged,) = merge_records([first, second])

    assert merged.outcomes == {"accuracy": "passed", "latency": "failed"}
    assert merged.messages == {"latency": "slower"}
    assert merged.accuracy == accuracy()
    assert merged.latency == latency()
    assert merged.baseline == {"state": "current"}
    assert merged.engine == {"fresh": True, "build_seconds": 3.0}


def test_an_engine_that_was_built_by_the_second_part_shows():
    (merged,) = merge_records([Record(CASE, engine={"fresh": False}), Record(CASE, engine={"fresh": True})])

    assert merged.engine == {"fresh": True}


@pytest.mark.parametrize("fresh", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("accuracy_first", [True, False])
def test_what_one_part_found_out_about_the_engine_stays(fresh: tuple[bool, bool], accuracy_first: bool):
    known = {"plan_bytes": 5, "remarks": ["an old opset"]}
    judged = {"remarks": ["an old opset", "tactics differ"], "lock": {"layers": {"a": "t"}}}
    accuracy = Record(CASE, engine={**known, "fresh": fresh[0], **judged, "tactics_changed": ["a"]})
    latency = Record(CASE, engine={**known, "fresh": fresh[1], "tactics": {"a": "t"}, "timing": {"k": [1, 2.0]}})
    (merged,) = merge_records([accuracy, latency] if accuracy_first else [latency, accuracy])

    assert merged.engine == {"plan_bytes": 5, "fresh": any(fresh), **judged, "tactics_changed": ["a"]}


def test_a_part_that_did_not_run_takes_nothing_away():
    (merged,) = merge_records([passed(), Record(CASE)])

    assert merged == passed()


def test_the_later_of_two_attempts_counts():
    again = passed(median_ms=2.5)
    again.engine = {"fresh": False}
    (merged,) = merge_records([passed(), again])

    assert merged.latency == latency(2.5)


def test_a_section_of_the_later_part_takes_the_place_of_the_earlier_one():
    first, second = (
        Record(CASE, baseline=found) for found in ({"state": "missing", "from": "x"}, {"state": "current"})
    )
    (merged,) = merge_records([first, second])

    assert merged.baseline == {"state": "current"}


def test_cases_stay_in_the_order_in_which_they_came():
    records = [passed("b"), failed("a"), passed("a"), simulated("c"), failed("a"), passed("b")]

    assert [r.case.model for r in merge_records(records)] == ["b", "a", "a", "c"]


def test_names_that_look_alike_in_ids_are_two_cases():
    records = merge_records([passed("a b"), passed("a_b")])

    assert [r.case.model for r in records] == ["a b", "a_b"]
    assert records[0].case.id == records[1].case.id


def test_the_accuracy_section_is_of_every_output():
    expected = {"y": np.float32([[1, 2], [3, 4]]), "n": np.array([1, 2])}
    actual = {"y": np.float32([[1, 2], [3, 4.5]]), "n": np.array([1, 2])}
    section = accuracy_section(compare(actual, expected, tolerance=DEFAULTS["fp32"]))

    assert section["ok"] is False
    assert list(section["outputs"]) == ["y", "n"]
    assert section["outputs"]["y"]["ok"] is False
    assert section["outputs"]["y"]["max_abs"] == 0.5
    assert section["outputs"]["y"]["mismatched"] == 1
    assert section["outputs"]["y"]["problems"]
    assert section["outputs"]["n"]["ok"] is True
    json.dumps(section, allow_nan=False)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_accuracy_section_holds_no_nan(value: float):
    """JSON has neither NaN nor infinities."""
    found = compare({"y": np.float32([value, 1])}, {"y": np.float32([1, 1])}, tolerance=DEFAULTS["fp32"])

    assert json.dumps(accuracy_section(found), allow_nan=False)
    nothing = compare({"y": np.float32([0, 0])}, {"y": np.float32([0, 0])}, tolerance=DEFAULTS["fp32"])
    assert json.dumps(accuracy_section(nothing), allow_nan=False)


def test_a_missing_output_has_no_figures():
    section = accuracy_section(compare({}, {"y": np.float32([1])}, tolerance=DEFAULTS["fp32"]))

    assert section["outputs"]["y"]["ok"] is False
    assert "max_abs" not in section["outputs"]["y"]


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ({"gates": True, "outcome": "inconclusive"}, 'metric "iou": cannot tell'),
        ({"gates": False, "outcome": "inconclusive"}, ""),
        ({"gates": True, "outcome": "fail"}, ""),
        (None, ""),
    ],
)
def test_a_metric_that_gates_and_cannot_tell_is_said(verdict: dict[str, object] | None, said: str):
    record = passed()
    assert undecided_metric(record) == undecided_metric(Record(CASE)) == ""
    row = {"verdict": verdict and {**verdict, "sentence": "cannot tell"}}
    record.accuracy = {**accuracy(), "metrics": {"f1": {}, "iou": row}}

    assert undecided_metric(record) == said


def test_the_latency_section():
    loads = [
        Samples(np.array([1.0000001, 2.0, 3.0]), "graph", 7, {"sm_clock_mhz": [1980, 1755]}),
        Samples(np.array([4.0, 5.0]), "graph", 2, {}),
    ]
    summary = summarize(*(samples.values_ms for samples in loads))
    section = latency_section(loads, summary, {"h2d_ms": 0.0123456}, "")

    assert section == {
        "clock": "graph",
        "summary": summary.to_json(),
        "loads_ms": [2.0, 4.5],
        "transfers_ms": {"h2d_ms": 0.01235},
        "conditions": [{"sm_clock_mhz": [1980, 1755]}, {}],
        "course": [samples.course() for samples in loads],
        "disturbed": ["the SM clock moved between 1755 and 1980 MHz"],
        "warmup_count": 9,
        "samples_ms": [1.0, 2.0, 3.0, 4.0, 5.0],
    }
    assert latency_section(loads, summary, {}, "no CUDA graph")["note"] == "no CUDA graph"
    assert json.dumps(section, allow_nan=False)


def test_the_latency_section_tells_parts_and_leaves_out_what_did_not_disturb():
    parts = {"gpu_ms": np.array([1.0, 2.0, 3.0]), "enqueue_ms": np.array([0.1, 0.2, 0.1])}
    loads = [Samples(parts["gpu_ms"], "queued+graph", 7, {}, parts)] * 2
    section = latency_section(loads, summarize(parts["gpu_ms"]), {}, "")

    assert section["parts_ms"] == {"gpu_ms": 2.0, "enqueue_ms": 0.1}
    assert "disturbed" not in section
