"""What differs between TensorRT 8.6, 10 and 11, and between full and lean, once an engine is loaded and run.

The other half of ``versions.py``, with the same rules: features are found by the presence of a member, enum members
are known by name.
"""

from __future__ import annotations

from typing import Any

from pytest_trt.backends.tensorrt.layouts import ROW_MAJOR, Layout, layout_of
from pytest_trt.backends.tensorrt.versions import version

__all__ = ["engine_inspector", "io_layout", "is_on_host", "stream_weights"]


def engine_inspector(engine: Any) -> Any | None:
    """What tells the layers of *engine*; None in the lean runtime."""
    create = getattr(engine, "create_engine_inspector", None)
    return create() if create is not None else None


def is_on_host(trt: Any, engine: Any, name: str) -> bool:
    """Whether TensorRT reads or writes the tensor in host memory: values that decide shapes."""
    if hasattr(trt, "TensorLocation"):
        return bool(engine.get_tensor_location(name) == trt.TensorLocation.HOST)
    return bool(engine.is_shape_inference_io(name))  # 8.6's lean bindings cannot return a location


def io_layout(trt: Any, engine: Any, name: str, profile: int) -> Layout:
    """How the input or output lies in memory under a profile. Raises RunError for a format that is not known here."""
    # Formats may depend on the profile from 10 on; 8.6 has one for all of them, and takes no index.
    which = (name, profile) if profile and version(trt) >= (10,) else (name,)
    if hasattr(trt, "TensorFormat"):
        kind = engine.get_tensor_format(*which).name
    else:
        # The lean bindings lack the enum, and with it the call; the description of row-major says "linear".
        kind = str(engine.get_tensor_format_desc(*which))
        kind = ROW_MAJOR.name if "linear" in kind.lower() else kind
    if kind == ROW_MAJOR.name:
        return ROW_MAJOR
    rank = len(engine.get_tensor_shape(name))
    axis = int(engine.get_tensor_vectorized_dim(*which))
    components = int(engine.get_tensor_components_per_element(*which))
    return layout_of(kind, rank, name, axis=axis, components=components)


def stream_weights(engine: Any) -> None:
    """Let TensorRT decide how much of its weights a streaming engine keeps on the device; others are left as they are.

    Before the first context is made: it fixes the budget. Raises RuntimeError when the budget is refused.
    """
    if not getattr(engine, "streamable_weights_size", 0):  # 8.6 knows no streaming
        return
    if hasattr(engine, "weight_streaming_budget_v2"):  # 10.1 and later
        engine.weight_streaming_budget_v2 = engine.get_weight_streaming_automatic_budget()
    else:
        engine.weight_streaming_budget = -1  # 10.0's way to say "automatic"
