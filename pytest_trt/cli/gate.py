"""``pytest-trt gate``: the latency gate without pytest, over two files of samples or two engines that take turns."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trt.cli.exits import INCONCLUSIVE, MISMATCH, NOTHING, PASS
from pytest_trt.errors import InputsError, ModelError, ProfileError, UnsupportedError, UsageError
from pytest_trt.settings import options
from pytest_trt.spec.manifest import MANIFEST_NAME, Manifest

if TYPE_CHECKING:
    from pytest_trt.lab import Lab
    from pytest_trt.latency.gate import Verdict
    from pytest_trt.spec.case import Case

__all__ = ["HELP", "OPTIONS", "add_arguments", "run"]

HELP = "judge samples against samples, or two engines side by side"
_OF_ENGINES = {
    *("precision", "profile", "tactics", "backend", "graph", "variant", "seed", "trust", "fake"),
    *(
        "warmup",
        "duration",
        "loads",
        "latency_mode",
        "l2_flush",
        "streams",
        "isolate",
        "build_timeout",
        "timing_cache",
        "cache",
        "cache_dir",
        "cache_size",
    ),
}
_BUILDING = {option.name for option in options() if option.group == "build"} - {"engine", "builds", "census", "dla"}
# Options that the command takes; all but the threshold are about engines.
OPTIONS = {"threshold", *_OF_ENGINES, *_BUILDING}

_CODES = {"pass": PASS, "fail": MISMATCH, "inconclusive": INCONCLUSIVE}
_SUFFIXES = (".onnx", ".plan")
# Where nothing says what timed the samples of a file: the wider prior of a GPU's clocks.
_UNSAID = "sync"


@dataclass(frozen=True)
class _Row:
    """One verdict; ``about`` is what JSON says besides, ``remark`` what a reader must know."""

    name: str
    verdict: Verdict
    about: Mapping[str, Any]
    remark: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is not an option of the settings."""
    parser.add_argument("base", type=Path, metavar="BASE", help="samples of the baseline; with --ab its engine")
    parser.add_argument("cand", type=Path, metavar="CAND", help="samples of the candidate; with --ab its engine")
    parser.add_argument("--ab", action="store_true", help="both are .onnx or .plan files, to be run in turns")
    parser.add_argument(
        "--manifest", type=Path, metavar="PATH", help="model folder whose inputs and profiles both take"
    )
    parser.add_argument("--paired", action="store_true", help="sample i of both files was taken side by side")
    parser.add_argument(
        "--clock", choices=("graph", "sync", "host"), help="judge what this one timed, or what no file says it of"
    )
    parser.add_argument(
        "--repeats",
        choices=("processes", "loads", "builds"),
        default="processes",
        help="what the repeats of a series are (default: fresh processes)",
    )
    parser.add_argument("--json", action="store_true", help="print the verdicts as JSON")


def run(lab: Lab, given: argparse.Namespace) -> int:
    """Judge, print, and return the exit code: that of the worst verdict, 4 where nothing could be compared."""
    try:
        rows, left_out = (_engines if given.ab else _files)(lab, given)
    except (InputsError, ModelError, ProfileError) as error:
        # 1 means slower, and nothing else.
        raise UsageError(error.message, hint=error.hint) from error
    outcomes = [row.verdict.outcome.value for row in rows]
    worst = next((name for name in ("fail", "inconclusive", "pass") if name in outcomes), None)
    if given.json:
        verdicts = {row.name: {**row.verdict.to_json(), **row.about} for row in rows}
        print(json.dumps({"outcome": worst, "verdicts": verdicts, "left_out": left_out}, indent=1))
    else:
        for row in rows:
            print(f"{row.verdict.outcome.value:12} {row.name}{row.remark}: {row.verdict.sentence}")
    for name, why in left_out.items():
        print(f"pytest-trt: {name} is not judged: {why}", file=sys.stderr)
    return NOTHING if worst is None else _CODES[worst]


def _files(lab: Lab, given: argparse.Namespace) -> tuple[list[_Row], dict[str, str]]:
    from pytest_trt.lab import DEFAULT_THRESHOLD
    from pytest_trt.latency.gate import decide_all
    from pytest_trt.latency.modes import prior_of
    from pytest_trt.latency.sample_files import read_sample_file
    from pytest_trt.latency.stats import summarize

    useless = sorted(name for name in _OF_ENGINES | _BUILDING if getattr(given, f"opt_{name}", None) is not None)
    if given.manifest is not None or useless:
        flag = "manifest" if given.manifest is not None else useless[0].replace("_", "-")
        raise UsageError(f"--{flag} is about engines, and these are samples", hint="--ab runs two engines")
    base, cand = (_read(path, read_sample_file) for path in (given.base, given.cand))
    sides = base.samples, cand.samples
    if not base.samples.keys() & cand.samples.keys() and all(len(side) == 1 for side in sides):
        # One series each: there is no doubt which is meant.
        (old,), (new,) = sides
        clocks = {old: cand.clocks[new]} if new in cand.clocks else {}
        cand = replace(cand, samples={old: cand.samples[new]}, clocks=clocks)
    left_out = dict.fromkeys(sorted(sides[0].keys() ^ cand.samples.keys()), "it is in one of the files only")
    groups: dict[str, dict[str, Any]] = {}
    unsaid: list[str] = []
    for name in sorted(base.samples.keys() & cand.samples.keys()):
        said = {one.clocks.get(name) or given.clock or one.usual_clock for one in (base, cand)}
        if given.clock and said != {given.clock}:
            left_out[name] = f"--clock={given.clock}, and it was timed by {', '.join(sorted(map(str, said)))}"
            continue
        clock = _clock(name, said)
        if said == {None}:
            unsaid.append(name)
        groups.setdefault(clock, {})[name] = base.samples[name], cand.samples[name]
        if given.paired:
            _check_pairs(name, *groups[clock][name])
    threshold = DEFAULT_THRESHOLD if lab.settings.threshold is None else lab.settings.threshold
    rows = []
    for clock, cases in groups.items():
        try:
            found = decide_all(
                cases, threshold=threshold, clock=prior_of(clock), paired=given.paired, repeats=given.repeats
            )
        except ValueError as error:
            raise UsageError(f"{given.base}, {given.cand}: {error}") from error
        for name, verdict in found.items():
            medians = [float(f"{summarize(side).median_ms:.5g}") for side in cases[name]]
            remark = f" (as if timed by {_UNSAID}: --clock says by what)" if name in unsaid else ""
            about = {"clock": clock, "clock_said": name not in unsaid}
            about |= {"baseline_ms": medians[0], "candidate_ms": medians[1]}
            rows.append(_Row(name, verdict, about, remark))
    return sorted(rows, key=lambda row: row.name), left_out


def _read(path: Path, read: Any) -> Any:
    if path.suffix in _SUFFIXES:
        raise UsageError(f"{path} is an engine or a model, not samples", hint="--ab runs two of them in turns")
    return read(path)


def _clock(name: str, said: set[str | None]) -> str:
    known = [clock for clock in said if clock is not None] or [_UNSAID]
    if len(known) > 1:
        raise UsageError(f"{name}: timed by {' and '.join(sorted(known))}: such times do not compare")
    return known[0]


def _check_pairs(name: str, base: list[Any], cand: list[Any]) -> None:
    sizes = [[repeat.size for repeat in side] for side in (base, cand)]
    if sizes[0] != sizes[1]:
        raise UsageError(
            f"{name}: {sizes[0]} and {sizes[1]} samples by repeat are no pairs",
            hint="--paired is for two sides that were interleaved: as many samples of each",
        )


def _engines(lab: Lab, given: argparse.Namespace) -> tuple[list[_Row], dict[str, str]]:
    from pytest_trt.lab import Lab

    suffixes = {given.base.suffix, given.cand.suffix}
    if len(suffixes) != 1 or not suffixes <= set(_SUFFIXES):
        raise UsageError(f"--ab {given.base} {given.cand}: two .onnx files or two .plan files are wanted")
    if given.paired or given.clock or given.repeats != "processes":
        raise UsageError("--paired, --clock and --repeats are about samples, and --ab takes its own")
    if suffixes == {".plan"}:
        if lab.settings.backend not in (None, ("tensorrt",)):
            raise UsageError("a plan runs on --backend=tensorrt only")
        lab.settings = lab.settings.evolve(backend=("tensorrt",))
        lab.backend("tensorrt")  # raises where it cannot work
    with Lab(lab.settings, lab.root, lab.progress) as other:
        old, new = ((one, _know(one, path, given.manifest)) for one, path in ((other, given.base), (lab, given.cand)))
        pairs = list(zip(old[1], new[1], strict=True))
        rows, left_out = [], {}
        for before, after in pairs:
            try:
                rows.append(_in_turns((other, before), (lab, after), comparisons=len(pairs)))
            except UnsupportedError as error:
                left_out[after.id] = error.message
    return rows, left_out


def _know(lab: Lab, path: Path, manifest: Path | None) -> list[Case]:
    """Make the engine at *path* known to *lab*, with the inputs and profiles of *manifest*; its cases."""
    path = (lab.root / path).absolute()
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file")
    as_plan = path.suffix == ".plan"
    known = Manifest.bare(path)
    if manifest is not None:
        file = lab.root / manifest
        file = file / MANIFEST_NAME if file.is_dir() else file
        known = Manifest.load(file, lab.settings.variant)
        if not as_plan:
            known = replace(known, path=path, source=None, plan=None, trust=None)
    if as_plan:
        known = replace(known, plan=path, path=known.path if manifest is not None else None)
    return lab.cases(lab.know(known))


def _in_turns(old: tuple[Lab, Case], new: tuple[Lab, Case], *, comparisons: int) -> _Row:
    import numpy as np

    from pytest_trt.lab.turns import clock_of, judge_turns
    from pytest_trt.latency.modes import prior_of

    (before, old_case), (after, new_case) = old, new
    stored = [before.engine(old_case)[0], after.engine(new_case)[0]]
    feeds = [one.samples(case, one.profile(case).at("opt"), 1)[0][0].feeds for one, case in (old, new)]
    shapes = [{name: (array.dtype.name, array.shape) for name, array in side.items()} for side in feeds]
    if shapes[0] != shapes[1]:
        raise UsageError(
            f"the two do not take the same inputs: {_shown(shapes[0])}; and {_shown(shapes[1])}",
            hint="--manifest=PATH names profiles that fit both" if shapes[0].keys() == shapes[1].keys() else None,
        )
    session = after.engine(new_case)[1]
    with after.device_lock(new_case.backend):
        session.stage(feeds[1])
        verdict, found = judge_turns(
            after.settings,
            clock_of(session, after.settings).name,
            (lambda: before.reload(old_case), feeds[0]),
            (lambda: after.reload(new_case), feeds[1]),
            threshold=after.threshold(new_case),
            same=stored[0].plan_digest == stored[1].plan_digest,
            comparisons=comparisons,
        )
    inputs = after.inputs(new_case, after.profile(new_case).at("opt"))
    support = after.record(new_case).simulated
    invented = prior_of(found.clock) == "simulated"
    remarks = (("simulated", support), ("simulated times", invented), ("synthetic inputs", inputs.synthetic))
    said = [word for word, so in remarks if so]
    medians = [float(f"{np.median(np.median(side, axis=1)):.5g}") for side in (found.baseline_ms, found.candidate_ms)]
    about = {
        "baseline_ms": medians[0],
        "candidate_ms": medians[1],
        "clock": found.clock,
        "plans": [one.plan_digest for one in stored],
        "rounds": len(found.baseline_ms),
        "samples": found.baseline_ms.shape[1],
        "simulated": support,
        "inputs": inputs.origin,
    }
    remark = f" ({', '.join([*said, f'{medians[0]:.4g} → {medians[1]:.4g} ms'])})"
    return _Row(new_case.id, verdict, about, remark)


def _shown(shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    return ", ".join(f"{name} {dtype}{list(shape)}" for name, (dtype, shape) in shapes.items())
