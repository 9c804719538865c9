"""A store in a folder that processes, and machines on a shared disk, use at the same time.

Reading takes no lock: an entry is whole from the moment it is in sight, its digests are checked on every read, or
vouched for by the check of an earlier one (see ``stamps``), and all of it is in memory, or mapped into it, afterwards.
Each change of an entry is made under the entry's own lock (see ``layout``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from datetime import timedelta
from pathlib import Path

from pytest_trt.artifacts.card import Card, load_entry, read_card
from pytest_trt.artifacts.contents import Contents
from pytest_trt.artifacts.gc import Collected, collect, last_used_ns, record_use
from pytest_trt.artifacts.key import Key
from pytest_trt.artifacts.layout import CACHE_HINT, Layout
from pytest_trt.artifacts.locks import machine_lock
from pytest_trt.artifacts.stamps import Stamps
from pytest_trt.artifacts.store import Build, Entry, EntryInfo, Payload, Problem, check_payload, nearest_entry
from pytest_trt.backends import Progress, silent
from pytest_trt.errors import ArtifactError, CorruptEntryError

__all__ = ["DirectoryStore"]

# An entry can be replaced under a reader. After this many times in a row it counts as a miss.
READ_ATTEMPTS = 3


class DirectoryStore:
    """Artifacts below *root*, which is made when something is first kept.

    *max_bytes* caps the size after each write: the least recently used entries go, the one just written stays
    even when it is larger alone. *on_event* gets one line for whatever a user may want to know: a broken entry,
    a wait for another process, a result that could not be kept. *on_step* is for fault injection (``Layout``).
    """

    def __init__(
        self,
        root: Path | str,
        *,
        max_bytes: int | None = None,
        on_event: Progress = silent,
        on_step: Callable[[str], None] = silent,
    ) -> None:
        self.root = Path(root).absolute()  # a test that changes the working directory keeps its cache
        self.max_bytes = max_bytes
        self._on_event = on_event
        self._layout = Layout(self.root, on_step)
        self._swept = False

    def get(self, key: Key, *, repair: bool = True) -> Entry | None:
        return self._get(key, repair=repair, record=repair)

    def _get(self, key: Key, *, repair: bool, record: bool) -> Entry | None:
        stamps = Stamps.of(self.root, self._layout.folder(key.kind, key.digest))
        try:
            entry = self._read(key, stamps)
        except CorruptEntryError as error:
            self._on_event(f"cache: {key} is not used: {error.message}")
            if repair:
                self._repair(key)
            return None
        if entry is not None and record:
            self._record_use(key, stamps)
        return entry

    def get_or_build(self, key: Key, build: Build, *, label: str = "") -> Entry:
        entry = self._get(key, repair=False, record=True)
        if entry is not None:
            return entry
        with ExitStack() as stack:
            locked = False
            try:
                self._prepare()
                stack.enter_context(self._layout.locks.hold(key.digest, waiting=lambda: self._say_waiting(key)))
                locked = True
                entry = self._read_or_discard(key)
                writable = True
            except OSError as error:
                # Where there is no folder to write into, every key would have it said of it: one sentence for all.
                self._on_event(
                    f"cache: {key} will not be kept: {_why(error, self.root)}"
                    if locked
                    else f"cache: nothing is kept in {self.root}: {error.strerror or error}; see --trt-cache-dir"
                )
                writable = False
            if entry is not None:
                return entry
            files = check_payload(build())
            card = Card.of(key, files, label)
            entry = self._entry(key, card, files, fresh=True, stored=False)
            if writable:
                try:
                    entry = self._publish(key, card, files)
                except OSError as error:
                    self._on_event(f"cache: {key} is not kept: {_why(error, self.root)}")
        if entry.stored:
            self._shrink(key)
        return entry

    def put(self, key: Key, payload: Payload, *, label: str = "", replace: bool = False) -> Entry:
        files = check_payload(payload)
        card = Card.of(key, files, label)
        with self._reported(f"keep {key}"):
            self._prepare()
            with self._layout.locks.hold(key.digest, waiting=lambda: self._say_waiting(key)):
                found = self._read_or_discard(key)
                if found is not None and not replace:
                    return found
                entry = self._publish(key, card, files, replace=replace)
        self._shrink(key)
        return entry

    def entries(self) -> Iterator[EntryInfo]:
        with self._reported("list the entries"):
            folders = list(self._layout.folders())
        for kind, digest, folder in folders:
            try:
                card = read_card(folder)
                used = last_used_ns(folder) / 1e9
            except (CorruptEntryError, OSError):
                continue  # ``verify`` is there to name these
            yield EntryInfo(kind, digest, card.ingredients, card.meta, used, folder)

    def remove(self, digest: str) -> bool:
        with self._reported(f"remove {digest[:12]}"):
            if self._layout.find(digest) is None:
                return False
            with self._layout.locks.hold(digest, timeout_s=1.0):
                folder = self._layout.find(digest)
                if folder is not None:
                    self._layout.discard(folder)
                return folder is not None

    def verify(self) -> list[Problem]:
        problems = []
        with self._reported("check the entries"):
            for kind, digest, folder in self._layout.folders():
                try:
                    self._load(kind, digest)
                except CorruptEntryError as error:
                    problems.append(Problem(kind, digest, error.message, folder))
        return problems

    def nearest(self, key: Key) -> EntryInfo | None:
        return nearest_entry(key, self.entries())

    def lock(
        self, name: str, *, waiting: Callable[[], None] | None = None, timeout_s: float | None = None
    ) -> AbstractContextManager[None]:
        return machine_lock(name, waiting=waiting, timeout_s=timeout_s)

    def gc(self, max_bytes: int | None = None, older_than: timedelta | None = None) -> Collected:
        """Evict what was not used for *older_than*, then the least recently used until all fit in *max_bytes*.

        *max_bytes* defaults to the store's own cap. Entries in use stay. Also deletes what killed processes left.
        """
        limit = self.max_bytes if max_bytes is None else max_bytes
        with self._reported("trim the cache"):
            return collect(self._layout, max_bytes=limit, older_than=older_than)

    def _read(self, key: Key, stamps: Stamps | None = None) -> Entry | None:
        loaded = self._load(key.kind, key.digest, stamps)
        return None if loaded is None else self._entry(key, *loaded, fresh=False, stored=True)

    def _load(self, kind: str, digest: str, stamps: Stamps | None = None) -> tuple[Card, Contents] | None:
        """Read and check one entry, as ``load_entry`` does; None if there is none. Raises CorruptEntryError."""
        folder = self._layout.folder(kind, digest)
        for _ in range(READ_ATTEMPTS):
            before = _identity(folder)
            if before is None:
                return None
            try:
                return load_entry(folder, kind, digest, stamps)
            except FileNotFoundError:
                continue
            except CorruptEntryError:
                # Evicted or replaced while it was read: that is no damage.
                if _identity(folder) == before:
                    raise
        return None

    def _read_or_discard(self, key: Key) -> Entry | None:
        """Under the entry's lock: read it, or make room for a new one."""
        try:
            return self._read(key)
        except CorruptEntryError:
            self._layout.discard(self._layout.folder(key.kind, key.digest))
            return None

    def _repair(self, key: Key) -> None:
        try:
            with self._layout.locks.try_hold(key.digest) as held:
                if held:  # else somebody is at it already
                    self._read_or_discard(key)
        except OSError as error:
            self._on_event(f"cache: {key} cannot be removed: {_why(error, self.root)}")

    def _prepare(self) -> None:
        self._layout.create()
        if not self._swept:
            self._swept = True
            self._layout.sweep()

    def _publish(self, key: Key, card: Card, files: Payload, *, replace: bool = False) -> Entry:
        if self._layout.publish(key.kind, key.digest, files, card.encode(), replace=replace):
            return self._entry(key, card, files, fresh=True, stored=True)
        # Somebody came first in spite of the lock: all shall use the same one, if it is sound.
        with contextlib.suppress(CorruptEntryError):
            if (first := self._read(key)) is not None:
                return first
        return self._entry(key, card, files, fresh=True, stored=False)

    def _shrink(self, key: Key) -> None:
        if self.max_bytes is None:
            return
        try:
            left = collect(self._layout, max_bytes=self.max_bytes, keep=key.digest)
        except OSError as error:
            self._on_event(f"cache: cannot be trimmed: {_why(error, self.root)}")
            return
        if left.kept_bytes > self.max_bytes:
            self._on_event(
                f"cache: {left.kept_bytes / 1e6:.1f} MB are in use, above the cap of {self.max_bytes / 1e6:.1f} MB "
                f"(--trt-cache-size)"
            )

    def _record_use(self, key: Key, stamps: Stamps | None) -> None:
        # Without it a read-only cache still serves; only the order of eviction knows less, and the next one digests.
        with contextlib.suppress(OSError):
            record_use(self._layout.folder(key.kind, key.digest))
            if stamps is not None:
                stamps.save(self._layout.tmp)

    def _say_waiting(self, key: Key) -> None:
        self._on_event(f"cache: waiting for another process that makes {key}")

    def _entry(self, key: Key, card: Card, files: Payload, *, fresh: bool, stored: bool) -> Entry:
        path = self._layout.folder(key.kind, key.digest) if stored else None
        return Entry(key, files, card.meta, fresh=fresh, stored=stored, path=path, digests=card.digests)

    @contextlib.contextmanager
    def _reported(self, action: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ArtifactError(f"cannot {action}: {_why(error, self.root)}", hint=CACHE_HINT) from error


def _identity(folder: Path) -> tuple[int, int, int] | None:
    """What tells one folder from another of the same name; None if there is none. Raises CorruptEntryError."""
    try:
        found = folder.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise CorruptEntryError(f"it cannot be read: {error.strerror}") from error
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _why(error: OSError, root: Path) -> str:
    return f"{error.strerror or error} ({error.filename or root})"
