"""A verdict that is not green is measured once more, in a fresh process: what belongs to this one must not decide.

The child gets the case, the settings and the very engine, and judges against the same baseline. What it says comes back
as JSON.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest_trt
from pytest_trt import errors
from pytest_trt.errors import LatencyFailure, RunError, TrtError
from pytest_trt.spec.case import Case

if TYPE_CHECKING:
    from pytest_trt.lab import Lab
    from pytest_trt.latency.gate import Verdict
    from pytest_trt.record import Record

__all__ = ["confirm", "main", "settle"]

# Not ``-m``: that looks into the working directory first, and a file there may have the name of any library.
_START: Final = "import sys; sys.path[:] = sys.argv[2:]; from pytest_trt.lab.confirm import main; main(sys.argv[1])"
_JOB, _RESULT = "job.pickle", "result.json"
# Beyond what sampling takes: imports, loading the model and the engines, waiting for the device.
_GRACE_S = 900.0
_LAST_LINES = 5


def confirm(lab: Lab, case: Case, record: Record, limit: float, first: Verdict) -> Verdict:
    """Measure *case* again in a fresh process, and settle both verdicts in ``record.verdict``.

    ``attempts`` there are both; the figures stay those of the first. Raises RunError where the second measurement
    does not come to an end: a verdict that cannot be confirmed must not turn green by that.
    """
    lab.progress(f"{case.id}: {first.outcome.value}, measured again in a fresh process")
    second = _measure_again(lab, case, limit)
    verdict = dict(record.verdict or {})
    outcome, sentence = settle(verdict, second)
    record.verdict = {**verdict, "outcome": outcome, "sentence": sentence, "attempts": [verdict, second]}
    return replace(first, outcome=type(first.outcome)(outcome))


def settle(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[str, str]:
    """The outcome of two verdicts on one case, and the sentence that says so. Two that differ are inconclusive."""
    if first["outcome"] == second["outcome"]:
        from pytest_trt.latency.verdict import change_of

        ratio = f"{change_of(second['ratio'])} there" if "ratio" in second else "no verdict there"
        return first["outcome"], f"{first['sentence']}; the same in a fresh process ({ratio})"
    said = f"{first['outcome']}, then {second['outcome']} in a fresh process"
    return "inconclusive", f"cannot tell: {said}: {first['sentence']}; then {second['sentence']}"


def _measure_again(lab: Lab, case: Case, limit: float) -> dict[str, Any]:
    stored, settings = lab.engine(case)[0], lab.settings
    lab.close()  # both processes may not fit on the device
    job = {
        "settings": settings.evolve(confirm="off"),
        "root": lab.root,
        "manifest": lab.manifest(case).file,
        "case": case.to_json(),
        "engine": stored,
        "threshold": limit,
        "comparisons": lab.comparisons,
    }
    # This package's place comes last, where it hides nothing: for when no entry of the path leads to it.
    path = [*(entry for entry in sys.path if isinstance(entry, str)), str(Path(pytest_trt.__file__).parents[1])]
    with tempfile.TemporaryDirectory(prefix="pytest-trt-confirm-", ignore_cleanup_errors=True) as name:
        folder, output = Path(name), Path(name, "output.txt")
        try:
            with (folder / _JOB).open("wb") as file:
                pickle.dump(job, file)
            with output.open("wb") as log:
                done = subprocess.run(
                    [sys.executable, "-c", _START, name, *path],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    timeout=_GRACE_S + 40 * (settings.duration + settings.warmup) * (settings.loads + 1),
                    check=False,
                )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _failed(case, str(error)) from error
        if not (folder / _RESULT).is_file():
            last = output.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
            raise _failed(case, "\n  ".join([f"it ended with status {done.returncode}", *last]))
        found: dict[str, Any] = json.loads((folder / _RESULT).read_text(encoding="utf-8"))
    if "error" in found:
        kind: type[TrtError] = getattr(errors, found["error"]["type"])
        raise kind(f"measuring again in a fresh process: {found['error']['message']}", hint=found["error"]["hint"])
    verdict: dict[str, Any] = found["verdict"] or {
        "outcome": "inconclusive",
        "sentence": f"no verdict: the {found['clock']} clock is not the baseline's",
    }
    return verdict


def _failed(case: Case, why: str) -> RunError:
    return RunError(
        f"{case}: measuring again in a fresh process failed: {why}", hint="--trt-confirm=off judges without"
    )


def main(folder: str) -> None:
    """The child: measure what *folder* describes, and leave the verdict there."""
    from pytest_trt.backends.nvml import disregard
    from pytest_trt.lab import Lab

    disregard(os.getppid())  # it waits for us, and keeps its context
    with Path(folder, _JOB).open("rb") as file:
        job = pickle.load(file)
    case, result = Case.from_json(job["case"]), {}
    try:
        with Lab(job["settings"], job["root"]) as lab:
            lab.comparisons = job["comparisons"]
            lab.add(job["manifest"])
            lab.adopt(case, job["engine"])
            record = lab.record(case)
            with suppress(LatencyFailure):  # the record says it as well
                lab.measure(case, record, job["threshold"])
            result = {"verdict": record.verdict, "clock": (record.latency or {})["clock"]}
    except TrtError as error:
        known = next(kind for kind in type(error).__mro__ if getattr(errors, kind.__name__, None) is kind)
        result = {"error": {"type": known.__name__, "message": error.message, "hint": error.hint}}
    Path(folder, _RESULT).write_text(json.dumps(result), encoding="utf-8")
