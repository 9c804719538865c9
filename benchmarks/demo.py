"""The main job twice, cold and warm, with the ratio. ``make demo`` runs this.

The first run builds every engine, reference and calibration; the second finds them in the cache.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

MODELS = Path(__file__).parent.parent / "models"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache-dir", type=Path, required=True, help="emptied first")
    parser.add_argument("--report", type=Path, required=True)
    given = parser.parse_args()
    shutil.rmtree(given.cache_dir, ignore_errors=True)
    command = [
        sys.executable, "-m", "pytest", MODELS.name, "--trt-precision=fp32,fp16,int8", "-p", "no:randomly", "-q",
        "-r", "fE", f"--trt-cache-dir={given.cache_dir}", f"--trt-report={given.report}",
        "--benchmark-columns=min,median,max,rounds", "--benchmark-sort=name",
    ]  # fmt: skip
    seconds = []
    for name in ("cold", "warm"):
        print(f"\n=== {name}: pytest {MODELS.name}/ --trt-precision=fp32,fp16,int8", flush=True)
        started = time.perf_counter()
        code = subprocess.run(command, cwd=MODELS.parent, check=False).returncode
        seconds.append(time.perf_counter() - started)
        if code:
            return code
    print(
        f"\ncold {seconds[0]:.1f} s, warm {seconds[1]:.1f} s: the second run took {seconds[1] / seconds[0]:.2f} of the"
        f" first\nreport: {given.report}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
