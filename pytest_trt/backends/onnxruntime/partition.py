"""Which provider runs which node: what a GPU provider leaves out runs on the CPU, without a word."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.backends.onnxruntime.opening import failures, message
from pytest_trt.spec.dtypes import numpy_dtype

if TYPE_CHECKING:
    import onnxruntime

    from pytest_trt.backends import BuildRequest, Feeds

__all__ = ["describe", "nodes_by_provider", "observe"]

_RECORD = "session.record_ep_graph_assignment_info"


def observe(options: onnxruntime.SessionOptions, folder: Path) -> None:
    """Have a session of *options* keep what ``nodes_by_provider`` reads; *folder* is for a profile."""
    import onnxruntime as ort

    if hasattr(ort.InferenceSession, "get_provider_graph_assignment_info"):
        options.add_session_config_entry(_RECORD, "1")
    else:
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "partition")


def nodes_by_provider(
    session: onnxruntime.InferenceSession, request: BuildRequest
) -> tuple[dict[str, Counter[str]], str]:
    """Return operator counts by provider, and how they were found out: ``assignment`` or ``profile``.

    Before ONNX Runtime said so itself (1.24), only a profiled run tells; it is fed zeros of the profile's opt shapes,
    and fused nodes count once. Empty when that run fails; the second value then says why.
    """
    if hasattr(session, "get_provider_graph_assignment_info"):
        found: dict[str, Counter[str]] = {}
        for part in session.get_provider_graph_assignment_info():
            found.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
        return found, "assignment"
    try:
        session.run(None, _zeros(request))
    except failures() as error:
        return {}, f"unknown: a run on zeros failed: {message(error)}"
    finally:
        profile = Path(session.end_profiling())
    return _read(json.loads(profile.read_text(encoding="utf-8"))), "profile"


def _zeros(request: BuildRequest) -> Feeds:
    shapes = request.profile.at("opt")
    return {spec.name: np.zeros(shapes[spec.name], numpy_dtype(spec.dtype)) for spec in request.model.inputs}


def _read(events: list[dict[str, Any]]) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for event in events:
        said = event.get("args", {})
        # Copies between providers are no nodes of the model.
        if (
            event.get("cat") == "Node"
            and event["name"].endswith("_kernel_time")
            and said.get("provider")
            and not said["op_name"].startswith("Memcpy")
        ):
            found.setdefault(said["provider"], Counter())[said["op_name"]] += 1
    return found


def describe(nodes: Mapping[str, Counter[str]], provider: str, how: str) -> dict[str, Any]:
    """The facts of a build: ``nodes`` on *provider*, ``nodes_elsewhere`` and ``operators_elsewhere`` by provider."""
    elsewhere = {name: ops for name, ops in sorted(nodes.items()) if name != provider}
    return {
        "partition": how,
        "nodes": sum(nodes.get(provider, Counter()).values()),
        "nodes_elsewhere": {name: sum(ops.values()) for name, ops in elsewhere.items()},
        "operators_elsewhere": {name: dict(sorted(ops.items())) for name, ops in elsewhere.items()},
    }
