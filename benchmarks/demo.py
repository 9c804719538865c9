"""The main job twice, cold and warm, with the ratio. ``make demo`` runs this.

The first run builds every engine, reference and calibration; the second finds them in the cache. Latency is sampled
briefly: on a CPU more samples would not say more.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
# On a shared machine most latency verdicts stay open; each would be measured once more.
OPTIONS = ("--trt-precision=fp32,fp16,int8", "--trt-duration=0.3", "--trt-warmup=0.1", "--trt-confirm=off")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache-dir", type=Path, required=True, help="emptied first")
    parser.add_argument("--report", type=Path, required=True)
    given = parser.parse_args()
    shutil.rmtree(given.cache_dir, ignore_errors=True)
    command = [sys.executable, "-m", "pytest", "models", *OPTIONS, "-p", "no:randomly"]
    command += [f"--trt-cache-dir={given.cache_dir}", f"--trt-report={given.report}", "--benchmark-disable"]
    found = []
    for name in ("cold", "warm"):
        print(f"\n=== {name}: pytest models/ {' '.join(OPTIONS)}", flush=True)
        started = time.perf_counter()
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        seconds = time.perf_counter() - started
        if code:
            return code
        engines = [r["engine"] for r in json.loads(given.report.read_text())["records"] if r["engine"]]
        found.append((seconds, sum(e["fresh"] for e in engines), len(engines)))
    (cold, built, total), (warm, rebuilt, _) = found
    print(f"\ncold {cold:.1f} s, {built} of {total} engines built; warm {warm:.1f} s, {rebuilt} built")
    print(f"the second run took {warm / cold:.2f} of the first; report: {given.report}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
