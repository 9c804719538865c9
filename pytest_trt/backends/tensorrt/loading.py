"""From a plan to an engine that can run: the one place that makes a Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trt.backends.tensorrt.logger import process_logger
from pytest_trt.backends.tensorrt.versions import register_plugins
from pytest_trt.backends.tensorrt.versions.runtime import stream_weights
from pytest_trt.errors import RunError

if TYPE_CHECKING:
    from pytest_trt.backends import BuildRequest, Plan

__all__ = ["LoadedEngine", "deserialize"]


def deserialize(trt: Any, plan: Plan, request: BuildRequest) -> tuple[Any, Any]:
    """Return the runtimes (the last one made the engine) and the engine of *plan*, which must not outlive them.

    *trt* may be a module of the lean runtime. The engine has its weights, also where the plan came without. Code for
    the host may come with a plan only where *request* had it built in: ``version_compatibility``. Raises RunError when
    the plan is of another version or GPU, or broken, and UsageError for a plugin library that cannot be loaded.
    """
    logger = process_logger(trt)
    options = request.options
    register_plugins(trt, logger)
    if options.plugins:
        from pytest_trt.backends.tensorrt.plugins import load_plugins

        load_plugins(trt, options.plugins)
    logger.complaints()
    runtimes = [trt.Runtime(logger)]
    separate = options.lean_runtime if options.version_compatibility == "exclude-lean" else None
    if separate is not None:
        runtimes.append(_lean_runtime(trt, runtimes[0], separate, logger))
    if separate is not None or options.version_compatibility == "on":
        for runtime in runtimes:
            runtime.engine_host_code_allowed = True
    engine = runtimes[-1].deserialize_cuda_engine(plan)
    if engine is None:
        raise _refused(trt, plan, request, logger.complaints())
    _give_weights(trt, engine, request, logger)
    return tuple(runtimes), engine


def _lean_runtime(trt: Any, runtime: Any, path: Path, logger: Any) -> Any:
    loaded = runtime.load_runtime(str(path))
    if loaded is None:
        said = logger.complaints() or "no reason given"
        raise RunError(
            f"TensorRT {trt.__version__} cannot load the lean runtime {path}: {said}",
            hint="--trt-lean-runtime: it must be libnvinfer_lean.so of the TensorRT version that built the plan",
        )
    return loaded


def _refused(trt: Any, plan: Plan, request: BuildRequest, said: str) -> RunError:
    hint = "plans run only under the TensorRT version and GPU that built them; build it again"
    if request.options.version_compatibility == "exclude-lean" and request.options.lean_runtime is None:
        hint = (
            "the plan came without a lean runtime: --trt-lean-runtime=libnvinfer_lean.so of the version that built it"
        )
    elif request.options.version_compatibility in ("on", "exclude-lean"):
        hint = "version-compatible plans of 8 run under 8 and 10, those of 10 under 10 and 11, on the same kind of GPU"
    return RunError(
        f"TensorRT {trt.__version__} cannot load the plan ({len(plan)} bytes): {said or 'no reason given'}", hint=hint
    )


def _give_weights(trt: Any, engine: Any, request: BuildRequest, logger: Any) -> None:
    """Fill a stripped engine, and decide where the weights lie; both must be done before a context is made."""
    if request.options.strip_plan:
        from pytest_trt.backends.tensorrt.refitting import refit_from_model

        refit_from_model(trt, engine, logger, request.model)
    try:
        stream_weights(engine)
    except RuntimeError as error:
        raise RunError(
            f"TensorRT {trt.__version__} cannot stream the engine's weights: {logger.complaints() or error}",
            hint="leave out --trt-weight-streaming: all weights then lie on the device",
        ) from error


class LoadedEngine:
    """An engine and its runtimes, held by one session or several: the last one that lets go frees them."""

    def __init__(self, trt: Any, plan: Plan, request: BuildRequest) -> None:
        self._runtimes, self.engine = deserialize(trt, plan, request)
        self.users = 0

    def retain(self) -> None:
        self.users += 1

    def release(self) -> None:
        self.users -= 1
        if self.users == 0:
            # Each needs the ones before: the engine its runtime, a loaded runtime the one that loaded it.
            self.engine = None
            while self._runtimes:
                self._runtimes = self._runtimes[:-1]
