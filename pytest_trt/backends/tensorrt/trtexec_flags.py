"""What trtexec knows: its flags by release, and its words for our values."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_trt.backends.tensorrt.command_draft import Releases, Version

__all__ = [
    "BUILDER_FLAGS",
    "FLAGS",
    "HARDWARE",
    "IO_TYPES",
    "LAYOUTS",
    "TILING",
    "TYPE_FLAGS",
    "TYPE_OF_DTYPE",
]

_ALWAYS: Releases = ((8,), None)
_FROM_10: Releases = ((10,), None)
_UNTIL_11: Releases = ((8,), (11,))

# Read from samples/common/sampleOptions.cpp of NVIDIA/TensorRT at releases 8.6, 10.0.1, 10.7, 10.9, 10.14, 10.16, 11.0,
# 11.1 and 11.2, and from the help text of 10.6. Where a flag came between two of these, the release is the one of the
# API member that it sets. trtexec refuses a line with a flag that it does not know.
FLAGS: dict[str, Releases] = {
    **dict.fromkeys(
        (
            "--onnx", "--saveEngine", "--minShapes", "--optShapes", "--maxShapes", "--noTF32", "--sparsity",
            "--memPoolSize", "--tacticSources", "--builderOptimizationLevel", "--avgTiming", "--maxAuxStreams",
            "--refit", "--hardwareCompatibilityLevel", "--versionCompatible", "--excludeLeanRuntime", "--leanDLLPath",
            "--dynamicPlugins", "--inputIOFormats", "--outputIOFormats", "--timingCacheFile", "--profilingVerbosity",
            "--skipInference", "--noBuilderCache", "--directIO",
        ),
        _ALWAYS,
    ),
    **dict.fromkeys(
        (
            "--profile", "--useProfile", "--stripWeights", "--allowWeightStreaming", "--errorOnTimingCacheMiss",
            "--noCompilationCache",
        ),
        _FROM_10,
    ),
    # From 11 on networks are strongly typed, and a CUDA graph, spinning and no transfers are the default; the flags
    # for these do nothing there but warn.
    **dict.fromkeys(
        (
            "--fp16", "--int8", "--fp8", "--calib", "--restricted", "--precisionConstraints", "--useCudaGraph",
            "--useSpinWait", "--noDataTransfers",
        ),
        _UNTIL_11,
    ),
    "--bf16": ((10,), (11,)),
    "--int4": ((10, 3), (11,)),
    "--stronglyTyped": ((10,), (11,)),
    "--maxTactics": ((10, 4), None),
    "--monitorMemory": ((10, 7), None),
    "--tilingOptimizationLevel": ((10, 8), None),
    "--distributiveIndependence": ((10, 12), None),
}  # fmt: skip

TILING = {"none": 0, "fast": 1, "moderate": 2, "full": 3}
HARDWARE = {"none": "none", "ampere-plus": "ampere+", "same-capability": "sameComputeCapability"}
TYPE_FLAGS = {"FP16": "--fp16", "BF16": "--bf16", "INT8": "--int8", "FP8": "--fp8", "INT4": "--int4"}
BUILDER_FLAGS = {
    "MONITOR_MEMORY": ("--monitorMemory",),
    "DISTRIBUTIVE_INDEPENDENCE": ("--distributiveIndependence",),
    "DISABLE_COMPILATION_CACHE": ("--noCompilationCache",),
    "DISABLE_TIMING_CACHE": ("--noBuilderCache",),
    "DIRECT_IO": ("--directIO",),
    "SAFETY_SCOPE": ("--restricted",),
    "OBEY_PRECISION_CONSTRAINTS": ("--precisionConstraints", "obey"),
    "PREFER_PRECISION_CONSTRAINTS": ("--precisionConstraints", "prefer"),
}

# DataType -> its word, and the first release that knows it. 11 takes layouts alone.
IO_TYPES: dict[str, tuple[str, Version]] = {
    "FLOAT": ("fp32", (8,)), "HALF": ("fp16", (8,)), "INT8": ("int8", (8,)), "INT32": ("int32", (8,)),
    "FP8": ("fp8", (10,)), "BF16": ("bf16", (10,)), "INT64": ("int64", (10,)), "UINT8": ("uint8", (10,)),
    "BOOL": ("bool", (10,)),
}  # fmt: skip
TYPE_OF_DTYPE = {
    "float32": "FLOAT", "float16": "HALF", "bfloat16": "BF16", "float8e4m3fn": "FP8", "int8": "INT8",
    "int32": "INT32", "int64": "INT64", "uint8": "UINT8", "bool": "BOOL",
}  # fmt: skip
LAYOUTS = {
    "LINEAR": "chw", "CHW2": "chw2", "CHW4": "chw4", "CHW16": "chw16", "CHW32": "chw32", "HWC8": "hwc8",
    "HWC16": "hwc16", "HWC": "hwc", "DHWC": "dhwc", "DHWC8": "dhwc8", "CDHW32": "cdhw32",
}  # fmt: skip
