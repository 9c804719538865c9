"""Points in time, as git and the files of other tools write them. Pure."""

from __future__ import annotations

from datetime import datetime, timezone

__all__ = ["moment_of"]


def moment_of(text: object) -> datetime | None:
    """The moment that *text* names in ISO 8601, one of UTC where it says no time zone; None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        # Newer releases of git write UTC as Z, which Python 3.10 does not read.
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
