"""The clock of the file system, for tests in which a file changes and only its times can tell."""

from __future__ import annotations

import os
from pathlib import Path


def wait_for_tick(folder: Path) -> None:
    """Until the file system's clock moved on: a change after this has other times than one before."""
    probe = folder / "probe"
    probe.touch()
    first = probe.stat().st_ctime_ns
    while probe.stat().st_ctime_ns == first:
        os.utime(probe)
    probe.unlink()
