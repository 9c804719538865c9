"""The contract that every store keeps, and the two that keep nothing."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_trt.artifacts import open_store
from pytest_trt.artifacts.directory import DirectoryStore
from pytest_trt.artifacts.key import Key
from pytest_trt.artifacts.memory import MemoryStore
from pytest_trt.artifacts.store import EntryInfo, Meta, NullStore, ReadOnlyStore, Store, nearest_entry
from pytest_trt.errors import ArtifactError, UsageError

KEY = Key.make("engine", {"model": "resnet18", "precision": "fp16"})
FILES = {"engine.plan": b"\x00plan\xff" * 100, "facts.json": b"{}"}


@pytest.fixture(params=["memory", "directory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else DirectoryStore(tmp_path / "a cache with späces")


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


def never() -> dict[str, bytes]:
    raise AssertionError("built although it was there")


def test_what_was_put_is_got(store: Store):
    assert store.get(KEY) is None
    put = store.put(KEY, FILES, label="resnet18 fp16")
    got = store.get(KEY)
    assert got is not None
    assert (put.fresh, put.stored) == (True, True)
    assert (got.fresh, got.stored, got.key) == (False, True, KEY)
    assert dict(got.files) == FILES
    assert len(got.files) == len(FILES)
    assert got.meta == put.meta
    assert (got.meta.label, got.meta.size_bytes) == ("resnet18 fp16", 602)
    assert got.meta.created.endswith("+00:00")


def test_a_missing_entry_is_built_once(store: Store):
    built = store.get_or_build(KEY, lambda: FILES, label="x")
    again = store.get_or_build(KEY, never)
    assert (built.fresh, again.fresh) == (True, False)
    assert dict(built.files) == dict(again.files) == FILES
    assert built.stored
    assert again.stored


def test_an_entry_that_is_there_wins_unless_it_is_to_be_replaced(store: Store):
    store.put(KEY, {"a": b"1"})
    second = store.put(KEY, {"a": b"2"})
    assert (second.files["a"], second.fresh) == (b"1", False)
    third = store.put(KEY, {"b": b"3"}, replace=True)
    assert (dict(third.files), third.fresh) == ({"b": b"3"}, True)
    assert dict(store.get(KEY).files) == {"b": b"3"}


def test_what_is_not_there_can_be_replaced_too(store: Store):
    assert store.put(KEY, FILES, replace=True).stored
    assert dict(store.get(KEY).files) == FILES


def test_a_failed_build_leaves_nothing_and_frees_the_key(store: Store):
    def broken() -> dict[str, bytes]:
        raise RuntimeError("the parser says no")

    with pytest.raises(RuntimeError, match="the parser says no"):
        store.get_or_build(KEY, broken)
    assert store.get(KEY) is None
    assert store.get_or_build(KEY, lambda: FILES).fresh


def test_threads_build_once_and_the_others_wait(store: Store):
    builds, entries, start = [], [], threading.Barrier(8)

    def build() -> dict[str, bytes]:
        builds.append(threading.get_ident())
        threading.Event().wait(0.1)
        return FILES

    def ask() -> None:
        start.wait()
        entries.append(store.get_or_build(KEY, build))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1
    assert [dict(entry.files) for entry in entries] == [FILES] * 8
    assert sum(entry.fresh for entry in entries) == 1


def test_a_build_may_need_another_entry(store: Store):
    inner = Key.make("calibration", {"model": "resnet18"})

    def build() -> dict[str, bytes]:
        return {"engine.plan": b"with " + store.get_or_build(inner, lambda: {"r": b"ranges"}).files["r"]}

    assert store.get_or_build(KEY, build).files["engine.plan"] == b"with ranges"
    assert store.get(inner) is not None


def test_a_build_that_needs_itself_is_an_error_and_no_deadlock(store: Store):
    with pytest.raises(ArtifactError, match="already holds"):
        store.get_or_build(KEY, lambda: store.get_or_build(KEY, never).files)


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ({}, "at least one file"),
        ({"key.json": b""}, "'key.json'"),
        ({"Key.JSON": b""}, "'Key.JSON'"),
        ({"../engine.plan": b""}, "cannot be the name"),
        ({"sub/engine.plan": b""}, "cannot be the name"),
        ({".hidden": b""}, "cannot be the name"),
        ({"": b""}, "cannot be the name"),
        ({"a" * 101: b""}, "cannot be the name"),
        ({"a\n": b""}, "cannot be the name"),
        ({"Verified.json": b""}, "cannot be the name"),
        ({"a": b"", "A": b""}, "upper and lower case"),
        ({"a": "text"}, "str, not bytes"),
        ({"a": bytearray(b"x")}, "bytearray, not bytes"),
    ],
)
@pytest.mark.parametrize("make", [MemoryStore, NullStore, None], ids=["memory", "null", "directory"])
def test_a_payload_that_cannot_be_files_is_refused(payload: dict, says: str, make: Callable | None, tmp_path: Path):
    store = make() if make else DirectoryStore(tmp_path / "cache")
    with pytest.raises(ArtifactError, match=says):
        store.put(KEY, payload)
    with pytest.raises(ArtifactError, match=says):
        store.get_or_build(KEY, lambda: payload)
    assert store.get(KEY) is None


def test_a_name_may_have_a_hundred_characters(store: Store):
    name = "A0._-".ljust(100, "z")
    assert dict(store.put(KEY, {name: b"x"}).files) == {name: b"x"}


def test_a_label_that_is_no_unicode_is_kept_as_far_as_it_is(store: Store):
    assert store.put(KEY, FILES, label="ä\udcff").meta.label == "ä?"


def test_entries_remove_and_verify(store: Store):
    reference = Key.make("reference", {"model": "resnet18"})
    store.put(KEY, FILES, label="one")
    store.put(reference, {"outputs.npz": b"x"}, label="two")
    listed = {info.digest: info for info in store.entries()}
    assert {(i.kind, i.meta.label, i.meta.size_bytes) for i in listed.values()} == {
        ("engine", "one", 602),
        ("reference", "two", 1),
    }
    assert listed[KEY.digest].ingredients == KEY.ingredients
    assert store.verify() == []
    assert store.remove(KEY.digest) is True
    assert store.remove(KEY.digest) is False
    assert store.get(KEY) is None
    assert [info.digest for info in store.entries()] == [reference.digest]


def test_the_nearest_entry_shares_the_most_leaves(store: Store):
    def key(kind: str = "engine", **changes: object) -> Key:
        return Key.make(kind, {"model": "m", "gpu": {"name": "H200", "sm": 90}, "level": 3, **changes})

    wanted = key()
    assert store.nearest(wanted) is None
    store.put(Key.make("engine", {"model": "other", "level": 3.0}), FILES)
    assert store.nearest(wanted) is None, "nothing is shared: 3 and 3.0 are two values"
    far, near = key(model="x", level=5), key(gpu={"name": "H200", "sm": 89})
    for stored in (wanted, far, near, key("reference", model="m", extra=1)):
        store.put(stored, FILES)
    assert store.nearest(wanted).digest == near.digest, "not itself, and not another kind"


@pytest.mark.parametrize(("first", "second"), [(1.0, 2.0), (2.0, 1.0)])
def test_of_entries_that_are_equally_near_the_one_used_last_is_taken(first: float, second: float):
    def info(number: int, used: float, **more: int) -> EntryInfo:
        key = Key.make("engine", {"model": "m", "level": number, **more})
        return EntryInfo(key.kind, key.digest, key.ingredients, Meta("", 0), used)

    near = [info(1, first), info(2, second)]
    farther = EntryInfo("engine", "0" * 64, {"level": 0}, Meta("", 0), used=3.0)
    found = nearest_entry(Key.make("engine", {"model": "m", "level": 0, "gpu": 0}), [farther, *near])
    assert found is farther, "the level is shared, as the model is with the others"
    found = nearest_entry(Key.make("engine", {"model": "m", "gpu": 0}), [farther, *near])
    assert found is near[second > first]
    assert nearest_entry(Key.make("engine", {"level": 9}), near) is None


def test_a_lock_excludes_other_threads_and_says_that_it_waits(store: Store):
    said, order, inside = [], [], threading.Event()

    def other() -> None:
        with store.lock("device-gpu 0"):
            inside.set()
            threading.Event().wait(0.5)
            order.append("other")

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(10)
    with pytest.raises(ArtifactError, match="still held"), store.lock("device-gpu 0", timeout_s=0.05):
        pytest.fail("two holders")
    with store.lock("device-gpu 1", waiting=lambda: said.append("free")):
        pass
    with store.lock("device-gpu 0", waiting=lambda: said.append("waiting")):
        order.append("me")
    thread.join()
    assert order == ["other", "me"]
    assert said == ["waiting"]


def test_a_lock_cannot_be_taken_twice_by_one_thread(store: Store):
    with store.lock("device-gpu"), pytest.raises(ArtifactError, match="already holds"), store.lock("device-gpu"):
        pytest.fail("taken twice")
    with store.lock("device-gpu", timeout_s=0):
        pass


def test_all_stores_share_the_locks_of_the_machine(tmp_path: Path):
    stores = [DirectoryStore(tmp_path / "a"), DirectoryStore(tmp_path / "b"), NullStore(), ReadOnlyStore(MemoryStore())]
    for holder in stores:
        for other in stores:
            with (
                holder.lock("device-gpu"),
                pytest.raises(ArtifactError, match="already holds"),
                other.lock("device-gpu"),
            ):
                pytest.fail("two holders")


def test_a_lock_without_a_place_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    with pytest.raises(ArtifactError, match="TMPDIR"), NullStore().lock("device-gpu"):
        pytest.fail("no place for a lock")


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="folders have no owner there")
def test_a_link_in_the_place_of_the_locks_is_not_followed(tmp_path: Path):
    """Anybody may have put it into the temporary folder."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "tmp" / f"pytest-trt-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="for locks: it belongs to somebody else"), NullStore().lock("device-gpu"):
        pytest.fail("followed")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_read_only_store_reads_and_keeps_nothing(store: Store):
    store.put(KEY, FILES)
    other = Key.make("engine", {"model": "other"})
    read_only = ReadOnlyStore(store)
    assert dict(read_only.get_or_build(KEY, never).files) == FILES
    built = read_only.get_or_build(other, lambda: {"a": b"1"})
    assert (built.fresh, built.stored, dict(built.files)) == (True, False, {"a": b"1"})
    put = read_only.put(other, {"a": b"2"})
    assert (put.stored, dict(put.files)) == (False, {"a": b"2"})
    assert (read_only.put(KEY, {"a": b"2"}, replace=True).stored, read_only.put(KEY, {"a": b"2"}).stored) == (
        False,
        True,
    )
    assert read_only.get(other) is None
    with pytest.raises(ArtifactError, match="--trt-cache=rw"):
        read_only.remove(KEY.digest)
    assert dict(store.get(KEY).files) == FILES
    assert [info.digest for info in read_only.entries()] == [KEY.digest]
    assert read_only.nearest(Key.make("engine", {"model": "resnet18"})).digest == KEY.digest
    assert read_only.verify() == []


def test_a_read_only_store_repairs_nothing(tmp_path: Path):
    entry = DirectoryStore(tmp_path / "cache").put(KEY, FILES)
    (entry.path / "facts.json").unlink()
    read_only = ReadOnlyStore(DirectoryStore(tmp_path / "cache"))
    assert read_only.get(KEY) is None
    assert [problem.digest for problem in read_only.verify()] == [KEY.digest]
    assert read_only.get_or_build(KEY, lambda: FILES).stored is False
    assert entry.path.is_dir()


@pytest.mark.parametrize("unkept", [NullStore(), ReadOnlyStore(NullStore())], ids=["null", "read-only"])
def test_what_is_not_kept_is_labelled_all_the_same(unkept: Store):
    built, put = unkept.get_or_build(KEY, lambda: FILES, label="x"), unkept.put(KEY, FILES, label="x")
    assert [(entry.meta.label, entry.meta.size_bytes, entry.fresh, entry.stored) for entry in (built, put)] == [
        ("x", 602, True, False)
    ] * 2
    assert built.view("facts.json") == FILES["facts.json"]


def test_the_null_store_keeps_nothing():
    store = NullStore()
    for _ in range(2):
        entry = store.get_or_build(KEY, lambda: FILES)
        assert (entry.fresh, entry.stored, dict(entry.files)) == (True, False, FILES)
    assert store.put(KEY, FILES).stored is False
    assert store.get(KEY) is None
    assert list(store.entries()) == []
    assert store.verify() == []
    assert store.nearest(KEY) is None
    assert store.remove(KEY.digest) is False


def test_the_mode_chooses_the_store(tmp_path: Path):
    assert isinstance(open_store("off", tmp_path), NullStore)
    kept = open_store("rw", tmp_path / "cache", 10**9)
    assert isinstance(kept, DirectoryStore)
    assert kept.max_bytes == 10**9
    assert not (tmp_path / "cache").exists(), "nothing is made before something is kept"
    kept.put(KEY, FILES)
    assert open_store("ro", tmp_path / "cache").get_or_build(KEY, never).stored
    with pytest.raises(UsageError, match="did you mean 'off'"):
        open_store("of")
    assert open_store("rw").root.name == "pytest-trt"
