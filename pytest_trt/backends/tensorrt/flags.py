"""Builder flags: those that a build option stands for, and ``--trt-builder-flags`` for the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_trt.backends.tensorrt.versions import TYPE_FLAGS, flag, members
from pytest_trt.errors import UsageError, nearest
from pytest_trt.option import flag_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_trt.backends import BuildOptions

__all__ = ["apply_flags", "check_flags", "signed_names"]

# (option, value) -> the flags that it turns on.
_OF_OPTIONS: dict[tuple[str, str | bool], tuple[str, ...]] = {
    ("sparsity", True): ("SPARSE_WEIGHTS",),
    ("refit", "on"): ("REFIT",),
    ("refit", "identical"): ("REFIT_IDENTICAL",),
    ("refit", "individual"): ("REFIT_INDIVIDUAL",),
    ("strip_plan", True): ("STRIP_PLAN",),
    ("weight_streaming", True): ("WEIGHT_STREAMING",),
    ("version_compatibility", "on"): ("VERSION_COMPATIBLE",),
    ("version_compatibility", "exclude-lean"): ("VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"),
    ("timing_cache_miss", "error"): ("ERROR_ON_TIMING_CACHE_MISS",),
    ("editable_timing_cache", True): ("EDITABLE_TIMING_CACHE",),
}

_PRECISION = "--trt-precision chooses it"

# Flags that have an owner -> where to ask for them.
_OWNED = {
    **dict.fromkeys((*TYPE_FLAGS, "TF32"), _PRECISION),
    **{name: f"{flag_of(option)} is the option for it" for (option, _), names in _OF_OPTIONS.items() for name in names},
    "WEIGHTLESS": "--trt-strip-plan is the option for it",
    "GPU_FALLBACK": "it is about DLA, for which nothing is built here",
}


def check_flags(trt: Any, options: BuildOptions) -> None:
    """Raise UsageError for a builder flag that does not exist, has an owner, or is given twice."""
    known = members(trt.BuilderFlag)
    for _, name in signed_names("builder_flags", options.builder_flags):
        if name in _OWNED:
            raise UsageError(f"--trt-builder-flags does not set {name}", hint=_OWNED[name])
        if name not in known:
            free = set(known) - set(_OWNED)
            raise UsageError(
                f"--trt-builder-flags: TensorRT {trt.__version__} has no builder flag {name!r}",
                hint=nearest(name, free),
            )


def signed_names(option: str, entries: tuple[str, ...]) -> Iterator[tuple[bool, str]]:
    """``+NAME`` as ``(True, NAME)``. Raises UsageError for another form and for a name that comes twice."""
    said = flag_of(option)
    seen: set[str] = set()
    for entry in entries:
        sign, name = entry[:1], entry[1:]
        if sign not in ("+", "-") or not name:
            raise UsageError(f"{said}: cannot read {entry!r}", hint="write +NAME to add one, -NAME to take it away")
        if name in seen:
            raise UsageError(f"{said}: {name!r} is given twice")
        seen.add(name)
        yield sign == "+", name


def apply_flags(trt: Any, config: Any, options: BuildOptions) -> None:
    """Set what *options*, which ``check_flags`` has seen, ask for."""
    for option, value in options.given().items():
        for name in _of(option, value):
            config.set_flag(flag(trt, name))
    # A plan without weights must be refittable. TensorRT would imply this one; the facts shall show it.
    if options.strip_plan and options.refit is None:
        config.set_flag(flag(trt, "REFIT_IDENTICAL"))
    for on, name in signed_names("builder_flags", options.builder_flags):
        (config.set_flag if on else config.clear_flag)(flag(trt, name))


def _of(option: str, value: object) -> tuple[str, ...]:
    return _OF_OPTIONS.get((option, value), ()) if isinstance(value, (str, bool)) else ()
