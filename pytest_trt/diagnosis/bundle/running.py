"""How ``reproduce.py`` runs a model: with ONNX Runtime or with TensorRT, as the case's backend did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_trt.backends.onnxruntime.cpu import as_run, session_config
from pytest_trt.backends.tensorrt.versions import TYPE_FLAGS

if TYPE_CHECKING:
    from pytest_trt.backends import BuildRequest
    from pytest_trt.spec.case import Case
    from pytest_trt.spec.model import Model

__all__ = ["how_to_run"]

# An engine without its weights, or one that streams them, is no other engine: the script builds the plain one.
_LEFT_OUT = ("STRIP_PLAN", "WEIGHTLESS", "REFIT_IDENTICAL", "WEIGHT_STREAMING", "EXCLUDE_LEAN_RUNTIME")
_ATTRIBUTES = {
    "opt_level": "builder_optimization_level",
    "max_aux_streams": "max_aux_streams",
    "max_tactics": "max_num_tactics",
    "avg_timing": "avg_timing_iterations",
}
_LEVELS = {
    "hardware_compatibility": ("hardware_compatibility_level", "HardwareCompatibilityLevel"),
    "tiling": ("tiling_optimization_level", "TilingOptimizationLevel"),
}
_LEVEL_NAMES = {"ampere-plus": "AMPERE_PLUS", "same-capability": "SAME_COMPUTE_CAPABILITY"}


def how_to_run(case: Case, request: BuildRequest, facts: Mapping[str, Any]) -> tuple[dict[str, Any], Model | None]:
    """What ``case.json`` says under ``run``, and the model that is run; None where the script cannot run the case.

    ``model``, the file, is still to be named.
    """
    model = request.model
    if not model.has_graph or "prebuilt" in facts:
        return {"tool": "pytest-trt", "why": "there is no ONNX graph from which the engine could be built"}, None
    if any(spec.dtype in ("bfloat16", "string") or "float8" in spec.dtype for spec in (*model.inputs, *model.outputs)):
        return _cannot("NumPy has no type of an input or output"), None
    if case.backend == "onnxruntime-cpu":
        config = session_config(request.precision)
        return {"tool": "onnxruntime", "providers": [["CPUExecutionProvider", {}]], "config": config}, as_run(request)
    if case.backend == "onnxruntime-cuda":
        tf32 = {"use_tf32": "1" if "TF32" in request.precision.flags_on else "0"}
        config = {"session.disable_quant_qdq": "1"}
        return {"tool": "onnxruntime", "providers": [["CUDAExecutionProvider", tf32]], "config": config}, model
    if case.backend != "tensorrt":
        return _cannot(f"the backend {case.backend} runs in pytest-trt only"), None
    if request.calibration is not None:
        return _cannot("TensorRT's own calibration runs in pytest-trt only"), None
    return _tensorrt(case, request, facts), model


def _cannot(why: str) -> dict[str, Any]:
    return {"tool": "pytest-trt", "why": f"{why}: commands.txt, beside this script, has the line"}


def _tensorrt(case: Case, request: BuildRequest, facts: Mapping[str, Any]) -> dict[str, Any]:
    options = request.options
    flags = [*facts.get("flags", ()), *request.precision.flags_on]
    pools = {} if options.workspace is None else {"WORKSPACE": options.workspace}
    given = options.given()
    return {
        "tool": "tensorrt",
        "typing": facts.get("typing") or options.typing,
        "flags_on": [name for name in dict.fromkeys(flags) if name not in _LEFT_OUT],
        "flags_off": [name for name in request.precision.flags_off if name not in flags],
        "type_flags": sorted(TYPE_FLAGS),
        "memory_pools": {**pools, **dict(options.memory_pools)},
        "tactics": list(case.tactics or options.tactics),
        "attributes": {attribute: given[name] for name, attribute in _ATTRIBUTES.items() if name in given},
        "enums": {
            attribute: [enum, _LEVEL_NAMES.get(given[name], str(given[name]).upper())]
            for name, (attribute, enum) in _LEVELS.items()
            if name in given
        },
        "plugins": [str(path) for path in options.plugins],
        "profile": {
            name: [list(shapes.min), list(shapes.opt), list(shapes.max)]
            for name, shapes in request.profile.ranges.items()
        },
        "timing_cache": None,
    }
