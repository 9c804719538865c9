"""Large files of an entry: digested once, mapped, and digested again after whatever could have changed them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from ticks import wait_for_tick

from pytest_trt.artifacts import card, file_state, stamps
from pytest_trt.artifacts.directory import DirectoryStore
from pytest_trt.artifacts.engines import stored_engine
from pytest_trt.artifacts.file_state import FileState, keeps_change_times
from pytest_trt.artifacts.key import Key
from pytest_trt.artifacts.stamps import STAMP_NAME, STAMPED_FROM_BYTES, Stamps
from pytest_trt.artifacts.store import Entry, ReadOnlyStore, Store
from pytest_trt.errors import ArtifactError

KEY = Key.make("engine", {"model": "resnet50"})
PLAN = bytes(range(256)) * (STAMPED_FROM_BYTES // 256 + 1)
FILES = {"engine.plan": PLAN, "facts.json": b"{}", "build.log": b"INFO: done"}
LATER_NS = 10 * 10**9

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows keeps no change times, and nothing is stamped there")


class World:
    """A store with one large entry, how many large contents were digested, and what time the stamps think it is."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.digested = 0
        self.ahead_ns = LATER_NS
        self.events: list[str] = []
        self.root = root
        monkeypatch.setattr(card, "hashlib", SimpleNamespace(sha256=self._sha256))
        monkeypatch.setattr(stamps, "time", SimpleNamespace(time_ns=lambda: time.time_ns() + self.ahead_ns))
        monkeypatch.setattr(stamps, "keeps_change_times", lambda folder: True)
        self.store = self.open()
        self.store.put(KEY, FILES, label="resnet50")
        self.digested = 0

    def _sha256(self, data: bytes = b""):
        self.digested += len(data) >= STAMPED_FROM_BYTES
        return hashlib.sha256(data)

    def open(self) -> DirectoryStore:
        return DirectoryStore(self.root, on_event=self.events.append)

    @property
    def folder(self) -> Path:
        return self.root / "engine" / KEY.digest[:2] / KEY.digest

    def get(self, store: Store | None = None) -> tuple[Entry | None, int]:
        """The entry, and how many large files were digested for it."""
        before = self.digested
        found = (store or self.open()).get(KEY)
        return found, self.digested - before


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path / "cache", monkeypatch)


def test_a_large_file_is_digested_once(world: World):
    counts = []
    for _ in range(3):
        entry, count = world.get()
        counts.append(count)
        assert dict(entry.files) == FILES
    assert counts == [1, 0, 0]
    assert world.events == []


def test_looking_up_and_building_use_the_same_stamp(world: World):
    world.get()
    before = world.digested
    entry = world.open().get_or_build(KEY, lambda: pytest.fail("it is there"))
    assert (bytes(entry.view("engine.plan")), world.digested - before) == (PLAN, 0)


def test_small_files_are_digested_always(world: World):
    world.get()
    (world.folder / "facts.json").write_bytes(b"[]")
    assert world.get()[0] is None
    assert "facts.json does not match its recorded digest" in world.events[0]


def test_a_large_file_is_mapped_and_not_copied(world: World):
    entry, _ = world.get()
    view = entry.view("engine.plan")
    assert isinstance(view, memoryview)
    assert view.readonly
    assert isinstance(entry.files["engine.plan"], bytes)
    assert isinstance(entry.view("facts.json"), bytes)


def test_a_mapped_file_outlives_its_entry(world: World):
    view = world.get()[0].view("engine.plan")
    assert world.store.remove(KEY.digest)
    assert not world.folder.exists()
    assert bytes(view) == PLAN


def test_a_mapped_file_outlives_its_replacement(world: World):
    view = world.get()[0].view("engine.plan")
    newer = {"engine.plan": PLAN[::-1], "facts.json": b"{}"}
    world.store.put(KEY, newer, replace=True)
    entry, count = world.get()
    assert (bytes(view), dict(entry.files), count) == (PLAN, newer, 1)


def change_in_place(path: Path) -> None:
    """Another content of the same size, with the old modification time."""
    found = path.stat()
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"!")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert path.stat().st_mtime_ns == found.st_mtime_ns


def change_by_replacing(path: Path) -> None:
    found = path.stat()
    other = path.parents[3] / "other"
    other.write_bytes(PLAN[::-1])
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("change", [change_in_place, change_by_replacing])
def test_a_changed_file_is_never_vouched_for(world: World, change: Callable[[Path], None]):
    world.get()
    assert world.get()[1] == 0
    wait_for_tick(world.root)
    change(world.folder / "engine.plan")
    found, count = world.get()
    assert (found, count) == (None, 2), "once to notice, and once under the lock before it is thrown away"
    assert "engine.plan does not match its recorded digest" in world.events[0]
    assert not world.folder.exists(), "it is thrown away, as without stamps"


def test_a_file_that_was_only_touched_is_digested_again(world: World):
    world.get()
    wait_for_tick(world.root)
    os.utime(world.folder / "engine.plan")
    assert [world.get()[1] for _ in range(2)] == [1, 0]


def test_a_copy_of_the_cache_is_digested_again(world: World, tmp_path: Path):
    world.get()
    shutil.copytree(world.root, tmp_path / "copy", copy_function=shutil.copy2)
    world.root = tmp_path / "copy"
    assert (world.folder / STAMP_NAME).exists()
    assert [world.get()[1] for _ in range(2)] == [1, 0]


def test_what_was_just_written_gets_no_stamp(world: World):
    # A change within the clock's granularity would leave the same times.
    world.ahead_ns = 0
    assert [world.get()[1] for _ in range(2)] == [1, 1]
    assert not (world.folder / STAMP_NAME).exists()


def test_a_file_that_changes_while_it_is_digested_gets_no_stamp(world: World, monkeypatch: pytest.MonkeyPatch):
    real = card._check

    def slow(path: Path, data: bytes, facts: object) -> None:
        real(path, data, facts)
        if path.name == "engine.plan":
            wait_for_tick(world.root)
            change_in_place(path)

    monkeypatch.setattr(card, "_check", slow)
    world.get()
    monkeypatch.setattr(card, "_check", real)
    assert world.get()[0] is None


def test_a_stamp_holds_for_a_week(world: World):
    world.get()
    world.ahead_ns += stamps.GOOD_FOR_NS - 10**9
    assert world.get()[1] == 0
    world.ahead_ns += 2 * 10**9
    assert [world.get()[1] for _ in range(2)] == [1, 0]


def test_a_stamp_of_the_future_is_none(world: World):
    world.get()
    world.ahead_ns -= 5 * 10**9
    assert world.get()[1] == 1


def test_verify_believes_no_stamp(world: World):
    world.get()
    path = world.folder / "engine.plan"
    change_in_place(path)
    document = json.loads((world.folder / STAMP_NAME).read_bytes())
    document["files"]["engine.plan"][0] = list(FileState.of(path.stat()))
    (world.folder / STAMP_NAME).write_text(json.dumps(document))
    assert world.get()[1] == 0, "the forged stamp is believed when an entry is read"
    assert [problem.reason for problem in world.store.verify()] == ["engine.plan does not match its recorded digest"]


def test_a_reader_without_rights_uses_stamps_and_writes_none(world: World):
    reader = ReadOnlyStore(world.open())
    assert [world.get(reader)[1] for _ in range(2)] == [1, 1]
    assert not (world.folder / STAMP_NAME).exists()
    world.get()
    assert world.get(reader)[1] == 0


def test_a_stamp_that_cannot_be_written_costs_nothing_else(world: World, monkeypatch: pytest.MonkeyPatch):
    def refuse(self: Path, *_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "write_text", refuse)
    assert dict(world.get()[0].files) == FILES
    assert world.events == []


def test_two_readers_write_one_stamp(world: World):
    first, second = world.open(), world.open()
    assert [world.get(first)[1], world.get(second)[1]] == [1, 0]
    assert sorted(path.name for path in world.folder.iterdir()) == sorted([*FILES, "key.json", STAMP_NAME])
    assert not list((world.root / "tmp").iterdir())


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"format": 1}',
        b'{"format": 2, "files": {}}',
        b'{"format": 1, "files": [1]}',
        b'{"format": 1, "files": {"engine.plan": 7}}',
        b'{"format": 1, "files": {"engine.plan": [[], "", null]}}',
        b'{"format": 1, "files": {"engine.plan": [[1, 2], "", 5]}}',
        b'{"format": 1, "files": {"engine.plan": [[1, 2], ""]}}',
        b'{"format": 1, "files": {"engine.plan": {"a": 1, "b": 2, "c": 3}}}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_stamp_is_no_stamp(world: World, damage: bytes):
    (world.folder / STAMP_NAME).write_bytes(damage)
    assert [world.get()[1] for _ in range(2)] == [1, 0]
    assert world.events == []


@pytest.mark.parametrize(
    "change",
    [lambda text: b" " * 10**6 + text, lambda text: text.replace(b'"format": 1', b'"format": 2')],
    ids=["too large", "of another version"],
)
def test_stamps_that_cannot_be_read_are_made_anew(world: World, change: Callable[[bytes], bytes]):
    world.get()
    path = world.folder / STAMP_NAME
    path.write_bytes(change(path.read_bytes()))
    assert [world.get()[1] for _ in range(2)] == [1, 0]


def test_a_store_that_is_not_there_has_no_stamps(world: World):
    assert Stamps.of(world.root, world.folder) is not None
    assert Stamps.of(world.root / "nothing", world.folder) is None


def test_each_stamp_is_kept_beside_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    now_ns = time.time_ns() + LATER_NS
    monkeypatch.setattr(stamps, "time", SimpleNamespace(time_ns=lambda: now_ns))
    for name in ("a", "b"):
        (tmp_path / name).touch()
        new = Stamps(tmp_path)
        new.note(name, FileState.of((tmp_path / name).stat()), name * 64)
        assert not new.vouch(name, FileState.of((tmp_path / name).stat()), name * 64), "it is not kept yet"
        new.save(tmp_path)
    kept = Stamps(tmp_path)
    states = {name: FileState.of((tmp_path / name).stat()) for name in ("a", "b")}
    assert all(kept.vouch(name, state, name * 64) for name, state in states.items())
    assert not kept.vouch("a", states["b"], "a" * 64)
    assert not kept.vouch("c", states["a"], "a" * 64)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", STAMP_NAME]


@pytest.mark.parametrize("age_ns", [-1, 0, stamps.GOOD_FOR_NS - 1, stamps.GOOD_FOR_NS])
def test_a_stamp_is_good_from_now_on_for_a_week(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age_ns: int):
    state = FileState.of(tmp_path.stat())
    digested_ns = time.time_ns() + LATER_NS
    monkeypatch.setattr(stamps, "time", SimpleNamespace(time_ns=lambda: digested_ns))
    made = Stamps(tmp_path)
    made.note("a", state, "0" * 64)
    made.save(tmp_path)
    monkeypatch.setattr(stamps, "time", SimpleNamespace(time_ns=lambda: digested_ns + age_ns))
    assert Stamps(tmp_path).vouch("a", state, "0" * 64) is (0 <= age_ns < 7 * 24 * 3600 * 10**9)


def test_a_stamp_that_could_not_be_kept_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stamps, "time", SimpleNamespace(time_ns=lambda: time.time_ns() + LATER_NS))
    made = Stamps(tmp_path / "gone")
    made.save(tmp_path)
    made.note("a", FileState.of(tmp_path.stat()), "0" * 64)
    with pytest.raises(FileNotFoundError):
        made.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_stamp_says_which_digest_was_found(world: World):
    world.get()
    document = json.loads((world.folder / STAMP_NAME).read_bytes())
    document["files"]["engine.plan"][1] = "0" * 64
    (world.folder / STAMP_NAME).write_text(json.dumps(document))
    assert world.get()[1] == 1


def test_no_payload_may_be_called_like_a_stamp(world: World):
    with pytest.raises(ArtifactError, match=r"verified\.json are the store's own"):
        world.store.put(Key.make("engine", {}), {STAMP_NAME: b"{}"})


def test_where_change_times_say_nothing_every_read_digests(world: World, monkeypatch: pytest.MonkeyPatch):
    world.get()
    monkeypatch.setattr(stamps, "keeps_change_times", lambda folder: False)
    entry, count = world.get()
    assert count == 1
    assert isinstance(entry.view("engine.plan"), bytes), "nor is a file mapped that another machine could pull away"


def test_a_stored_engine_knows_its_digest(world: World, monkeypatch: pytest.MonkeyPatch):
    stored = stored_engine(world.store, KEY.digest[:12])
    monkeypatch.setattr(hashlib, "sha256", None)
    assert stored.plan_digest == stored.sha256[:16]
    monkeypatch.undo()
    assert stored.sha256 == hashlib.sha256(PLAN).hexdigest()
    assert len(stored.plan) == len(PLAN)


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / {home} rw shared:2 - nfs4 server:/home rw
31 30 0:41 / {home}/fast\\040disk rw - xfs /dev/sdb1 rw
32 22 0:42 / {home}/hidden rw - ext4 /dev/sdc1 rw
33 32 0:43 / {home}/hidden rw - fuse.sshfs other:/ rw
"""


@pytest.mark.parametrize(
    ("place", "kept"),
    [(".", True), ("home", False), ("home/a b", False), ("home/fast disk/c", True), ("home/hidden", False)],
)
def test_only_local_file_systems_are_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, kept: bool):
    root = tmp_path.resolve()
    home = str(root / "home").replace(" ", "\\040")  # the temporary folder's name may have a space, too
    (root / "mountinfo").write_text(MOUNTS.format(home=home), encoding="utf-8")
    (root / place).mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(file_state, "_MOUNTS", root / "mountinfo")
    monkeypatch.setattr(file_state, "sys", SimpleNamespace(platform="linux"))
    keeps_change_times.cache_clear()
    try:
        assert keeps_change_times(root / place) is kept
        assert keeps_change_times(root / "nothing") is False
    finally:
        keeps_change_times.cache_clear()


def test_other_systems_are_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(file_state, "sys", SimpleNamespace(platform="darwin"))
    keeps_change_times.cache_clear()
    try:
        assert keeps_change_times(tmp_path) is False
    finally:
        keeps_change_times.cache_clear()
