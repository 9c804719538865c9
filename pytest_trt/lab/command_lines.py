"""The same build with other tools: the typed model as a file, and the trtexec and Polygraphy lines for it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_trt.errors import UnsupportedError, UsageError
from pytest_trt.spec.case import Case

if TYPE_CHECKING:
    from pytest_trt.backends import BuildRequest
    from pytest_trt.backends.tensorrt.command_lines import CommandLine
    from pytest_trt.lab.workshop import Workshop

__all__ = ["command_line", "parse_version"]

_OLDEST = (8, 6)
# What the lines are written for where no TensorRT is installed that could say its version.
_NEWEST = (11, 4)


def parse_version(text: str | None, installed: str | None) -> tuple[int, ...]:
    """``"10.13"`` -> ``(10, 13)``; without it the installed TensorRT's, else the newest known one."""
    if not text:
        text = installed or ".".join(map(str, _NEWEST))
    parts = text.split(".")
    version = tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()
    if version != (8,) and version < _OLDEST:
        raise UsageError(f"{text!r} is not a TensorRT version from 8.6 on", hint="write 8.6, 10.13 or 11")
    return version


def command_line(lab: Workshop, case: Case, tool: str, version: tuple[int, ...], folder: Path) -> str:
    """Write the case's typed model into *folder* and return the line of *tool* that builds the same engine from it;
    what the tool cannot express stands above it as comments. Raises UnsupportedError where there is nothing to build.
    """
    from pytest_trt.backends.tensorrt.command_lines import polygraphy_command, trtexec_command

    tools: dict[str, Callable[..., CommandLine]] = {"trtexec": trtexec_command, "polygraphy": polygraphy_command}
    if lab.is_prebuilt(case):
        raise UnsupportedError(f"it is a finished plan: trtexec --loadEngine={lab.plan_file(case.model)} times it")
    if not lab.model(case.model).has_graph:
        raise UnsupportedError(f"there is no ONNX graph that {tool} could read")
    request = lab.blueprint(case)
    onnx = _write_model(request, folder / _stem(case))
    plan = onnx.with_name(f"{case.id}.plan")
    files = {name: str(file) for name, file in _kept(lab, request, version, plan).items()}
    found = tools[tool](request, version, onnx=str(onnx), plan=str(plan), **files)
    return "\n".join([f"# {case}", *(f"# {note}" for note in found.notes), shlex.join(found.words)])


def _stem(case: Case) -> str:
    # Cases that differ in profile or tactics alone share their typed model.
    graph = "" if case.graph == "as-is" else f"-{case.graph.replace('=', '')}"
    return f"{case.model}-{case.precision}{graph}"


def _kept(lab: Workshop, request: BuildRequest, version: tuple[int, ...], plan: Path) -> dict[str, Path]:
    """What the installed TensorRT left of earlier builds and the line needs, written beside *plan*: the calibration's
    table, and the timing cache that no layer may miss. Nothing for another release, which would not take it."""
    from pytest_trt.artifacts.calibration_cache import load_calibration_cache
    from pytest_trt.backends import get_backend

    found = get_backend("tensorrt").probe()
    if not found.ok or parse_version(None, found.versions["tensorrt"])[:2] != version[:2]:
        return {}
    contents = {}
    if request.calibration is not None:
        contents["calibration_cache"] = load_calibration_cache(lab.store, lab.backend("tensorrt"), request)
    if request.options.timing_cache_miss == "error":
        contents["timing_cache"] = lab.timings("tensorrt")
    files = {}
    for name, content in contents.items():
        if content is not None:
            files[name] = plan.with_suffix(f".{name.replace('_', '-')}")
            _write(files[name], content)
    return files


def _write(file: Path, content: bytes) -> None:
    try:
        file.write_bytes(content)
    except OSError as error:
        raise UsageError(f"--export: {file} cannot be written: {error.strerror}") from error


def _write_model(request: BuildRequest, folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return request.model.save(folder)
    except OSError as error:
        raise UsageError(f"--export={folder}: the typed model cannot be written: {error.strerror}") from error
