"""Plugin libraries, loaded once per process: operators that TensorRT itself does not have."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pytest_trt.backends.tensorrt.logger import process_logger
from pytest_trt.backends.tensorrt.versions import register_plugins
from pytest_trt.errors import UsageError

__all__ = ["load_plugins"]

# path -> its handle, which keeps the library loaded. A library cannot be taken back out of a process: its
# creators stay in TensorRT's registry.
_loaded: dict[Path, Any] = {}


def load_plugins(trt: Any, paths: Iterable[Path]) -> None:
    """Make the plugins of the libraries *paths* known, to the parser and to what loads a plan.

    A library that is already loaded is left as it is. Raises UsageError with the loader's words.
    """
    fresh = [path for path in (Path(given).expanduser().resolve() for given in paths) if path not in _loaded]
    if not fresh:
        return
    logger = process_logger(trt)
    register_plugins(trt, logger)  # TensorRT's own come first; it also gives the registry its logger
    for path in fresh:
        _loaded[path] = _load(trt, logger, path)


def _load(trt: Any, logger: Any, path: Path) -> Any:
    if not path.is_file():
        raise UsageError(f"--trt-plugin: there is no file {path}")
    logger.complaints()
    handle = trt.get_plugin_registry().load_library(str(path))
    if handle is not None:
        return handle
    said = logger.complaints()
    # A library without the functions that the registry asks for registers its plugins as it is loaded.
    try:
        return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise UsageError(
            f"--trt-plugin: {path} cannot be loaded: {error}" + (f"\n  {said}" if said else ""),
            hint=f"it must be a shared library for this machine, built against TensorRT {trt.__version__}",
        ) from error
