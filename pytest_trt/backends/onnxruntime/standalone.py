"""ONNX Runtime's half of a bundle's ``reproduce.py``. Its source is copied there: it knows nothing of this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_trt.backends.cannot_run import CannotRun

__all__ = ["run_onnxruntime"]


def run_onnxruntime(model: Path, how: Mapping[str, Any], feeds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the outputs of each sample. ``how`` has the providers with their options, and the session's options.

    Raises ImportError without ONNX Runtime, CannotRun where it cannot load or run the model.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    for key, value in how["config"].items():
        options.add_session_config_entry(key, value)
    available = ort.get_available_providers()
    missing = [name for name, _ in how["providers"] if name not in available]
    if missing:
        raise CannotRun(f"onnxruntime {ort.__version__} has no {missing[0]} here")
    try:
        session = ort.InferenceSession(
            str(model),
            options,
            providers=[name for name, _ in how["providers"]],
            provider_options=[given for _, given in how["providers"]],
        )
    except refusals() as error:
        raise CannotRun(f"onnxruntime {ort.__version__} cannot load {model.name}: {one_line(error)}") from error
    names = [output.name for output in session.get_outputs()]
    wanted = {value.name for value in session.get_inputs()}
    found = []
    for feed in feeds:
        try:
            arrays = session.run(names, {name: array for name, array in feed.items() if name in wanted})
        except refusals() as error:
            raise CannotRun(f"onnxruntime {ort.__version__} cannot run {model.name}: {one_line(error)}") from error
        found.append(dict(zip(names, arrays, strict=True)))
    return found


def refusals() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: its own exceptions, which have no common base, and two of Python's."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    kinds = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*kinds, RuntimeError, ValueError)


def one_line(error: Exception) -> str:
    """Without ONNX Runtime's codes, as in "[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Load model from …"."""
    text = " ".join(str(error).split())
    return (text.split(" : ", 3)[-1] if text.startswith("[ONNXRuntimeError]") else text)[:600].rstrip(". ")
