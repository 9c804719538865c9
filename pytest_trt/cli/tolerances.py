"""``pytest-trt tolerances``: what a manifest may ask, by what was measured."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_trt.cli.exits import MISMATCH, NOTHING, PASS
from pytest_trt.cli.matrix import cases_of
from pytest_trt.cli.messages import own_flags
from pytest_trt.errors import Failure, TrtError, UnsupportedError

if TYPE_CHECKING:
    from pytest_trt.lab import Lab
    from pytest_trt.spec.case import Case

__all__ = ["HELP", "run"]

HELP = "propose tolerances from the spread over all inputs"


def run(lab: Lab, given: argparse.Namespace) -> int:
    """Print a proposal for each model and precision; 1 where one failed, 4 where none could be run."""
    from pytest_trt.lab.floors import propose

    together: dict[Case, list[Case]] = {}  # the profiles of one model in one precision have one tolerance
    for case in cases_of(lab, given):
        together.setdefault(replace(case, profile=""), []).append(case)
    code = NOTHING
    for cases in together.values():
        try:
            found = propose(lab, cases)
        except UnsupportedError as error:
            print(f"{cases[0]}: skipped: {error.message}\n")
            continue
        except (TrtError, Failure) as error:
            print(f"FAILED {own_flags(str(error))}\n")
            code = MISMATCH
            continue
        print("\n".join([*found.lines, "", found.toml, ""]))
        code = PASS if code == NOTHING else code
    return code
