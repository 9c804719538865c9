"""Build options: what can be asked of a TensorRT, checked before a build and applied in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_trt.backends.tensorrt.flags import apply_flags, check_flags
from pytest_trt.backends.tensorrt.io_formats import check_io_formats
from pytest_trt.backends.tensorrt.plugins import load_plugins
from pytest_trt.backends.tensorrt.pools import apply_pools, check_pools
from pytest_trt.backends.tensorrt.tactics import apply_tactics, check_tactics
from pytest_trt.backends.tensorrt.versions import typing
from pytest_trt.backends.tensorrt.versions.requirements import unmet
from pytest_trt.errors import BuildError, UsageError
from pytest_trt.option import flag_of

if TYPE_CHECKING:
    from pytest_trt.backends import BuildOptions

__all__ = [
    "apply_options",
    "attach_timing_cache",
    "check_options",
    "merged_timing_caches",
    "serialized_timing_cache",
]

_MAX_LEVEL = 5

_HARDWARE = {"none": "NONE", "ampere-plus": "AMPERE_PLUS", "same-capability": "SAME_COMPUTE_CAPABILITY"}


def check_options(trt: Any, options: BuildOptions) -> None:
    """Raise UsageError for what this version lacks, no build could use, or options that exclude each other.

    Plugin libraries are loaded by this: that is the only way to know that they can be.
    """
    if options.dla is not None:
        raise UsageError(
            f"--trt-dla={options.dla}: DLA is a core of Jetson and DRIVE devices, and engines are built for GPUs here",
            hint="leave it out to test the engine of the same model on the device's GPU; trtexec --useDLACore "
            "builds and times one for DLA",
        )
    lack = unmet(trt, options)
    if lack is not None:
        raise UsageError(
            f"{_said(options, lack.option)}: TensorRT {trt.__version__} cannot do that ({lack.releases} can)",
            hint=lack.instead,
        )
    level = options.opt_level
    if level is not None and not 0 <= level <= _MAX_LEVEL:
        raise UsageError(f"--trt-opt-level={level} does not exist", hint=f"TensorRT has levels 0 to {_MAX_LEVEL}")
    for name, least in (("max_aux_streams", 0), ("max_tactics", 1), ("avg_timing", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UsageError(f"{_said(options, name)}: a number from {least} is wanted")
    _check_pairs(trt, options)
    check_pools(trt, options)
    check_tactics(trt, options)
    check_flags(trt, options)
    check_io_formats(trt, options)
    if options.lean_runtime is not None and not options.lean_runtime.is_file():
        raise UsageError(
            f"--trt-lean-runtime: there is no file {options.lean_runtime}",
            hint="the tensorrt-lean package of the version that builds the plan has it, libnvinfer_lean.so",
        )
    load_plugins(trt, options.plugins)


def _check_pairs(trt: Any, options: BuildOptions) -> None:
    if options.weight_streaming and typing(trt, options.typing) == "weak":
        raise UsageError(
            f"--trt-weight-streaming=on: TensorRT {trt.__version__} streams weights of strongly typed networks only",
            hint="leave out --trt-typing=weak",
        )
    if options.strip_plan and options.refit == "off":
        raise UsageError(
            "--trt-strip-plan=on: a plan without weights is filled by a refit, which --trt-refit=off forbids",
            hint="leave out --trt-refit=off; strip-plan alone builds with REFIT_IDENTICAL",
        )


def _said(options: BuildOptions, name: str) -> str:
    value = getattr(options, name)
    return f"{flag_of(name)}={'on' if value is True else value}"


def apply_options(trt: Any, config: Any, options: BuildOptions) -> None:
    """Set *options*, which ``check_options`` has seen, on a builder config. Raises BuildError."""
    apply_pools(trt, config, options)
    apply_tactics(trt, config, options)
    apply_flags(trt, config, options)
    if options.opt_level is not None:
        config.builder_optimization_level = options.opt_level
    if options.max_aux_streams is not None:
        config.max_aux_streams = options.max_aux_streams
    if options.max_tactics is not None:
        config.max_num_tactics = options.max_tactics
    if options.avg_timing is not None:
        config.avg_timing_iterations = options.avg_timing
    if options.tiling not in (None, "none"):  # "none" is what every version does by itself
        config.tiling_optimization_level = getattr(trt.TilingOptimizationLevel, str(options.tiling).upper())
    if options.hardware_compatibility is not None:
        level = getattr(trt.HardwareCompatibilityLevel, _HARDWARE[options.hardware_compatibility])
        config.hardware_compatibility_level = level


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


def merged_timing_caches(config: Any, older: bytes, newer: bytes) -> bytes:
    """The entries of both, which are of this device and version; *newer* as it is where TensorRT cannot merge them."""
    both = [config.create_timing_cache(blob) for blob in (newer, older)]
    if None in both or not both[0].combine(both[1], False):
        return newer
    return bytes(both[0].serialize())


def serialized_timing_cache(config: Any) -> bytes | None:
    """The timing cache after a build, ready to be stored."""
    cache = config.get_timing_cache()
    return bytes(cache.serialize()) if cache is not None else None
