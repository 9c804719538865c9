"""Tactic sources: where the builder takes kernels from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_trt.backends.tensorrt.flags import signed_names
from pytest_trt.backends.tensorrt.versions import members
from pytest_trt.errors import BuildError, UsageError, nearest

if TYPE_CHECKING:
    from pytest_trt.backends import BuildOptions

__all__ = ["apply_tactics", "check_tactics", "tactic_names"]


def check_tactics(trt: Any, options: BuildOptions) -> None:
    """Raise UsageError for a tactic source that this version does not have, or that is given twice."""
    known = members(trt.TacticSource)
    for _, name in signed_names("tactics", options.tactics):
        if name not in known:
            raise UsageError(
                f"--trt-tactics: TensorRT {trt.__version__} has no tactic source {name!r}", hint=nearest(name, known)
            )


def apply_tactics(trt: Any, config: Any, options: BuildOptions) -> None:
    """Add to the default sources and take away from them. Raises BuildError when TensorRT refuses."""
    if not options.tactics:
        return
    mask = int(config.get_tactic_sources())
    for on, name in signed_names("tactics", options.tactics):
        bit = 1 << int(getattr(trt.TacticSource, name))
        mask = mask | bit if on else mask & ~bit
    if not config.set_tactic_sources(mask):
        raise BuildError(f"TensorRT {trt.__version__} refused the tactic sources {tactic_names(trt, mask)}")


def tactic_names(trt: Any, mask: int) -> list[str]:
    """The tactic sources in *mask*, by name."""
    return sorted(name for name, member in members(trt.TacticSource).items() if mask & 1 << int(member))
