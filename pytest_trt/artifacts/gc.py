"""Trimming a cache folder: the least recently used entries go first, what is in use stays."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pytest_trt.artifacts.layout import Layout
from pytest_trt.artifacts.store import CARD_NAME

__all__ = ["Collected", "collect", "last_used_ns", "record_use"]

# One write a minute is enough for an order of days, and a hit in a hot loop costs none.
RECORD_EVERY_NS = 60 * 10**9


@dataclass(frozen=True)
class Collected:
    """What a collection did: entries removed, bytes freed, and bytes that are still there."""

    removed: int
    freed_bytes: int
    kept_bytes: int


@dataclass(frozen=True)
class _Slot:
    used_ns: int
    size_bytes: int
    digest: str
    folder: Path


def record_use(folder: Path) -> None:
    """Note that an entry was read, as the modification time of its card. Raises OSError where that is refused."""
    card = folder / CARD_NAME
    if abs(time.time_ns() - card.lstat().st_mtime_ns) > RECORD_EVERY_NS:
        os.utime(card)


def last_used_ns(folder: Path) -> int:
    """When an entry was last read or written, in ns since the epoch; 0 once it is gone."""
    for path in (folder / CARD_NAME, folder):
        try:
            return path.lstat().st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            continue
    return 0


def collect(
    layout: Layout, *, max_bytes: int | None = None, older_than: timedelta | None = None, keep: str | None = None
) -> Collected:
    """Evict entries until all fit in *max_bytes*, and those not used for *older_than*; never the digest *keep*.

    An entry whose lock somebody holds stays, and so does one that was used while this ran.
    """
    layout.sweep()
    slots = sorted(
        (_Slot(last_used_ns(folder), _size_bytes(folder), digest, folder) for _, digest, folder in layout.folders()),
        key=lambda slot: (slot.used_ns, slot.digest),
    )
    total = sum(slot.size_bytes for slot in slots)
    oldest_ns = 0 if older_than is None else time.time_ns() - round(older_than.total_seconds() * 1e9)
    removed = freed = 0
    for slot in slots:
        expired = slot.used_ns < oldest_ns
        if not expired and (max_bytes is None or total - freed <= max_bytes):
            break  # those that follow were used later still
        if slot.digest == keep:
            continue
        with layout.locks.try_hold(slot.digest) as held:
            if not held or last_used_ns(slot.folder) != slot.used_ns:
                continue
            layout.discard(slot.folder)
        removed += 1
        freed += slot.size_bytes
    return Collected(removed, freed, total - freed)


def _size_bytes(folder: Path) -> int:
    if folder.is_symlink():
        return 0
    try:
        with os.scandir(folder) as files:
            return sum(file.stat(follow_symlinks=False).st_size for file in files)
    except (FileNotFoundError, NotADirectoryError):
        return 0  # evicted by somebody else meanwhile, or a stray file
