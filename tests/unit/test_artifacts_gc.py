"""Eviction: what goes first, what stays, and what killed processes left behind."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest

from pytest_trt.artifacts.directory import DirectoryStore
from pytest_trt.artifacts.gc import Collected, last_used_ns
from pytest_trt.artifacts.key import Key
from pytest_trt.artifacts.store import Entry
from pytest_trt.errors import ArtifactError

DAY_S = 86_400
PLAN = b"p" * 10_000


def key(number: int) -> Key:
    return Key.make("engine", {"number": number})


def keep(store: DirectoryStore, number: int, *, days_ago: float = 0) -> Entry:
    entry = store.put(key(number), {"engine.plan": PLAN})
    if days_ago:
        used = time.time() - days_ago * DAY_S
        os.utime(entry.path / "key.json", (used, used))
    return entry


def numbers(store: DirectoryStore) -> set[int]:
    return {info.ingredients["number"] for info in store.entries()}


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "cache")


def test_the_least_recently_used_go_first(store: DirectoryStore):
    for number, days in enumerate([3, 1, 4, 2]):
        keep(store, number, days_ago=days)
    result = store.gc(max_bytes=25_000)
    assert numbers(store) == {1, 3}
    assert result.removed == 2
    assert result.freed_bytes > 2 * len(PLAN)
    assert 2 * len(PLAN) < result.kept_bytes <= 25_000


def test_a_read_counts_as_a_use(store: DirectoryStore):
    for number, days in enumerate([3, 2, 1]):
        keep(store, number, days_ago=days)
    assert store.get(key(0)) is not None
    store.get_or_build(key(1), dict)
    store.gc(max_bytes=25_000)
    assert numbers(store) == {0, 1}


def test_a_use_is_recorded_once_a_minute(store: DirectoryStore):
    card = keep(store, 1).path / "key.json"
    recent = time.time() - 30
    os.utime(card, (recent, recent))
    store.get(key(1))
    assert card.stat().st_mtime == pytest.approx(recent, abs=1)
    os.utime(card, (recent - 60, recent - 60))
    store.get(key(1))
    assert card.stat().st_mtime == pytest.approx(time.time(), abs=20)
    ahead = time.time() + DAY_S  # the clock was wrong once: such an entry must not stay for ever
    os.utime(card, (ahead, ahead))
    store.get(key(1))
    assert card.stat().st_mtime == pytest.approx(time.time(), abs=20)


def test_a_list_says_when_an_entry_was_used(store: DirectoryStore):
    os.utime(keep(store, 1).path / "key.json", (1e9, 1e9))
    (info,) = store.entries()
    assert info.used == 1e9
    assert last_used_ns(store.root / "gone") == 0


def test_old_entries_go_whatever_the_size(store: DirectoryStore):
    for number, days in enumerate([10, 40, 2, 90]):
        keep(store, number, days_ago=days)
    assert store.gc(older_than=timedelta(days=30)).removed == 2
    assert numbers(store) == {0, 2}


def test_without_a_limit_nothing_goes(store: DirectoryStore):
    keep(store, 1, days_ago=1000)
    assert store.gc().removed == 0
    assert numbers(store) == {1}
    assert DirectoryStore(store.root.parent / "none").gc(max_bytes=0) == Collected(0, 0, 0)


def test_the_cap_holds_after_each_write(tmp_path: Path):
    store = DirectoryStore(tmp_path / "cache", max_bytes=35_000)
    for number in range(6):
        entry = store.get_or_build(key(number), lambda: {"engine.plan": PLAN})
        assert entry.stored
        size = sum(path.stat().st_size for path in (store.root / "engine").rglob("*") if path.is_file())
        assert size <= 35_000
        used = time.time() - 100 + number
        os.utime(entry.path / "key.json", (used, used))
    assert numbers(store) == {3, 4, 5}


def test_an_entry_above_the_cap_is_kept_and_said(tmp_path: Path):
    events: list[str] = []
    store = DirectoryStore(tmp_path / "cache", max_bytes=1000, on_event=events.append)
    keep(store, 1)
    keep(store, 2)
    assert numbers(store) == {2}
    assert len(events) == 2
    assert "--trt-cache-size" in events[0]


def test_an_entry_whose_lock_is_held_stays(store: DirectoryStore):
    keep(store, 1, days_ago=9)
    keep(store, 2, days_ago=1)
    with store._layout.locks.try_hold(key(1).digest) as held:
        assert held
        assert store.gc(max_bytes=0).removed == 1
    assert numbers(store) == {1}
    assert store.gc(max_bytes=0).removed == 1


def test_an_entry_that_is_used_meanwhile_stays(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch):
    keep(store, 1, days_ago=9)
    keep(store, 2, days_ago=8)
    real = store._layout.locks.try_hold

    def try_hold(name: str):
        if name == key(1).digest:
            assert DirectoryStore(store.root).get(key(1)) is not None
        return real(name)

    monkeypatch.setattr(store._layout.locks, "try_hold", try_hold)
    assert store.gc(max_bytes=0).removed == 1
    assert numbers(store) == {1}


def test_damaged_entries_are_evicted_too(store: DirectoryStore):
    entry = keep(store, 1, days_ago=5)
    (entry.path / "key.json").unlink()
    store.gc(max_bytes=0)
    assert not entry.path.exists()


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_makes_is_not(store: DirectoryStore):
    keep(store, 1)
    tmp = store.root / "tmp"
    for number in (2, 3):
        folder = tmp / f"{key(number).digest}-{number:016x}"
        folder.mkdir()
        (folder / "engine.plan").write_bytes(PLAN)
    with store._layout.locks.try_hold(key(3).digest) as held:
        assert held
        store.gc()
        assert [path.name for path in tmp.iterdir()] == [f"{key(3).digest}-{3:016x}"]
    store.gc()
    assert list(tmp.iterdir()) == []
    assert numbers(store) == {1}


def test_strays_are_swept_after_a_day_and_links_are_not_followed(store: DirectoryStore, tmp_path: Path):
    keep(store, 1)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "data").touch()
    tmp = store.root / "tmp"
    (tmp / f"{key(2).digest}-{2:016x}").symlink_to(precious, target_is_directory=True)
    for name, days in (("young", 0.99), ("old", 1.01)):
        (tmp / name).touch()
        os.utime(tmp / name, (time.time() - days * DAY_S,) * 2)
    store.gc()
    assert [path.name for path in tmp.iterdir()] == ["young"]
    assert (precious / "data").exists()


def test_what_cannot_be_deleted_is_out_of_sight_and_waits_for_a_sweep(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
):
    def refuse(path: object, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    keep(store, 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        assert store.remove(key(1).digest)
    assert numbers(store) == set()
    assert list((store.root / "tmp").iterdir())
    store.gc()
    assert list((store.root / "tmp").iterdir()) == []


def test_a_new_store_sweeps_before_its_first_write(store: DirectoryStore):
    keep(store, 1)
    left = store.root / "tmp" / f"{key(2).digest}-{2:016x}"
    left.mkdir()
    keep(DirectoryStore(store.root), 3)
    assert not left.exists()


def test_a_collection_that_the_disk_refuses_is_an_error(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch):
    keep(store, 1)

    def refuse(self: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(ArtifactError, match="cannot trim the cache: Permission denied"):
        store.gc(max_bytes=0)
    assert numbers(store) == {1}
