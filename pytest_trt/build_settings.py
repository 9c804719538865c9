"""Settings of a build: what ends up in the engine, or decides how it is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pytest_trt.option import option as _option
from pytest_trt.option_values import choice, io_formats, number, path, paths, signed, size, sizes, switch

__all__ = ["BuildSettings"]


@dataclass(frozen=True)
class BuildSettings:
    """The options of the group ``build``. Help texts are as in ``Settings``."""

    workspace: int | None = _option(
        None, size, "SIZE", "TensorRT's workspace limit (default: TensorRT's own)", group="build"
    )
    memory_pools: tuple[tuple[str, int], ...] | None = _option(
        None, sizes, "POOL=SIZE[,…]", "limits of TensorRT's other memory pools, e.g. TACTIC_DRAM=1GB", group="build"
    )
    opt_level: int | None = _option(
        None, number(0, 5, int), "0-5", "builder optimization level (default: TensorRT's own)", group="build"
    )
    typing: str | None = _option(
        None,
        choice("strong", "weak"),
        "strong|weak",
        "take data types from the model, or leave them to builder flags (default: strong where it exists)",
        group="build",
    )
    profiles_per_engine: str | None = _option(
        None,
        choice("one", "all"),
        "one|all",
        "build one engine per profile, or one with all profiles of the model (default: one)",
        group="build",
    )
    sparsity: bool | None = _option(None, switch, "on|off", "let structured sparse weights be used", group="build")
    max_aux_streams: int | None = _option(
        None, number(0, 64, int), "N", "auxiliary streams that the engine may use", group="build"
    )
    tiling: str | None = _option(
        None,
        choice("none", "fast", "moderate", "full"),
        "none|fast|moderate|full",
        "tiling optimization level (TensorRT 10.8 and later)",
        group="build",
    )
    max_tactics: int | None = _option(
        None, number(1, 10**6, int), "N", "tactics to try per layer, at most (TensorRT 10.4 and later)", group="build"
    )
    avg_timing: int | None = _option(
        None, number(1, 1000, int), "N", "timings to average per tactic (avg_timing_iterations)", group="build"
    )
    refit: str | None = _option(
        None,
        choice("off", "on", "identical", "individual"),
        "off|on|identical|individual",
        "build an engine whose weights can be changed",
        group="build",
    )
    strip_plan: bool | None = _option(
        None, switch, "on|off", "leave the weights out of the plan (TensorRT 10 and later)", group="build"
    )
    weight_streaming: bool | None = _option(
        None, switch, "on|off", "let weights stay on the host (TensorRT 10 and later, strong typing)", group="build"
    )
    hardware_compatibility: str | None = _option(
        None,
        choice("none", "ampere-plus", "same-capability"),
        "none|ampere-plus|same-capability",
        "GPUs that the engine shall run on besides this one",
        group="build",
    )
    version_compatibility: str | None = _option(
        None,
        choice("off", "on", "exclude-lean"),
        "off|on|exclude-lean",
        "build for later TensorRT versions too; with the lean runtime in the plan, or without",
        group="build",
    )
    lean_runtime: Path | None = _option(
        None, path, "LIB", "lean runtime library that runs a plan built with exclude-lean", group="build"
    )
    plugins: tuple[Path, ...] | None = _option(
        None, paths, "LIB[,LIB…]", "plugin libraries; their content is part of the cache key", group="build"
    )
    io_formats: tuple[str, ...] | None = _option(
        None,
        io_formats,
        "TENSOR=[DTYPE:]LAYOUT[,…]",
        "type and layout of inputs and outputs in memory, e.g. x=HALF:CHW16",
        group="build",
    )
    builder_flags: tuple[str, ...] | None = _option(
        None, signed, "±FLAG[,…]", "builder flags that have no option of their own, e.g. +STRICT_NANS", group="build"
    )
    timing_cache: str = _option(
        "on", choice("on", "off"), "on|off", "reuse tactic timings between builds on one device", group="build"
    )
    timing_cache_miss: str | None = _option(
        None,
        choice("build", "error"),
        "build|error",
        "what a layer without cached tactic timings does: it is timed, or the build fails (TensorRT 10 and later)",
        group="build",
    )
    editable_timing_cache: bool | None = _option(
        None, switch, "on|off", "keep the timing cache editable (TensorRT 10.8 and later)", group="build"
    )
    dla: int | None = _option(
        None, number(0, 15, int), "CORE", "not supported: says why DLA engines cannot be tested", group="build"
    )
    isolate: bool = _option(
        False,
        switch,
        "on|off",
        "build in a child process: a crash of the builder is one failed case",
        group="build",
    )
    build_timeout: float | None = _option(
        None,
        number(0.1, 10**6),
        "SECONDS",
        "end a build that takes longer; builds in a child process",
        group="build",
    )
    builds: int = _option(
        1, number(1, 100, int), "K", "build each engine K times from nothing and report the spread", group="build"
    )
    census: str = _option(
        "fail",
        choice("off", "warn", "fail"),
        "off|warn|fail",
        "what it does to a case when the engine does not run in the precision that was asked",
        group="build",
    )
    engine: Path | None = _option(
        None, path, "PLAN", "test this plan, built by somebody else, in place of building one", group="build"
    )
    trust: str | None = _option(
        None,
        str,
        "DIGEST[,…]",
        "SHA-256 of each plan that may be loaded (loading a plan executes it)",
        group="build",
    )
    fake: str | None = _option(
        None,
        str,
        "K=V[,…]",
        "what the fake backend injects, e.g. latency=1.5,error=0.1 (to test a gate)",
        group="build",
    )
