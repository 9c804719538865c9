"""The cases that a command line asks for."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_trt.errors import UsageError

if TYPE_CHECKING:
    from pytest_trt.lab import Lab
    from pytest_trt.spec.case import Case

__all__ = ["cases_of"]


def cases_of(lab: Lab, given: argparse.Namespace) -> list[Case]:
    """The matrix of all models. What the command line names must exist: said before anything is built."""
    from pytest_trt.spec.build_options import BuildOptions

    settings = lab.settings
    asked = BuildOptions.of({**vars(settings), "tactics": None})
    cases = [case for path in given.model for case in lab.cases(lab.add(path))]
    missing = sorted({*(settings.profile or ())} - {case.profile for case in cases})
    if missing:
        raise UsageError(f"--profile: none of the models has a profile {', '.join(missing)}")
    for backend, tactics in {(case.backend, case.tactics) for case in cases}:
        lab.backend(backend).check(replace(asked, tactics=tactics))
    return cases
