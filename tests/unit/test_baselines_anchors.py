"""Recent and anchor: what acceptance moves, and what judges."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from records import accuracy, passed

from pytest_trt.baselines.anchors import accuracy_sentences, judge_latency, recordings
from pytest_trt.baselines.entries import anchor_of
from pytest_trt.baselines.state import Match
from pytest_trt.baselines.store import BaselineStore, environment_of
from pytest_trt.baselines.waivers import Waiver
from pytest_trt.latency import summarize
from pytest_trt.record import Record

ID = "digits-fp16-b8-tensorrt"


def found(root: Path) -> Match:
    return BaselineStore(root).match(passed().case, environment_of(passed()))


def median(recording: Any) -> float:
    value: float = recording["latency"]["median_ms"]
    return value


def judged(match: Match, median_ms: float, threshold: float = 0.05, **more: Any) -> Any:
    samples = [median_ms * (1 + 1e-4 * (i % 3)) for i in range(30)]
    keys = {"plan": "cd" * 32, "clock": "graph", **more}
    return judge_latency(match, summarize([samples] * 3), threshold=threshold, **keys)


def steady(median_ms: float) -> Record:
    record = passed(median_ms=median_ms)
    assert record.latency is not None
    record.latency["summary"] = summarize([[median_ms * (1 + 1e-4 * (i % 3)) for i in range(30)]] * 3).to_json()
    return record


def test_a_first_recording_is_its_own_anchor(tmp_path: Path):
    BaselineStore(tmp_path).accept([passed()], reason="r")
    match = found(tmp_path)

    assert match.anchor is None
    assert match.entry is not None
    assert anchor_of(match.entry) is match.entry
    assert list(recordings(match)) == ["recent"]


@pytest.mark.parametrize("times", [1, 2, 5])
def test_accepting_never_moves_the_anchor(tmp_path: Path, times: int):
    BaselineStore(tmp_path).accept([passed(median_ms=1.0)], reason="release 1")
    for step in range(1, times + 1):
        BaselineStore(tmp_path).accept([passed(median_ms=1.0 + step)], reason="r")
    match = found(tmp_path)

    assert {name: median(r) for name, r in recordings(match).items()} == {"recent": 1.0 + times, "anchor": 1.0}
    assert match.anchor is not None
    assert match.anchor["reason"] == "release 1"
    assert "anchor" not in match.anchor


def test_the_anchor_moves_when_it_is_told_to(tmp_path: Path):
    BaselineStore(tmp_path).accept([passed(median_ms=1.0)], reason="release 1")
    BaselineStore(tmp_path).accept([passed(median_ms=1.1)], reason="r")
    BaselineStore(tmp_path).accept([passed(median_ms=1.2)], reason="release 2", anchor=True)

    assert {name: median(r) for name, r in recordings(found(tmp_path)).items()} == {"recent": 1.2}


def test_a_release_makes_every_recent_one_the_anchor(tmp_path: Path):
    store = BaselineStore(tmp_path)
    store.accept([passed(median_ms=1.0), passed(profile="b1")], reason="release 1")
    store.accept([passed(median_ms=1.1)], reason="a slower kernel")
    lines = store.move_anchors(reason="release 2")
    entry = found(tmp_path).entry

    assert lines == [f"{ID}: 1 ms ±2.8% → 1.1 ms ±2.8%"]
    assert entry is not None
    assert (entry["reason"], entry["anchored"][10:]) == ("a slower kernel", ": release 2")
    assert "anchor" not in entry
    (file,) = store.files()
    text = file.read_text()
    file.write_text(text + "\n")
    assert BaselineStore(tmp_path).move_anchors(reason="release 3") == []
    assert file.read_text() == text + "\n", "nothing moved, and nothing is written"


@pytest.mark.parametrize(
    ("now", "against", "outcome"),
    [
        (1.0, "recent", "pass"),  # like the anchor, better than the recent one
        (1.09, "anchor", "fail"),  # 4 % in each step
        (1.5, "recent", "fail"),
    ],
)
def test_the_worse_verdict_counts(tmp_path: Path, now: float, against: str, outcome: str):
    BaselineStore(tmp_path).accept([steady(1.0)], reason="r")
    BaselineStore(tmp_path).accept([steady(1.05)], reason="r")
    judgement = judged(found(tmp_path), now, 0.03 if outcome == "fail" else 0.05)

    assert judgement.verdict.outcome.value == outcome
    assert judgement.against == against
    other = "anchor" if against == "recent" else "recent"
    assert judgement.to_json()[other]["ratio"] == pytest.approx(judgement.verdicts[other].ratio, abs=1e-4)
    assert against not in judgement.to_json()


def test_a_better_verdict_takes_the_recent_ones_place(tmp_path: Path):
    BaselineStore(tmp_path).accept([steady(1.0)], reason="r")
    BaselineStore(tmp_path).accept([steady(2.0)], reason="r")
    match = found(tmp_path)
    interleaved = judged(match, 1.0).verdicts["recent"]
    judgement = judged(match, 1.0, beside={"recent": interleaved})

    assert judgement.verdicts["recent"] is interleaved
    assert set(judgement.verdicts) == {"recent", "anchor"}


@pytest.mark.parametrize(("now", "against"), [(1.0, "recent"), (1.5, "anchor")])
def test_an_anchor_whose_engine_is_gone_turns_a_run_red_but_does_not_leave_it_open(
    tmp_path: Path, now: float, against: str
):
    """Its plan is another one, so that the lottery is between them: only a large difference can be told."""
    BaselineStore(tmp_path).accept([steady(1.0)], reason="r")
    BaselineStore(tmp_path).accept([steady(1.001)], reason="r")
    match = found(tmp_path)
    assert match.entry is not None
    match = replace(match, entry={**match.entry, "anchor": {**match.entry["anchor"], "plan": "ef" * 32}})
    recent = judged(match, 1.0).verdicts["recent"]
    judgement = judged(match, now, beside={"recent": recent})

    assert judgement.against == against
    assert judgement.verdicts["anchor"].outcome.value == ("inconclusive" if now == 1.0 else "fail")


def test_a_verdict_beside_that_cannot_tell_leaves_the_run_open(tmp_path: Path):
    BaselineStore(tmp_path).accept([steady(1.0)], reason="r")
    BaselineStore(tmp_path).accept([steady(1.001)], reason="r")
    match = found(tmp_path)
    open_still = judged(match, 1.0, plan="ef" * 32).verdicts["recent"]
    judgement = judged(match, 1.0, beside={"recent": open_still})

    assert {name: v.outcome.value for name, v in judgement.verdicts.items()} == {
        "recent": "inconclusive",
        "anchor": "pass",
    }
    assert judgement.against == "recent"


def test_a_waiver_raises_the_threshold(tmp_path: Path):
    BaselineStore(tmp_path).accept([steady(1.0)], reason="r")
    waiver = Waiver("*", "jane", "late", date(2999, 1, 1), at_most=0.5)
    match = replace(found(tmp_path), waivers=(waiver,))

    assert judged(found(tmp_path), 1.3).verdict.outcome.value == "fail"
    assert judged(match, 1.3).verdict.outcome.value == "pass"
    assert judged(match, 1.7).verdict.outcome.value == "fail"


def test_clocks_are_not_mixed(tmp_path: Path):
    BaselineStore(tmp_path).accept([passed()], reason="r")

    assert judged(found(tmp_path), 1.0, clock="sync") is None
    assert judged(Match("missing"), 1.0) is None


def test_another_plan_than_the_recordings_is_judged_as_a_rebuild(tmp_path: Path):
    BaselineStore(tmp_path).accept([passed()], reason="r")

    assert judged(found(tmp_path), 1.0, plan="99" * 32).verdict.rebuilt
    assert not judged(found(tmp_path), 1.0).verdict.rebuilt


def test_accuracy_is_held_against_both(tmp_path: Path):
    for rmse in (1e-4, 1.9e-4):
        record = passed()
        record.accuracy = accuracy(rmse=rmse)
        BaselineStore(tmp_path).accept([record], reason="r")
    (sentence,) = accuracy_sentences(found(tmp_path), accuracy(rmse=3e-4)["outputs"])

    assert sentence.startswith("output 'y': rmse 0.0001 → 0.0003")
    assert "(anchor of " in sentence
    assert len(accuracy_sentences(found(tmp_path), accuracy(rmse=1)["outputs"])) == 2


def test_the_first_recording_of_a_part_becomes_its_anchor(tmp_path: Path):
    alone = passed()
    alone.latency = None
    BaselineStore(tmp_path).accept([alone], reason="accuracy")
    BaselineStore(tmp_path).accept([passed(median_ms=1.5)], reason="both")
    BaselineStore(tmp_path).accept([passed(median_ms=2.0)], reason="slower")
    anchor = found(tmp_path).anchor

    assert anchor is not None
    assert (anchor["reason"], median(anchor), anchor["plan"]) == ("accuracy", 1.5, "cd" * 32)


def test_the_first_latency_of_a_clock_becomes_its_anchor(tmp_path: Path):
    for median_ms, clock in ((1.0, "sync"), (1.5, "graph"), (2.0, "graph")):
        record = passed(median_ms=median_ms)
        assert record.latency is not None
        record.latency["clock"] = clock
        BaselineStore(tmp_path).accept([record], reason=f"{median_ms} {clock}")
    anchor = found(tmp_path).anchor

    assert anchor is not None
    assert (anchor["reason"], median(anchor), anchor["latency"]["clock"]) == ("1.0 sync", 1.5, "graph")


def test_what_a_later_version_noted_is_kept(tmp_path: Path):
    BaselineStore(tmp_path).accept([passed()], reason="r")
    (file,) = BaselineStore(tmp_path).files()
    content = json.loads(file.read_text())
    content["cases"][ID]["shades"] = ["a"]
    content["note"] = "by hand"
    file.write_text(json.dumps(content))
    BaselineStore(tmp_path).accept([passed(median_ms=2.0)], reason="r")
    content = json.loads(file.read_text())

    assert content["note"] == "by hand"
    assert content["cases"][ID]["shades"] == content["cases"][ID]["anchor"]["shades"] == ["a"]


def test_a_recording_knows_its_engine(tmp_path: Path):
    BaselineStore(tmp_path).accept([passed()], reason="r")
    alone = passed()
    alone.latency = None
    assert alone.engine is not None
    alone.engine["digest"] = "77" * 32
    BaselineStore(tmp_path).accept([alone], reason="r")
    entry = found(tmp_path).entry

    assert entry is not None
    assert entry["engine"] == "ab" * 32  # the one that the stored latency was measured on
