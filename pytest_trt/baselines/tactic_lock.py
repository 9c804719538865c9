"""The tactics of an engine, locked beside its baseline, and what became of them. Pure.

A lock is JSON::

    {"tensorrt": "10.13.3.9", "layers": {"conv1 + relu1": "sm90_xmma_… 0x1a2b…"},
     "timing": {"timing cache key": [6699, 0.0123]}}

``layers`` says what was chosen, as the engine shows it. ``timing``, where TensorRT has editable timing caches, says
with which entries the choice can be made again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["NOT_VISIBLE", "make_lock", "share_of_equal", "tactic_changes"]

NOT_VISIBLE = "tactics not visible: the engine shows none, as where all its layers are one region of the graph compiler"

# More lines than this say less than a summary.
_MOST_LINES = 10
_MOST_NAMES = 3


def make_lock(
    tensorrt: str, layers: Mapping[str, str], timing: Mapping[str, Sequence[Any]] | None = None
) -> dict[str, Any]:
    """A lock of the engine that TensorRT *tensorrt* built: tactic by layer, and ``[hash, ms]`` by timing cache key."""
    lock: dict[str, Any] = {"tensorrt": tensorrt, "layers": dict(layers)}
    if timing:
        lock["timing"] = {key: list(entry) for key, entry in timing.items()}
    return lock


def tactic_changes(locked: Mapping[str, Any], actual: Mapping[str, Any]) -> list[str]:
    """A line for each layer of two locks whose tactic changed, that appeared or that is gone; a line for each of these
    three where they are more than 10. One line where one of the two shows no tactics; none where neither does."""
    before, after = _layers(locked), _layers(actual)
    if not before and not after:
        return []
    lines = _versions(locked, actual)
    if not before or not after:
        whose = "of the lock" if not before else "of this build"
        return [*lines, f"{NOT_VISIBLE} ({whose})"]
    changed = {name: (tactic, after[name]) for name, tactic in before.items() if after.get(name, tactic) != tactic}
    gone = [name for name in before if name not in after]
    new = [name for name in after if name not in before]
    if len(changed) + len(gone) + len(new) > _MOST_LINES:
        return [*lines, *_summary(changed, gone, new, len(before))]
    return [
        *lines,
        *(f"layer {name}: tactic {old} → {tactic}" for name, (old, tactic) in changed.items()),
        *(f"layer {name} is gone (tactic {before[name]})" for name in gone),
        *(f"layer {name} is new (tactic {after[name]})" for name in new),
    ]


def share_of_equal(locked: Mapping[str, Any], actual: Mapping[str, Any]) -> float | None:
    """The share, 0 to 1, of the layers in either lock that both have with the same tactic; None where one of them
    shows no tactics."""
    before, after = _layers(locked), _layers(actual)
    if not before or not after:
        return None
    equal = sum(after.get(name) == tactic for name, tactic in before.items())
    return equal / len(before.keys() | after.keys())


def _layers(lock: Mapping[str, Any]) -> Mapping[str, str]:
    layers = lock.get("layers")
    return layers if isinstance(layers, Mapping) else {}


def _versions(locked: Mapping[str, Any], actual: Mapping[str, Any]) -> list[str]:
    before, after = locked.get("tensorrt"), actual.get("tensorrt")
    return [f"TensorRT {before} → {after}: its tactics may have other names"] if before != after else []


def _summary(changed: Mapping[str, tuple[str, str]], gone: list[str], new: list[str], locked: int) -> list[str]:
    lines = []
    if changed:
        name, (old, tactic) = next(iter(changed.items()))
        lines.append(
            f"{len(changed)} of {locked} locked layers have another tactic; the first, {name}: {old} → {tactic}"
        )
    if gone:
        lines.append(f"{len(gone)} layers are gone: {_some(gone)}")
    if new:
        lines.append(f"{len(new)} layers are new: {_some(new)}")
    return lines


def _some(names: list[str]) -> str:
    return ", ".join(names[:_MOST_NAMES]) + (", …" if len(names) > _MOST_NAMES else "")
