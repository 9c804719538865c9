"""The trtexec command that builds and times the engine of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trt.backends.tensorrt.command_draft import (
    CommandLine,
    Draft,
    Version,
    add_builder_flags,
    dynamic_inputs,
    known_tactics,
    note_opset,
    strongly_typed,
    type_flags,
)
from pytest_trt.backends.tensorrt.trtexec_flags import (
    BUILDER_FLAGS,
    FLAGS,
    HARDWARE,
    IO_TYPES,
    LAYOUTS,
    TILING,
    TYPE_FLAGS,
    TYPE_OF_DTYPE,
)
from pytest_trt.spec.build_options import IoFormat

if TYPE_CHECKING:
    from pytest_trt.backends import BuildOptions, BuildRequest
    from pytest_trt.spec.model import TensorSpec
    from pytest_trt.spec.shapes import Profile, Shape

__all__ = ["trtexec_command"]

# trtexec averages 8 timings of a tactic where the API's default is 1.
_AVG_TIMING = 1


def trtexec_command(
    request: BuildRequest,
    version: Version,
    *,
    onnx: str,
    plan: str,
    timing_cache: str | None = None,
    calibration_cache: str | None = None,
) -> CommandLine:
    """The line for the trtexec of TensorRT *version*. *onnx* holds the request's typed model; *plan* is written;
    *timing_cache* is read and written; *calibration_cache* is what the request's calibration left.

    Timed is what the GPU computes, from a CUDA graph and without transfers, on all versions alike.
    """
    draft = Draft("trtexec", version, FLAGS, ["trtexec", f"--onnx={onnx}", f"--saveEngine={plan}"])
    options = request.options
    note_opset(draft, request)
    _profiles(draft, request)
    _types(draft, request, calibration_cache)
    _pools(draft, options)
    _search(draft, options)
    _weights(draft, options)
    _compatibility(draft, options)
    for path in options.plugins:
        draft.add("--dynamicPlugins", path, asked="plugins")
    _io_formats(draft, request)
    _timing_cache(draft, options, timing_cache)
    add_builder_flags(draft, options, BUILDER_FLAGS)
    if options.dla is not None:
        draft.note("dla: engines for DLA are not built here; trtexec does it with --useDLACore")
    draft.add("--profilingVerbosity", "detailed", asked="layer information")
    if options.strip_plan and draft.has("--stripWeights"):
        draft.add("--skipInference", asked="building only")
        draft.note("the plan has no weights: trtexec builds it and does not time it")
    elif version < (11,):
        for flag in ("--useCudaGraph", "--useSpinWait", "--noDataTransfers"):
            draft.add(flag, asked="timing")
    return draft.finish()


def _profiles(draft: Draft, request: BuildRequest) -> None:
    inputs = dynamic_inputs(request)
    for spec in inputs:
        if set(spec.name) & set(",'*"):
            draft.note(f"trtexec cannot be told the shape of an input called {spec.name!r}")
    # A model without dynamic inputs is refused together with shapes.
    names = [spec.name for spec in inputs if not set(spec.name) & set(",'*")]
    profiles = request.held_profiles
    if not names:
        return
    if len(profiles) == 1 or not draft.has("--profile"):
        if len(profiles) > 1:
            draft.note(f"{draft.title} builds one profile; this line has {request.profile.name!r} alone")
        _shapes(draft, request.profile, names)
        return
    for index, profile in enumerate(profiles):
        # The shapes must follow their profile's number at once.
        draft.add("--profile", index, asked="several profiles")
        _shapes(draft, profile, names)
    draft.add("--useProfile", request.profile_index, asked="several profiles")


def _shapes(draft: Draft, profile: Profile, names: list[str]) -> None:
    for point in ("min", "opt", "max"):
        shapes = profile.at(point)
        draft.add(f"--{point}Shapes", *(f"{name}:{_dims(shapes[name])}" for name in names), asked="shapes")


def _dims(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _types(draft: Draft, request: BuildRequest, calibration_cache: str | None) -> None:
    if strongly_typed(draft, request):
        if draft.has("--stronglyTyped"):
            draft.add("--stronglyTyped", asked="strong typing")
    else:
        for name in type_flags(draft, request):
            if name in TYPE_FLAGS:
                draft.add(TYPE_FLAGS[name], asked=name)
            else:
                draft.lacks(name)
        _calibration(draft, request, calibration_cache)
    if "TF32" in request.precision.flags_off:
        draft.add("--noTF32", asked="TF32")
    if request.options.sparsity is not None:
        draft.add("--sparsity", "enable" if request.options.sparsity else "disable", asked="sparsity")


def _calibration(draft: Draft, request: BuildRequest, cache: str | None) -> None:
    if request.calibration is None:
        return
    if request.calibration.algorithm != "entropy2":
        draft.note(f"trtexec calibrates with entropy2: it does not take a cache of {request.calibration.algorithm}")
    elif cache is None:
        draft.note("calibration: add --calib=FILE with the calibration cache, or trtexec calibrates on random data")
    else:
        draft.add("--calib", cache, asked="calibration")


def _pools(draft: Draft, options: BuildOptions) -> None:
    pools = []
    workspace = () if options.workspace is None else (("WORKSPACE", options.workspace),)
    for name, size in (*workspace, *options.memory_pools):
        if name == "WORKSPACE":
            # Without a suffix it is MiB in every release; 10.0 takes one for a factor on top.
            pools.append(f"workspace:{_number(size / 2**20)}")
        elif name == "TACTIC_SHARED_MEMORY" and (10,) <= draft.version < (10, 1):
            pools.append(f"tacticSharedMem:{_number(size / 2**10)}")  # KiB
        elif name == "TACTIC_SHARED_MEMORY" and draft.version >= (10, 6):
            pools.append(f"tacticSharedMem:{_number(size / 2**10)}K")
        else:
            draft.lacks(f"memory_pools {name}")
    if pools:
        draft.add("--memPoolSize", *pools, asked="memory pools")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _search(draft: Draft, options: BuildOptions) -> None:
    if options.opt_level is not None:
        draft.add("--builderOptimizationLevel", options.opt_level, asked="opt_level")
    if tactics := known_tactics(draft, options):
        draft.add("--tacticSources", *tactics, asked="tactics")
    if options.tiling is not None and (options.tiling != "none" or draft.has("--tilingOptimizationLevel")):
        draft.add("--tilingOptimizationLevel", TILING[options.tiling], asked="tiling")
    if options.max_tactics is not None:
        draft.add("--maxTactics", options.max_tactics, asked="max_tactics")
    draft.add("--avgTiming", _AVG_TIMING if options.avg_timing is None else options.avg_timing, asked="avg_timing")
    if options.max_aux_streams is not None:
        draft.add("--maxAuxStreams", options.max_aux_streams, asked="max_aux_streams")


def _weights(draft: Draft, options: BuildOptions) -> None:
    if options.refit == "on":
        draft.add("--refit", asked="refit")
    elif options.refit == "individual" or (options.refit == "identical" and not options.strip_plan):
        draft.lacks(f"refit={options.refit}")
    if options.strip_plan:
        draft.add("--stripWeights", asked="strip_plan")  # refit=identical comes with it, unless --refit is there
    if options.weight_streaming:
        draft.add("--allowWeightStreaming", asked="weight_streaming")


def _compatibility(draft: Draft, options: BuildOptions) -> None:
    level = options.hardware_compatibility
    if level == "same-capability" and draft.version < (10, 9):
        draft.lacks("hardware_compatibility=same-capability")
    elif level is not None:
        draft.add("--hardwareCompatibilityLevel", HARDWARE[level], asked="hardware_compatibility")
    if options.version_compatibility in ("on", "exclude-lean"):
        draft.add("--versionCompatible", asked="version_compatibility")
    if options.version_compatibility == "exclude-lean":
        draft.add("--excludeLeanRuntime", asked="version_compatibility")
    if options.lean_runtime is not None:
        draft.add("--leanDLLPath", options.lean_runtime, asked="lean_runtime")


def _timing_cache(draft: Draft, options: BuildOptions, file: str | None) -> None:
    if file is not None:
        draft.add("--timingCacheFile", file, asked="timing cache")
    if options.timing_cache_miss == "error":
        added = draft.add("--errorOnTimingCacheMiss", asked="timing_cache_miss=error")
        if added and file is None:
            draft.note("timing_cache_miss=error: add --timingCacheFile=FILE with the timing cache, or nothing is found")
    if options.editable_timing_cache:
        draft.lacks("editable_timing_cache")


def _io_formats(draft: Draft, request: BuildRequest) -> None:
    wanted = {found.tensor: found for found in map(IoFormat.parse, request.options.io_formats)}
    sides = (("--inputIOFormats", request.model.inputs), ("--outputIOFormats", request.model.outputs))
    for name in wanted.keys() - {spec.name for _, specs in sides for spec in specs}:
        draft.note(f"io_formats: the model has no input or output {name!r}")
    for flag, specs in sides:
        if not any(spec.name in wanted for spec in specs):
            continue
        # trtexec has no names here: it wants a word for each tensor of the side, in the model's order.
        words = [_io_word(draft, spec, wanted.get(spec.name)) for spec in specs]
        given = [word for word in words if word is not None]
        if len(given) == len(words):
            draft.add(flag, *given, asked="io_formats")


def _io_word(draft: Draft, spec: TensorSpec, wanted: IoFormat | None) -> str | None:
    layout = LAYOUTS.get(wanted.layout if wanted else "LINEAR")
    if layout is None or (layout == "hwc16" and draft.version < (10, 14)):
        draft.lacks(f"io_formats {wanted.layout if wanted else ''}")
        return None
    own = TYPE_OF_DTYPE.get(spec.dtype, spec.dtype)
    dtype = wanted.dtype if wanted and wanted.dtype else own
    if draft.version >= (11,):
        if dtype != own:
            draft.note(f"io_formats: {spec.name!r} stays {own}, the type that the model gives it")
        return layout
    if draft.version < (10,) and dtype == "INT64":
        dtype = "INT32"  # what the parser of 8.6 makes of it
    word, first = IO_TYPES.get(dtype, ("", (99,)))
    if draft.version < first:
        draft.lacks(f"an input or output of type {dtype} ({spec.name!r})")
        return None
    return f"{word}:{layout}"
