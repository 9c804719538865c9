"""``pytest-trt history``: what former runs say."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from pytest_trt.cli.messages import own_flags
from pytest_trt.errors import InputsError, UsageError

if TYPE_CHECKING:
    from pytest_trt.lab import Lab

__all__ = ["HELP", "run"]

HELP = "look into the history of runs: what changed, how much, and when"


def run(lab: Lab, given: argparse.Namespace) -> int:
    """Run the command of the history; return its exit code."""
    from pytest_trt.history.commands import run

    try:
        code, lines, errors = run(given, lab.settings, lab.root)
    except InputsError as error:  # a file that cannot be read is no regression
        raise UsageError(error.message, hint=error.hint) from error
    for line in errors:
        print(f"pytest-trt: {own_flags(line)}", file=sys.stderr)
    if lines:
        print("\n".join(lines))
    return code
