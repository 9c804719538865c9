"""ONNX Runtime's half of a bundle's ``reproduce.py``. Its source is copied there: it knows nothing of this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["run_onnxruntime"]


def run_onnxruntime(model: Path, how: Mapping[str, Any], feeds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the outputs of each sample. ``how`` has the providers with their options, and the session's options."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    for key, value in how["config"].items():
        options.add_session_config_entry(key, value)
    available = ort.get_available_providers()
    missing = [name for name, _ in how["providers"] if name not in available]
    if missing:
        raise ImportError(f"this onnxruntime has no {missing[0]}")
    session = ort.InferenceSession(
        str(model),
        options,
        providers=[name for name, _ in how["providers"]],
        provider_options=[given for _, given in how["providers"]],
    )
    names = [output.name for output in session.get_outputs()]
    wanted = {value.name for value in session.get_inputs()}
    found = []
    for feed in feeds:
        arrays = session.run(names, {name: array for name, array in feed.items() if name in wanted})
        found.append(dict(zip(names, arrays, strict=True)))
    return found
