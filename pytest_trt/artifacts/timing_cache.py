"""Tactic timings, one blob per backend identity (device, library versions): never trusted across them."""

from __future__ import annotations

from pytest_trt.artifacts.key import Key
from pytest_trt.artifacts.store import Store
from pytest_trt.backends import Backend

__all__ = ["load_timing_cache", "save_timing_cache"]


def _key(backend: Backend) -> Key:
    return Key.make("timing-cache", {"backend": backend.name, "identity": backend.identity()})


def load_timing_cache(store: Store, backend: Backend) -> bytes | None:
    """Return the kept timings of this device and version, or None."""
    entry = store.get(_key(backend))
    return entry.files["timing.cache"] if entry is not None else None


def save_timing_cache(store: Store, backend: Backend, blob: bytes, base: bytes | None = None) -> None:
    """Replace the kept timings by *blob*, which the builder made from *base* and its own.

    Where others were kept meanwhile (a build on another device of the same model), the backend merges both. Without a
    way to do that they are lost, never mixed.
    """
    key = _key(backend)
    with store.lock(f"timings-{key.short}"):
        kept, merge = load_timing_cache(store, backend), getattr(backend, "merge_timings", None)
        if merge is not None and kept is not None and kept not in (base, blob):
            blob = merge(kept, blob)
        store.put(key, {"timing.cache": blob}, label=f"tactic timings of {backend.name}", replace=True)
