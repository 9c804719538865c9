"""Are the latency modes right, and what does a verdict cost? Four questions on engines that the cache already holds.

    python benchmarks/latency_modes.py models/resnet50 models/minilm --precision=fp16 --profile=b8 --out=modes.json

``spread``: how far the medians of fresh processes are apart, for each mode. ``agreement``: the mode ``queued`` beside
a bare loop of events (``event_loop.py``), in turns in one process. ``unchanged``: what a test run takes to judge an
engine against its own baseline. ``slower``: a chain of layers beside one with a layer more (5 % of 20), in turns.

GPU seconds are the durations that the events show, of all launches of either side, plus the launches that a clock sends
ahead; seconds are the host's, with loading. ``--out`` is written after each answer.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from chain import write_chain
from event_loop import loop_beside
from gpu_time import CountedLab

from pytest_trt.backends.modes import MODES
from pytest_trt.backends.queued_clock import QueuedClock, QueueDefaults
from pytest_trt.errors import UnsupportedError
from pytest_trt.lab import Lab
from pytest_trt.lab.turns import judge_turns
from pytest_trt.latency import Prior, decide
from pytest_trt.latency.timer import sample
from pytest_trt.settings import Settings
from pytest_trt.spec.case import Case

OPTIONS = ("precision", "profile", "variant", "cache_dir", "backend")
QUERIES = 40  # of each side in a turn of the agreement


def settings(given: argparse.Namespace, **more: Any) -> Settings:
    return Settings.resolve({**{name: getattr(given, name) for name in OPTIONS}, **more}, {}, {})


def cases(lab: Lab, given: argparse.Namespace) -> list[Case]:
    return [case for model in given.model for case in lab.cases(lab.add(model))]


def feeds(lab: Lab, case: Case) -> dict[str, Any]:
    return dict(lab.samples(case, lab.profile(case).at("opt"), 1)[0][0].feeds)


def medians(given: argparse.Namespace) -> list[dict[str, Any]]:
    """The child: one process's median of each case in each mode."""
    found = []
    with Lab(settings(given), Path.cwd()) as lab:
        for case in cases(lab, given):
            session = lab.engine(case)[1]
            session.stage(feeds(lab, case))
            for mode in MODES:
                try:
                    clock = session.clock(mode)
                except UnsupportedError:
                    continue
                taken = sample(session.launch, clock, warmup_seconds=0.1, duration_seconds=given.seconds)
                row = {"case": case.id, "mode": mode, "clock": clock.name, "ms": float(np.median(taken.values_ms))}
                found.append({**row, "ended": taken.ended, "samples": len(taken.values_ms)})
    return found


def spread(given: argparse.Namespace) -> list[dict[str, Any]]:
    by_key: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    with Lab(settings(given), Path.cwd()) as lab:  # the process that builds an engine measures it in another state
        for case in cases(lab, given):
            lab.engine(case)
    for _ in range(given.processes):
        command = [sys.executable, __file__, *sys.argv[1:], "--child"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        for row in json.loads(done.stdout.splitlines()[-1]):
            by_key.setdefault((row["case"], row["mode"], row["clock"]), []).append(row)
    found = []
    for (case, mode, clock), rows in by_key.items():
        values = [row["ms"] for row in rows]
        sd = statistics.stdev(np.log(values)) if len(values) > 1 else None
        found.append({"case": case, "mode": mode, "clock": clock, "spread": max(values) / min(values) - 1, "sd": sd})
        found[-1] |= {"medians_ms": values, "samples": [row["samples"] for row in rows]}
        shown = "" if sd is None else f", standard deviation {sd:.3%}"
        print(
            f"spread     {case:<24} {mode:<10} {clock:<28} {statistics.median(values):.5f} ms,"
            f" {len(values)} processes within {found[-1]['spread']:.3%}{shown}"
        )
    return found


def agreement(given: argparse.Namespace) -> list[dict[str, Any]]:
    from pytest_trt.backends.tensorrt.probe import import_tensorrt
    from pytest_trt.backends.tensorrt.versions.trtexec import queue_defaults

    found = []
    with Lab(settings(given), Path.cwd()) as lab:
        for case in cases(lab, given):
            if case.backend != "tensorrt":
                print(f"agreement  {case.id}: skipped: {case.backend} has no mode queued")
                continue
            session = lab.engine(case)[1]
            session.stage(feeds(lab, case))
            default = queue_defaults(import_tensorrt())
            for how in (default, replace(default, graph=not default.graph)):
                found.append({"case": case.id, **beside_bare_loop(session, how, given.seconds * 5)})
                row = found[-1]
                print(
                    f"agreement  {case.id:<24} {row['clock']}: enqueue {row['enqueue_ms']:.4f} ms, bare loop"
                    f" {row['bare_ms']:.5f} ms",
                    flush=True,
                )
                for name, side in row["beside"].items():
                    print(
                        f"           {'':<24} {name}: {side['ms']:.5f} ms, {side['ratio'] - 1:+.3%}"
                        f" ({side['low'] - 1:+.3%} to {side['high'] - 1:+.3%})",
                        flush=True,
                    )
    return found


def beside_bare_loop(session: Any, how: QueueDefaults, seconds: float) -> dict[str, Any]:
    """The mode ``queued`` and bare loops on what *session* has staged, in turns.

    A second bare loop shows what the comparison can tell; one on the clock's own streams, what streams are worth.
    """
    clock = QueuedClock(session._stream, session._best_clock(), how, session._upload_in, session._download_in)
    loops = {"bare": loop_beside(session, how), "bare again": loop_beside(session, how)}
    loops["bare, the clock's streams"] = loop_beside(session, how, clock._in.raw, clock._stream.raw, clock._out.raw)
    sides = {name: functools.partial(lambda one: one.time(QUERIES)[:, 0], one) for name, one in loops.items()}
    sides["queued"] = lambda: clock.time(session.launch, QUERIES)
    taken: dict[str, list[Any]] = {name: [] for name in sides}
    try:
        until = time.perf_counter() + seconds * len(sides) / 2
        while time.perf_counter() < until or len(taken["bare"]) < 8:
            for name in (*sides, *reversed(sides)):
                taken[name].append(sides[name]())
    finally:
        for one in loops.values():
            one.close()
        clock.close()
    ms = {name: np.concatenate(turns[2:]) for name, turns in taken.items()}  # the first turns warm up
    bare, beside, nothing = ms.pop("bare"), {}, Prior(processes=0.0, pairs=0.0)
    for name, values in ms.items():
        seen = decide(bare, values, threshold=0.005, clock="graph", paired=True, prior=nothing)
        beside[name] = {"ms": float(np.median(values)), "ratio": seen.ratio, "low": seen.low, "high": seen.high}
    row = {"clock": clock.name, "samples": bare.size, "agrees": abs(beside["queued"]["ratio"] - 1) < 0.005}
    row |= {"bare_ms": float(np.median(bare)), "beside": beside}
    return {**row, "enqueue_ms": float(np.median(clock.parts["enqueue_ms"]))}


def unchanged(given: argparse.Namespace) -> list[dict[str, Any]]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        chosen = settings(given, confirm="off", threshold=str(given.threshold), baselines=folder)
        with CountedLab(chosen, Path.cwd()) as lab:
            for case in cases(lab, given):
                first = lab.record(case)
                lab.measure(case, first)
                lab.baselines.accept([first], reason="the benchmark's own")
                lab.close()
                lab.ms.clear()
                started, again = time.perf_counter(), lab.record(case)
                lab.measure(case, again)
                seconds, verdict = time.perf_counter() - started, again.verdict or {}
                gpu = sum(lab.ms) / 1e3
                found.append({"case": case.id, "gpu_seconds": gpu, "seconds": seconds, "verdict": verdict})
                print(
                    f"unchanged  {case.id:<24} {verdict.get('outcome')} in {gpu:.2f} s of GPU time,"
                    f" {seconds:.2f} s in all ({verdict.get('method')}): {verdict.get('sentence')}",
                    flush=True,
                )
    return found


def slower(given: argparse.Namespace) -> list[dict[str, Any]]:
    found = []
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        one = (given.precision or "fp16").split(",")[0]
        chosen, layers = settings(given, precision=one, profile="b", variant=None), (given.layers, given.layers + 1)
        labs = [stack.enter_context(CountedLab(chosen, Path(name))) for _ in layers]
        each = []
        for lab, count in zip(labs, layers, strict=True):
            (case,) = lab.cases(lab.add(write_chain(Path(name, f"layers{count}"), count, given.width)))
            each.append((case, feeds(lab, case)))
            lab.engine(case)[1].stage(each[-1][1])
        (old, old_feeds), (new, new_feeds) = each
        clock = labs[1].engine(new)[1].clock().name
        for _ in range(given.rounds):
            for lab in labs:
                lab.ms.clear()
            started = time.perf_counter()
            verdict, taken = judge_turns(
                chosen,
                clock,
                (lambda: labs[0].reload(old), old_feeds),
                (lambda: labs[1].reload(new), new_feeds),
                threshold=given.threshold,
            )
            seconds, gpu = time.perf_counter() - started, sum(sum(lab.ms) for lab in labs) / 1e3
            row = {"layers": layers, "clock": clock, "loads": len(taken.baseline_ms), "gpu_seconds": gpu}
            row |= {"seconds": seconds, "verdict": verdict.to_json()}
            row["round_ratios"] = np.median(taken.candidate_ms / taken.baseline_ms, axis=1).tolist()
            found.append(row)
            print(
                f"slower     {layers[0]} and {layers[1]} layers: {verdict.outcome.value} at {given.threshold:.0%} after"
                f" {row['loads']} loads of each, {verdict.ratio - 1:+.2%} ({verdict.low - 1:+.2%} to"
                f" {verdict.high - 1:+.2%}); {gpu:.2f} s of GPU time, {seconds:.2f} s in all",
                flush=True,
            )
    return found


QUESTIONS = {"spread": spread, "agreement": agreement, "unchanged": unchanged, "slower": slower}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="+", type=Path)
    for name in OPTIONS:
        parser.add_argument(f"--{name.replace('_', '-')}")
    parser.add_argument("--only", default=",".join(QUESTIONS), help=f"default: {','.join(QUESTIONS)}")
    parser.add_argument("--processes", type=int, default=10, help="for spread (default: 10)")
    parser.add_argument("--seconds", type=float, default=0.2, help="sampling of a mode; agreement takes five times it")
    parser.add_argument("--rounds", type=int, default=3, help="verdicts on the longer chain (default: 3)")
    parser.add_argument("--threshold", type=float, default=0.03, help="of the verdicts (default: 0.03)")
    parser.add_argument("--layers", type=int, default=20, help="of the chain that has one more (default: 20)")
    parser.add_argument("--width", type=int, default=1024, help="of the chain's layers (default: 1024)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write everything as JSON, after each answer")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(medians(given)))
        return
    if unknown := set(given.only.split(",")) - set(QUESTIONS):
        parser.error(f"--only knows {', '.join(QUESTIONS)}, not {', '.join(sorted(unknown))}")
    found: dict[str, Any] = {"threshold": given.threshold}
    for name in given.only.split(","):
        started = time.perf_counter()
        found[name] = QUESTIONS[name](given)
        found[f"{name}_took_seconds"] = round(time.perf_counter() - started, 1)
        if given.out:
            given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
