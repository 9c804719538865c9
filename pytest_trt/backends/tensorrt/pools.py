"""Memory pools of the builder: the workspace, and the others by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_trt.backends.tensorrt.versions import members
from pytest_trt.errors import UsageError, nearest

if TYPE_CHECKING:
    from pytest_trt.backends import BuildOptions

__all__ = ["apply_pools", "check_pools"]


def check_pools(trt: Any, options: BuildOptions) -> None:
    """Raise UsageError for a pool that does not exist here or has an option of its own, and for an empty limit."""
    if options.workspace is not None and options.workspace <= 0:
        raise UsageError(f"--trt-workspace must be positive, got {options.workspace}")
    known = {name for name in members(trt.MemoryPoolType) if not name.startswith("DLA_")}
    for name, size in options.memory_pools:
        if name == "WORKSPACE":
            raise UsageError("--trt-memory-pools does not set WORKSPACE", hint="--trt-workspace is the option for it")
        if name.startswith("DLA_"):
            raise UsageError(
                f"--trt-memory-pools: {name} belongs to DLA, for which nothing is built here",
                hint="DLA is on Jetson and DRIVE only; pools for a GPU: " + ", ".join(sorted(known - {"WORKSPACE"})),
            )
        if name not in known:
            raise UsageError(
                f"--trt-memory-pools: TensorRT {trt.__version__} has no memory pool {name!r}",
                hint=nearest(name, known - {"WORKSPACE"}),
            )
        if size <= 0:
            raise UsageError(f"--trt-memory-pools: the limit of {name} must be positive, got {size}")


def apply_pools(trt: Any, config: Any, options: BuildOptions) -> None:
    workspace = [("WORKSPACE", options.workspace)] if options.workspace is not None else []
    for name, size in (*workspace, *options.memory_pools):
        config.set_memory_pool_limit(getattr(trt.MemoryPoolType, name), size)
