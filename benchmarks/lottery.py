"""How far apart are engines that were built from one request? Tactics, latency and outputs of several builds.

    python benchmarks/lottery.py models/resnet50 --precision=fp16 --profile=b8 --builds=5 --timing-cache

Each build starts from nothing; with ``--timing-cache`` each starts from the same timings, those of one more build that
comes first. Then every plan is loaded in turn, ``--rounds`` times, and sampled for ``--seconds`` after each load, all
in this process. A build's latency is the median over its loads; ``within builds`` is the most that loads of one plan
differ.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from pytest_trt.backends import Built, Session
from pytest_trt.errors import UnsupportedError
from pytest_trt.lab import Lab
from pytest_trt.lab.lottery import distance, same
from pytest_trt.latency.timer import sample
from pytest_trt.settings import Settings
from pytest_trt.spec.case import Case

OPTIONS = ("precision", "profile", "variant", "backend", "fake")

Outputs = list[dict[str, Any]]


def build(lab: Lab, case: Case, count: int, timing_cache: bool) -> list[Built]:
    """*count* engines of the case. Raises UnsupportedError where timings are wanted and the backend has none."""
    backend, request = lab.backend(case.backend), lab.request(case)
    with lab.device_lock(case.backend):
        if timing_cache:
            timings = backend.build(request).timing_cache
            if timings is None:
                raise UnsupportedError(f"{backend.name} has no timing cache")
            request = replace(request, timing_cache=timings)
        return [backend.build(request) for _ in range(count)]


def draw(lab: Lab, case: Case, given: argparse.Namespace) -> dict[str, Any]:
    built = build(lab, case, given.builds, given.timing_cache)
    backend, request = lab.backend(case.backend), lab.request(case)
    samples = lab.samples(case, lab.profile(case).at("opt"), given.samples)[0]
    feeds = [one.feeds for one in samples]
    medians: list[list[float]] = [[] for _ in built]
    outputs: list[Outputs] = []
    with lab.device_lock(case.backend):
        for number in range(given.rounds):
            for taken, one in zip(medians, built, strict=True):
                session = backend.load(one.plan, request)
                if number == 0:
                    outputs.append([session.run(each) for each in feeds])
                taken.append(latency(session, feeds[0], given.seconds))
                session.close()
    per_build = [median(taken) for taken in medians]
    return {
        "case": case.id,
        "timing_cache": given.timing_cache,
        "simulated": built[0].facts.get("simulated") or backend.name == "fake",
        "builds": [
            {
                "plan": hashlib.sha256(one.plan).hexdigest()[:16],
                "plan_bytes": len(one.plan),
                "build_seconds": one.facts.get("build_seconds"),
                "medians_ms": taken,
                "max_abs_to_first": distance(outputs[0], each),
                "tactics": one.facts.get("tactics", {}),
            }
            for one, taken, each in zip(built, medians, outputs, strict=True)
        ],
        "spread": max(per_build) / min(per_build) - 1,
        "spread_within_builds": max(max(taken) / min(taken) - 1 for taken in medians),
        "equal_plans": len({one.plan for one in built}) == 1,
        "equal_tactics": equal_share([one.facts.get("tactics", {}) for one in built]),
        "equal_outputs": all(same(outputs[0], each) for each in outputs[1:]),
        "max_abs": max(distance(a, b) for a in outputs for b in outputs),
    }


def latency(session: Session, feeds: Mapping[str, Any], duration: float) -> float:
    """Median in ms of a freshly loaded engine."""
    session.stage(feeds)
    taken = sample(session.launch, session.clock(), warmup_seconds=duration / 2, duration_seconds=duration)
    return float(np.median(taken.values_ms))


def equal_share(tactics: Sequence[Mapping[str, str]]) -> float | None:
    """The share of all layers that every build has with the same tactic; None where no build shows any."""
    layers = {name for each in tactics for name in each}
    if not layers:
        return None
    return sum(len({each.get(name) for each in tactics}) == 1 for name in layers) / len(layers)


def report(found: dict[str, Any]) -> None:
    start = "one timing cache" if found["timing_cache"] else "nothing"
    print(f"{found['case']}: {len(found['builds'])} builds from {start}{' (simulated)' if found['simulated'] else ''}")
    for number, one in enumerate(found["builds"], 1):
        times = " ".join(f"{value:.4f}" for value in one["medians_ms"])
        took = "-" if one["build_seconds"] is None else f"{one['build_seconds']:.1f} s"
        print(f"  {number:2} plan {one['plan']} {one['plan_bytes']:>11} bytes, built in {took}, medians {times} ms")
    share = found["equal_tactics"]
    print(
        f"  latency spread {found['spread']:.2%} between builds, {found['spread_within_builds']:.2%} within builds;"
        f" equal tactics {'not visible' if share is None else format(share, '.1%')};"
        f" outputs {'bitwise equal' if found['equal_outputs'] else 'differ'}, by {found['max_abs']:.3g} at most;"
        f" plans {'equal' if found['equal_plans'] else 'differ'}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="+", type=Path)
    for name in OPTIONS:
        parser.add_argument(f"--{name}")
    parser.add_argument("--cache-dir", help="where references and calibration are kept (default: a temporary folder)")
    parser.add_argument("--builds", type=int, default=5)
    parser.add_argument("--timing-cache", action="store_true", help="start each build from the same tactic timings")
    parser.add_argument("--rounds", type=int, default=3, help="loads of each plan (default: 3)")
    parser.add_argument("--seconds", type=float, default=0.5, help="sampling after each load (default: 0.5)")
    parser.add_argument("--samples", type=int, default=4, help="inputs whose outputs are compared (default: 4)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write everything as JSON")
    given = parser.parse_args()
    if min(given.builds, given.rounds, given.samples) < 1:
        parser.error("--builds, --rounds and --samples start at 1")
    found = []
    with nullcontext(given.cache_dir) if given.cache_dir else tempfile.TemporaryDirectory() as folder:
        options = {name: getattr(given, name) for name in OPTIONS}
        with Lab(Settings.resolve({**options, "cache_dir": folder}, {}, {}), Path.cwd()) as lab:
            for model in given.model:
                for case in lab.cases(lab.add(model)):
                    try:
                        found.append(draw(lab, case, given))
                    except UnsupportedError as error:
                        print(f"{case.id}: skipped: {error.message}")
                        continue
                    report(found[-1])
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
