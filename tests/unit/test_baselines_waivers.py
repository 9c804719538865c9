"""Waivers: what a file may say, whom it concerns, and when it ends."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from records import passed

from pytest_trt.baselines.state import Match, complaint
from pytest_trt.baselines.store import BaselineStore, environment_of
from pytest_trt.baselines.waivers import Waiver, read_waivers, waivers_of
from pytest_trt.errors import BaselineError

GOOD = """
[[waiver]]
case = "net-fp16-b8[-CUBLAS]-*"
owner = "jane"
reason = "waits for the plugin"
expires = 2999-01-31
gates = ["latency", "accuracy"]
at_most = "10%"
"""
LAST = date(2026, 5, 31)


def waiver(case: str = "net-fp16-b8-fake", expires: date = date(2999, 1, 1), **more: object) -> Waiver:
    return Waiver(case, "jane", "because", expires, **more)  # type: ignore[arg-type]


def test_a_file_is_read(tmp_path: Path):
    (tmp_path / "waivers.toml").write_text(GOOD)

    assert read_waivers(tmp_path) == (
        Waiver(
            "net-fp16-b8[-CUBLAS]-*", "jane", "waits for the plugin", date(2999, 1, 31), ("latency", "accuracy"), 0.1
        ),
    )


def test_no_file_is_no_waiver(tmp_path: Path):
    assert read_waivers(tmp_path) == ()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[[waiver]]", "[[waver]]", "holds something else"),
        ("[[waiver]]", "[waiver]", "holds something else"),
        ("[[waiver]]", "[[waiver]", "cannot be read"),
        ('owner = "jane"', "", "waiver 1: owner is missing"),
        ('reason = "waits for the plugin"', 'reason = " "', "waiver 1: reason must be a text"),
        ("expires = 2999-01-31", "", "waiver 1: expires is missing"),
        ("expires = 2999-01-31", 'expires = "2999-01-31"', "waiver 1: expires must be a date"),
        ("expires = 2999-01-31", "expires = 2999-01-31T00:00:00", "waiver 1: expires must be a date"),
        ('["latency", "accuracy"]', '["speed"]', "there is no gate 'speed'"),
        ('["latency", "accuracy"]', '"latency"', "gates must be a list"),
        ('["latency", "accuracy"]', "[]", "gates must be a list"),
        ('"10%"', "0", "at_most must be a share"),
        ('"10%"', '"much"', "at_most must be a share"),
        ('"10%"', "10", "at_most must be a share: that is 1000 %; 10% or 0.1 is wanted"),
        ("owner", "ower", "unknown key 'ower'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, message: str):
    (tmp_path / "waivers.toml").write_text(GOOD.replace(old, new))

    with pytest.raises(BaselineError, match=r"waivers\.toml") as caught:
        read_waivers(tmp_path)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("net-fp16-b8[-CUBLAS]-fake", True),
        ("net-*[-CUBLAS]-fake", True),
        ("net-*", True),
        ("net", False),
        ("NET-*", False),
        ("net-fp16-b8-*", False),
    ],
)
def test_a_pattern_reads_brackets_as_they_are(pattern: str, matches: bool):
    assert bool(waivers_of([waiver(pattern)], "net-fp16-b8[-CUBLAS]-fake")) is matches


def test_of_several_for_a_gate_the_one_that_holds_longest():
    short, long = waiver(expires=date(2020, 1, 1)), waiver("net-*", expires=date(2999, 1, 1))

    assert waivers_of([long, short], "net-fp16-b8-fake") == waivers_of([short, long], "net-fp16-b8-fake") == (long,)


def test_a_longer_waiver_for_another_gate_hides_none():
    latency, accuracy = waiver(at_most=0.2), waiver(gates=("accuracy",), expires=date(2999, 1, 1))
    held = waivers_of([accuracy, latency], "net-fp16-b8-fake")
    match = Match("current", waivers=held)

    assert set(held) == {latency, accuracy}
    assert not match.gates_on("accuracy")
    assert match.threshold(0.05) == 0.2
    assert match.gates_on("engine")


def test_an_expired_waiver_beside_one_for_another_gate_still_fails():
    ended, holds = waiver(expires=date(2020, 1, 1)), waiver(gates=("accuracy",), expires=date(2999, 1, 1))
    match = Match("current", waivers=waivers_of([ended, holds], "net-fp16-b8-fake"))

    assert match.state == "expired"
    assert match.gates_on("latency")
    assert not match.gates_on("accuracy")
    said = complaint(match.to_json(), strict=False)
    assert said
    assert said[0] == "the waiver expired on 2020-01-01 (jane: because)"


def test_it_holds_on_its_last_day():
    assert not waiver(expires=LAST).expired(LAST)
    assert waiver(expires=LAST).expired(date(2026, 6, 1))


@pytest.mark.parametrize(
    ("found", "given", "state", "latency", "accuracy"),
    [
        ("current", None, "current", True, True),
        ("current", waiver(), "waived", False, True),
        ("current", waiver(gates=("accuracy",)), "waived", True, False),
        ("current", waiver(at_most=0.2), "waived", True, True),
        ("current", waiver(expires=date(2020, 1, 1)), "expired", True, True),
        ("stale", waiver(), "stale", False, False),
        ("missing", waiver(expires=date(2020, 1, 1)), "expired", False, False),
    ],
)
def test_what_it_does_to_the_gates(found: str, given: Waiver | None, state: str, latency: bool, accuracy: bool):
    match = Match(found, waivers=(given,) if given else ())

    assert match.state == match.to_json()["state"] == state
    assert (match.gates_on("latency"), match.gates_on("accuracy")) == (latency, accuracy)


@pytest.mark.parametrize(
    ("given", "threshold"),
    [
        (None, 0.05),
        (waiver(at_most=0.2), 0.2),
        (waiver(at_most=0.01), 0.05),  # a waiver makes nothing stricter
        (waiver(at_most=0.2, expires=date(2020, 1, 1)), 0.05),
        (waiver(at_most=0.2, gates=("accuracy",)), 0.05),
    ],
)
def test_the_slowdown_that_it_allows(given: Waiver | None, threshold: float):
    assert Match("current", waivers=(given,) if given else ()).threshold(0.05) == threshold


@pytest.mark.parametrize("state", ["missing", "stale", "renamed", "orphaned", "expired", "current", "waived", "new"])
def test_what_a_strict_run_complains_of(state: str):
    held = waiver(expires=LAST if state == "expired" else date(2999, 1, 1)).to_json()
    baseline = {"state": state, "differences": ["driver: 570 → 580"], "from": "old", "waivers": [held]}
    strict, lenient = complaint(baseline, strict=True), complaint(baseline, strict=False)

    assert bool(strict) is (state in ("missing", "stale", "renamed", "orphaned", "expired", "waived"))
    assert bool(lenient) is (state == "expired")
    assert complaint(None, strict=True) is None
    if state == "stale":
        assert strict is not None
        assert strict[0] == "the baseline is stale (driver: 570 → 580)"
    if state == "waived":
        assert strict is not None
        assert strict[0] == "the baseline is waived until 2999-01-01 (jane: because)"


def test_a_store_finds_the_waivers_of_a_case(tmp_path: Path):
    (tmp_path / "waivers.toml").write_text(GOOD.replace("net-fp16-b8[-CUBLAS]-*", "digits-*"))
    store = BaselineStore(tmp_path)

    for record, count in ((passed(), 1), (passed("net"), 0)):
        assert len(store.match(record.case, environment_of(record)).waivers) == count
