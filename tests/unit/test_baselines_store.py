"""Baseline files: which stored entry a case is compared with, and how new ones are written."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from records import CPU, ENVIRONMENT, failed, latency, passed, simulated

from pytest_trt.baselines.store import SCHEMA_VERSION, BaselineStore, environment_of
from pytest_trt.errors import BaselineError
from pytest_trt.record import Record

FOLDER = "nvidia-h200_tensorrt_10.16.1"


def on(record: Record, **changes: Any) -> Record:
    """*record* as another machine or version would have made it."""
    record.environment = {**(record.environment or {}), **changes}
    return record


def match(root: Path, record: Record) -> Any:
    """What a new process finds."""
    return BaselineStore(root).match(record.case, environment_of(record))


def test_nothing_is_stored_in_a_folder_that_is_not_there(tmp_path: Path):
    found = match(tmp_path / "none", passed())

    assert (found.state, found.entry, found.file, found.gates) == ("missing", None, None, False)
    assert found.to_json() == {"state": "missing"}
    assert BaselineStore(tmp_path / "none").files() == []


def test_the_same_environment_is_current_and_gates(tmp_path: Path):
    BaselineStore(tmp_path).accept([passed()], reason="first recording")
    found = match(tmp_path, passed())

    assert found.gates
    assert found.file == tmp_path / FOLDER / "digits.json"
    assert found.entry["latency"]["median_ms"] == 1.25
    assert found.to_json() == {"state": "current", "median_ms": 1.25}


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"driver": "580.1"}, "driver: 570.86.15 → 580.1"),
        ({"libraries": {"cuda": "13.0", "tensorrt": "10.16.1"}}, "cuda: 12.8 → 13.0"),
        ({"libraries": {"cuda": "12.8", "tensorrt": "11.0.0"}}, "tensorrt: 10.16.1 → 11.0.0"),
        ({"system": "Windows-AMD64"}, "system: Linux-x86_64 → Windows-AMD64"),
    ],
)
def test_other_versions_on_the_same_device_are_stale(tmp_path: Path, changes: dict[str, Any], difference: str):
    BaselineStore(tmp_path).accept([passed()], reason="first recording")
    found = match(tmp_path, on(passed(), **changes))

    assert (found.state, found.gates, found.differences) == ("stale", False, (difference,))
    assert found.to_json() == {"state": "stale", "median_ms": 1.25, "differences": [difference]}


@pytest.mark.parametrize(
    "changes",
    [{"device": "NVIDIA T4 15360 MB sm_75"}, {"backend": "onnxruntime-cuda"}, CPU],
    ids=["gpu", "backend", "cpu"],
)
def test_another_device_or_backend_is_no_baseline(tmp_path: Path, changes: dict[str, Any]):
    BaselineStore(tmp_path).accept([passed()], reason="first recording")

    found = match(tmp_path, on(passed(), **changes))
    assert (found.state, found.gates, found.entry) == ("missing", False, None)
    assert found.elsewhere == (ENVIRONMENT["device"],)


def test_another_case_has_no_baseline(tmp_path: Path):
    BaselineStore(tmp_path).accept([passed()], reason="first recording")

    assert match(tmp_path, failed()).state == "missing"
    assert match(tmp_path, passed(profile="b1")).state == "missing"
    assert match(tmp_path, passed("digits2")).state == "missing"


def test_current_is_preferred_to_stale_and_a_later_stale_to_an_older_one(tmp_path: Path):
    store = BaselineStore(tmp_path)
    drivers = {"1": 1.0, "2": 2.0, "3": 3.0}
    for driver, median in drivers.items():
        store.accept([on(passed(median_ms=median), driver=driver)], reason="r")
    for file in store.files("digits"):
        content = json.loads(file.read_text())
        for entry in content["cases"].values():
            entry["recorded"] = {"1": "2026-01-03", "2": "2026-02-01", "3": "2025-12-31"}[
                content["environment"]["driver"]
            ]
        file.write_text(json.dumps(content))

    found = match(tmp_path, on(passed(), driver="1"))
    assert (found.state, found.entry["latency"]["median_ms"]) == ("current", 1.0)
    found = match(tmp_path, on(passed(), driver="4"))
    assert (found.state, found.entry["latency"]["median_ms"]) == ("stale", 2.0)
    assert found.differences == ("driver: 2 → 4",)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (passed(profile="a"), passed(profile="n")),  # two new ones, each beside others
        (passed(profile="b8", median_ms=2.0), passed(profile="k1", median_ms=0.5)),  # neighbours that change
        (passed(profile="a"), passed(profile="b8", median_ms=2.0)),  # a new one in front of one that changes
    ],
)
def test_two_branches_merge(tmp_path: Path, ours: Record, theirs: Record):
    sides = {"base": [], "ours": [ours], "theirs": [theirs]}
    for side, records in sides.items():
        store = BaselineStore(tmp_path / side)
        store.accept([passed(profile=name) for name in ("b8", "k1", "z1")], reason="base")
        store.accept(records, reason=side)
    files = [str(tmp_path / side / FOLDER / "digits.json") for side in ("ours", "base", "theirs")]

    merged = subprocess.run(["git", "merge-file", "-p", *files], stdout=subprocess.PIPE, check=False)

    assert merged.returncode == 0
    (tmp_path / "ours" / FOLDER / "digits.json").write_bytes(merged.stdout)
    for record in (ours, theirs):
        entry = match(tmp_path / "ours", record).entry
        assert entry["latency"]["median_ms"] == record.latency["summary"]["median_ms"]


def test_what_is_written(tmp_path: Path):
    lines = BaselineStore(tmp_path).accept([failed(), passed()], reason="new kernels")
    text = (tmp_path / FOLDER / "digits.json").read_text(encoding="utf-8")
    content = json.loads(text)

    assert lines == [
        "digits-int8-b8[-JIT_CONVOLUTIONS]-tensorrt: none → 0.5 ms ±2.8%",
        "digits-fp16-b8-tensorrt: none → 1.25 ms ±2.8%",
    ]
    assert list(content) == ["schema", "environment", "cases"]
    assert (content["schema"], content["environment"]) == (SCHEMA_VERSION, ENVIRONMENT)
    assert list(content["cases"]) == sorted(content["cases"])  # for diffs: the order of a run is not that of the file
    entry = content["cases"]["digits-fp16-b8-tensorrt"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", entry.pop("recorded"))
    assert entry == {
        "reason": "new kernels",
        "model_fingerprint": "0123456789abcdef",
        "accuracy": {"y": {"max_abs": 0.00125, "rmse": 2.5e-4, "cosine": 0.99994, "top1": 1.0}},
        "latency": {"clock": "graph", **latency()["summary"]},
        "plan": "cd" * 32,
        "plan_bytes": 1_234_567,
        "engine": "ab" * 32,
    }
    assert text.endswith("}\n")
    assert "NaN" not in text


def test_one_file_per_model_and_environment(tmp_path: Path):
    BaselineStore(tmp_path).accept([passed(), passed("net"), simulated(), passed(profile="b1")], reason="r")

    assert [f.relative_to(tmp_path).as_posix() for f in BaselineStore(tmp_path).files()] == [
        "amd-epyc-x2_onnxruntime-cpu_1.31.1/net.json",
        f"{FOLDER}/digits.json",
        f"{FOLDER}/net.json",
    ]
    assert len(BaselineStore(tmp_path).files("net")) == 2


def test_simulated_numbers_say_so(tmp_path: Path):
    store = BaselineStore(tmp_path)
    store.accept([simulated(), passed()], reason="r")

    assert match(tmp_path, simulated()).entry["simulated"] is True
    assert "simulated" not in match(tmp_path, passed()).entry


def test_accepting_again_replaces_the_case_and_keeps_the_others(tmp_path: Path):
    BaselineStore(tmp_path).accept([passed(), passed(profile="b1")], reason="first recording")
    lines = BaselineStore(tmp_path).accept([passed(median_ms=2.0)], reason="slower, but right")

    assert lines[0] == ("digits-fp16-b8-tensorrt: 1.25 ms ±2.8% → 2 ms ±2.8%, +60.0% (95 % interval +50.1% to +70.6%)")
    assert match(tmp_path, passed()).entry["reason"] == "slower, but right"
    assert match(tmp_path, passed(profile="b1")).entry["reason"] == "first recording"


def test_the_file_does_not_change_when_the_values_do_not(tmp_path: Path):
    BaselineStore(tmp_path).accept([passed(), failed()], reason="r")
    before = (tmp_path / FOLDER / "digits.json").read_bytes()
    BaselineStore(tmp_path).accept([failed(), passed()], reason="r")

    assert (tmp_path / FOLDER / "digits.json").read_bytes() == before


def test_a_store_sees_what_it_wrote(tmp_path: Path):
    store = BaselineStore(tmp_path)
    assert store.match(passed().case, environment_of(passed())).state == "missing"
    store.accept([passed()], reason="r")

    assert store.match(passed().case, environment_of(passed())).state == "current"


def test_another_environment_of_the_same_name_keeps_its_own_file(tmp_path: Path):
    """A driver is not in the folder's name; its cases must not be mixed with those of another driver."""
    BaselineStore(tmp_path).accept([passed(), passed(profile="b1")], reason="r")
    updated = on(passed(median_ms=2.0), driver="580.1")
    BaselineStore(tmp_path).accept([updated], reason="r")

    assert (tmp_path / f"{FOLDER}-2" / "digits.json").is_file()
    assert match(tmp_path, passed()).entry["latency"]["median_ms"] == 1.25
    assert match(tmp_path, updated).entry["latency"]["median_ms"] == 2.0
    assert match(tmp_path, on(passed(profile="b1"), driver="580.1")).state == "stale"

    BaselineStore(tmp_path).accept([on(passed(median_ms=3.0), driver="580.1")], reason="r")
    assert len(BaselineStore(tmp_path).files()) == 2


def test_the_first_entry_of_an_environment_takes_nothing_from_a_stale_one(tmp_path: Path):
    BaselineStore(tmp_path).accept([passed()], reason="r")
    updated = on(passed(median_ms=2.0), driver="580.1")
    updated.accuracy = None
    BaselineStore(tmp_path).accept([updated], reason="r")
    entry = match(tmp_path, updated).entry

    assert "anchor" not in entry
    assert entry["accuracy"] == {}


def test_two_environments_of_one_name_in_one_report_are_not_mixed(tmp_path: Path):
    BaselineStore(tmp_path).accept([passed(), on(passed(median_ms=2.0), driver="580.1")], reason="r")

    assert match(tmp_path, passed()).entry["latency"]["median_ms"] == 1.25
    assert match(tmp_path, on(passed(), driver="580.1")).entry["latency"]["median_ms"] == 2.0


@pytest.mark.parametrize("part", ["accuracy", "latency"])
def test_a_run_of_one_part_keeps_the_other(tmp_path: Path, part: str):
    BaselineStore(tmp_path).accept([passed()], reason="r")
    alone = passed(median_ms=2.0)
    setattr(alone, part, None)
    assert alone.engine is not None
    alone.engine["plan"] = "99" * 32
    BaselineStore(tmp_path).accept([alone], reason="r")
    entry = match(tmp_path, passed()).entry

    assert entry["accuracy"]["y"]["rmse"] == 2.5e-4
    assert entry["latency"]["median_ms"] == (1.25 if part == "latency" else 2.0)
    # The plan is what the stored latency was measured on.
    assert entry["plan"] == ("cd" * 32 if part == "latency" else "99" * 32)


def with_engine(**facts: Any) -> Record:
    record = passed()
    record.engine = {**(record.engine or {}), **facts}
    return record


@pytest.mark.parametrize("name", ["structure", "lock"])
def test_what_is_known_of_the_engine_is_kept_where_a_run_did_not_look(tmp_path: Path, name: str):
    BaselineStore(tmp_path).accept([with_engine(**{name: {"layers": 3}})], reason="r")
    BaselineStore(tmp_path).accept([passed()], reason="r")
    assert match(tmp_path, passed()).entry[name] == {"layers": 3}

    BaselineStore(tmp_path).accept([with_engine(**{name: {"layers": 4}})], reason="r")
    assert match(tmp_path, passed()).entry[name] == {"layers": 4}

    BaselineStore(tmp_path).accept([with_engine(model_fingerprint="f" * 64)], reason="r")
    assert name not in match(tmp_path, passed()).entry


def test_metrics_are_kept_by_a_run_without_accuracy_alone(tmp_path: Path):
    metrics = {"iou": {"definition": "d", "mean": 0.5, "samples": [0.5]}}
    with_metrics, latency_alone = passed(), passed()
    with_metrics.accuracy = {**(with_metrics.accuracy or {}), "metrics": metrics}
    latency_alone.accuracy = None
    for record, kept in ((with_metrics, metrics), (latency_alone, metrics), (passed(), None)):
        BaselineStore(tmp_path).accept([record], reason="r")
        assert match(tmp_path, passed()).entry.get("metrics") == kept


def test_nothing_is_kept_of_another_model(tmp_path: Path):
    BaselineStore(tmp_path).accept([passed()], reason="r")
    alone = passed()
    alone.latency = None
    assert alone.engine is not None
    alone.engine["model_fingerprint"] = "f" * 64
    lines = BaselineStore(tmp_path).accept([alone], reason="r")

    assert lines[0] == "digits-fp16-b8-tensorrt: 1.25 ms ±2.8% → no latency"
    found = match(tmp_path, passed())
    assert found.entry["latency"] is None
    assert found.to_json() == {
        "state": "current",
        "median_ms": None,
        "anchor": {"median_ms": 1.25, "recorded": found.entry["recorded"]},
    }


@pytest.mark.parametrize(
    ("model", "file"), [("a/../b", "a_.._b.json"), ("net v1.5", "net_v1.5.json"), ("模型", "模型.json")]
)
def test_a_models_name_is_no_path(tmp_path: Path, model: str, file: str):
    BaselineStore(tmp_path).accept([passed(model)], reason="r")

    assert (tmp_path / FOLDER / file).is_file()
    assert match(tmp_path, passed(model)).state == "current"


def test_models_whose_names_become_one_file_share_it(tmp_path: Path):
    BaselineStore(tmp_path).accept([passed("a+b"), passed("c")], reason="r")
    BaselineStore(tmp_path).accept([passed("a b", profile="b1")], reason="r")

    assert match(tmp_path, passed("a+b")).state == "current"


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = BaselineStore(tmp_path)
    store.accept([passed()], reason="r")
    before = (tmp_path / FOLDER / "digits.json").read_bytes()

    def replace(self: Path, target: Path) -> Path:
        assert json.loads(self.read_text(encoding="utf-8"))["cases"]  # complete before it gets its name
        assert self.parent == target.parent  # on one file system
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(BaselineError, match=r"digits\.json: cannot be written: disk full") as caught:
            store.accept([passed(median_ms=2.0)], reason="r")
    assert caught.value.hint == "choose another folder with --trt-baselines"

    assert (tmp_path / FOLDER / "digits.json").read_bytes() == before
    assert [p.name for p in (tmp_path / FOLDER).iterdir()] == ["digits.json"]


def test_nothing_is_left_beside_the_files(tmp_path: Path):
    BaselineStore(tmp_path).accept([passed()], reason="r")

    assert [p.name for p in (tmp_path / FOLDER).iterdir()] == ["digits.json"]
    assert os.stat(tmp_path / FOLDER / "digits.json").st_mode & 0o777 == 0o644


def test_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BaselineError, match="cannot be written"):
        BaselineStore(tmp_path / "file" / "baselines").accept([passed()], reason="r")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a baseline file (JSONDecodeError"),
        ("<<<<<<< HEAD\n", "not a baseline file (JSONDecodeError"),
        ("[]", "not a baseline file (TypeError"),
        ("{}", "not a baseline file (KeyError: 'schema')"),
        ('{"schema": 1}', "not a baseline file (KeyError: 'cases')"),
        ('{"schema": 1, "cases": {}}', "not a baseline file (KeyError: 'environment')"),
        ('{"schema": 1, "cases": [], "environment": {}}', "cases and environment must be objects"),
        ('{"schema": 1, "cases": {"x": 3}, "environment": {}}', "case 'x' needs accuracy, latency, recorded"),
        ('{"schema": 1, "cases": {"x": {}}, "environment": {}}', "case 'x' needs accuracy, latency, recorded"),
        ('{"schema": 99, "cases": {}, "environment": {}}', "schema 99 is none of 1, 2"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, content: str, message: str):
    file = tmp_path / FOLDER / "digits.json"
    file.parent.mkdir()
    file.write_text(content)

    with pytest.raises(BaselineError) as caught:
        match(tmp_path, passed())
    assert caught.value.message.startswith(f"{file}: ")
    assert message in caught.value.message
    assert caught.value.hint

    with pytest.raises(BaselineError):  # neither is it overwritten
        BaselineStore(tmp_path).accept([passed()], reason="r")
    assert file.read_text() == content


def test_a_broken_file_of_another_model_is_in_nobodys_way(tmp_path: Path):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "other.json").write_text("")

    assert match(tmp_path, passed()).state == "missing"


def test_bytes_that_are_no_text(tmp_path: Path):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "digits.json").write_bytes(b"\xff\xfe")

    with pytest.raises(BaselineError, match="not a baseline file"):
        match(tmp_path, passed())


def test_the_environment_of_a_record_is_the_one_it_was_made_in():
    assert environment_of(passed()).to_json() == ENVIRONMENT
