"""Building an engine: network, configuration, profile, plan, and the facts of what came out."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from pytest_trt.backends import Built
from pytest_trt.backends.tensorrt.census import take_census
from pytest_trt.backends.tensorrt.logger import monitor, process_logger, throttled
from pytest_trt.backends.tensorrt.options import (
    apply_options,
    attach_timing_cache,
    serialized_timing_cache,
    tactic_names,
)
from pytest_trt.backends.tensorrt.parsing import parse
from pytest_trt.backends.tensorrt.session import deserialize
from pytest_trt.backends.tensorrt.versions import device_memory_bytes, register_plugins, set_flags, typing
from pytest_trt.errors import BuildError, ProfileError, RunError, UnsupportedError
from pytest_trt.spec.shapes import format_shape

if TYPE_CHECKING:
    from pytest_trt.backends import BuildRequest, Progress

__all__ = ["build"]


def build(trt: Any, request: BuildRequest, progress: Progress) -> Built:
    """Build *request*'s engine on the current GPU.

    Raises BuildError (parsing, building), ProfileError, UnsupportedError or UsageError (options).
    """
    logger = process_logger(trt)
    say = throttled(progress)
    with ExitStack() as stack:
        messages = stack.enter_context(logger.capture(on_info=say))
        register_plugins(trt, logger)
        builder = trt.Builder(logger)
        network = parse(trt, builder, logger, request.model, stack)
        config = builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # or the inspector shows names only
        flags = set_flags(trt, config, request.precision)
        apply_options(trt, config, request.options)
        cache_state = attach_timing_cache(config, request.timing_cache)
        _add_profile(builder, network, config, request)
        watcher = monitor(trt, say)
        if watcher is not None:
            config.progress_monitor = watcher

        started = time.perf_counter()
        memory = builder.build_serialized_network(network, config)
        seconds = time.perf_counter() - started
        if memory is None:
            if watcher is not None and watcher.interrupted:
                raise KeyboardInterrupt
            raise _failure(trt, logger, request)
        plan = bytes(memory)
        warned = [text.strip()[:200] for severity, text in messages if severity == "WARNING"]
        facts: dict[str, Any] = {
            "tensorrt": str(trt.__version__),
            "build_seconds": round(seconds, 3),
            "plan_bytes": len(plan),
            "typing": typing(trt),
            "flags": flags,
            "tactic_sources": tactic_names(trt, int(config.get_tactic_sources())),
            "timing_cache": cache_state,
            "warnings": len(warned),
            "first_warnings": list(dict.fromkeys(warned))[:3],
            **_inspect(trt, plan, request),
        }
        return Built(plan, ".plan", facts, timing_cache=serialized_timing_cache(config))


def _add_profile(builder: Any, network: Any, config: Any, request: BuildRequest) -> None:
    """Give the builder the shape ranges of the inputs that have any."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    for tensor in inputs:
        if tensor.is_shape_tensor:
            raise UnsupportedError(
                f"input {tensor.name!r} decides shapes by its values; a profile says shapes, not values to build for"
            )
    dynamic = [tensor for tensor in inputs if any(size < 0 for size in tensor.shape)]
    if not dynamic:
        return
    profile = builder.create_optimization_profile()
    for tensor in dynamic:
        if tensor.name not in request.profile.ranges:
            raise ProfileError(f"profile {request.profile.name!r} has no shapes for input {tensor.name!r}")
        shapes = request.profile.ranges[tensor.name]
        try:
            profile.set_shape(tensor.name, shapes.min, shapes.opt, shapes.max)
        except (RuntimeError, ValueError) as error:
            asked = ", ".join(format_shape(shape) for shape in (shapes.min, shapes.opt, shapes.max))
            raise ProfileError(
                f"profile {request.profile.name!r}: TensorRT refuses {asked} for input {tensor.name!r}: {error}",
                hint=f"the network declares it as {tuple(tensor.shape)}",
            ) from error
    if not profile or config.add_optimization_profile(profile) < 0:
        raise ProfileError(f"TensorRT refuses profile {request.profile.name!r}: {request.profile.describe()}")


def _failure(trt: Any, logger: Any, request: BuildRequest) -> BuildError:
    said = logger.complaints()
    hint = None
    if "memory" in said.lower():
        hint = "give the builder more workspace, or the GPU more free memory; profiles with a smaller max need less"
    return BuildError(
        f"TensorRT {trt.__version__} cannot build {request.model.name!r} in {request.precision.name}, "
        f"profile {request.profile.name!r}:\n  {said or 'it gave no reason'}",
        hint=hint,
    )


def _inspect(trt: Any, plan: bytes, request: BuildRequest) -> dict[str, Any]:
    """Load the new plan and read what it holds. A plan that does not load is a failed build."""
    try:
        _runtime, engine = deserialize(trt, plan)
    except RunError as error:
        raise BuildError(f"the new plan of {request.model.name!r} cannot be loaded: {error.message}") from error
    census = take_census(trt, engine, request.profile)
    facts: dict[str, Any] = {
        "layers": int(engine.num_layers),
        "device_memory_bytes": device_memory_bytes(engine),
        "precisions": census.describe(),
    }
    refusal = census.not_honoured(request.precision)
    if refusal:
        facts["not_honoured"] = refusal
    return facts
