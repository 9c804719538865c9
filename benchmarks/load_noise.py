"""How far does loading the same plan again move its median latency? Prints medians per process and load.

    python benchmarks/load_noise.py models/minilm --precision=fp32 --profile=b8 --processes=3 --loads=6

Each process loads the cached plan ``--loads`` times, once closing the old engine before it loads the new one and
once after (``apart``: the new one cannot get the old one's memory), and samples each load.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from pytest_trt.lab import Lab
from pytest_trt.latency.timer import sample
from pytest_trt.settings import Settings


def measure(given: argparse.Namespace) -> dict[str, list[float]]:
    options = {k: getattr(given, k) for k in ("precision", "profile", "variant", "cache_dir", "backend")}
    with Lab(Settings.resolve(options, {}, {}), Path.cwd()) as lab:
        (case,) = lab.cases(lab.add(given.model))
        stored, first = lab.engine(case)
        backend, request = lab.backend(case.backend), lab.request(case)
        feeds = lab.samples(case, lab.profile(case).at("opt"), 1)[0][0].feeds
        medians: dict[str, list[float]] = {"closed first": [], "apart": []}
        for mode, found in medians.items():
            session = first if mode == "closed first" else backend.load(stored.plan, request)
            for index in range(given.loads):
                if index and mode == "closed first":
                    session.close()
                    session = backend.load(stored.plan, request)
                elif index:
                    old, session = session, backend.load(stored.plan, request)
                    session.stage(feeds)
                    old.close()
                session.stage(feeds)
                taken = sample(session.launch, session.clock(), warmup_seconds=0.1, duration_seconds=0.2)
                found.append(float(np.median(taken.values_ms)))
            session.close()
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    for name in ("precision", "profile", "variant", "cache-dir", "backend"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--loads", type=int, default=6)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(measure(given)))
        return
    by_mode: dict[str, list[list[float]]] = {"closed first": [], "apart": []}
    for index in range(given.processes):
        command = [sys.executable, __file__, *sys.argv[1:], "--child"]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        for mode, medians in found.items():
            by_mode[mode].append(medians)
            print(f"process {index} {mode:<13}", " ".join(f"{m:.4f}" for m in medians), "ms", flush=True)
    for mode, processes in by_mode.items():
        logs = np.log(np.array(processes))
        within = np.sqrt(np.mean(logs.var(axis=1, ddof=1)))
        between = logs.mean(axis=1).std(ddof=1) if len(logs) > 1 else float("nan")
        print(
            f"{given.model} {mode}: spread within a process {within:.2%}, between process means {between:.2%},"
            f" all loads {np.exp(logs.max() - logs.min()) - 1:.2%} from least to most"
        )


if __name__ == "__main__":
    main()
