"""Building an engine: network, configuration, profiles, plan, and the facts of what came out."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from pytest_trt.backends import Built
from pytest_trt.backends.build_child import crash_hint
from pytest_trt.backends.steps import Steps
from pytest_trt.backends.tensorrt.census import take_census
from pytest_trt.backends.tensorrt.editable_cache import read_entries, write_entries
from pytest_trt.backends.tensorrt.io_formats import apply_io_formats
from pytest_trt.backends.tensorrt.loading import deserialize
from pytest_trt.backends.tensorrt.logger import monitor, process_logger, throttled
from pytest_trt.backends.tensorrt.opsets import opset_remark
from pytest_trt.backends.tensorrt.options import (
    apply_options,
    attach_timing_cache,
    check_options,
    serialized_timing_cache,
)
from pytest_trt.backends.tensorrt.parsing import define_network
from pytest_trt.backends.tensorrt.profiles import add_profiles
from pytest_trt.backends.tensorrt.refitting import mark_refittable
from pytest_trt.backends.tensorrt.tactics import tactic_names
from pytest_trt.backends.tensorrt.versions import (
    device_memory_bytes,
    flag,
    flags_on,
    has_pairs,
    lean_library,
    register_plugins,
    set_precision_flags,
    share_profiles,
    typing,
)
from pytest_trt.backends.tensorrt.versions.debugging import mark_debug_tensors
from pytest_trt.errors import BuildError, RunError, UsageError

if TYPE_CHECKING:
    from pytest_trt.backends import BuildRequest, Calibration, Progress
    from pytest_trt.backends.tensorrt.logger import Messages

__all__ = ["build"]


def build(trt: Any, request: BuildRequest, progress: Progress) -> Built:
    """Build *request*'s engine on the current GPU.

    Raises BuildError (parsing, building), which holds the log, ProfileError, UnsupportedError or UsageError (options).
    """
    logger = process_logger(trt)
    say = throttled(progress)
    if remark := opset_remark(trt, request.model):
        # 8.6.0's parser dies of some such models, and takes along what would be said afterwards.
        crash_hint(remark)
        progress(f"parsing {request.model.name!r}: {remark}")
    with ExitStack() as stack:
        messages = stack.enter_context(logger.capture(on_info=say))
        try:
            return _build(trt, request, messages, monitor(trt, say), stack)
        except BuildError as error:
            error.log = messages.text()
            raise


def _build(trt: Any, request: BuildRequest, messages: Messages, watcher: Any, stack: ExitStack) -> Built:
    logger, steps = process_logger(trt), Steps()
    register_plugins(trt, logger)
    check_options(trt, request.options)  # loads the plugins that the parser may need
    if request.options.strip_plan and not request.model.has_graph:
        raise UsageError(
            f"--trt-strip-plan=on: model {request.model.name!r} is a network function, and a stripped engine gets its "
            "weights back from an ONNX model",
            hint="leave it out for this model",
        )
    typed = _typing(trt, request)
    if request.options.weight_streaming and typed == "weak":
        raise UsageError(
            f"--trt-weight-streaming=on: TensorRT {trt.__version__} streams weights of strongly typed networks only,"
            f" and builder flags type {request.model.name!r} in {request.precision.name}",
            hint="leave it out" if request.calibration else "--trt-typing=strong takes the types from the network",
        )
    builder = trt.Builder(logger)
    steps.done("open")  # of a process's first build: loading the builder's kernels, too
    network = define_network(trt, builder, logger, request.model, typed, stack)
    if request.debug_tensors:
        mark_debug_tensors(trt, network, request.debug_tensors)
    apply_io_formats(trt, network, request.options)
    steps.done("parse")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # or the inspector shows names only
    set_precision_flags(trt, config, request.precision, typed, without=_without(trt, network, request))
    apply_options(trt, config, request.options)
    if request.options.refit == "individual":
        mark_refittable(network, request.model)
    share_profiles(trt, config)
    cache_state = attach_timing_cache(config, request.timing_cache)
    if request.tactic_lock:
        write_entries(trt, config.get_timing_cache(), request.tactic_lock)
    add_profiles(builder, network, config, request.held_profiles)
    calibrator = _calibrator(trt, builder, network, config, request, stack)
    if watcher is not None:
        config.progress_monitor = watcher

    steps.done("configure")
    memory = builder.build_serialized_network(network, config)
    steps.done("build")
    if calibrator is not None and calibrator.error is not None:
        raise calibrator.error  # it could not cross TensorRT, which may have built on the samples before it
    if memory is None:
        if watcher is not None and watcher.interrupted:
            raise KeyboardInterrupt
        raise _failure(trt, logger, request)
    plan = bytes(memory)
    inspected = _inspect(trt, plan, request)
    steps.done("inspect")
    facts: dict[str, Any] = {
        "tensorrt": str(trt.__version__),
        "build_seconds": round(steps.seconds["build"], 3),
        "plan_bytes": len(plan),
        "typing": typed,
        "flags": flags_on(trt, config),
        "options": request.options.describe(),
        "tactic_sources": tactic_names(trt, int(config.get_tactic_sources())),
        "timing_cache": cache_state,
        "warnings": messages.warnings,
        "first_warnings": messages.first_warnings,
        **inspected,
    }
    if remark := opset_remark(trt, request.model):
        facts["remarks"] = [*facts.get("remarks", ()), remark]
    if request.calibration is not None:
        facts["calibration"] = _calibration_facts(request.calibration, calibrator.cache if calibrator else None)
    if request.options.editable_timing_cache:
        facts["timing"] = {key: list(entry) for key, entry in read_entries(config.get_timing_cache()).items()}
    timings = serialized_timing_cache(config)
    steps.done("timings")
    return Built(
        plan,
        ".plan",
        {**facts, "step_seconds": steps.seconds},
        timing_cache=timings,
        log=messages.text(),
        calibration_cache=calibrator.cache if calibrator is not None else None,
    )


def _without(trt: Any, network: Any, request: BuildRequest) -> tuple[str, ...]:
    """INT8, where a recipe excluded every node: without a Q/DQ pair the flag asks for a calibrator."""
    by_recipe = "INT8" in request.precision.flags_on and request.model.has_graph and request.calibration is None
    return ("INT8",) if by_recipe and not has_pairs(trt, network) else ()


def _calibration_facts(calibration: Calibration, cache: bytes | None) -> dict[str, Any]:
    """What the calibration was, and its table by digest: two runs on the same samples must show the same."""
    return {
        "algorithm": calibration.algorithm,
        "batches": len(calibration.batches),
        "table": "reused" if calibration.cache is not None else "new",
        "sha256": hashlib.sha256(cache or calibration.cache or b"").hexdigest()[:16],
    }


def _typing(trt: Any, request: BuildRequest) -> str:
    """How the network is typed. TensorRT's own calibration picks types itself: it needs weak typing."""
    if request.calibration is None:
        if request.precision.calibrator is not None:
            raise BuildError(
                f"precision {request.precision.name!r} is calibrated by TensorRT, and was given no samples"
            )
        # No recipe types a network that a function fills: where builder flags can choose its types, they do.
        by_flags = request.model.network is not None and flag(trt, "FP16") is not None
        return typing(trt, request.options.typing or ("weak" if by_flags else None))
    if request.options.typing == "strong":
        raise UsageError(
            f"--trt-typing=strong: TensorRT {trt.__version__} calibrates weakly typed networks only",
            hint="leave it out, or test the precision int8, which is Q/DQ in the model",
        )
    return "weak"


def _calibrator(
    trt: Any, builder: Any, network: Any, config: Any, request: BuildRequest, stack: ExitStack
) -> Any | None:
    """Give *config* the calibrator that *request* asks for, and return it; its memory lives as long as *stack*."""
    if request.calibration is None:
        return None
    from pytest_trt.backends.tensorrt.calibrators import make_calibrator, set_calibration_shapes

    calibrator = make_calibrator(trt, request.calibration, process_logger(trt))
    stack.callback(calibrator.close)
    config.int8_calibrator = calibrator
    set_calibration_shapes(builder, network, config, request.calibration)
    return calibrator


def _failure(trt: Any, logger: Any, request: BuildRequest) -> BuildError:
    said = logger.complaints()
    return BuildError(
        f"TensorRT {trt.__version__} cannot build {request.model.name!r} in {request.precision.name}, "
        f"profile {request.profile.name!r}:\n  {said or 'it gave no reason'}",
        hint=_hint(trt, said.lower(), request) or opset_remark(trt, request.model),
    )


def _hint(trt: Any, said: str, request: BuildRequest) -> str | None:
    library = lean_library(trt)
    if library and request.options.version_compatibility == "on" and "lean" in said:
        return (
            f"this builder puts the lean runtime into the plan, from a file {library} beside its own library: copy it "
            "there from the tensorrt-lean package of the same version, or use --trt-version-compatibility=exclude-lean"
        )
    if request.options.timing_cache_miss == "error" and "cache" in said:
        return "build once with --trt-timing-cache-miss=build: the timings of every layer are then in the timing cache"
    if "memory" in said:
        return "give the builder more workspace, or the GPU more free memory; profiles with a smaller max need less"
    return None


def _inspect(trt: Any, plan: bytes, request: BuildRequest) -> dict[str, Any]:
    """Load the new plan and read what it holds. A plan that does not load is a failed build."""
    try:
        runtimes, engine = deserialize(trt, plan, request)
    except RunError as error:
        raise BuildError(
            f"the new plan of {request.model.name!r} cannot be loaded: {error.message}", hint=error.hint
        ) from error
    try:
        census = take_census(trt, engine, request, len(plan))
        facts: dict[str, Any] = {
            "layers": int(engine.num_layers),
            "profiles": int(engine.num_optimization_profiles),
            "device_memory_bytes": device_memory_bytes(engine),
            **census.facts(),
        }
    finally:
        # The engine needs its runtime to the end.
        del engine
        del runtimes
    refusal = census.not_honoured(request)
    if refusal:
        facts["not_honoured"] = refusal
    return facts
