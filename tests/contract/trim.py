"""Make ``tests/contract/api/*.json`` from full recordings of TensorRT's Python bindings.

    python tests/contract/trim.py FOLDER

FOLDER holds one ``<version>.json`` per release, with ``classes`` (member -> signature), ``enum_values``
(member -> integer) and ``functions``. Kept is what the backend touches, whole classes of it: a member that a
version lacks can then be told from one that nobody recorded.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

VERSIONS = ("8.6.0", "10.0.1", "10.13.3.9", "10.16.1.11", "11.0.0.114", "11.4.0.106")
LEAN = ("lean_8.6.0", "lean_10.16.1.11")
CLASSES = (
    "Builder",
    "Dims",
    "EngineInspector",
    "IBuilderConfig",
    "ICudaEngine",
    "IDebugListener",
    "IExecutionContext",
    "IHostMemory",
    "IInt8EntropyCalibrator",
    "IInt8EntropyCalibrator2",
    "IInt8LegacyCalibrator",
    "IInt8MinMaxCalibrator",
    "ILayer",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IOutputAllocator",
    "IPluginRegistry",
    "IProgressMonitor",
    "ITensor",
    "ITimingCache",
    "OnnxParser",
    "OnnxParserRefitter",
    "ParserError",
    "Refitter",
    "Runtime",
    "TimingCacheKey",
    "TimingCacheValue",
)
ENUMS = (
    "ActivationType",
    "BuilderFlag",
    "CalibrationAlgoType",
    "DataType",
    "EngineStat",
    "ErrorCode",
    "HardwareCompatibilityLevel",
    "ILogger.Severity",
    "LayerInformationFormat",
    "LayerType",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "PreviewFeature",
    "ProfilingVerbosity",
    "TacticSource",
    "TensorFormat",
    "TensorIOMode",
    "TensorLocation",
    "TilingOptimizationLevel",
)
FUNCTIONS = ("get_nv_onnx_parser_version", "get_plugin_registry", "init_libnvinfer_plugins")


def trim(full: dict) -> dict:
    """Keep the parts named above, without the module paths inside the signatures."""
    classes = {
        name: {member: _short(text) for member, text in sorted(full["classes"][name].items()) if _wanted(member)}
        for name in CLASSES
        if name in full["classes"]
    }
    return {
        "version": full["version"],
        "classes": classes,
        "enum_values": {name: full["enum_values"][name] for name in ENUMS if name in full["enum_values"]},
        "functions": {name: _short(full["functions"][name]) for name in FUNCTIONS if name in full["functions"]},
    }


def _wanted(member: str) -> bool:
    # Of the ways to add a layer by hand one is enough to try a model's own network function.
    return not member.startswith("add_") or member in ("add_activation", "add_input", "add_optimization_profile")


def _short(signature: str) -> str:
    return re.sub(
        r"\b(?:tensorrt|tensorrt_bindings|tensorrt_lean|tensorrt_lean_bindings)\.(?:tensorrt(?:_lean)?\.)?|\btyping(?:_extensions)?\.|\bcollections\.abc\.",
        "",
        signature,
    )


def main(folder: Path) -> None:
    target = Path(__file__).parent / "api"
    target.mkdir(exist_ok=True)
    for version in (*VERSIONS, *LEAN):
        trimmed = trim(json.loads((folder / f"{version}.json").read_text()))
        path = target / f"{version}.json"
        path.write_text(json.dumps(trimmed, indent=0, sort_keys=True) + "\n")
        sys.stdout.write(f"{path.name}: {path.stat().st_size} bytes\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
