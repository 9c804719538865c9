"""Renamed, orphaned, unsteady; and two processes that accept at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from records import passed

from pytest_trt.baselines.files import SCHEMA_VERSION, read, write
from pytest_trt.baselines.orphans import orphaned_cases
from pytest_trt.baselines.repeatability import outputs_that_differ, unsteady_latency
from pytest_trt.baselines.state import Match, baseline_notes
from pytest_trt.baselines.store import BaselineStore, environment_of
from pytest_trt.baselines.update import accept, selected
from pytest_trt.errors import UsageError
from pytest_trt.record import Record
from pytest_trt.spec.case import Case

REPOSITORY = Path(__file__).parents[2]


def match(root: Path, record: Record, **more: Any) -> Match:
    fingerprint = (record.engine or {})["model_fingerprint"]
    return BaselineStore(root).match(record.case, environment_of(record), fingerprint=fingerprint, **more)


def on(record: Record, **changes: str) -> Record:
    record.environment = {**(record.environment or {}), **changes}
    return record


def on_driver(record: Record, driver: str) -> Record:
    return on(record, driver=driver)


def other_model(record: Record) -> Record:
    assert record.engine is not None
    record.engine["model_fingerprint"] = "f" * 64
    return record


# Renamed.


def test_the_same_model_and_axes_under_another_name_is_renamed(tmp_path: Path):
    BaselineStore(tmp_path).accept([passed("old")], reason="r")
    found = match(tmp_path, passed("new"))

    assert (found.state, found.renamed_from, found.gates) == ("renamed", "old-fp16-b8-tensorrt", False)
    assert found.to_json() == {"state": "renamed", "median_ms": 1.25, "from": "old-fp16-b8-tensorrt"}


@pytest.mark.parametrize(
    ("record", "known"),
    [
        (passed("new", profile="b1"), ()),
        (other_model(passed("new")), ()),
        (passed("new"), ("old", "new")),
    ],
    ids=["axes", "fingerprint", "exists beside it"],
)
def test_what_is_no_rename(tmp_path: Path, record: Record, known: tuple[str, ...]):
    BaselineStore(tmp_path).accept([passed("old")], reason="r")

    assert match(tmp_path, record, known=known).state == "missing"


def test_models_of_which_no_fingerprint_is_known_are_not_taken_for_each_other(tmp_path: Path):
    record = passed("old")
    record.engine = None
    BaselineStore(tmp_path).accept([record], reason="r")

    assert BaselineStore(tmp_path).match(passed("new").case, environment_of(record), fingerprint="").state == "missing"


def test_the_entry_of_another_device_is_no_rename(tmp_path: Path):
    BaselineStore(tmp_path).accept([on(passed("old"), device="NVIDIA T4 15360 MB sm_75")], reason="r")

    assert match(tmp_path, passed("new")).state == "missing"


def test_a_rename_is_found_beside_a_broken_file(tmp_path: Path):
    BaselineStore(tmp_path).accept([passed("old")], reason="r")
    (file,) = BaselineStore(tmp_path).files()
    for name in ("a.json", "z.json"):
        file.with_name(name).write_text("")

    assert match(tmp_path, passed("new")).renamed_from == "old-fp16-b8-tensorrt"


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ({"a": ("550.1", "2026-03-01"), "b": ("570.86.15", "2026-01-01")}, "b"),
        ({"b": ("570.86.15", "2026-01-01"), "c": ("550.1", "2026-03-01")}, "b"),
        ({"a": ("570.86.15", "2026-02-01"), "b": ("570.86.15", "2026-01-01")}, "a"),
        ({"a": ("550.1", "2026-02-01"), "b": ("550.1", "2026-01-01")}, "a"),
        ({"a": ("570.86.15", "2026-01-01"), "b": ("570.86.15", "2026-01-01")}, "b"),
    ],
    ids=["the present environment", "whatever their order", "the latest", "of what is alike", "then the name"],
)
def test_of_several_old_names_one_is_taken(tmp_path: Path, stored: dict[str, tuple[str, str]], expected: str):
    for name, (driver, _) in stored.items():
        BaselineStore(tmp_path).accept([on(passed(name), driver=driver)], reason="r")
    for file in BaselineStore(tmp_path).files():
        content = read(file)
        for entry in content["cases"].values():
            entry["recorded"] = stored[file.stem][1]
        write(file, content)

    assert match(tmp_path, passed("new")).renamed_from == f"{expected}-fp16-b8-tensorrt"


def test_an_old_name_may_be_in_several_environments(tmp_path: Path):
    for driver in ("550.1", "560.1"):
        BaselineStore(tmp_path).accept([on(passed("old"), driver=driver)], reason="r")

    assert match(tmp_path, passed("new")).renamed_from == "old-fp16-b8-tensorrt"


def test_renamed_and_stale_at_once_says_both(tmp_path: Path):
    BaselineStore(tmp_path).accept([on_driver(passed("old"), "550.1")], reason="r")
    found = match(tmp_path, passed("new"))
    BaselineStore(tmp_path).rename([passed("new")], reason="moved")

    assert (found.state, found.differences) == ("renamed", ("driver: 550.1 → 570.86.15",))
    assert match(tmp_path, passed("new")).state == "stale"


def test_renaming_keeps_the_anchor_and_the_others(tmp_path: Path):
    store = BaselineStore(tmp_path)
    store.accept([passed("old"), passed("old", profile="b1")], reason="r")
    store.accept([passed("old", median_ms=2.0)], reason="r")
    lines = BaselineStore(tmp_path).rename([passed("new")], reason="moved")
    found = match(tmp_path, passed("new"))

    assert lines == ["old-fp16-b8-tensorrt → new-fp16-b8-tensorrt: 2 ms ±2.8%"]
    assert found.state == "current"
    assert found.anchor is not None
    assert found.anchor["latency"]["median_ms"] == 1.25
    assert found.entry is not None
    assert (found.entry["reason"], found.entry["renamed"][10:]) == ("r", ": moved")
    assert match(tmp_path, passed("old", profile="b1")).state == "current"
    assert match(tmp_path, passed("old"), known=("new",)).state == "missing"


def test_a_name_that_became_free_is_taken_by_another_one(tmp_path: Path):
    store = BaselineStore(tmp_path)
    store.accept([passed("a"), other_model(passed("c", median_ms=2.0))], reason="r")
    lines = store.rename([passed("b"), other_model(passed("a"))], reason="shifted")

    assert len(lines) == 2
    for found in (store, BaselineStore(tmp_path)):  # what was read before, and what is in the files
        medians = [found.match(passed(name).case, environment_of(passed())).to_json() for name in "abc"]
        assert medians == [
            {"state": "current", "median_ms": 2.0},
            {"state": "current", "median_ms": 1.25},
            {"state": "missing"},
        ]


def test_a_rename_goes_to_its_own_environments_file(tmp_path: Path):
    """Two environments of one name have numbered folders, and not every model is in each."""
    BaselineStore(tmp_path).accept([on_driver(passed("old"), "550.1")], reason="r")
    BaselineStore(tmp_path).accept([on_driver(passed("new", profile="b1"), "580.1")], reason="r")
    BaselineStore(tmp_path).rename([on_driver(passed("new"), "550.1")], reason="moved")

    assert match(tmp_path, on_driver(passed("new"), "550.1")).state == "current"
    assert match(tmp_path, on_driver(passed("new"), "580.1")).state == "stale"


@pytest.mark.parametrize(
    ("mode", "writes"), [("new", False), ("failed", False), ("renamed", True), ("all", True), ("anchor", True)]
)
def test_a_rename_is_accepted_explicitly(tmp_path: Path, mode: str, writes: bool):
    store = BaselineStore(tmp_path)
    store.accept([passed("old")], reason="r")

    assert bool(selected(store, [passed("new")], mode)) is writes


def test_recording_a_renamed_case_anew_does_not_forget_its_anchor(tmp_path: Path):
    store = BaselineStore(tmp_path)
    store.accept([passed("old", median_ms=1.0)], reason="r")
    accept(store, [passed("new", median_ms=1.4)], "all", "nightly")
    anchor = match(tmp_path, passed("new")).anchor

    assert anchor is not None
    assert anchor["latency"]["median_ms"] == 1.0


# Orphaned.


def case(profile: str, precision: str = "fp16", **more: Any) -> Case:
    return Case("net", precision, profile, "tensorrt", **more)


@pytest.mark.parametrize(
    ("entry", "orphaned"),
    [
        (case("gone"), True),
        (case("b8"), False),
        (case("gone", "int8"), False),  # the command line may have left int8 out
        (case("gone", tactics=("-CUBLAS",)), False),
        (case("gone", graph="simplified"), False),
        (case("gone", options=(("refit", "on"),)), False),
        (Case("net-2", "fp16", "gone", "tensorrt"), False),
        (Case("net", "fp16", "gone", "fake"), False),
        (Case("net", "fp16", "gone", "onnxruntime-cpu"), False),
    ],
)
def test_an_orphan_lacks_nothing_but_its_profile(entry: Case, orphaned: bool):
    assert orphaned_cases([entry.id], [case("b1"), case("b8")]) == ([entry] if orphaned else [])


def test_axes_that_are_in_the_run_are_judged_each():
    run = [case("b1", tactics=("-CUBLAS",)), case("b1", "int8", graph="simplified")]
    gone = [case("b8", tactics=("-CUBLAS",)), case("b8", "int8", graph="simplified")]

    assert orphaned_cases([c.id for c in gone], run) == gone


def test_a_precision_that_begins_like_another_is_not_taken_for_it():
    assert orphaned_cases([case("b1", "int8-minmax").id], [case("b1", "int8")]) == []
    assert orphaned_cases([case("b8", "int8-minmax").id], [case("b1", "int8-minmax")]) == [case("b8", "int8-minmax")]


def test_orphans_of_another_environment_are_not_judged(tmp_path: Path):
    store = BaselineStore(tmp_path)
    store.accept([passed(profile="gone"), on_driver(passed(profile="older"), "550.1")], reason="r")

    assert [c.profile for c, _ in store.orphans([passed().case], environment_of(passed()))] == ["gone"]


def test_removing_takes_the_entry_and_an_empty_file(tmp_path: Path):
    store = BaselineStore(tmp_path)
    store.accept([passed(), passed(profile="gone")], reason="r")
    record = passed(profile="gone")
    record.baseline = {"state": "orphaned"}
    done = accept(store, [passed(), record], "orphaned", "no batches of 4")

    assert done.lines[0] == f"baselines: 1 orphaned (no batches of 4) below {tmp_path}"
    assert done.lines[1:] == ["  digits-fp16-gone-tensorrt: 1.25 ms ±2.8% → none"]
    assert match(tmp_path, passed()).state == "current"
    store.remove([passed()])
    assert store.files() == []
    assert match(tmp_path, passed()).state == "missing"


def test_only_the_entry_of_the_present_environment_is_removed(tmp_path: Path):
    store = BaselineStore(tmp_path)
    store.accept([passed()], reason="r")

    assert store.remove([on_driver(passed(), "580.1")]) == []
    assert match(tmp_path, passed()).state == "current"


# What repeats.


def loads(*medians: float, clock: str = "graph", within_se: float = 0.0) -> Record:
    record = passed()
    assert record.latency is not None
    record.latency |= {"clock": clock, "loads_ms": list(medians)}
    record.latency["summary"]["within_se"] = within_se
    return record


@pytest.mark.parametrize(
    ("record", "steady"),
    [
        (loads(1.0, 1.01, 0.99), True),
        (loads(1.0, 1.076), True),  # as far as one plan's loads were seen apart
        (loads(1.0, 1.1), False),
        (loads(1.0, 1.3, 1.0), False),
        (loads(1.0, 1.3, 1.0, within_se=0.1), True),
        (loads(1.0, 2.5, clock="host"), True),
        (loads(1.0, 1.01, clock="simulated"), False),
        (loads(1.0, 1.3, clock="queued+graph"), False),
        (loads(1.0, 1.3, clock="isolated+graph+held"), False),
        (loads(1.0), True),
        (loads(), True),
        (passed(), True),
    ],
)
def test_loads_must_agree(record: Record, steady: bool):
    assert (unsteady_latency(record) == "") is steady


@pytest.mark.parametrize("mode", ["new", "all", "anchor"])
def test_a_latency_that_does_not_repeat_is_never_written(tmp_path: Path, mode: str):
    done = accept(BaselineStore(tmp_path), [loads(1.0, 1.5)], mode, "because")

    assert (done.written, done.refused) == (0, 1)
    assert done.lines[0].startswith("baselines: digits-fp16-b8-tensorrt: not written: its loads differ by 50%")
    assert BaselineStore(tmp_path).files() == []


def test_outputs_that_differ_at_a_point_do_not_repeat():
    record = passed()
    for repeats in (True, False):
        record.accuracy = {**(record.accuracy or {}), "points": {"opt": {"repeats": repeats}}}
        assert bool(outputs_that_differ(record)) is not repeats


@pytest.mark.parametrize(("mode", "written"), [("new", 0), ("failed", 0), ("all", 1), ("anchor", 1)])
def test_outputs_that_do_not_repeat_are_written_only_when_all_are(tmp_path: Path, mode: str, written: int):
    record = passed()
    record.streams = {"repeats": False}
    done = accept(BaselineStore(tmp_path), [record], mode, "atomics")

    assert outputs_that_differ(record)
    assert (done.written, done.refused) == (written, 1 - written)
    if written:
        entry = match(tmp_path, passed()).entry
        assert entry is not None
        assert entry["unsteady"] == outputs_that_differ(record)
        assert any("written all the same" in line for line in done.lines)


@pytest.mark.parametrize("mode", ["failed", "all", "anchor"])
def test_nothing_is_replaced_without_a_reason(tmp_path: Path, mode: str):
    with pytest.raises(UsageError, match="needs a reason"):
        accept(BaselineStore(tmp_path), [passed()], mode, None)


def test_what_failed_is_named_when_it_is_accepted(tmp_path: Path):
    BaselineStore(tmp_path).accept([passed()], reason="r")
    record = passed(median_ms=2.0)
    record.outcomes["latency"] = "failed"
    done = accept(BaselineStore(tmp_path), [record], "failed", "exact softmax")

    assert done.lines[-1] == "  1 of them failed in the run that recorded them, and stay failed there"
    assert record.outcome == "failed"


def test_the_environments_difference_is_told(tmp_path: Path):
    BaselineStore(tmp_path).accept([passed()], reason="r")
    lines = BaselineStore(tmp_path).accept([on_driver(passed(median_ms=1.3), "580.1")], reason="r")

    assert lines[0].startswith("digits-fp16-b8-tensorrt: 1.25 ms ±2.8% → 1.3 ms ±2.8%, +4.0% (95 % interval ")
    assert lines[1] == "  environment driver: 570.86.15 → 580.1"


# The notes.


def test_each_state_has_its_note():
    records = [passed(profile=name) for name in ("a", "b", "c", "d")]
    waiver = {"owner": "jane", "reason": "late", "expires": "2027-01-31"}
    records[0].baseline = {"state": "missing", "elsewhere": ["NVIDIA T4"]}
    records[1].baseline = {"state": "renamed", "from": "x"}
    records[2].baseline = {"state": "waived", "waivers": [waiver]}
    records[3].baseline = {"state": "orphaned"}
    text = "\n".join(baseline_notes(records))

    assert "1 missing" in text
    assert "other devices have them, which says nothing here: NVIDIA T4" in text
    assert "digits-fp16-b-tensorrt seems to be x renamed" in text
    assert "digits-fp16-c-tensorrt waived until 2027-01-31 by jane: late" in text
    assert "1 orphaned, their cases are gone: digits-fp16-d-tensorrt" in text


def noted(state: str, **baseline: Any) -> Record:
    record = passed()
    record.baseline = {"state": state, **baseline}
    return record


def test_what_is_stale_is_noted_with_what_changed_and_what_got_slower():
    slower = noted("stale", differences=["driver: 570 → 580", "cuda: 12 → 13"])
    slower.verdict = {"outcome": "fail", "ratio": 1.2345}
    alike = noted("stale", differences=["driver: 570 → 580"])
    alike.verdict = None

    assert baseline_notes([slower, alike]) == [
        "baselines: 2 stale, compared but not gated (driver: 570 → 580; cuda: 12 → 13)",
        "baselines: digits-fp16-b8-tensorrt is slower than its stale one: 1.23x",
    ]


def test_what_is_stale_in_its_latency_alone_has_a_note_of_its_own():
    assert baseline_notes([noted("stale", part="latency", differences=["the sync clock, then graph"])]) == [
        "baselines: 1 stale in their latency, which nothing gated (the sync clock, then graph)"
    ]


def test_what_is_new_is_counted_and_what_is_current_needs_no_note():
    assert baseline_notes([noted("new"), noted("current"), noted("new")]) == ["baselines: 2 new"]
    assert baseline_notes([noted("current")]) == []


def test_a_waiver_that_has_ended_is_noted_as_such():
    waiver = {"owner": "jane", "reason": "late", "expires": "2027-01-31", "expired": True}

    assert baseline_notes([noted("expired", waivers=[waiver])]) == [
        "baselines: digits-fp16-b8-tensorrt waived EXPIRED on 2027-01-31 by jane: late"
    ]


# Files.


def test_a_file_of_the_first_schema_is_read_as_the_second(tmp_path: Path):
    BaselineStore(tmp_path).accept([passed()], reason="r")
    (file,) = BaselineStore(tmp_path).files()
    second = file.read_text()
    file.write_text(second.replace(f'"schema": {SCHEMA_VERSION}', '"schema": 1'))

    assert match(tmp_path, passed()).state == "current"
    write(file, read(file))
    assert file.read_text() == second


@pytest.mark.parametrize("file", sorted(REPOSITORY.glob("baselines/*/*.json")), ids=lambda f: f.name)
def test_the_repositorys_own_files_are_as_the_package_writes_them(tmp_path: Path, file: Path):
    write(tmp_path / file.name, read(file))

    assert (tmp_path / file.name).read_bytes() == file.read_bytes()


ACCEPT = """
import sys
from pathlib import Path
from records import passed
from pytest_trt.baselines.store import BaselineStore
from pytest_trt.baselines.update import accept
store = BaselineStore(Path(sys.argv[1]))
store.files() and store.load(store.files()[0])
sys.stdin.readline()
for number in range(8):
    accept(store, [passed(profile=f"{sys.argv[2]}.{number}")], "new", None)
"""


def test_processes_that_accept_at_once_lose_nothing(tmp_path: Path):
    BaselineStore(tmp_path).accept([passed()], reason="r")
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", ACCEPT, str(tmp_path), str(name)],
            stdin=subprocess.PIPE,
            cwd=REPOSITORY / "tests",
            env={"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}", "TMPDIR": str(tmp_path), "PATH": ""},
        )
        for name in range(3)
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"go\n")
        writer.stdin.close()
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    (file,) = BaselineStore(tmp_path).files()

    assert len(json.loads(file.read_text())["cases"]) == 1 + 3 * 8


def test_of_two_that_record_the_same_case_the_first_one_stays(tmp_path: Path):
    """``new`` replaces nothing, also where another process was faster."""
    BaselineStore(tmp_path).accept([passed(profile="b1")], reason="r")
    late = BaselineStore(tmp_path)
    assert late.match(passed().case, environment_of(passed())).state == "missing"  # and the file is read
    BaselineStore(tmp_path).accept([passed()], reason="first")
    done = accept(late, [passed(median_ms=9.0)], "new", None)

    assert done.written == 0
    assert match(tmp_path, passed()).to_json() == {"state": "current", "median_ms": 1.25}
