"""The ``polygraphy convert`` command that builds the engine of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trt.backends.tensorrt.command_draft import (
    CommandLine,
    Draft,
    Releases,
    Version,
    add_builder_flags,
    dynamic_inputs,
    known_tactics,
    note_opset,
    strongly_typed,
    type_flags,
)
from pytest_trt.spec.build_options import IoFormat

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_trt.backends import BuildOptions, BuildRequest
    from pytest_trt.spec.shapes import Shape

__all__ = ["FLAGS", "polygraphy_command"]

_ALWAYS: Releases = ((8,), None)
_FROM_10: Releases = ((10,), None)
_UNTIL_11: Releases = ((8,), (11,))

# Polygraphy takes all of these with any TensorRT, and fails when it sets what that release lacks. From its 0.53.
FLAGS: dict[str, Releases] = {
    **dict.fromkeys(
        (
            "--trt-min-shapes", "--trt-opt-shapes", "--trt-max-shapes", "--tf32", "--sparse-weights", "--pool-limit",
            "--tactic-sources", "--builder-optimization-level", "--max-aux-streams", "--refittable",
            "--hardware-compatibility-level", "--version-compatible", "--exclude-lean-runtime", "--plugins",
            "--tensor-formats", "--load-timing-cache", "--save-timing-cache", "--direct-io", "--trt-safety-restricted",
        ),
        _ALWAYS,
    ),
    **dict.fromkeys(
        (
            "--strongly-typed", "--strip-plan", "--weight-streaming", "--error-on-timing-cache-miss",
            "--disable-compilation-cache",
        ),
        _FROM_10,
    ),
    **dict.fromkeys(
        (
            "--fp16", "--int8", "--fp8", "--calibration-cache", "--calibration-base-class", "--precision-constraints",
            "--tensor-datatypes",
        ),
        _UNTIL_11,
    ),
    "--bf16": ((10,), (11,)),
    "--tiling-optimization-level": ((10, 8), None),
}  # fmt: skip

_TYPE_FLAGS = {"FP16": "--fp16", "BF16": "--bf16", "INT8": "--int8", "FP8": "--fp8"}
_CALIBRATORS = {
    "entropy2": "IInt8EntropyCalibrator2",
    "entropy": "IInt8EntropyCalibrator",
    "minmax": "IInt8MinMaxCalibrator",
    "legacy": "IInt8LegacyCalibrator",
}
_HARDWARE = {"none": "none", "ampere-plus": "ampere_plus", "same-capability": "same_compute_capability"}
_BUILDER_FLAGS = {
    "DISABLE_COMPILATION_CACHE": ("--disable-compilation-cache",),
    "DIRECT_IO": ("--direct-io",),
    "SAFETY_SCOPE": ("--trt-safety-restricted",),
    "OBEY_PRECISION_CONSTRAINTS": ("--precision-constraints", "obey"),
    "PREFER_PRECISION_CONSTRAINTS": ("--precision-constraints", "prefer"),
}

# Polygraphy names the types as the bindings' aliases do.
_TYPES = {
    "FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT8": "int8", "INT32": "int32", "INT64": "int64",
    "UINT8": "uint8", "BOOL": "bool", "FP8": "fp8",
}  # fmt: skip

# What is on without being asked. The option adds to it and takes from it; Polygraphy wants the outcome.
_OWN_SOURCES = ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")
_LIBRARY_SOURCES_OF_8 = ("CUBLAS", "CUBLAS_LT", "CUDNN")


def polygraphy_command(
    request: BuildRequest,
    version: Version,
    *,
    onnx: str,
    plan: str,
    timing_cache: str | None = None,
    calibration_cache: str | None = None,
) -> CommandLine:
    """The line for Polygraphy with TensorRT *version*; the files are those of ``trtexec_command``.

    It builds and does not time: Polygraphy's own times hold its Python and the copies.
    """
    words = ["polygraphy", "convert", onnx, "--convert-to", "trt", "-o", plan]
    draft = Draft("polygraphy", version, FLAGS, words)
    options = request.options
    note_opset(draft, request)
    _shapes(draft, request)
    _types(draft, request, calibration_cache)
    _pools(draft, options)
    _search(draft, options)
    _weights_and_compatibility(draft, options)
    if options.plugins:
        draft.add("--plugins", *options.plugins, asked="plugins")
    _io_formats(draft, options)
    if timing_cache is not None:
        draft.add("--load-timing-cache", timing_cache, asked="timing cache")
        draft.add("--save-timing-cache", timing_cache, asked="timing cache")
    if options.timing_cache_miss == "error":
        added = draft.add("--error-on-timing-cache-miss", asked="timing_cache_miss=error")
        if added and timing_cache is None:
            draft.note("timing_cache_miss=error: add --load-timing-cache FILE, or nothing is found")
    if options.editable_timing_cache:
        draft.lacks("editable_timing_cache")
    add_builder_flags(draft, options, _BUILDER_FLAGS)
    if options.dla is not None:
        draft.note("dla: engines for DLA are not built here; polygraphy does it with --use-dla")
    return draft.finish()


def _shapes(draft: Draft, request: BuildRequest) -> None:
    names = [spec.name for spec in dynamic_inputs(request)]
    for profile in request.held_profiles if names else ():
        for point in ("min", "opt", "max"):
            shapes = profile.at(point)
            draft.add(f"--trt-{point}-shapes", *(f"{n}:[{_dims(shapes[n])}]" for n in names), asked="shapes")


def _dims(shape: Shape) -> str:
    return ",".join(map(str, shape))


def _types(draft: Draft, request: BuildRequest, calibration_cache: str | None) -> None:
    if strongly_typed(draft, request):
        draft.add("--strongly-typed", asked="strong typing")
    else:
        for name in type_flags(draft, request):
            if name in _TYPE_FLAGS:
                draft.add(_TYPE_FLAGS[name], asked=name)
            else:
                draft.lacks(name)
        if request.calibration is not None:
            draft.add("--calibration-base-class", _CALIBRATORS[request.calibration.algorithm], asked="calibration")
            if calibration_cache is not None:
                draft.add("--calibration-cache", calibration_cache, asked="calibration")
            else:
                draft.note("calibration: add --calibration-cache FILE, or polygraphy calibrates on random data")
    if "TF32" not in request.precision.flags_off:  # on in TensorRT and off in Polygraphy, by default
        draft.add("--tf32", asked="TF32")
    if request.options.sparsity:
        draft.add("--sparse-weights", asked="sparsity")


def _pools(draft: Draft, options: BuildOptions) -> None:
    pools = [] if options.workspace is None else [f"workspace:{options.workspace}"]
    for name, size in options.memory_pools:
        if name == "TACTIC_SHARED_MEMORY" and draft.version < (10,):
            draft.lacks(f"memory_pools {name}")
        else:
            pools.append(f"{name.lower()}:{size}")
    if pools:
        draft.add("--pool-limit", *pools, asked="memory_pools")


def _search(draft: Draft, options: BuildOptions) -> None:
    if options.opt_level is not None:
        draft.add("--builder-optimization-level", options.opt_level, asked="opt_level")
    if tactics := known_tactics(draft, options):
        draft.add("--tactic-sources", *_sources(draft.version, tactics), asked="tactics")
    if options.tiling is not None and (options.tiling != "none" or draft.has("--tiling-optimization-level")):
        draft.add("--tiling-optimization-level", options.tiling, asked="tiling")
    for name in ("max_tactics", "avg_timing"):
        if getattr(options, name) is not None:
            draft.lacks(name)
    if options.max_aux_streams is not None:
        draft.add("--max-aux-streams", options.max_aux_streams, asked="max_aux_streams")


def _sources(version: Version, tactics: tuple[str, ...]) -> Iterator[str]:
    changes = {entry[1:]: entry[0] == "+" for entry in tactics}
    default = (*(_LIBRARY_SOURCES_OF_8 if version < (10,) else ()), *_OWN_SOURCES)
    for name in dict.fromkeys((*default, *changes)):
        if changes.get(name, name in default):
            yield name.lower()


def _weights_and_compatibility(draft: Draft, options: BuildOptions) -> None:
    if options.refit == "on":
        draft.add("--refittable", asked="refit")
    elif options.refit == "individual" or (options.refit == "identical" and not options.strip_plan):
        draft.lacks(f"refit={options.refit}")
    if options.strip_plan:
        draft.add("--strip-plan", asked="strip_plan")
    if options.weight_streaming:
        draft.add("--weight-streaming", asked="weight_streaming")
    level = options.hardware_compatibility
    if level == "same-capability" and draft.version < (10, 9):
        draft.lacks("hardware_compatibility=same-capability")
    elif level is not None:
        draft.add("--hardware-compatibility-level", _HARDWARE[level], asked="hardware_compatibility")
    if options.version_compatibility in ("on", "exclude-lean"):
        draft.add("--version-compatible", asked="version_compatibility")
    if options.version_compatibility == "exclude-lean":
        draft.add("--exclude-lean-runtime", asked="version_compatibility")
    if options.lean_runtime is not None:
        draft.note("lean_runtime: polygraphy convert loads no plan; polygraphy run has --load-runtime")


def _io_formats(draft: Draft, options: BuildOptions) -> None:
    wanted = [IoFormat.parse(text) for text in options.io_formats]
    if not wanted:
        return
    draft.add("--tensor-formats", *(f"{f.tensor}:[{f.layout.lower()}]" for f in wanted), asked="io_formats")
    typed = [f for f in wanted if f.dtype is not None]
    for found in typed:
        if found.dtype not in _TYPES:
            draft.lacks(f"io_formats {found.dtype}")
    given = [f"{f.tensor}:{_TYPES[f.dtype]}" for f in typed if f.dtype in _TYPES]
    if given:
        draft.add("--tensor-datatypes", *given, asked="types of io_formats")
