"""Accepting baselines: what each mode writes. Outputs that are wrong never become a baseline."""

from __future__ import annotations

from pathlib import Path

import pytest
from records import accuracy, failed, passed, simulated

from pytest_trt.baselines.state import complaint
from pytest_trt.baselines.store import BaselineStore, environment_of
from pytest_trt.baselines.update import MODES as EVERY_MODE
from pytest_trt.baselines.update import accept, selected, update
from pytest_trt.errors import UsageError
from pytest_trt.record import Record
from pytest_trt.spec.case import Case

MODES = ("new", "failed", "all")


def slower() -> Record:
    """Right, but slower than its baseline."""
    record = passed(median_ms=2.0)
    record.outcomes["latency"] = "failed"
    return record


def drifted() -> Record:
    """Within tolerance, but with a greater error than its baseline."""
    record = passed()
    record.outcomes["accuracy"] = "failed"
    record.accuracy = {**accuracy(rmse=1.0), "drift": ["output 'y': rmse 0.0001 → 1"]}
    return record


def wrong() -> Record:
    return failed()


def not_compared() -> Record:
    record = passed()
    record.outcomes["accuracy"] = "error"
    record.accuracy = None
    return record


def not_honoured() -> Record:
    """fp16 was asked, and every layer runs in fp32."""
    record = passed()
    record.outcomes = {"accuracy": "failed"}
    assert record.engine is not None
    record.engine["not_honoured"] = "fp16 was asked, every layer runs in float32"
    return record


def not_run() -> Record:
    return Record(Case("digits", "bf16", "b8", "tensorrt"), {"accuracy": "skipped"}, environment=passed().environment)


def other_driver(record: Record) -> Record:
    record.environment = {**(record.environment or {}), "driver": "580.1"}
    return record


@pytest.fixture
def store(tmp_path: Path) -> BaselineStore:
    return BaselineStore(tmp_path / "baselines")


@pytest.fixture
def recorded(store: BaselineStore) -> BaselineStore:
    """A store that has the baseline of ``passed()``."""
    store.accept([passed()], reason="first recording")
    return store


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("make", [wrong, not_compared, not_honoured, not_run])
def test_what_is_wrong_or_did_not_run_is_never_written(store: BaselineStore, mode: str, make):
    assert selected(store, [make()], mode) == []
    assert update(store, [make()], mode, "because") == [f"baselines: nothing to write ({mode})"]
    assert not store.root.exists()


@pytest.mark.parametrize("mode", MODES)
def test_what_has_no_baseline_is_written_in_every_mode(store: BaselineStore, mode: str):
    records = [passed(), slower(), simulated()]

    assert selected(store, records, mode) == records


@pytest.mark.parametrize(
    ("make", "modes"),
    [
        (passed, ["all"]),
        (slower, ["failed", "all"]),
        (drifted, ["failed", "all"]),
        (lambda: other_driver(passed()), ["failed", "all"]),
        (wrong, []),
    ],
    ids=["passed", "slower", "drifted", "stale", "wrong"],
)
def test_what_has_a_baseline_is_replaced_by_these_modes(recorded: BaselineStore, make, modes: list[str]):
    assert [mode for mode in MODES if selected(recorded, [make()], mode)] == modes


def test_a_part_alone_is_enough(store: BaselineStore):
    for part in ("accuracy", "latency"):
        record = passed()
        setattr(record, part, None)
        assert selected(store, [record], "new") == [record]


def test_updating_writes_and_says_what(store: BaselineStore):
    record = passed()
    lines = update(store, [record, wrong()], "new", None)

    assert lines == [f"baselines: 1 written below {store.root}", "  digits-fp16-b8-tensorrt: none → 1.25 ms ±2.8%"]
    assert record.baseline == {"state": "new", "median_ms": 1.24}
    entry = store.match(record.case, environment_of(record)).entry
    assert entry is not None
    assert entry["reason"] == "first recording"


def test_the_reason_is_kept(recorded: BaselineStore):
    lines = update(recorded, [slower()], "failed", "exact softmax is slower")

    assert lines[1].startswith("  digits-fp16-b8-tensorrt: 1.25 ms ±2.8% → 2 ms ±2.8%, +60.0%")
    entry = recorded.match(passed().case, environment_of(passed())).entry
    assert entry is not None
    assert entry["reason"] == "exact softmax is slower"


@pytest.mark.parametrize("mode", [mode for mode in EVERY_MODE if mode != "new"])
def test_what_changes_an_entry_needs_a_reason(recorded: BaselineStore, mode: str):
    before = {file: file.read_bytes() for file in recorded.files()}

    with pytest.raises(UsageError, match=rf"changing baselines \({mode}\) needs a reason"):
        accept(recorded, [slower()], mode, " ")
    assert {file: file.read_bytes() for file in recorded.files()} == before


def test_updating_changes_no_outcome(recorded: BaselineStore):
    record = slower()
    update(recorded, [record], "all", "because")

    assert record.outcome == "failed"


def test_updating_twice_writes_nothing_new(store: BaselineStore):
    update(store, [passed()], "new", None)

    assert update(store, [passed()], "new", None) == ["baselines: nothing to write (new)"]


def part(record: Record, name: str) -> Record:
    """*record* of a run that measured *name* alone."""
    setattr(record, {"latency": "accuracy", "accuracy": "latency"}[name], None)
    return record


def by_clock(name: str) -> Record:
    record = passed()
    assert record.latency is not None
    record.latency["clock"] = name
    return record


@pytest.mark.parametrize(
    ("stored", "make", "modes"),
    [
        (part(passed(), "accuracy"), passed, ["new", "failed", "all"]),
        (part(passed(), "accuracy"), lambda: part(passed(), "accuracy"), ["all"]),
        (part(passed(), "accuracy"), lambda: other_driver(passed()), ["failed", "all"]),
        (passed(), lambda: part(passed(), "accuracy"), ["all"]),
        (passed(), lambda: by_clock("sync"), ["failed", "all"]),
    ],
    ids=["no latency yet", "still no latency", "no latency and stale", "latency not measured", "another clock"],
)
def test_a_latency_that_compares_with_nothing_is_missing_or_stale(store: BaselineStore, stored, make, modes: list[str]):
    store.accept([stored], reason="r")

    assert [mode for mode in MODES if selected(store, [make()], mode)] == modes


def complained(state: str, **messages: str) -> Record:
    """Failed in the parts of *messages*, one of which may only say what a strict run makes of the waiver."""
    record = passed()
    waiver = {"owner": "jane", "reason": "late", "expires": "2027-01-31", "expired": state == "expired"}
    record.baseline = {"state": state, "waivers": [waiver]}
    said = complaint(record.baseline, strict=True)
    assert said is not None
    for name, message in messages.items():
        record.outcomes[name] = "failed"
        record.messages[name] = message.format(said=said[0])
    return record


@pytest.mark.parametrize("state", ["waived", "expired"])
@pytest.mark.parametrize(
    ("messages", "worse"),
    [
        ({"latency": "{said}"}, False),
        ({"latency": "{said}", "accuracy": "{said}"}, False),
        ({"latency": "slower by 60 %"}, True),
        ({"latency": "{said}", "accuracy": "rmse 0.0001 → 1"}, True),
        ({}, False),
    ],
)
def test_that_a_waiver_ends_makes_nothing_worse(recorded: BaselineStore, state: str, messages, worse: bool):
    record = complained(state, **messages)

    assert selected(recorded, [record], "failed") == ([record] if worse else [])


def test_what_is_renamed_and_slower_waits_for_its_name(store: BaselineStore):
    store.accept([passed("old")], reason="r")
    record = slower()
    record.case = passed("new").case

    assert selected(store, [record], "failed") == []


def test_a_case_is_not_renamed_from_one_that_ran_beside_it(store: BaselineStore):
    store.accept([passed("old", median_ms=1.0)], reason="r")
    old, new = passed("old"), passed("new")

    assert selected(store, [old, new], "renamed") == []
    assert update(store, [old, new], "new", None)[1:] == ["  new-fp16-b8-tensorrt: none → 1.25 ms ±2.8%"]
    assert "anchor" not in (store.match(new.case, environment_of(new)).entry or {})


def test_a_rename_takes_the_entry_that_nobody_uses(store: BaselineStore):
    store.accept([passed("gone", median_ms=1.0), passed("kept")], reason="r")
    done = accept(store, [passed("kept"), passed("new")], "renamed", "shorter")

    assert done.lines == [
        f"baselines: 1 renamed (shorter) below {store.root}",
        "  gone-fp16-b8-tensorrt → new-fp16-b8-tensorrt: 1 ms ±2.8%",
    ]
    entry = store.match(passed("new").case, environment_of(passed())).entry
    assert entry is not None
    assert (entry["reason"], entry["renamed"][10:]) == ("r", ": shorter")


@pytest.mark.parametrize(("mode", "anchored"), [("all", 1.25), ("anchor", None)])
def test_only_one_mode_moves_the_anchor(recorded: BaselineStore, mode: str, anchored: float | None):
    accept(recorded, [passed(median_ms=2.0)], mode, "because")
    anchor = recorded.match(passed().case, environment_of(passed())).anchor

    assert (anchor and anchor["latency"]["median_ms"]) == anchored


def test_a_record_that_knows_neither_engine_nor_baseline(store: BaselineStore):
    record = part(passed(), "accuracy")
    record.engine = record.baseline = None

    assert selected(store, [record], "orphaned") == []
    assert accept(store, [record], "new", None).written == 1
    assert record.baseline == {"state": "new"}


def test_an_old_entry_is_given_to_one_new_name(store: BaselineStore):
    store.accept([passed("old")], reason="r")
    records = [passed("new"), passed("newer")]

    assert selected(store, records, "renamed") == records
    assert accept(store, records, "renamed", "two of one").written == 1
    assert store.rename([passed("new")], reason="it has its name") == []
    assert store.remove([passed("old")]) == []
