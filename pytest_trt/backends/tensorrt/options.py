"""Build options: what can be asked of a TensorRT, checked before a build and applied in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_trt.backends.tensorrt.versions import members
from pytest_trt.errors import BuildError, UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_trt.backends import BuildOptions

__all__ = ["apply_options", "attach_timing_cache", "check_options", "serialized_timing_cache", "tactic_names"]

_MAX_LEVEL = 5


def check_options(trt: Any, options: BuildOptions) -> None:
    """Raise UsageError for an option whose value no build could use, or that this version lacks."""
    level = options.opt_level
    if level is not None and not 0 <= level <= _MAX_LEVEL:
        raise UsageError(f"opt_level {level} does not exist", hint=f"TensorRT has levels 0 to {_MAX_LEVEL}")
    if options.workspace is not None and options.workspace <= 0:
        raise UsageError(f"workspace must be positive, got {options.workspace}")
    known = members(trt.TacticSource)
    seen: set[str] = set()
    for entry in options.tactics:
        sign, name = entry[:1], entry[1:]
        if sign not in ("+", "-") or not name:
            raise UsageError(
                f"tactics: cannot read {entry!r}",
                hint="write +NAME to add a tactic source to the default ones, -NAME to remove it",
            )
        if name not in known:
            raise UsageError(
                f"tactics: TensorRT {trt.__version__} has no tactic source {name!r}",
                hint=nearest(name, known),
            )
        if name in seen:
            raise UsageError(f"tactics: {name!r} is given twice")
        seen.add(name)


def apply_options(trt: Any, config: Any, options: BuildOptions) -> None:
    """Set *options* on a builder config. Raises UsageError as ``check_options`` does, or BuildError."""
    check_options(trt, options)
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
    if options.opt_level is not None:
        config.builder_optimization_level = options.opt_level
    if options.tactics:
        mask = _with_changes(trt, int(config.get_tactic_sources()), options.tactics)
        if not config.set_tactic_sources(mask):
            raise BuildError(f"TensorRT {trt.__version__} refused the tactic sources {tactic_names(trt, mask)}")


def _with_changes(trt: Any, mask: int, tactics: Iterable[str]) -> int:
    for entry in tactics:
        bit = 1 << int(getattr(trt.TacticSource, entry[1:]))
        mask = mask | bit if entry[0] == "+" else mask & ~bit
    return mask


def tactic_names(trt: Any, mask: int) -> list[str]:
    """The tactic sources in *mask*, by name."""
    return sorted(name for name, member in members(trt.TacticSource).items() if mask & 1 << int(member))


def attach_timing_cache(config: Any, blob: bytes | None) -> str:
    """Give *config* a timing cache, from *blob* where it fits this machine; return what became of it."""
    if blob:
        cache = config.create_timing_cache(blob)
        if cache is not None and config.set_timing_cache(cache, False):
            return "used"
    empty = config.create_timing_cache(b"")
    if not config.set_timing_cache(empty, False):
        raise BuildError("TensorRT refused an empty timing cache")
    return "rejected" if blob else "new"


def serialized_timing_cache(config: Any) -> bytes | None:
    """The timing cache after a build, ready to be stored."""
    cache = config.get_timing_cache()
    return bytes(cache.serialize()) if cache is not None else None
