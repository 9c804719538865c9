"""ONNX's own backend tests through pytest-trt: collected as models, run by its Lab, judged against stored outputs.

``python benchmarks/onnx_backend_tests --output docs/onnx-backend-tests.md``. What does not pass is given to ONNX
Runtime alone as well, so that a fault of pytest-trt cannot hide among what ONNX Runtime does not support. Exit code 1
when something failed that nothing explains.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from alone import judge
from cases import KINDS, find
from running import run
from table import page, verdicts


def main() -> int:
    parser = argparse.ArgumentParser(prog="onnx_backend_tests", description=__doc__)
    parser.add_argument("--kinds", default=",".join(KINDS), help="comma-separated, of: %(default)s")
    parser.add_argument("--sample", type=int, metavar="N", help="only N of the tests, drawn with --seed")
    parser.add_argument("--match", default="", metavar="REGEX", help="only tests whose KIND/NAME has this in it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", default="onnxruntime-cpu")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes at a time")
    parser.add_argument("--folder", type=Path, help="a new folder for models and logs, which is kept")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the page there as well")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the verdict on each test there")
    given = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="onnx-backend-tests-") as temporary:
        root = (given.folder or Path(temporary)).resolve()
        root.mkdir(parents=True, exist_ok=True)
        cases = [case for case in find(root, tuple(given.kinds.split(","))) if re.search(given.match, case.id)]
        if given.sample is not None:
            cases = sorted(random.Random(given.seed).sample(cases, min(given.sample, len(cases))), key=lambda c: c.id)
        for case in cases:
            case.write()
        options = (f"--trt-backend={given.backend}", "--trt-shapes=opt", "--trt-latency=off", "--trt-cache=off")
        results = run(cases, root, options, given.jobs)
        alone = judge([r.case for r in results if r.outcome not in ("passed", "skipped", "crashed")])
    found = verdicts(results, alone, given.backend)
    text = page(found, given.backend, ", ".join(f"{name} {version(name)}" for name in ("onnx", "onnxruntime")))
    print(text)
    if given.json:
        rows = {one.result.case.id: {"verdict": one.kind, "text": one.text} for one in found}
        given.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    if given.output:
        given.output.write_text(text, encoding="utf-8")
    used = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    took = f"{time.perf_counter() - started:.0f} s, {used:.0f} s of processor time"
    print(f"{len(found)} tests in {took}", file=sys.stderr)
    return 1 if any(verdict.red for verdict in found) else 0


if __name__ == "__main__":
    sys.exit(main())
