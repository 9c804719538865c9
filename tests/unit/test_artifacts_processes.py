"""Several processes on one cache, and processes that are killed at any moment."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import pytest_trt
from pytest_trt.artifacts.directory import DirectoryStore
from pytest_trt.artifacts.file_state import keeps_change_times
from pytest_trt.artifacts.key import Key

REPOSITORY = Path(pytest_trt.__file__).parents[1]
FILES = {"engine.plan": bytes(range(256)) * 8192, "facts.json": b"{}"}  # 2 MB: a write takes several system calls

PREAMBLE = """
import os, pathlib, signal, sys, time
from pytest_trt.artifacts.directory import DirectoryStore
from pytest_trt.artifacts.key import Key
from pytest_trt.artifacts.locks import machine_lock

root, args = pathlib.Path(sys.argv[1]), sys.argv[2:]
files = {"engine.plan": bytes(range(256)) * 8192, "facts.json": b"{}"}
key = lambda number: Key.make("engine", {"number": number})
say = lambda *words: print(*words, flush=True)
"""


class Children:
    """Processes that run a script on one cache; what still runs at the end is killed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.running: list[subprocess.Popen[str]] = []

    def start(self, script: str, *args: object) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PREAMBLE + script, str(self.root), *map(str, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
        self.running.append(child)
        return child

    def kill(self, child: subprocess.Popen[str]) -> None:
        child.send_signal(signal.SIGKILL)
        child.communicate()

    def close(self) -> None:
        for child in self.running:
            child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    stream.close()


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    started = Children(tmp_path / "a cache")
    yield started
    started.close()


def key(number: int) -> Key:
    return Key.make("engine", {"number": number})


def assert_all_is_sound(root: Path) -> None:
    """Each entry verifies, and a write sweeps what the dead left."""
    store = DirectoryStore(root)
    assert store.verify() == []
    for info in store.entries():
        entry = store.get(key(info.ingredients["number"]))
        assert entry is not None
        assert dict(entry.files) == FILES
    assert store.put(key(-1), FILES).stored
    assert list((root / "tmp").iterdir()) == []


def test_processes_build_once_and_the_others_wait(children: Children, tmp_path: Path):
    """Also the first creation of the cache by many at once: it does not exist before."""
    script = """
def build():
    with open(args[1], "a") as log:
        log.write(f"{os.getpid()}\\n")
    time.sleep(0.5)
    return files
store = DirectoryStore(root, on_event=say)
say("ready")
while not os.path.exists(args[0]):
    time.sleep(0.005)
entry = store.get_or_build(key(1), build)
say("fresh" if entry.fresh else "read", dict(entry.files) == files, entry.stored)
"""
    processes = [children.start(script, tmp_path / "go", tmp_path / "log") for _ in range(4)]
    for child in processes:
        assert child.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    said = [child.communicate(timeout=60)[0].splitlines() for child in processes]
    assert [child.returncode for child in processes] == [0] * 4
    assert len((tmp_path / "log").read_text().splitlines()) == 1
    assert sorted(lines[-1] for lines in said) == ["fresh True True"] + ["read True True"] * 3
    waiting = [lines for lines in said if len(lines) == 2]
    assert waiting, "somebody waited, and said so"
    assert all("waiting for another process that makes engine" in lines[0] for lines in waiting)
    assert_all_is_sound(children.root)


# What ``Layout`` calls its steps. "moved" comes with an entry that is replaced.
STEPS = ["staged", "wrote engine.plan", "wrote facts.json", "wrote key.json", "synced", "moved", "renamed"]


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_between_two_steps_leaves_no_bad_entry(children: Children, step: str):
    script = """
DirectoryStore(root).put(key(1), files)
def kill(step):
    if step == args[0]:
        say(step)
        os.kill(os.getpid(), signal.SIGKILL)
DirectoryStore(root, on_step=kill).put(key(1), files, replace=True)
say("survived")
"""
    child = children.start(script, step)
    said, _ = child.communicate(timeout=60)
    assert (said, child.returncode) == (f"{step}\n", -signal.SIGKILL)
    store = DirectoryStore(children.root)
    assert store.verify() == []
    started = time.monotonic()
    entry = store.get_or_build(key(1), lambda: FILES)
    assert dict(entry.files) == FILES
    assert entry.stored
    assert entry.fresh is (step == "moved"), "the old or the new one is there, but for the instant between the two"
    assert time.monotonic() - started < 5, "nothing waits for the dead"
    assert_all_is_sound(children.root)


def test_a_kill_at_any_instant_leaves_no_bad_entry(children: Children):
    """Writes, replacements, evictions and removals of 2 MB entries, cut off 15 times."""
    script = """
store = DirectoryStore(root, max_bytes=9_000_000)
say("ready")
for round in range(100_000):
    number = round % 6
    if round % 7 == 3:
        store.remove(key(number).digest)
    store.put(key(number), files, replace=round % 2 == 0)
"""
    instants = random.Random(20)
    torn = 0
    for _ in range(15):
        child = children.start(script)
        assert child.stdout.readline() == "ready\n"
        time.sleep(instants.uniform(0.001, 0.12))
        assert child.poll() is None, "it was at work when it was killed"
        children.kill(child)
        tmp = children.root / "tmp"
        torn += tmp.is_dir() and any(tmp.iterdir())
        assert DirectoryStore(children.root).verify() == []
    assert torn, "no kill came in the middle of a write: the test tests nothing"
    assert_all_is_sound(children.root)


def test_a_builder_that_is_killed_gives_way_at_once(children: Children):
    script = """
def build():
    say("building")
    time.sleep(600)
DirectoryStore(root).get_or_build(key(1), build)
"""
    child = children.start(script)
    assert child.stdout.readline() == "building\n"
    waiter = children.start("""
entry = DirectoryStore(root, on_event=say).get_or_build(key(1), lambda: files)
say(entry.fresh, entry.stored)
""")
    assert "waiting for another process" in waiter.stdout.readline()
    children.kill(child)
    assert waiter.communicate(timeout=10)[0] == "True True\n"
    assert_all_is_sound(children.root)


def test_an_entry_that_another_process_builds_is_neither_evicted_nor_swept(children: Children):
    script = """
def pause(step):
    if step == "synced":
        say(step)
        sys.stdin.readline()
entry = DirectoryStore(root, on_step=pause).put(key(1), files)
say(entry.stored)
"""
    child = children.start(script)
    assert child.stdout.readline() == "synced\n"
    store = DirectoryStore(children.root)
    store.gc(max_bytes=0)
    assert len(list((children.root / "tmp").iterdir())) == 1
    assert child.communicate("go\n", timeout=30)[0] == "True\n"
    assert dict(store.get(key(1)).files) == FILES


def test_a_lock_ends_with_its_process(children: Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    script = """
with machine_lock("device-gpu", waiting=lambda: say("waiting")):
    say("held")
    time.sleep(600)
"""
    holder = children.start(script)
    assert holder.stdout.readline() == "held\n"
    waiter = children.start(script)
    assert waiter.stdout.readline() == "waiting\n"
    children.kill(holder)
    assert waiter.stdout.readline() == "held\n"


def test_readers_and_evictors_do_not_disturb_each_other(children: Children):
    """One process reads what another keeps replacing and evicting: a whole entry or none, never an error."""
    script = """
store = DirectoryStore(root, max_bytes=3_000_000)
say("ready")
end = time.monotonic() + 1.5
while time.monotonic() < end:
    for number in range(3):
        store.put(key(number), files, replace=True)
"""
    child = children.start(script)
    assert child.stdout.readline() == "ready\n"
    events: list[str] = []
    store = DirectoryStore(children.root, on_event=events.append)
    hits = misses = 0
    while child.poll() is None:
        for number in range(3):
            entry = store.get(key(number))
            assert entry is None or dict(entry.files) == FILES
            hits, misses = hits + (entry is not None), misses + (entry is None)
    assert child.returncode == 0
    assert hits
    assert misses
    assert events == []
    assert_all_is_sound(children.root)


def test_readers_stamp_entries_that_another_one_replaces(children: Children):
    """Readers write their stamps into folders that are taken away meanwhile: no error, and never a wrong content."""
    if not keeps_change_times(children.root.parent):
        pytest.skip("nothing is stamped on this file system")
    script = """
from pytest_trt.artifacts import file_state
file_state.SETTLED_NS = 0
plans = {files["engine.plan"], files["engine.plan"][::-1]}
store = DirectoryStore(root, on_event=lambda text: say("event", text))
say("ready")
end = time.monotonic() + 1.5
stamped = 0
while time.monotonic() < end:
    for number in range(3):
        entry = store.get(key(number))
        assert entry is None or entry.files["engine.plan"] in plans
        stamped += entry is not None and (entry.path / "verified.json").exists()
say("stamped", stamped > 0)
"""
    readers = [children.start(script) for _ in range(2)]
    for child in readers:
        assert child.stdout.readline() == "ready\n"
    store = DirectoryStore(children.root, max_bytes=5_000_000)
    turned = {**FILES, "engine.plan": FILES["engine.plan"][::-1]}
    rounds = 0
    while any(child.poll() is None for child in readers):
        rounds += 1
        for number in range(3):
            store.put(key(number), FILES if rounds % 2 else turned, replace=True)
            time.sleep(0.02)
    assert [child.communicate()[0].splitlines() for child in readers] == [["stamped True"]] * 2
    assert [child.returncode for child in readers] == [0, 0]
    assert store.verify() == []
    assert list((children.root / "tmp").iterdir()) == []
