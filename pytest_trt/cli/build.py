"""``pytest-trt build``: engines, or the lines of other tools that make the same ones."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_trt.cli.exits import MISMATCH, NOTHING, PASS
from pytest_trt.cli.matrix import cases_of
from pytest_trt.cli.messages import own_flags
from pytest_trt.errors import Failure, PrecisionError, TrtError, UnsupportedError

if TYPE_CHECKING:
    from pytest_trt.lab import Lab

__all__ = ["HELP", "add_arguments", "run"]

HELP = "build the engines of models, or find them in the cache"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is not an option of the settings."""
    for tool in ("trtexec", "polygraphy"):
        parser.add_argument(
            f"--as-{tool}",
            nargs="?",
            const="",
            metavar="VERSION",
            help=f"build nothing: print the {tool} line of the same build (for the installed TensorRT, or VERSION)",
        )
    parser.add_argument(
        "--export",
        type=Path,
        default=Path("typed-models"),
        metavar="DIR",
        help="where those lines find the typed models",
    )


def run(lab: Lab, given: argparse.Namespace) -> int:
    """Build each case and print where it came from; 1 where one failed, 4 where none could be built."""
    asked = {
        tool: version for tool in ("trtexec", "polygraphy") if (version := getattr(given, f"as_{tool}")) is not None
    }
    if asked:
        return _lines(lab, given, asked)
    code = NOTHING
    for case in cases_of(lab, given):
        try:
            stored, _ = lab.engine(case)
        except UnsupportedError as error:
            print(f"{case.id}: skipped: {error.message}")
            continue
        except (TrtError, Failure) as error:
            print(f"{case.id}: {own_flags(str(error))}")
            code = MISMATCH
            continue
        code = PASS if code == NOTHING else code
        made = f"built in {stored.facts.get('build_seconds', 0):.2f} s" if stored.fresh else "cached"
        simulated = ", simulated" if "simulated" in stored.facts else ""
        print(f"{case.id}: {made}, {len(stored.plan)} bytes{simulated}, entry {stored.digest[:12]}")
    return code


def _lines(lab: Lab, given: argparse.Namespace, asked: dict[str, str]) -> int:
    from pytest_trt.backends import get_backend
    from pytest_trt.lab.command_lines import command_line, parse_version
    from pytest_trt.spec.case import Axes

    installed, code, failed = get_backend("tensorrt").probe().versions.get("tensorrt"), NOTHING, False
    for path in given.model:
        for case in lab.cases(lab.add(path), Axes(backends=("tensorrt",)), check=False):
            for tool, text in asked.items():
                try:
                    line = command_line(lab, case, tool, parse_version(text, installed), given.export)
                except UnsupportedError as error:
                    line = f"# {case}\n# skipped: {error.message}"
                except PrecisionError as error:  # of this case alone; the others have their lines
                    said = own_flags(str(error)).replace("\n", "\n# ")
                    line, failed = f"# {case}\n# {said}", True
                else:
                    code = PASS
                print(line, end="\n\n")
    return MISMATCH if failed else code
