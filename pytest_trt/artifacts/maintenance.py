"""What ``pytest-trt cache`` says and does: lists, explanations, checks and trimming. Lines in, lines out."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from pytest_trt.artifacts.directory import DirectoryStore
from pytest_trt.artifacts.key import Key, canonical, explain, leaves
from pytest_trt.artifacts.store import EntryInfo, ReadOnlyStore, Store
from pytest_trt.errors import UsageError

__all__ = ["collect_garbage", "describe", "explanation", "listing", "problems"]


def describe(store: Store) -> str:
    """Where a store keeps things, for headers."""
    inner = store.store if isinstance(store, ReadOnlyStore) else store
    return str(inner.root) if isinstance(inner, DirectoryStore) else "(nothing is kept)"


def listing(store: Store) -> list[str]:
    """One line per entry, the last used first, and the total."""
    entries = sorted(store.entries(), key=lambda entry: -entry.used)
    lines = [
        f"{e.digest[:12]}  {e.kind:<12}  {e.meta.size_bytes / 1e6:>9.2f} MB  used {_when(e.used)}  {e.meta.label}"
        for e in entries
    ]
    return [*lines, f"{len(entries)} entries, {sum(e.meta.size_bytes for e in entries) / 1e6:.1f} MB"]


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M")


def problems(store: Store) -> list[str]:
    """One line per entry that would not be loaded."""
    return [f"{p.digest[:12]}  {p.kind}: {p.reason}" for p in store.verify()]


def collect_garbage(store: Store, max_bytes: int, older_than_days: float | None) -> list[str]:
    """Evict, and say how much. Raises UsageError where nothing may be removed."""
    if not isinstance(store, DirectoryStore):
        raise UsageError("this cache cannot be trimmed", hint="use --cache=rw")
    done = store.gc(max_bytes, timedelta(days=older_than_days) if older_than_days is not None else None)
    return [
        f"{done.removed} entries removed, {done.freed_bytes / 1e6:.1f} MB freed, {done.kept_bytes / 1e6:.1f} MB kept"
    ]


def explanation(store: Store, digest: str) -> list[str]:
    """What an entry was made from, and in which fields it differs from the entry most like it.

    Raises UsageError when *digest* begins no entry, or several.
    """
    found = [e for e in store.entries() if e.digest.startswith(digest)]
    if len(found) != 1:
        raise UsageError(f"{len(found)} entries begin with {digest!r}", hint="pytest-trt cache ls shows them")
    entry = found[0]
    lines = [
        f"{entry.kind} {entry.digest}",
        f"label    {entry.meta.label}",
        f"created  {entry.meta.created}",
        f"folder   {entry.path}",
    ]
    lines += [f"  {'.'.join(path)} = {canonical(value)}" for path, value in leaves(entry.ingredients)]
    other = _nearest(store, entry)
    if other is None:
        return [*lines, "no other entry is like it"]
    lines.append(f"differs from {other.digest[:12]} ({other.meta.label}) in:")
    return [*lines, *(f"  {difference}" for difference in explain(other.ingredients, entry.ingredients))]


def _nearest(store: Store, entry: EntryInfo) -> EntryInfo | None:
    return store.nearest(Key(entry.kind, entry.digest, entry.ingredients))
