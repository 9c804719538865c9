"""A number with its noun, as a reader says it."""

from __future__ import annotations

__all__ = ["counted"]


def counted(count: int, noun: str) -> str:
    """``1 node``, ``2 nodes``: *noun* takes an s for any number but 1."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
