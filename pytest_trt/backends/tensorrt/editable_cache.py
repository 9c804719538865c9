"""The entries of an editable timing cache: which tactic each kind of layer got, to be kept and written back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_trt.errors import BuildError

__all__ = ["Entries", "read_entries", "write_entries"]

# key of a layer as text -> (hash of its tactic, its time in ms)
Entries = dict[str, tuple[int, float]]


def read_entries(cache: Any) -> Entries:
    """What is in *cache*, a timing cache of a config with EDITABLE_TIMING_CACHE."""
    found: Entries = {}
    for key in cache.queryKeys():
        value = cache.query(key)
        found[str(key)] = (int(value.tacticHash), float(value.timingMSec))
    return found


def write_entries(trt: Any, cache: Any, entries: Mapping[str, tuple[int, float]]) -> None:
    """Make *cache* choose the tactics of *entries* for their layers. Raises BuildError for an entry it refuses."""
    for text, (tactic, time_ms) in entries.items():
        try:
            key = trt.TimingCacheKey.parse(text)
        except (RuntimeError, ValueError) as error:
            raise BuildError(f"the timing cache has no layer with the key {text!r}: {error}") from error
        if not cache.update(key, trt.TimingCacheValue(tactic, time_ms)):
            raise BuildError(f"the timing cache refused tactic {tactic:#x} for the layer with the key {text!r}")
