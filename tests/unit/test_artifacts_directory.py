"""The store on a disk: what lies where, what damage does, and what happens when the disk says no."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trt.artifacts.card import Card
from pytest_trt.artifacts.directory import DirectoryStore
from pytest_trt.artifacts.key import Key
from pytest_trt.artifacts.layout import Layout
from pytest_trt.errors import ArtifactError, CorruptEntryError

KEY = Key.make("engine", {"model": "resnet18", "gpu": {"name": "H200"}})
FILES = {"engine.plan": b"\x00plan\xff" * 100, "facts.json": b'{"layers": 12}'}


class Spy:
    """A store in a folder of its own, with what it said and a build that counts."""

    def __init__(self, root: Path, **options: object) -> None:
        self.events: list[str] = []
        self.builds = 0
        self.store = DirectoryStore(root, on_event=self.events.append, **options)

    def build(self) -> dict[str, bytes]:
        self.builds += 1
        return dict(FILES)

    def ask(self):
        return self.store.get_or_build(KEY, self.build, label="resnet18")


@pytest.fixture
def spy(tmp_path: Path) -> Spy:
    return Spy(tmp_path / "cache")


def leftovers(root: Path) -> list[Path]:
    return list((root / "tmp").iterdir()) if (root / "tmp").is_dir() else []


def test_the_folder_explains_itself(spy: Spy):
    entry = spy.ask()
    root = spy.store.root
    assert entry.path == root / "engine" / KEY.digest[:2] / KEY.digest
    assert sorted(path.name for path in entry.path.iterdir()) == ["engine.plan", "facts.json", "key.json"]
    assert (entry.path / "engine.plan").read_bytes() == FILES["engine.plan"], "the raw plan, as trtexec opens it"
    card = json.loads((entry.path / "key.json").read_text(encoding="utf-8"))
    assert card["ingredients"] == KEY.ingredients
    assert (card["kind"], card["digest"], card["label"]) == ("engine", KEY.digest, "resnet18")
    assert set(card["files"]["engine.plan"]) == {"bytes", "sha256"}
    assert (root / ".gitignore").read_text() == "*\n"
    assert (root / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55\n")
    assert "no signature" in (root / "README.md").read_text()
    assert leftovers(root) == []
    assert spy.events == []


def test_reading_makes_no_folder(spy: Spy):
    assert spy.store.get(KEY) is None
    assert list(spy.store.entries()) == []
    assert spy.store.verify() == []
    assert spy.store.remove(KEY.digest) is False
    assert not spy.store.root.exists()


def test_a_relative_root_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    store = DirectoryStore("ä cache")
    store.put(KEY, FILES)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert store.get(KEY) is not None
    assert (tmp_path / "ä cache" / "engine").is_dir()


def test_a_folder_with_other_things_is_not_made_a_cache(tmp_path: Path):
    (tmp_path / "src").mkdir()
    spy = Spy(tmp_path)
    with pytest.raises(ArtifactError, match="'src' and is no cache"):
        spy.ask()
    assert spy.builds == 0, "said before minutes are spent on a build"
    with pytest.raises(ArtifactError, match="new or an empty folder"):
        spy.store.put(KEY, FILES)
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


@pytest.mark.parametrize("name", ["README.md", "tmp", "locks", "engine", ".snapshot", "lost+found"])
def test_what_an_interrupted_creation_or_a_disk_left_is_in_nobodys_way(tmp_path: Path, name: str):
    (tmp_path / "a" / name).mkdir(parents=True)
    assert Spy(tmp_path / "a").ask().stored


def test_the_folders_above_a_cache_are_made(tmp_path: Path):
    assert Spy(tmp_path / "home" / ".cache" / "pytest-trt").ask().stored


def test_a_cache_to_which_something_was_added_is_still_a_cache(spy: Spy):
    spy.ask()
    (spy.store.root / "notes.txt").touch()
    (spy.store.root / "README.md").write_text("mine")
    spy.store.put(Key.make("engine", {"n": 1}), FILES)
    assert (spy.store.root / "README.md").read_text() == "mine"


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def relink(path: Path) -> None:
    moved = path.parents[3] / f"moved {path.name}"
    path.rename(moved)
    path.symlink_to(moved)


def empty_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "first byte": lambda path: flip(path, 0),
    "middle byte": lambda path: flip(path, path.stat().st_size // 2),
    "last byte": lambda path: flip(path, -1),
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "one byte more": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
    "deleted": lambda path: path.unlink(),
    "a link": relink,
    "a folder": empty_folder,
    "a pipe": fifo,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("name", [*FILES, "key.json"])
def test_a_damaged_entry_is_rebuilt_and_never_returned(spy: Spy, name: str, damage: Callable[[Path], object]):
    entry = spy.ask()
    damage(entry.path / name)
    assert [problem.digest for problem in spy.store.verify()] == [KEY.digest]
    again = spy.ask()
    assert spy.builds == 2
    assert (again.fresh, again.stored, dict(again.files)) == (True, True, FILES)
    assert len(spy.events) == 1
    assert name in spy.events[0]
    assert spy.store.verify() == []
    assert spy.ask().fresh is False
    assert leftovers(spy.store.root) == []


def test_no_bit_of_the_card_can_change():
    raw = Card.of(KEY, FILES, "läbel").encode()
    assert Card.decode(raw).meta.label == "läbel"
    for at in range(len(raw)):
        changed = bytearray(raw)
        changed[at] ^= 1 << at % 8
        with pytest.raises(CorruptEntryError):
            Card.decode(bytes(changed))


@given(
    st.dictionaries(st.text(), st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)), st.text()
)
def test_a_card_is_read_as_it_was_written(ingredients: dict, label: str):
    card = Card.of(Key.make("engine", ingredients), FILES, label)
    assert Card.decode(card.encode()) == card


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"null", b"{}", b'{"seal": 1}', b"\xff\xfe", b"[" * 100_000, b'{"a": NaN}', b'"text"']
)
def test_what_is_no_card_is_corrupt(raw: bytes):
    with pytest.raises(CorruptEntryError):
        Card.decode(raw)


def test_extra_files_are_damage(spy: Spy):
    entry = spy.ask()
    (entry.path / "libevil.so").touch()
    assert spy.store.get(KEY) is None
    assert "libevil.so" in spy.events[0]
    assert not entry.path.exists(), "get removes what it cannot use"


def test_an_entry_that_is_a_link_is_refused_and_its_target_survives(spy: Spy):
    entry = spy.ask()
    elsewhere = spy.store.root.parent / "elsewhere"
    entry.path.rename(elsewhere)
    entry.path.symlink_to(elsewhere, target_is_directory=True)
    assert "link" in spy.store.verify()[0].reason
    assert spy.ask().fresh
    assert not entry.path.is_symlink()
    assert sorted(path.name for path in elsewhere.iterdir()) == ["engine.plan", "facts.json", "key.json"]


def test_a_file_in_the_place_of_an_entry_is_refused(spy: Spy):
    entry = spy.ask()
    assert spy.store.remove(KEY.digest)
    entry.path.write_text("not a folder")
    assert spy.ask().fresh
    assert entry.path.is_dir()


def test_an_entry_of_another_key_is_refused(spy: Spy):
    other = Key.make("engine", {"model": "resnet50"})
    path = spy.store.put(other, {"engine.plan": b"resnet50"}).path
    wrong = spy.store.root / "engine" / KEY.digest[:2] / KEY.digest
    wrong.parent.mkdir(parents=True, exist_ok=True)
    path.rename(wrong)
    assert dict(spy.ask().files) == FILES
    assert other.short in spy.events[0]


def test_a_card_whose_ingredients_were_edited_is_refused(spy: Spy):
    entry = spy.ask()
    forged = Card.of(Key("engine", KEY.digest, {"model": "resnet18", "gpu": {"name": "L4"}}), FILES, "")
    (entry.path / "key.json").write_bytes(forged.encode())
    assert spy.store.get(KEY) is None
    assert "do not give the entry's digest" in spy.events[0]


def test_reading_without_repair_changes_nothing(spy: Spy):
    entry = spy.ask()
    os.utime(entry.path / "key.json", (1e9, 1e9))
    assert spy.store.get(KEY, repair=False) is not None
    assert (entry.path / "key.json").stat().st_mtime == 1e9
    flip(entry.path / "engine.plan", 3)
    assert spy.store.get(KEY, repair=False) is None
    assert entry.path.exists()


def test_an_entry_that_is_replaced_while_it_is_read_is_no_damage(spy: Spy, monkeypatch: pytest.MonkeyPatch):
    spy.ask()
    from pytest_trt.artifacts import directory

    real, calls = directory.load_entry, []

    def slow(folder: Path, kind: str, digest: str, stamps: object):
        calls.append(folder)
        if len(calls) == 1:
            DirectoryStore(spy.store.root).put(KEY, {"engine.plan": b"newer"}, replace=True)
            raise CorruptEntryError("half of the old one, half of the new one")
        return real(folder, kind, digest, stamps)

    monkeypatch.setattr(directory, "load_entry", slow)
    assert spy.store.get(KEY).files["engine.plan"] == b"newer"
    assert spy.events == []


def test_an_entry_that_is_evicted_while_it_is_read_is_a_miss(spy: Spy, monkeypatch: pytest.MonkeyPatch):
    spy.ask()
    real = Path.iterdir

    def iterdir(self: Path):
        monkeypatch.setattr(Path, "iterdir", real)
        assert DirectoryStore(spy.store.root).remove(KEY.digest)
        return real(self)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert spy.store.get(KEY) is None
    assert spy.events == []


def test_what_was_read_outlives_its_entry(spy: Spy):
    spy.ask()
    entry = spy.store.get(KEY)
    assert spy.store.remove(KEY.digest)
    assert dict(entry.files) == FILES


def test_if_locks_do_not_work_the_first_one_wins(tmp_path: Path):
    """A network file system without locks: another machine is done while ours still writes."""
    first = DirectoryStore(tmp_path / "cache")
    layout = Layout(tmp_path / "cache", lambda _step: None)
    card = Card.of(KEY, {"engine.plan": b"first"}, "").encode()

    def step(name: str) -> None:
        if name == "synced":
            assert layout.publish("engine", KEY.digest, {"engine.plan": b"first"}, card, replace=False)

    second = Spy(tmp_path / "cache", on_step=step)
    entry = second.ask()
    assert (entry.files["engine.plan"], entry.fresh, entry.stored) == (b"first", False, True)
    assert first.verify() == []
    assert leftovers(tmp_path / "cache") == []


def test_all_of_an_entry_is_on_the_disk_before_it_comes_into_sight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What a power cut would leave: each file as long as it was when it was synced, and names of synced folders."""
    done: list[object] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        state = os.fstat(descriptor)
        done.append((state.st_ino, None if stat.S_ISDIR(state.st_mode) else state.st_size))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    path = Spy(tmp_path / "cache", on_step=done.append).ask().path

    synced = {name: ((path / name).stat().st_ino, (path / name).stat().st_size) for name in [*FILES, "key.json"]}
    each = [step for name, state in synced.items() for step in (state, f"wrote {name}")]
    folder, parent = ((place.stat().st_ino, None) for place in (path, path.parent))
    assert done == ["staged", *each, folder, "synced", "renamed", parent]


@pytest.mark.parametrize(
    ("code", "kept"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)], ids=["no", "never", "broken"]
)
def test_a_file_system_need_not_sync_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kept: bool):
    opened: list[int] = []
    closed: list[int] = []
    real, close = os.fsync, os.close

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            opened.append(descriptor)
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "close", lambda descriptor: close(descriptor) or closed.append(descriptor))
    spy = Spy(tmp_path / "cache")
    assert spy.ask().stored is kept
    assert (spy.store.get(KEY) is not None) is kept
    assert leftovers(spy.store.root) == []
    assert opened
    assert [descriptor for descriptor in closed if descriptor in opened][: len(opened)] == opened


def test_an_entry_that_cannot_come_into_sight_is_not_kept(spy: Spy, monkeypatch: pytest.MonkeyPatch):
    def denied(self: Path, target: Path) -> Path:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "rename", denied)
    entry = spy.ask()
    assert (dict(entry.files), entry.stored) == (FILES, False)
    assert len(spy.events) == 1
    assert spy.events[0].startswith(f"cache: {KEY} is not kept: Permission denied")
    assert leftovers(spy.store.root) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES], ids=["full", "read-only", "denied"])
@pytest.mark.parametrize("step", ["staged", "wrote engine.plan", "wrote key.json", "synced", "renamed"])
def test_a_build_is_not_lost_when_the_disk_fails(tmp_path: Path, step: str, code: int):
    def fail(name: str) -> None:
        if name == step:
            raise OSError(code, os.strerror(code), "somewhere")

    spy = Spy(tmp_path / "cache", on_step=fail)
    entry = spy.ask()
    assert (dict(entry.files), entry.fresh, entry.stored, entry.path) == (FILES, True, False, None)
    assert spy.events == [f"cache: {KEY} is not kept: {os.strerror(code)} (somewhere)"]
    assert leftovers(tmp_path / "cache") == []
    assert DirectoryStore(tmp_path / "cache").verify() == []
    spy.store.remove(KEY.digest)  # after the last step it was in sight already
    with pytest.raises(ArtifactError, match="--trt-cache-dir"):
        spy.store.put(KEY, FILES)


def test_a_build_is_not_lost_when_there_is_no_place_for_a_cache(tmp_path: Path):
    (tmp_path / "file").touch()
    spy = Spy(tmp_path / "file" / "cache")
    for _ in range(2):
        entry = spy.ask()
        assert (dict(entry.files), entry.stored) == (FILES, False)
    assert spy.builds == 2
    # One sentence for all keys: what is said twice is shown once.
    said = f"cache: nothing is kept in {tmp_path}/file/cache: {os.strerror(errno.ENOTDIR)}; see --trt-cache-dir"
    assert {*spy.events} == {said}
    with pytest.raises(ArtifactError, match=r"(?s)cannot keep engine [0-9a-f]{12}: .*--trt-cache-dir") as caught:
        spy.store.put(KEY, FILES)
    assert isinstance(caught.value.__cause__, OSError)
    assert spy.store.get(KEY) is None
    assert list(spy.store.entries()) == []


def test_a_broken_entry_that_cannot_be_removed_is_still_not_used(spy: Spy, monkeypatch: pytest.MonkeyPatch):
    entry = spy.ask()
    flip(entry.path / "engine.plan", 0)

    def denied(self: Path, target: Path) -> Path:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "rename", denied)
    assert spy.store.get(KEY) is None
    again = spy.ask()
    assert (dict(again.files), again.stored) == (FILES, False)
    assert [event.split(": ")[1].split(" ", 2)[2] for event in spy.events] == [
        "is not used",
        "cannot be removed",
        "is not used",
        "will not be kept",
    ]


@pytest.mark.parametrize("digest", ["", "abc", "../../etc", KEY.digest.upper(), KEY.digest + "\n"])
def test_only_a_full_digest_is_removed(spy: Spy, digest: str):
    spy.ask()
    with pytest.raises(ArtifactError, match="64 hexadecimal digits"):
        spy.store.remove(digest)
    assert spy.store.get(KEY) is not None


def test_an_entry_that_is_being_written_is_not_removed(spy: Spy):
    spy.ask()
    with spy.store._layout.locks.try_hold(KEY.digest) as held:
        assert held
        with pytest.raises(ArtifactError, match="already holds"):
            spy.store.remove(KEY.digest)
    assert spy.store.get(KEY) is not None
    assert spy.store.remove(KEY.digest)


def test_an_unreadable_entry_is_listed_by_verify_only(spy: Spy):
    entry = spy.ask()
    (entry.path / "key.json").write_text("{}")
    assert list(spy.store.entries()) == []
    assert [(p.kind, p.digest, p.path) for p in spy.store.verify()] == [("engine", KEY.digest, entry.path)]
    assert spy.store.remove(KEY.digest)
    assert spy.store.verify() == []


def test_stray_files_in_the_folder_of_a_kind_are_no_entries(spy: Spy):
    entry = spy.ask()
    (spy.store.root / "engine" / "notes").touch()
    (entry.path.parent / "notes").mkdir()
    (spy.store.root / "reference").touch()
    assert [info.digest for info in spy.store.entries()] == [KEY.digest]
    assert spy.store.verify() == []
    blocked = spy.store.get_or_build(Key.make("reference", {}), lambda: {"a": b""})
    assert blocked.stored is False


def test_an_entry_is_a_digest_in_its_own_shard(tmp_path: Path):
    digest = KEY.digest
    own, other = digest[:2], f"{int(digest[:2], 16) ^ 1:02x}"
    for place in (own, other):
        for name in (digest, digest[:-1], digest.upper(), "notes"):
            (tmp_path / "engine" / place / name).mkdir(parents=True)
    (tmp_path / "others" / own / digest).mkdir(parents=True)
    layout = Layout(tmp_path, lambda _step: None)
    assert list(layout.folders()) == [("engine", digest, tmp_path / "engine" / own / digest)]
