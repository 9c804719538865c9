"""Messages as the shell says them."""

from __future__ import annotations

import re

__all__ = ["own_flags"]


def own_flags(message: str) -> str:
    """*message* with this front's options: those of the plugin, which messages name, have a prefix. A command of
    pytest's keeps it."""
    return re.sub(r"(pytest … .*)|--trt-", lambda found: found[1] or "--", message)
