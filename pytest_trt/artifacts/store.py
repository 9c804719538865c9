"""The contract of a store, the values that go through it, and the two stores that keep nothing.

There is no ``contains``: what is there when asked can be gone when read, so ``get`` answers both at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

from pytest_trt.artifacts.contents import Contents
from pytest_trt.artifacts.key import Key, canonical, leaves
from pytest_trt.artifacts.locks import machine_lock
from pytest_trt.artifacts.stamps import STAMP_NAME
from pytest_trt.errors import ArtifactError

__all__ = [
    "CARD_NAME",
    "Build",
    "Entry",
    "EntryInfo",
    "Meta",
    "NullStore",
    "Payload",
    "Problem",
    "ReadOnlyStore",
    "Store",
    "check_payload",
    "nearest_entry",
]

# File name -> content. One entry may hold several raw files, such as an engine and the facts of its build.
Payload = Mapping[str, bytes]
Build = Callable[[], Payload]

CARD_NAME = "key.json"
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Meta:
    """When an entry was made (ISO 8601, UTC), the sum of its files' sizes, and a label for people."""

    created: str
    size_bytes: int
    label: str = ""

    @classmethod
    def now(cls, files: Payload, label: str) -> Meta:
        created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        # A label is for reading only: what is not valid Unicode in it may be lost.
        return cls(created, sum(map(len, files.values())), label.encode("utf-8", "replace").decode("utf-8"))


@dataclass(frozen=True)
class Entry:
    """What a store gave: the files' bytes, already checked against their recorded digests.

    ``fresh``: this very call built or wrote it. ``stored``: it is in the store; False means that it only lives
    in this object. ``path`` is its folder where it has one; do not read from there what ``files`` holds, since
    the entry can be evicted at any time. ``digests`` are the files' recorded SHA-256, where the store records them.
    """

    key: Key
    files: Mapping[str, bytes]
    meta: Meta
    fresh: bool = False
    stored: bool = True
    path: Path | None = None
    digests: Mapping[str, str] = field(default_factory=dict)

    def view(self, name: str) -> bytes | memoryview:
        """What ``files`` holds as *name*, without a copy of what the store only mapped into memory."""
        return self.files.view(name) if isinstance(self.files, Contents) else self.files[name]


@dataclass(frozen=True)
class EntryInfo:
    """An entry as a list shows it, without its files. ``used`` is in seconds since the epoch."""

    kind: str
    digest: str
    ingredients: Mapping[str, Any]
    meta: Meta
    used: float
    path: Path | None = None


@dataclass(frozen=True)
class Problem:
    """An entry that would not be loaded, and why."""

    kind: str
    digest: str
    reason: str
    path: Path | None = None


class Store(Protocol):
    """Keeps artifacts by key. Safe to use from several threads and processes at once."""

    def get(self, key: Key, *, repair: bool = True) -> Entry | None:
        """Return the entry, or None. An entry that does not match its digests counts as None.

        With ``repair=False`` the store is left exactly as it was: no broken entry is removed and the use is not
        recorded.
        """
        ...

    def get_or_build(self, key: Key, build: Build, *, label: str = "") -> Entry:
        """Return the entry; when it is missing, call *build* once, whoever else asks for it at the same time.

        The others wait and then read. What *build* raises goes through, and nothing is kept. When the result
        cannot be kept it is still returned, with ``stored=False``.
        """
        ...

    def put(self, key: Key, payload: Payload, *, label: str = "", replace: bool = False) -> Entry:
        """Keep *payload*. An entry that is already there wins, unless *replace*. Raises ArtifactError.

        While an entry is replaced, a reader may see neither the old nor the new one for an instant.
        """
        ...

    def entries(self) -> Iterator[EntryInfo]:
        """Yield all readable entries, without checking their digests."""
        ...

    def remove(self, digest: str) -> bool:
        """Remove the entry with this full digest; False if there is none. Raises ArtifactError while it is in use."""
        ...

    def verify(self) -> list[Problem]:
        """Check every digest. Changes nothing."""
        ...

    def nearest(self, key: Key) -> EntryInfo | None:
        """Return the other entry of the same kind that shares the most ingredients; None if none shares any."""
        ...

    def lock(
        self, name: str, *, waiting: Callable[[], None] | None = None, timeout_s: float | None = None
    ) -> AbstractContextManager[None]:
        """Hold a lock that excludes this user's other processes on this machine, whatever store they use.

        It is for what a machine has once, such as a GPU. *waiting* is called once if another one holds it.
        Raises ArtifactError if it is still held after *timeout_s*, or when this thread holds it already.
        """
        ...


def check_payload(payload: Payload) -> dict[str, bytes]:
    """Return *payload* as a dict of its own. Raises ArtifactError for names or contents that cannot be files."""
    if not payload:
        raise ArtifactError("an artifact needs at least one file", hint="return {file name: bytes} from the build")
    for name, data in payload.items():
        if not _FILE_NAME.fullmatch(name) or name.lower() in (CARD_NAME, STAMP_NAME):
            raise ArtifactError(
                f"{name!r} cannot be the name of an artifact's file",
                hint="letters, digits, '.', '_' and '-', at most 100, no folder; "
                f"{CARD_NAME} and {STAMP_NAME} are the store's own",
            )
        if type(data) is not bytes:
            raise ArtifactError(
                f"artifact file {name!r} is {type(data).__name__}, not bytes", hint="wrap it in bytes()"
            )
    if len({name.lower() for name in payload}) != len(payload):
        raise ArtifactError(
            f"artifact files {sorted(payload)} differ in upper and lower case only",
            hint="some file systems hold such names for one file: rename one of them",
        )
    return dict(payload)


def nearest_entry(key: Key, entries: Iterable[EntryInfo]) -> EntryInfo | None:
    """Return the entry that shares the most leaves with *key*, the one used last among equals."""
    wanted = {(path, canonical(value)) for path, value in leaves(key.ingredients)}
    best: tuple[int, float] = (0, 0.0)
    found = None
    for entry in entries:
        if entry.kind != key.kind or entry.digest == key.digest:
            continue
        shared = len(wanted & {(path, canonical(value)) for path, value in leaves(entry.ingredients)})
        if shared and (shared, entry.used) > best:
            best, found = (shared, entry.used), entry
    return found


def _unkept(key: Key, payload: Payload, label: str, *, fresh: bool) -> Entry:
    files = check_payload(payload)
    return Entry(key, files, Meta.now(files, label), fresh=fresh, stored=False)


@dataclass(frozen=True)
class ReadOnlyStore:
    """Reads another store and never changes it (``--trt-cache=ro``). What is missing is built and not kept."""

    store: Store

    def get(self, key: Key, *, repair: bool = True) -> Entry | None:  # noqa: ARG002 - nothing is ever repaired here
        return self.store.get(key, repair=False)

    def get_or_build(self, key: Key, build: Build, *, label: str = "") -> Entry:
        return self.get(key) or _unkept(key, build(), label, fresh=True)

    def put(self, key: Key, payload: Payload, *, label: str = "", replace: bool = False) -> Entry:
        found = None if replace else self.get(key)
        return found or _unkept(key, payload, label, fresh=True)

    def entries(self) -> Iterator[EntryInfo]:
        return self.store.entries()

    def remove(self, digest: str) -> bool:
        raise ArtifactError(f"cannot remove {digest[:12]}: the cache is open for reading only", hint="--trt-cache=rw")

    def verify(self) -> list[Problem]:
        return self.store.verify()

    def nearest(self, key: Key) -> EntryInfo | None:
        return self.store.nearest(key)

    def lock(
        self, name: str, *, waiting: Callable[[], None] | None = None, timeout_s: float | None = None
    ) -> AbstractContextManager[None]:
        return machine_lock(name, waiting=waiting, timeout_s=timeout_s)


@dataclass(frozen=True)
class NullStore:
    """Keeps nothing (``--trt-cache=off``): every build is made anew."""

    def get(self, key: Key, *, repair: bool = True) -> Entry | None:  # noqa: ARG002 - the contract's arguments
        return None

    def get_or_build(self, key: Key, build: Build, *, label: str = "") -> Entry:
        return _unkept(key, build(), label, fresh=True)

    def put(self, key: Key, payload: Payload, *, label: str = "", replace: bool = False) -> Entry:  # noqa: ARG002 - as above
        return _unkept(key, payload, label, fresh=True)

    def entries(self) -> Iterator[EntryInfo]:
        return iter(())

    def remove(self, digest: str) -> bool:  # noqa: ARG002 - there is never anything to remove
        return False

    def verify(self) -> list[Problem]:
        return []

    def nearest(self, key: Key) -> EntryInfo | None:  # noqa: ARG002 - there is never another entry
        return None

    def lock(
        self, name: str, *, waiting: Callable[[], None] | None = None, timeout_s: float | None = None
    ) -> AbstractContextManager[None]:
        return machine_lock(name, waiting=waiting, timeout_s=timeout_s)
