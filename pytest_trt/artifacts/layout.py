"""The folder of a cache: where things lie, and the few steps that change it.

::

    root/
      README.md  .gitignore  CACHEDIR.TAG
      <kind>/<first 2 digits>/<digest>/{key.json, engine.plan, …}, and verified.json once it was read
      locks/<digest>.lock       empty; whoever changes an entry holds its lock
      tmp/<digest>-<random>/    an entry on its way in or out

An entry comes into sight, and leaves it, by one rename of its folder. Since both happen under the entry's lock,
and the lock dies with its process, what lies in ``tmp`` under a free lock was left by a killed process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from pytest_trt.artifacts.key import KINDS
from pytest_trt.artifacts.locks import Locks
from pytest_trt.artifacts.store import CARD_NAME
from pytest_trt.errors import ArtifactError

__all__ = ["CACHE_HINT", "Layout"]

CACHE_HINT: Final = "--trt-cache-dir=DIR keeps it in another place, --trt-cache=off keeps nothing"
STRAY_AGE_S: Final = 24 * 3600.0

_ROOT_FILES: Final = {
    "README.md": """# Cache of pytest-trt

Engines, references, calibration ranges, models and facts about them that were made once and are used again.
Each entry is a folder `<kind>/<2 digits>/<digest>/` with the raw files (`trtexec --loadEngine` opens an
`engine.plan`) and a `key.json`: what the entry was made from, and the SHA-256 of each of its files. A `verified.json`
says in which state large files were when they were last checked against it.

Everything here can be deleted at any time; it is made anew when it is needed. `pytest-trt cache` lists, checks
and trims it. Please change nothing by hand: an entry that does not match its `key.json` is thrown away.

`key.json` shows damage; it is no signature. Loading an engine runs the code in it, so let nobody write here
whom you would not let run code on this machine. The empty files in `locks/` belong to no process once it ended.
""",
    ".gitignore": "*\n",
    # The signature is fixed by https://bford.info/cachedir/; backup tools look for it. Last, so it says "complete".
    "CACHEDIR.TAG": "Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a cache made by pytest-trt.\n",
}
_OWN_NAMES: Final = {*_ROOT_FILES, *KINDS, "locks", "tmp"}
_TEMPORARY = re.compile(r"([0-9a-f]{64})-[0-9a-f]{16}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Layout:
    """One cache folder. Methods raise OSError where the disk says no.

    *on_step* is told the name of each step of a change when it is done; tests kill the process there.
    """

    def __init__(self, root: Path, on_step: Callable[[str], None]) -> None:
        self.root = root
        self.tmp = root / "tmp"
        self.locks = Locks(root / "locks")
        self._on_step = on_step

    def folder(self, kind: str, digest: str) -> Path:
        return self.root / kind / digest[:2] / digest

    def folders(self) -> Iterator[tuple[str, str, Path]]:
        """Yield kind, digest and folder of each entry, sound or not."""
        for kind in KINDS:
            for shard in _names(self.root / kind):
                for digest in _names(self.root / kind / shard):
                    if _DIGEST.fullmatch(digest) and digest[:2] == shard:
                        yield kind, digest, self.folder(kind, digest)

    def find(self, digest: str) -> Path | None:
        """Return the folder of the entry with this full digest. Raises ArtifactError for what is no digest."""
        if not _DIGEST.fullmatch(digest):
            raise ArtifactError(f"{digest!r} is not a full digest", hint="64 hexadecimal digits, as key.json has them")
        return next((self.folder(kind, digest) for kind in KINDS if os.path.lexists(self.folder(kind, digest))), None)

    def create(self) -> None:
        """Make the folder and what explains it. Any number of processes may do so at once.

        Raises ArtifactError for a folder that holds other things: a cache comes with a ``.gitignore`` that hides all.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        if not (self.root / "CACHEDIR.TAG").exists():
            foreign = [n for n in _names(self.root) if n not in _OWN_NAMES and n[0] != "." and n != "lost+found"]
            if foreign:
                raise ArtifactError(
                    f"{self.root} holds {foreign[0]!r} and is no cache of pytest-trt",
                    hint="let --trt-cache-dir name a new or an empty folder",
                )
        self.tmp.mkdir(exist_ok=True)
        for name, text in _ROOT_FILES.items():
            if not (self.root / name).exists():
                draft = self.tmp / f"{name}-{secrets.token_hex(8)}"
                draft.write_text(text, encoding="utf-8")
                draft.replace(self.root / name)

    def publish(self, kind: str, digest: str, files: Mapping[str, bytes], card: bytes, *, replace: bool) -> bool:
        """Bring an entry into sight at once and whole; False if one was there first. Needs the entry's lock.

        All is on the disk before the rename: after a power cut there is the whole entry or none.
        """
        target = self.folder(kind, digest)
        staging = self._temporary(digest)
        try:
            staging.mkdir()
            self._on_step("staged")
            for name, data in {**files, CARD_NAME: card}.items():
                with (staging / name).open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                self._on_step(f"wrote {name}")
            _sync_folder(staging)
            self._on_step("synced")
            target.parent.mkdir(parents=True, exist_ok=True)
            if replace and os.path.lexists(target):
                self.discard(target)
            try:
                staging.rename(target)
            except OSError as error:
                # Only where locks do not work: some network file systems. What came first is as good.
                if error.errno in (errno.EEXIST, errno.ENOTEMPTY) or (os.name == "nt" and target.exists()):
                    return False
                raise
            self._on_step("renamed")
            _sync_folder(target.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return True

    def discard(self, folder: Path) -> None:
        """Take an entry out of sight at once, then delete it. Needs the entry's lock."""
        doomed = self._temporary(folder.name)
        folder.rename(doomed)  # a link is moved, not followed
        self._on_step("moved")
        _delete(doomed)

    def sweep(self) -> None:
        """Delete what killed processes left in ``tmp``; what a living one works on is under its lock."""
        for name in _names(self.tmp):
            path = self.tmp / name
            match = _TEMPORARY.fullmatch(name)
            if match:
                # Another user's lock cannot even be tried; neither could the folder be deleted.
                with contextlib.suppress(PermissionError), self.locks.try_hold(match[1]) as held:
                    if held:
                        _delete(path)
            elif _age_s(path) > STRAY_AGE_S:
                _delete(path)

    def _temporary(self, digest: str) -> Path:
        return self.tmp / f"{digest}-{secrets.token_hex(8)}"


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0


def _delete(path: Path) -> None:
    """Delete without following links. What cannot be deleted stays in ``tmp`` for the next sweep."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some FUSE file systems cannot sync a folder; the digests still tell a whole entry from a torn one.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
