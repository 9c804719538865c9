"""Command lines of other tools that build the engine of a request, for those who report them."""

from __future__ import annotations

from pytest_trt.backends.tensorrt.command_draft import CommandLine
from pytest_trt.backends.tensorrt.polygraphy_line import polygraphy_command
from pytest_trt.backends.tensorrt.trtexec_line import trtexec_command

__all__ = ["CommandLine", "polygraphy_command", "trtexec_command"]
