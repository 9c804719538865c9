"""What is kept between runs: engines, references, calibration ranges and models, by what they were made from.

``key`` says what an artifact depends on, ``store`` is the contract, ``directory`` and ``memory`` keep it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_trt.backends import Progress, silent
from pytest_trt.errors import UsageError, nearest

if TYPE_CHECKING:
    from pytest_trt.artifacts.store import Store

__all__ = ["default_root", "open_store"]

MODES = ("off", "ro", "rw")


def default_root() -> Path:
    """The user's cache folder, where the operating system has it. All projects share it: keys hold all that matters."""
    import platformdirs

    return platformdirs.user_cache_path("pytest-trt", appauthor=False)


def open_store(
    mode: str, root: Path | None = None, max_bytes: int | None = None, *, on_event: Progress = silent
) -> Store:
    """Return the store that ``--trt-cache=MODE`` asks for; *root* defaults to the user's cache folder.

    Nothing is written before something is kept. Raises UsageError for an unknown *mode*.
    """
    from pytest_trt.artifacts.directory import DirectoryStore
    from pytest_trt.artifacts.store import NullStore, ReadOnlyStore

    if mode not in MODES:
        raise UsageError(f"unknown cache mode {mode!r}", hint=nearest(mode, MODES))
    if mode == "off":
        return NullStore()
    folder = default_root() if root is None else root
    store = DirectoryStore(folder, max_bytes=max_bytes, on_event=on_event)
    return ReadOnlyStore(store) if mode == "ro" else store
