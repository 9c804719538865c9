"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

__all__ = ["write_whole"]

_MODE = 0o644  # a temporary file is readable by its owner alone


def write_whole(file: Path, text: str) -> None:
    """Put *text* (UTF-8) in the place of *file*, and make the folders above it. Who reads it meanwhile, or after a
    crash, finds the old content or the new one. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(_MODE)
        Path(name).replace(file)
    finally:
        Path(name).unlink(missing_ok=True)
