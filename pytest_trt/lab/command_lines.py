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

__all__ = ["TOOLS", "command_line", "parse_version"]

TOOLS = ("trtexec", "polygraphy")
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
    found = tools[tool](request, version, onnx=str(onnx), plan=str(plan))
    return "\n".join([f"# {case}", *(f"# {note}" for note in found.notes), shlex.join(found.words)])


def _stem(case: Case) -> str:
    # Cases that differ in profile or tactics alone share their typed model.
    graph = "" if case.graph == "as-is" else f"-{case.graph.replace('=', '')}"
    return f"{case.model}-{case.precision}{graph}"


def _write_model(request: BuildRequest, folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return request.model.save(folder)
    except OSError as error:
        raise UsageError(f"--export={folder}: the typed model cannot be written: {error.strerror}") from error
