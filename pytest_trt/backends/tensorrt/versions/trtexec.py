"""How the trtexec of a TensorRT version measures when nothing is said."""

from __future__ import annotations

from typing import Any

from pytest_trt.backends.queued_clock import QueueDefaults
from pytest_trt.backends.tensorrt.versions import version

__all__ = ["queue_defaults"]


def queue_defaults(trt: Any) -> QueueDefaults:
    """TensorRT 11 turned three defaults around, so that numbers of 10 and 11 are not comparable."""
    new = version(trt) >= (11,)
    return QueueDefaults(graph=new, transfers=not new, spin=new)
