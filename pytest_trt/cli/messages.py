"""Messages as the shell says them."""

from __future__ import annotations

__all__ = ["own_flags"]


def own_flags(message: str) -> str:
    """*message* with this front's options: those of the plugin, which messages name, have a prefix."""
    return message.replace("--trt-", "--")
