"""Exclusive locks that processes share and that end with the process which holds them.

They are operating system locks on empty files. The files stay: unlinking one that somebody waits on would give
two holders. A lock is not reentrant.
"""

from __future__ import annotations

import errno
import getpass
import hashlib
import os
import re
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from pytest_trt.errors import ArtifactError

__all__ = ["Locks", "machine_lock"]

# Others hold most locks for milliseconds only (a sweep, a size check); waiting is worth a word after this.
GRACE_S: Final = 0.25
POLL_S: Final = 0.05


class _Held(threading.local):
    """The lock files that this thread holds, so that a second attempt is an error and not a wait for itself."""

    def __init__(self) -> None:
        self.paths: set[Path] = set()


_HELD = _Held()


class Locks:
    """The locks of one folder, by name. Raises OSError where the folder cannot be written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """The lock file of *name*; a name that is no plain word is spelled with a digest."""
        if re.fullmatch(r"[a-z0-9-]{1,80}", name):
            return self.folder / f"{name}.lock"
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60]
        return self.folder / f"{slug}_{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}.lock"

    @contextmanager
    def hold(
        self, name: str, *, waiting: Callable[[], None] | None = None, timeout_s: float | None = None
    ) -> Iterator[None]:
        """Hold *name*; call *waiting* once if another process or thread has it for more than an instant.

        Raises ArtifactError when it is still held after *timeout_s*, or when this thread holds it already.
        """
        path = self.path(name)
        if path in _HELD.paths:
            raise ArtifactError(f"this thread already holds the lock {name!r}", hint="take it once, around both uses")
        lock = self._file_lock(path)
        try:
            first_s = GRACE_S if timeout_s is None else min(GRACE_S, timeout_s)
            try:
                lock.acquire(timeout=first_s, poll_interval=POLL_S)
            except Timeout:
                if waiting is not None:
                    waiting()
                rest_s = -1 if timeout_s is None else timeout_s - first_s
                lock.acquire(timeout=rest_s, poll_interval=POLL_S)
        except Timeout as error:
            raise ArtifactError(
                f"the lock {name!r} is still held by another process after {timeout_s:g} s",
                hint=f"wait for it, or end the process that has {path} open",
            ) from error
        _HELD.paths.add(path)
        try:
            yield
        finally:
            _HELD.paths.discard(path)
            lock.release()

    @contextmanager
    def try_hold(self, name: str) -> Iterator[bool]:
        """Hold *name* if nobody has it; yields whether it is held."""
        path = self.path(name)
        lock = self._file_lock(path)
        held = True
        try:
            lock.acquire(blocking=False)
        except Timeout:
            held = False
        if held:
            _HELD.paths.add(path)
        try:
            yield held
        finally:
            if held:
                _HELD.paths.discard(path)
                lock.release()

    def _file_lock(self, path: Path) -> FileLock:
        self.folder.mkdir(parents=True, exist_ok=True)
        # A new object each time: two of them exclude each other even inside one process.
        return FileLock(path, thread_local=False)


@contextmanager
def machine_lock(
    name: str, *, waiting: Callable[[], None] | None = None, timeout_s: float | None = None
) -> Iterator[None]:
    """Hold a lock that excludes this user's other processes on this machine, whatever cache each of them uses.

    For what a machine has once, such as a GPU. Other users, and containers with a temporary folder of their own,
    are not excluded. Raises ArtifactError as ``Locks.hold`` does, and when the lock's folder cannot be used.
    """
    with ExitStack() as stack:
        folder = Path(tempfile.gettempdir()) / f"pytest-trt-{_user()}"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or (hasattr(os, "getuid") and found.st_uid != os.getuid()):
                raise PermissionError(errno.EPERM, "it belongs to somebody else")
            stack.enter_context(Locks(folder).hold(name, waiting=waiting, timeout_s=timeout_s))
        except OSError as error:
            raise ArtifactError(
                f"cannot use {folder} for locks: {error.strerror}", hint="let TMPDIR name a folder that you may write"
            ) from error
        yield


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else getpass.getuser()
