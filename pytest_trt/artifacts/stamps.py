"""Stamps: the large files of an entry that were digested whole, and in which state they were then.

A stamp spares the next reader the digest, as git's index spares reading the work tree: a file whose state is still the
recorded one is what it was. It is written by whoever digested the file, unless the file had just been changed (see
``FileState.settled``), and holds for a week, so that decay of the medium, which no state shows, is noticed then.
``pytest-trt cache verify`` looks at no stamp. A copy of the cache has other inodes: it is digested anew.
"""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path
from typing import Any, Final

from pytest_trt.artifacts.file_state import FileState, keeps_change_times

__all__ = ["STAMPED_FROM_BYTES", "STAMP_NAME", "Stamps"]

STAMP_NAME: Final = "verified.json"
# Smaller files are digested in well under a millisecond.
STAMPED_FROM_BYTES: Final = 2**20
GOOD_FOR_NS: Final = 7 * 24 * 3600 * 10**9
_FORMAT: Final = 1
_LIMIT_BYTES: Final = 10**6


class Stamps:
    """The stamps of the entry in *folder*. Made before any of its files is looked at."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._now_ns = time.time_ns()
        self._found = _read(folder / STAMP_NAME)
        self._new: dict[str, Any] = {}

    @classmethod
    def of(cls, root: Path, folder: Path) -> Stamps | None:
        """Those of an entry of the store at *root*; None where file states say nothing."""
        return cls(folder) if root.exists() and keeps_change_times(root) else None

    def vouch(self, name: str, state: FileState, sha256: str) -> bool:
        """Whether the file was digested in *state*, to *sha256*, within the last week."""
        found = self._found.get(name)
        if not isinstance(found, list) or len(found) != 3 or type(found[2]) is not int:
            return False
        fresh = 0 <= self._now_ns - found[2] < GOOD_FOR_NS
        return fresh and found[:2] == [list(state), sha256]

    def note(self, name: str, state: FileState, sha256: str) -> None:
        """Record that the file was digested to *sha256*; *state* is that from before: it never comes back."""
        if state.settled(self._now_ns):
            self._new[name] = [list(state), sha256, self._now_ns]

    def save(self, drafts: Path) -> None:
        """Keep what was noted, by way of a file in *drafts*. Raises OSError where that is refused."""
        if not self._new:
            return
        draft = drafts / f"stamp-{secrets.token_hex(8)}"
        try:
            draft.write_text(json.dumps({"format": _FORMAT, "files": {**self._found, **self._new}}), encoding="utf-8")
            # Should another entry have taken the folder meanwhile: its files are in other states.
            draft.replace(self._folder / STAMP_NAME)
        finally:
            draft.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    """The stamps in *path*; none where it is missing or damaged, for they only save time."""
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_LIMIT_BYTES))
        return dict(document["files"]) if document["format"] == _FORMAT else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
