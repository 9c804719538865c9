"""A ``tensorrt`` module per recorded version: its real members, signatures and integers; simulated work."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import double_building
import double_network
import double_running
from double_base import make
from fake_cuda import FakeCuda
from recorded import check_call, make_class, make_enum

API = Path(__file__).parent / "api"
VERSIONS = ("8.6.0", "10.0.1", "10.13.3.9", "10.16.1.11", "11.0.0.114", "11.4.0.106")

# The classes of these modules are what the recorded classes of the same names do.
_BEHAVIOURS = {
    name: thing
    for module in (double_building, double_network, double_running)
    for name, thing in vars(module).items()
    if isinstance(thing, type)
}

_OPEN = ("IDebugListener", "ILogger", "IOutputAllocator", "IProgressMonitor")  # made to be derived from


def make_tensorrt(version: str, cuda: FakeCuda) -> Any:
    """Return the module of *version*, which runs on *cuda*.

    ``misbehave`` is a set of: ``no-plan``, ``fp32-only``, ``myelin``, ``no-context``, ``no-enqueue``, ``no-capture``,
    ``no-errors``, ``no-lean-library``, ``no-refit``, ``no-entry``, ``no-debug``. ``_log`` holds each build's network
    and config, ``_plugins`` the libraries that the registry loaded.
    """
    recording = json.loads((API / f"{version}.json").read_text())
    trt: Any = ModuleType("tensorrt")
    trt.__version__ = recording["version"]
    trt._cuda, trt._log, trt._plugins, trt.misbehave = cuda, [], [], set()
    for name, values in recording["enum_values"].items():
        if "." not in name:
            setattr(trt, name, make_enum(name, values))
    for name, members in recording["classes"].items():
        is_open = name in _OPEN or name.startswith("IInt8")
        made = make_class(trt, name, members, _BEHAVIOURS[name], open_to_python=is_open)
        made._trt = trt
        setattr(trt, name, made)
    severity = make_enum("Severity", recording["enum_values"]["ILogger.Severity"])
    trt.ILogger.Severity = severity
    for member, value in severity.__members__.items():
        setattr(trt.ILogger, member, value)
    for name, signature in recording["functions"].items():
        setattr(trt, name, _function(trt, name, signature))
    return trt


def _function(trt: Any, name: str, signature: str) -> Any:
    answers = {
        "get_nv_onnx_parser_version": lambda: 100,
        "init_libnvinfer_plugins": lambda: True,
        "get_plugin_registry": lambda: make(trt, "IPluginRegistry"),
    }

    def call(*args: object, **kwargs: object) -> object:
        check_call(trt, name, signature, args, kwargs)
        return answers[name]()

    return call
