"""How long a lock is waited for, which file it is, and that nothing is left when it is given back."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout

from pytest_trt.artifacts.locks import GRACE_S, Locks, machine_lock
from pytest_trt.artifacts.store import NullStore, ReadOnlyStore
from pytest_trt.errors import ArtifactError


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Somebody else holds each lock until he is waited for without an end; the seconds that each attempt takes."""
    asked: list[float] = []

    def acquire(self: FileLock, timeout: float, poll_interval: float) -> None:
        assert poll_interval < GRACE_S
        asked.append(timeout)
        if timeout >= 0:
            raise Timeout(self.lock_file)

    monkeypatch.setattr(FileLock, "acquire", acquire)
    return asked


@pytest.mark.parametrize(
    ("timeout_s", "expected", "said"),
    [(1.0, [GRACE_S, 1.0 - GRACE_S], "1 s"), (0.125, [0.125, 0.0], "0.125 s"), (0.0, [0.0, 0.0], "0 s")],
    ids=["longer than the grace", "shorter", "none"],
)
def test_the_grace_is_a_part_of_the_time_to_wait(
    tmp_path: Path, waits: list[float], timeout_s: float, expected: list[float], said: str
):
    calls: list[int] = []
    waiting = Locks(tmp_path).hold("gpu", waiting=lambda: calls.append(len(waits)), timeout_s=timeout_s)

    with pytest.raises(ArtifactError, match=rf"the lock 'gpu' is still held .* after {said}") as caught, waiting:
        pytest.fail("two holders")
    assert waits == expected
    assert calls == [1], "said once, between the two attempts"
    assert str(tmp_path / "gpu.lock") in (caught.value.hint or "")


def test_without_a_limit_it_is_waited_for_ever_once_the_grace_is_over(tmp_path: Path, waits: list[float]):
    with Locks(tmp_path).hold("gpu"):
        assert waits == [GRACE_S, -1]


def test_a_lock_that_could_not_be_had_is_not_thought_held(tmp_path: Path):
    locks = Locks(tmp_path)
    with locks.hold("gpu"):
        path = locks.path("gpu")
        with locks.try_hold("gpu") as held:
            assert held is False
        with pytest.raises(ArtifactError, match="already holds"), locks.hold("gpu"):
            pytest.fail("taken twice")
    with locks.try_hold("gpu") as held:
        assert held is True
        with pytest.raises(ArtifactError, match="already holds"), locks.hold("gpu"):
            pytest.fail("taken twice")
    with locks.hold("gpu", timeout_s=0):
        assert path.exists()


def test_trying_for_what_another_one_holds_leaves_no_trace(tmp_path: Path):
    locks = Locks(tmp_path)
    with FileLock(locks.path("gpu")), locks.try_hold("gpu") as held:
        assert held is False
    with locks.hold("gpu", timeout_s=0):
        pass


@pytest.mark.parametrize("take", ["hold", "try_hold"])
def test_a_lock_is_given_back_whatever_happens_under_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, take: str):
    kept: list[FileLock] = []  # a lock that nobody refers to would be given back by the collector of garbage
    make = Locks._file_lock
    monkeypatch.setattr(Locks, "_file_lock", lambda self, path: kept.append(make(self, path)) or kept[-1])
    with pytest.raises(ZeroDivisionError), getattr(Locks(tmp_path), take)("gpu"):
        raise ZeroDivisionError
    assert [lock.is_locked for lock in kept] == [False]
    with Locks(tmp_path).hold("gpu", timeout_s=0):
        pass


@pytest.mark.parametrize("name", ["0", "device-0", "a" * 80])
def test_a_plain_word_is_the_name_of_its_file(tmp_path: Path, name: str):
    assert Locks(tmp_path).path(name) == tmp_path / f"{name}.lock"


@pytest.mark.parametrize(
    ("name", "slug"),
    [("a" * 81, "a" * 60), ("GPU 0", "gpu-0"), ("/../x/", "x"), ("gpu_0", "gpu-0"), ("ä", ""), ("\udcff", "")],
)
def test_any_other_name_is_told_apart_by_a_digest(tmp_path: Path, name: str, slug: str):
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()

    assert Locks(tmp_path).path(name) == tmp_path / f"{slug}_{digest[:16]}.lock"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that machine_lock makes, and nobody else uses."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"pytest-trt-{os.getuid()}"


def test_the_locks_of_the_machine_are_this_users_alone(temporary: Path):
    for _ in range(2):  # also where the folder is there already
        with machine_lock("gpu"):
            assert stat.S_IMODE(temporary.stat().st_mode) & 0o077 == 0
            assert (temporary / "gpu.lock").exists()


@pytest.mark.parametrize("take", [machine_lock, NullStore().lock, ReadOnlyStore(NullStore()).lock])
def test_the_locks_of_the_machine_wait_as_they_are_told(temporary: Path, waits: list[float], take: Callable[..., Any]):
    said: list[str] = []
    waiting = take("gpu", waiting=lambda: said.append("waiting"), timeout_s=0.5)

    with pytest.raises(ArtifactError, match=r"after 0\.5 s"), waiting:
        pytest.fail("two holders")
    assert said == ["waiting"]


def test_a_folder_of_another_user_is_no_place_for_locks(temporary: Path, monkeypatch: pytest.MonkeyPatch):
    somebody = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: somebody)
    temporary.with_name(f"pytest-trt-{somebody}").mkdir()

    with pytest.raises(ArtifactError, match="for locks: it belongs to somebody else"), machine_lock("gpu"):
        pytest.fail("its owner could take the file away")


def test_an_error_under_a_lock_of_the_machine_is_not_the_locks(temporary: Path):
    with pytest.raises(FileNotFoundError), machine_lock("gpu"):
        raise FileNotFoundError
