"""``pytest-trt bisect``: the nodes, or the tensor, that the error of each case comes from."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from pytest_trt.cli.exits import MISMATCH, NOTHING, PASS
from pytest_trt.cli.matrix import cases_of
from pytest_trt.cli.messages import own_flags
from pytest_trt.errors import TrtError, UnsupportedError, UsageError

if TYPE_CHECKING:
    from pytest_trt.lab import Lab
    from pytest_trt.spec.case import Case

__all__ = ["HELP", "add_arguments", "run"]

HELP = "find the nodes, or the tensor, that an error comes from"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is not an option of the settings."""
    parser.add_argument("--json", action="store_true", help="print one JSON list in place of text")
    parser.add_argument(
        "--anew", action="store_true", help="search nodes although the case is close: which exclusions are needed?"
    )
    parser.add_argument(
        "--on-engine", action="store_true", help="judge sets of nodes by engines of the backend, not by onnxruntime"
    )
    parser.add_argument(
        "--point", default="opt", metavar="NAME", help="where, as a failure names it: min, max, a regression, …"
    )
    parser.add_argument(
        "--taps", choices=("outputs", "debug"), default="outputs", help="how inner tensors are looked at"
    )
    parser.add_argument("--group", type=_positive, default=8, metavar="N", help="mark at most N tensors at a time")
    parser.add_argument(
        "--limit",
        type=_positive,
        metavar="N",
        help="search nodes in at most N evaluations (default: 120), a tensor in at most N builds (default: 40); what"
        " explains before and reduces afterwards is not counted",
    )
    parser.add_argument(
        "--seconds",
        type=_positive,
        default=600,
        metavar="N",
        help="begin no evaluation or build later, but for the first few (default: 600); reducing for --bundle may take"
        " as long again",
    )
    parser.add_argument(
        "--stages", type=_stages, metavar="WORDS", help="explain by these stages alone, such as conversion,parser"
    )
    parser.add_argument("--latency", action="store_true", help="measure what the exclusions cost")


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _stages(text: str) -> list[str]:
    from pytest_trt.diagnosis.stages import STAGES

    words = [word.strip() for word in text.split(",") if word.strip()]
    if unknown := [word for word in words if word not in STAGES]:
        raise argparse.ArgumentTypeError(f"no stage {unknown[0]!r}; there are {', '.join(STAGES)}")
    return words


def run(lab: Lab, given: argparse.Namespace) -> int:
    """Bisect each case, print, and return the exit code: 1 where one is not close, 4 where none could be run."""
    codes, rows = {NOTHING}, []
    for case in cases_of(lab, given):
        code, about, lines = _bisect(lab, given, case)
        codes.add(code)
        rows.append({"case": case.to_json(), **about})
        if not given.json:
            print(own_flags("\n".join([*lines, ""])))
    if given.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    return next(code for code in (MISMATCH, PASS, NOTHING) if code in codes)


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
            seconds=given.seconds,
            stages=given.stages,
            latency=given.latency,
            taps=given.taps,
        )
    except UnsupportedError as error:
        return NOTHING, {"skipped": error.message}, [f"{case}: skipped: {error}"]
    except UsageError:
        raise  # no other case would do better
    except TrtError as error:
        return MISMATCH, {"error": error.message}, [f"{case}: {error}"]
    code = PASS if found.explanation.attribution.culprit == "none" else MISMATCH
    told = lab.bundle(case, found, point=given.point, seconds=given.seconds)
    about = {**found.to_json(), **({"bundle": told} if told else {})}
    return code, about, [str(case), *bisection_lines(found, case.precision), *told]
