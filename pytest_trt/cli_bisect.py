"""``pytest-trt bisect``: the nodes, or the tensor, that the error of each case comes from."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pytest_trt.errors import TrtError, UnsupportedError

if TYPE_CHECKING:
    from pytest_trt.lab import Lab
    from pytest_trt.spec.case import Case

__all__ = ["HELP", "add_arguments", "run"]

HELP = "find the nodes, or the tensor, that an error comes from"

_CLOSE, _NOT_CLOSE, _NOTHING = 0, 1, 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is not an option of the settings."""
    parser.add_argument("--json", action="store_true", help="print one JSON list in place of text")
    parser.add_argument(
        "--anew", action="store_true", help="search nodes although the case is close: which exclusions are needed?"
    )
    parser.add_argument(
        "--on-engine", action="store_true", help="judge sets of nodes by engines of the backend, not by onnxruntime"
    )
    parser.add_argument("--point", choices=("min", "opt", "max"), default="opt", help="point of the profile")
    parser.add_argument("--group", type=_positive, default=8, metavar="N", help="mark at most N tensors at a time")
    parser.add_argument("--limit", type=_positive, metavar="N", help="evaluate, or build, at most N times")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def run(lab: Lab, given: argparse.Namespace, cases: Iterable[Case]) -> int:
    """Bisect each case, print, and return the exit code: 1 where one is not close, 4 where none could be run."""
    codes, rows = {_NOTHING}, []
    for case in cases:
        code, about, lines = _bisect(lab, given, case)
        codes.add(code)
        rows.append({"case": case.to_json(), **about})
        if not given.json:
            print("\n".join([*lines, ""]))
    if given.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    return next(code for code in (_NOT_CLOSE, _CLOSE, _NOTHING) if code in codes)


def _bisect(lab: Lab, given: argparse.Namespace, case: Case) -> tuple[int, dict[str, Any], list[str]]:
    from pytest_trt.diagnosis.present import bisection_lines

    try:
        found = lab.bisect(
            case,
            point=given.point,
            anew=given.anew,
            on_engine=given.on_engine,
            group=given.group,
            limit=given.limit,
        )
    except UnsupportedError as error:
        return _NOTHING, {"skipped": error.message}, [f"{case}: skipped: {error.message}"]
    except TrtError as error:
        # Messages name the plugin's options; here the same options have no prefix.
        return _NOT_CLOSE, {"error": error.message}, [f"{case}: {error}".replace("--trt-", "--")]
    code = _CLOSE if found.explanation.attribution.culprit == "none" else _NOT_CLOSE
    return code, found.to_json(), [str(case), *bisection_lines(found, case.precision)]
