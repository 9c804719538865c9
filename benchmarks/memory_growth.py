"""Does memory grow with runs, or with loads? Prints the growth of device memory and of the host's resident set.

    python benchmarks/memory_growth.py models/digits --precision=fp32 --profile=b8 --runs=1000 --loads=50

Nothing is built while it is measured. Device memory is what the driver says is in use, by every process on the GPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_trt.lab import Lab
from pytest_trt.settings import Settings

WARM_UP = 3  # kernels and libraries are loaded on first use, and stay


def device_bytes() -> int:
    """Memory in use on the current device."""
    from pytest_trt.backends.cuda import check, runtime

    free, total = check(runtime().cudaMemGetInfo(), "cudaMemGetInfo")
    return int(total) - int(free)


def host_bytes() -> int:
    """The resident set of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def growth(step: Callable[[], None], count: int, *, gpu: bool) -> dict[str, Any]:
    """Bytes that are in use after *count* steps and were not before; what the first steps take is left out."""
    for _ in range(WARM_UP):
        step()
    gc.collect()
    device, host = device_bytes() if gpu else 0, host_bytes()
    for _ in range(count):
        step()
    gc.collect()
    grown = {"count": count, "host_bytes": host_bytes() - host}
    return {**grown, "device_bytes": device_bytes() - device} if gpu else grown


def measure(given: argparse.Namespace) -> dict[str, Any]:
    options = {k: getattr(given, k) for k in ("precision", "profile", "variant", "cache_dir", "backend")}
    with Lab(Settings.resolve(options, {}, {}), Path.cwd()) as lab:
        case = lab.cases(lab.add(given.model))[0]
        stored, session = lab.engine(case)
        backend, request = lab.backend(case.backend), lab.request(case)
        feeds = lab.samples(case, lab.profile(case).at("opt"), 1)[0][0].feeds
        gpu = case.backend == "tensorrt"

        def run() -> None:
            session.run(feeds)

        def load() -> None:
            loaded = backend.load(stored.plan, request)
            loaded.run(feeds)
            loaded.stage(feeds)
            loaded.clock().time(loaded.launch, 2)
            loaded.close()

        runs = growth(run, given.runs, gpu=gpu)
        lab.close()
        loads = growth(load, given.loads, gpu=gpu)
    return {"case": str(case), "plan_bytes": len(stored.plan), "runs": runs, "loads": loads}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="models/digits")
    for name in ("precision", "profile", "variant", "cache-dir", "backend"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--loads", type=int, default=50)
    parser.add_argument("--out", type=Path, help="write the numbers here, as JSON")
    given = parser.parse_args()
    result = measure(given)
    print(f"{result['case']}, a plan of {result['plan_bytes']} bytes")
    for kind in ("runs", "loads"):
        found = result[kind]
        parts = [f"{name.partition('_')[0]} {found[name]:+d} bytes" for name in found if name != "count"]
        print(f"{found['count']} {kind}: {', '.join(parts)}")
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
