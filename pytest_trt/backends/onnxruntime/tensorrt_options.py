"""A build request in the words of ONNX Runtime's TensorRT provider."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_trt.backends import BuildOptions, refuse_build_options
from pytest_trt.errors import UnsupportedError, UsageError
from pytest_trt.option import flag_of

if TYPE_CHECKING:
    from pytest_trt.backends import BuildRequest
    from pytest_trt.spec.shapes import Shape

__all__ = ["check_options", "provider_options"]

# Ours -> the provider's.
_OPTIONS = {
    "workspace": "trt_max_workspace_size",
    "opt_level": "trt_builder_optimization_level",
    "sparsity": "trt_sparsity_enable",
    "max_aux_streams": "trt_auxiliary_streams",
}
_FLAGS = {"FP16": "trt_fp16_enable", "BF16": "trt_bf16_enable", "INT8": "trt_int8_enable"}
_MAX_LEVEL = 5


def check_options(backend: str, options: BuildOptions, known: frozenset[str]) -> None:
    """Raise UsageError for an option that the provider lacks, or a value that no build could use."""
    others = replace(options, workspace=None, opt_level=None, sparsity=None, max_aux_streams=None)
    refuse_build_options(backend, others)
    for name in options.given():
        if _OPTIONS[name] not in known:
            raise UsageError(
                f"{flag_of(name)}: the TensorRT provider of this onnxruntime has no {_OPTIONS[name]}",
                hint="upgrade onnxruntime-gpu, or use --trt-backend=tensorrt",
            )
    if options.opt_level is not None and not 0 <= options.opt_level <= _MAX_LEVEL:
        raise UsageError(f"opt_level {options.opt_level} does not exist", hint=f"TensorRT has levels 0 to {_MAX_LEVEL}")
    if options.workspace is not None and options.workspace <= 0:
        raise UsageError(f"workspace must be positive, got {options.workspace}")


def provider_options(request: BuildRequest, folder: Path, known: frozenset[str]) -> dict[str, str]:
    """The provider's options for *request*, its engines and timings kept in *folder*. Raises UnsupportedError."""
    if len(request.held_profiles) > 1:
        raise UnsupportedError("onnxruntime-tensorrt builds one engine per profile")
    chosen = {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(folder),
    }
    for flag, option in _FLAGS.items():
        if flag in request.precision.flags_on:
            chosen[option] = "True"
    for name, value in request.options.given().items():
        chosen[_OPTIONS[name]] = str(value)
    dynamic = [spec.name for spec in request.model.inputs if not all(isinstance(size, int) for size in spec.shape)]
    if dynamic:
        for point in ("min", "opt", "max"):
            chosen[f"trt_profile_{point}_shapes"] = _shapes(dynamic, request.profile.at(point))
    return {name: value for name, value in chosen.items() if name in known}


def _shapes(names: list[str], shapes: Mapping[str, Shape]) -> str:
    for name in names:
        if ":" in name or "," in name:
            raise UnsupportedError(
                f"onnxruntime's TensorRT provider cannot be told the shapes of input {name!r}: it reads"
                " NAME:1x3x8x8,NAME:… without any quoting"
            )
    return ",".join(f"{name}:{'x'.join(map(str, shapes[name]))}" for name in names)
