"""Settings: each option declared once, resolved once.

From the one declaration follow the pytest option ``--trt-NAME``, the ``pytest-trt`` flag ``--NAME``, the
variable ``PYTEST_TRT_NAME``, the ini key ``trt_NAME`` and the table in the README. Precedence: marker > command
line > environment variable > ini > default. ``None`` means "not given"; the default is applied last, so a
``0`` on the command line is never lost.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_trt.errors import UsageError, nearest
from pytest_trt.option_values import (
    choice,
    graphs,
    io_formats,
    names,
    number,
    paths,
    ratio,
    shape_points,
    signed,
    size,
    sizes,
    switch,
    tactic_sets,
)

__all__ = ["ENV_PREFIX", "Option", "Settings", "as_text", "as_words", "options", "unknown_variables"]

ENV_PREFIX = "PYTEST_TRT_"


@dataclass(frozen=True)
class Option:
    """One declared option. ``parse`` turns text into the value and raises ValueError with what it wants."""

    name: str
    parse: Callable[[str], Any]
    default: Any
    metavar: str
    help: str
    group: str

    @property
    def flag(self) -> str:
        return f"--trt-{self.name.replace('_', '-')}"

    @property
    def short_flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        return ENV_PREFIX + self.name.upper()

    @property
    def ini(self) -> str:
        return f"trt_{self.name}"

    def read(self, text: object, origin: str) -> Any:
        """Parse *text* from *origin*. Raises UsageError that names both."""
        try:
            return self.parse(str(text))
        except ValueError as error:
            raise UsageError(f"{origin}: cannot use {str(text)!r}: {error}") from error


def _option(default: Any, parse: Callable[[str], Any], metavar: str, help: str, *, group: str) -> Any:
    return dataclasses.field(default=default, metadata={"option": (parse, metavar, help, group)})


@dataclass(frozen=True)
class Settings:
    """All options, resolved. Help texts are lowercase sentences without a full stop that say what the value does."""

    precision: tuple[str, ...] | None = _option(
        None,
        names,
        "P[,P…]",
        "precisions to test: fp32 tf32 fp16 bf16 int8 (default: the manifest's, else fp32)",
        group="matrix",
    )
    profile: tuple[str, ...] | None = _option(
        None, names, "NAME[,NAME…]", "shape profiles to test (default: all of the manifest)", group="matrix"
    )
    tactics: tuple[tuple[str, ...], ...] = _option(
        ((),),
        tactic_sets,
        "±SOURCE[,…][;…]",
        "tactic sources to add or take away; several sets are split by ';'",
        group="matrix",
    )
    backend: tuple[str, ...] | None = _option(
        None,
        names,
        "NAME[,NAME…]",
        "what runs the engines (default: tensorrt where it works, else onnxruntime-cpu)",
        group="matrix",
    )
    graph: tuple[str, ...] = _option(
        ("as-is",),
        graphs,
        "NAME[,NAME…]",
        "the graph as it is, or optimized first: as-is ort-basic ort-extended simplified opset=N",
        group="matrix",
    )
    streams: int = _option(
        1,
        number(1, 64, int),
        "N",
        "also run each engine in N contexts and streams at once: equal outputs, throughput",
        group="matrix",
    )
    variant: str | None = _option(
        None, str, "NAME", "variant of each manifest that has one of this name (small, full, …)", group="matrix"
    )
    shapes: str | int = _option(
        "corners",
        shape_points,
        "corners|opt|all|N",
        "points of each profile at which accuracy is judged: opt, min, max; all: single extremes and odd sizes too"
        " (64 at most); N: random ones too",
        group="accuracy",
    )
    samples: int | None = _option(
        None,
        number(1, kind=int),
        "N",
        "use at most N input samples per point (default: all at opt, 4 at the other corners, 1 elsewhere)",
        group="accuracy",
    )
    seed: int = _option(
        0, number(0, kind=int), "N", "seed of synthetic inputs, random points and searches", group="accuracy"
    )
    search: int = _option(
        0,
        number(0, 10**6, int),
        "N",
        "also try N drawn inputs per case, walk towards the worst one, and save what fails (needs hypothesis)",
        group="accuracy",
    )
    tolerance: str | None = _option(
        None, str, "K=V[,…]", "override tolerances, e.g. rtol=1e-2,atol=1e-3 or logits:cosine=0.999", group="accuracy"
    )
    explain: str = _option(
        "fail",
        choice("off", "fail", "on"),
        "off|fail|on",
        "say where the error of a case enters: never, when its accuracy fails, or always",
        group="accuracy",
    )
    explain_seconds: float = _option(
        60, number(0, 86400), "SECONDS", "begin no further stage of an explanation after this long", group="accuracy"
    )
    latency: str = _option("on", choice("on", "off"), "on|off", "measure latency", group="latency")
    threshold: float | None = _option(
        None,
        ratio,
        "SHARE",
        "slowdown against the baseline that is a regression (default: the manifest's, else 5%)",
        group="latency",
    )
    latency_mode: str = _option(
        "graph",
        choice("graph", "queued", "isolated", "throughput"),
        "graph|queued|isolated|throughput",
        "how launches are timed: back to back, as trtexec does, each on an idle device, batches on N streams",
        group="latency",
    )
    l2_flush: bool = _option(
        False, switch, "on|off", "flush the device's L2 cache before each launch (isolated only)", group="latency"
    )
    warmup: float = _option(
        0.2,
        number(0, 600),
        "SECONDS",
        "warm up this long before sampling, and longer while durations still change",
        group="latency",
    )
    duration: float = _option(
        0.9, number(0.001, 3600), "SECONDS", "sample at most this long, over all loads together", group="latency"
    )
    interval: float = _option(
        0.002,
        ratio,
        "SHARE",
        "sample no longer when the median of a load is known to plus or minus this share (95 %)",
        group="latency",
    )
    loads: int = _option(
        3, number(1, 100, int), "N", "load the engine N times, since loads of one plan differ", group="latency"
    )
    inconclusive: str = _option(
        "warn",
        choice("warn", "fail"),
        "warn|fail",
        "what an inconclusive latency verdict does to the test",
        group="latency",
    )
    ab: str = _option(
        "on",
        choice("on", "off"),
        "on|off",
        "let the baseline's engine, where it is at hand, and the present one take turns, and gate their ratio",
        group="latency",
    )
    baseline_engine: Path | None = _option(
        None,
        Path,
        "PLAN",
        "judge against this engine (default: the one of the baseline, if the cache has it)",
        group="latency",
    )
    confirm: str = _option(
        "on",
        choice("on", "off"),
        "on|off",
        "measure what is red or inconclusive once more, in a fresh process",
        group="latency",
    )
    baselines: Path | None = _option(
        None, Path, "DIR", "where baselines are kept (default: baselines/ in the root directory)", group="baselines"
    )
    update_baselines: str | None = _option(
        None,
        choice("new", "renamed", "orphaned", "failed", "all", "anchor"),
        "MODE",
        "write baselines: new (missing ones), failed (stale ones and regressions too), all, anchor (all, as anchors"
        " too); renamed moves entries, orphaned deletes them",
        group="baselines",
    )
    reason: str | None = _option(
        None, str, "TEXT", "why a baseline is replaced; needed by failed, all and anchor", group="baselines"
    )
    baseline: str = _option(
        "report",
        choice("report", "strict"),
        "report|strict",
        "whether missing, stale, renamed and orphaned baselines are only reported or fail",
        group="baselines",
    )
    cache_dir: Path | None = _option(
        None,
        Path,
        "DIR",
        "where engines, references and calibration are kept (default: the user's cache folder)",
        group="cache",
    )
    cache: str = _option(
        "rw", choice("off", "ro", "rw"), "off|ro|rw", "use no cache, only read it, or read and write it", group="cache"
    )
    cache_size: int = _option(
        20 * 10**9, size, "SIZE", "evict the least recently used entries above this size", group="cache"
    )
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
        None, Path, "LIB", "lean runtime library that runs a plan built with exclude-lean", group="build"
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
    structure: str = _option(
        "warn",
        choice("off", "warn", "fail"),
        "off|warn|fail",
        "what it does to a case when layers, size or memory of the engine differ from the baseline",
        group="baselines",
    )
    lock: str = _option(
        "off",
        choice("off", "warn", "fail"),
        "off|warn|fail",
        "what it does to a case when the engine's tactics differ from the baseline",
        group="baselines",
    )
    engine: Path | None = _option(
        None, Path, "PLAN", "test this plan, built by somebody else, in place of building one", group="build"
    )
    trust: str | None = _option(
        None,
        str,
        "DIGEST[,…]",
        "SHA-256 of each plan that may be loaded (loading a plan executes it)",
        group="build",
    )
    report: Path | None = _option(None, Path, "FILE", "write the records as JSON", group="report")
    markdown: Path | None = _option(
        None,
        Path,
        "FILE|-",
        "write the records as a Markdown page; '-' appends it to the job summary of GitHub Actions",
        group="report",
    )
    history: Path | None = _option(
        None, Path, "DIR", "append the records of this run to the history in this folder", group="report"
    )
    history_samples: str = _option(
        "off", choice("on", "off"), "on|off", "whether the history keeps all latency samples", group="report"
    )
    fake: str | None = _option(
        None,
        str,
        "K=V[,…]",
        "what the fake backend injects, e.g. latency=1.5,error=0.1 (to test a gate)",
        group="build",
    )

    @classmethod
    def resolve(
        cls,
        command_line: Mapping[str, Any],
        environ: Mapping[str, str],
        ini: Mapping[str, str],
        *,
        flag: Callable[[Option], str] = lambda option: option.flag,
        ini_root: Path = Path(),
    ) -> Settings:
        """Resolve each option from the first source that gives it.

        Values are texts, None or "" (ini only) where not given. A relative path counts from the working directory,
        one of the ini file from *ini_root*. Raises UsageError that names the source.
        """
        values = {}
        for option in options():
            if command_line.get(option.name) is not None:
                values[option.name] = option.read(command_line[option.name], flag(option))
            elif option.variable in environ:
                values[option.name] = option.read(environ[option.variable], option.variable)
            elif ini.get(option.name):
                value = option.read(ini[option.name], f"ini key {option.ini}")
                values[option.name] = ini_root / value if isinstance(value, Path) else value
        settings = cls(**values)
        if settings.update_baselines in ("failed", "all", "anchor") and not settings.reason:
            raise UsageError(
                f"replacing baselines ({settings.update_baselines}) needs a reason",
                hint='add --trt-reason="why the new values are right"',
            )
        return settings

    def evolve(self, **changes: Any) -> Settings:
        """Return a copy with *changes* (a marker's arguments, say)."""
        return dataclasses.replace(self, **changes)


def options() -> Iterator[Option]:
    """Yield every declared option, in order."""
    for field in dataclasses.fields(Settings):
        parse, metavar, help, group = field.metadata["option"]
        yield Option(field.name, parse, field.default, metavar, help, group)


def as_text(value: Any) -> str:
    """A value from TOML or from Python in the words of the command line: ``[a, b]`` is ``a,b``, ``true`` is ``on``."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, Mapping):
        return ",".join(f"{key}={as_text(entry)}" for key, entry in value.items())
    if isinstance(value, (list, tuple)):
        return ",".join(as_text(entry) for entry in value)
    return str(value)


def as_words(value: Any) -> str:
    """A parsed value, written so that its option reads the same again: pairs are ``NAME=VALUE``."""
    if isinstance(value, tuple):
        pairs = all(isinstance(entry, tuple) for entry in value)
        return ",".join(f"{entry[0]}={entry[1]}" if pairs else str(entry) for entry in value)
    return as_text(value)


def unknown_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return each ``PYTEST_TRT_*`` variable that is no option, with a suggestion: a typo must show."""
    known = {option.variable for option in options()}
    return {name: nearest(name, known) for name in environ if name.startswith(ENV_PREFIX) and name not in known}
