"""A store in memory: the contract without a disk, for tests and for one process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace as changed

from pytest_trt.artifacts.key import Key
from pytest_trt.artifacts.store import Build, Entry, EntryInfo, Meta, Payload, Problem, check_payload, nearest_entry
from pytest_trt.errors import ArtifactError

__all__ = ["MemoryStore"]


class MemoryStore:
    """Keeps entries until it is dropped. Its locks hold between threads only."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._used: dict[str, float] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._owners: dict[str, int] = {}

    def get(self, key: Key, *, repair: bool = True) -> Entry | None:
        with self._guard:
            entry = self._entries.get(key.digest)
            if entry is not None and repair:
                self._used[key.digest] = time.time()
            return entry

    def get_or_build(self, key: Key, build: Build, *, label: str = "") -> Entry:
        found = self.get(key)
        if found is not None:
            return found
        with self._hold(f"{key.kind}/{key.digest}"):
            return self.get(key) or self._keep(key, build(), label)

    def put(self, key: Key, payload: Payload, *, label: str = "", replace: bool = False) -> Entry:
        with self._hold(f"{key.kind}/{key.digest}"):
            found = None if replace else self.get(key)
            return found or self._keep(key, payload, label)

    def entries(self) -> Iterator[EntryInfo]:
        with self._guard:
            found = [
                EntryInfo(entry.key.kind, digest, entry.key.ingredients, entry.meta, self._used[digest])
                for digest, entry in sorted(self._entries.items())
            ]
        return iter(found)

    def remove(self, digest: str) -> bool:
        with self._guard:
            self._used.pop(digest, None)
            return self._entries.pop(digest, None) is not None

    def verify(self) -> list[Problem]:
        return []

    def nearest(self, key: Key) -> EntryInfo | None:
        return nearest_entry(key, self.entries())

    @contextmanager
    def lock(
        self, name: str, *, waiting: Callable[[], None] | None = None, timeout_s: float | None = None
    ) -> Iterator[None]:
        with self._hold(f"lock/{name}", waiting, timeout_s):
            yield

    @contextmanager
    def _hold(
        self, name: str, waiting: Callable[[], None] | None = None, timeout_s: float | None = None
    ) -> Iterator[None]:
        me = threading.get_ident()
        with self._guard:
            lock = self._locks.setdefault(name, threading.Lock())
            if self._owners.get(name) == me:
                raise ArtifactError(
                    f"this thread already holds the lock {name!r}", hint="take it once, around both uses"
                )
        if not lock.acquire(blocking=False):
            if waiting is not None:
                waiting()
            if not lock.acquire(timeout=-1 if timeout_s is None else timeout_s):
                raise ArtifactError(
                    f"the lock {name!r} is still held after {timeout_s:g} s", hint="wait for its holder"
                )
        self._owners[name] = me
        try:
            yield
        finally:
            del self._owners[name]
            lock.release()

    def _keep(self, key: Key, payload: Payload, label: str) -> Entry:
        files = check_payload(payload)
        entry = Entry(key, files, Meta.now(files, label))
        with self._guard:
            self._entries[key.digest] = entry
            self._used[key.digest] = time.time()
        return changed(entry, fresh=True)
