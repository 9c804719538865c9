"""How long a build will take: what the last one like it took. An announcement, never a promise."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from typing import Any

from pytest_trt.artifacts.key import Key
from pytest_trt.artifacts.store import EntryInfo, Store, nearest_entry
from pytest_trt.backends import Progress
from pytest_trt.errors import ArtifactError

__all__ = ["Estimate", "announce", "estimate", "with_eta"]

# Below it nobody waits, and the two times would say more about the machine's load than about the build.
_WORTH_SAYING_S = 1.0


@dataclass(frozen=True)
class Estimate:
    """An expected duration in seconds, and whose it was: ``last time``, ``with other shapes or options``."""

    seconds: float
    whose: str


def estimate(store: Store, key: Key, label: str) -> Estimate | None:
    """How long building *key* will take: as long as the newest engine with this *label* and backend did; where there
    is none, as long as the engine of the same typed model whose key is nearest did. None if neither is known, or if
    it is not worth a word. Reads cards and facts, no plans. Never raises: nothing depends on it."""
    ours = {name: key.ingredients.get(name) for name in ("backend", "typed_model")}
    try:
        engines = [e for e in store.entries() if e.kind == key.kind and e.ingredients.get("backend") == ours["backend"]]
    except ArtifactError:
        return None  # who builds meets the same trouble, and says so
    newest = max((e for e in engines if label and e.meta.label == label), key=lambda e: e.meta.created, default=None)
    near = nearest_entry(key, (e for e in engines if e.ingredients.get("typed_model") == ours["typed_model"]))
    for entry, whose in ((newest, "last time"), (near, "with other shapes or options")):
        seconds = None if entry is None else _build_seconds(store, entry)
        if seconds is not None:
            return Estimate(seconds, whose) if seconds >= _WORTH_SAYING_S else None
    return None


def _build_seconds(store: Store, entry: EntryInfo) -> float | None:
    seconds = _facts(store, entry).get("build_seconds")
    return float(seconds) if isinstance(seconds, (int, float)) and math.isfinite(seconds) else None


def _facts(store: Store, entry: EntryInfo) -> dict[str, Any]:
    """The facts of an engine, unverified; empty where they cannot be read."""
    try:
        if entry.path is not None:
            # Not through the store, which would read and digest the plan as well.
            facts = json.loads((entry.path / "facts.json").read_bytes())
        else:
            held = store.get(Key(entry.kind, entry.digest, entry.ingredients), repair=False)
            facts = json.loads(held.files["facts.json"]) if held is not None else {}
    except (OSError, ValueError, KeyError):  # evicted meanwhile, or damaged: the store will find out
        return {}
    return facts if isinstance(facts, dict) else {}


def announce(label: str, expected: Estimate) -> str:
    """``building X (last time 17 s)``."""
    return f"building {label} ({expected.whose} {_plain(expected.seconds)})"


def with_eta(progress: Progress, label: str, expected: Estimate | None) -> Progress:
    """Announce the build through *progress*, and return a Progress that ends each line by the time since then:
    ``… 8 of about 17 s``. Without an estimate it is *progress* itself."""
    if expected is None:
        return progress
    total, started = expected.seconds, time.monotonic()
    progress(announce(label, expected))

    def say(message: str) -> None:
        progress(f"{message} … {time.monotonic() - started:.0f} of about {_plain(total)}")

    return say


def _plain(seconds: float) -> str:
    return f"{seconds:.0f} s"
