"""What a bundle's ``reproduce.py`` raises where it cannot run its model. Its source is copied there."""

from __future__ import annotations

__all__ = ["CannotRun"]


class CannotRun(Exception):  # noqa: N818 - it is said, and never leaves the script
    """The model cannot be loaded or run here: the message is a sentence without its full stop, and no bug of ours."""
