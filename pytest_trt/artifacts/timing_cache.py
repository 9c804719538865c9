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


def save_timing_cache(store: Store, backend: Backend, blob: bytes) -> None:
    """Replace the kept timings by *blob*, which the builder made from the old ones and its own.

    Two builds at once on one device are excluded by the caller's lock; were they not, one build's timings
    would be lost, never mixed.
    """
    store.put(_key(backend), {"timing.cache": blob}, label=f"tactic timings of {backend.name}", replace=True)
