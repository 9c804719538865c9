"""What an installed pytest-trt costs a pytest run that does not use it.

    python benchmarks/import_cost.py [PAIRS]     default 15

Collects one trivial test in a fresh folder, in fresh processes, with the plugin and without it, one after the
other in turn, and prints the medians, the median of the paired differences and their spread. It judges nothing:
times belong to the machine they were taken on.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

COMMAND = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider"]
WITHOUT = ("-p", "no:trt")


def others() -> list[str]:
    """Arguments that switch every other installed plugin off: only ours is compared with none."""
    names = {point.name for point in metadata.entry_points(group="pytest11")} - {"trt"}
    return [argument for name in sorted(names) for argument in ("-p", f"no:{name}")]


def run_ms(folder: Path, *arguments: str) -> float:
    """Wall-clock time of one run of pytest in *folder*."""
    # Bytecode is written, as in a user's environment: without it pytest rewrites the plugin's assertions every time.
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    start = time.perf_counter()
    subprocess.run([*COMMAND, *arguments], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1e3


def main(pairs: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_trivial.py").write_text("def test_trivial():\n    pass\n")
        (folder / "pytest.ini").write_text("[pytest]\n")
        quiet = others()
        run_ms(folder, *quiet)  # compiles everything
        with_ms, without_ms = [], []
        for index in range(pairs):
            # The order changes from pair to pair, so that being second is no advantage.
            for plugin in (True, False) if index % 2 else (False, True):
                (with_ms if plugin else without_ms).append(run_ms(folder, *quiet, *(() if plugin else WITHOUT)))
    differences = sorted(a - b for a, b in zip(with_ms, without_ms, strict=True))
    low, _, high = statistics.quantiles(differences, n=4)
    print(f"pytest --collect-only of one test, {pairs} interleaved pairs, Python {sys.version.split()[0]}")
    for label, times in (("without the plugin", without_ms), ("with the plugin", with_ms)):
        print(f"  {label:20} {statistics.median(times):8.1f} ms, fastest {min(times):.1f} ms")
    print(f"  {'difference':20} {statistics.median(differences):8.1f} ms, quartiles {low:.1f} to {high:.1f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
