"""Why is a case off, and by which node or tensor? Every case of some models is explained and bisected.

    python benchmarks/explain.py models/resnet50 --variant=full --precision=fp16,int8 --profile=b8 \\
        --backend=tensorrt --seconds=120 --out=explained.json

Each case has ``--seconds`` beside the build of its own engine: at most half of them for where its error enters (another
build only while one fits in), the rest for the nodes or the tensor. FILE is written after each of both; cases that it
holds already stay in it, those that are run again are replaced.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pytest_trt.diagnosis.hunt import Bisection
from pytest_trt.diagnosis.present import bisection_lines
from pytest_trt.diagnosis.stages import STAGES
from pytest_trt.errors import TrtError
from pytest_trt.lab import Lab
from pytest_trt.settings import Settings
from pytest_trt.spec.case import Case

OPTIONS = (
    "precision",
    "profile",
    "variant",
    "backend",
    "tolerance",
    "samples",
    "opt-level",
    "loads",
    "duration",
    "fake",
)


class Rows:
    """What is known of each case, in a file that is whole at every moment."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        held = json.loads(file.read_text()) if file is not None and file.exists() else []
        self.by_case: dict[str, dict[str, Any]] = {row["case"]: row for row in held}

    def put(self, case: Case, row: dict[str, Any]) -> None:
        self.by_case[case.id] = {"case": case.id, **row}
        if self.file is None:
            return
        beside = self.file.with_name(f"{self.file.name}.part")
        beside.write_text(json.dumps(list(self.by_case.values()), indent=1) + "\n")
        beside.replace(self.file)


def examine(lab: Lab, case: Case, given: argparse.Namespace, rows: Rows) -> None:
    """Explain, then bisect; each is kept as soon as it is known."""
    stored, _ = lab.engine(case)
    about = {
        "backend": lab.backend(case.backend).identity(),
        "simulated": stored.facts.get("simulated"),
        "plan": stored.plan_digest,
        "build_seconds": stored.facts.get("build_seconds"),
    }
    started = time.monotonic()
    explanation = lab.explain(case, seconds=given.seconds / 2, stages=given.stages)
    seconds = {"explaining": round(time.monotonic() - started, 1)}
    found = Bisection(explanation)
    rows.put(case, {**about, "seconds": seconds, **found.to_json()})
    if given.search:
        left = given.seconds - (time.monotonic() - started)
        found = lab.bisect(
            case,
            explanation=explanation,
            seconds=left,
            anew=given.anew,
            on_engine=given.on_engine,
            group=given.group,
            limit=given.limit,
            latency=given.latency,
            taps=given.taps,
        )
        seconds["searching"] = round(time.monotonic() - started - seconds["explaining"], 1)
        rows.put(case, {**about, "seconds": seconds, **found.to_json()})
    print("\n".join([f"{case} ({time.monotonic() - started:.0f} s)", *bisection_lines(found, case.precision), ""]))


def stages(text: str) -> list[str]:
    wanted = [word for word in text.split(",") if word]
    unknown = [word for word in wanted if word not in STAGES]
    if unknown:
        raise argparse.ArgumentTypeError(f"no stage {unknown[0]!r}; there are {', '.join(STAGES)}")
    return wanted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="+", type=Path)
    for name in OPTIONS:
        parser.add_argument(f"--{name}")
    parser.add_argument("--cache-dir", help="where engines and timings are kept (default: a temporary folder)")
    parser.add_argument("--seconds", type=float, default=120, help="for each case (default: 120)")
    parser.add_argument("--stages", type=stages, default=list(STAGES), help=f"of {','.join(STAGES)} (default: all)")
    parser.add_argument("--no-search", dest="search", action="store_false", help="explain only")
    parser.add_argument("--anew", action="store_true", help="search nodes although the case is close")
    parser.add_argument("--on-engine", action="store_true", help="judge sets of nodes by engines")
    parser.add_argument("--latency", action="store_true", help="measure what the exclusions cost")
    parser.add_argument("--group", type=int, default=16, help="mark at most N tensors at a time (default: 16)")
    parser.add_argument(
        "--taps", choices=("outputs", "debug"), default="outputs", help="how inner tensors are looked at"
    )
    parser.add_argument("--limit", type=int, help="evaluate, or build, at most N times")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write everything as JSON")
    given = parser.parse_args()
    rows = Rows(given.out)
    options = {name.replace("-", "_"): getattr(given, name.replace("-", "_")) for name in OPTIONS}
    with nullcontext(given.cache_dir) if given.cache_dir else tempfile.TemporaryDirectory() as folder:
        settings = Settings.resolve({**options, "cache_dir": folder}, {}, {})
        with Lab(settings, Path.cwd(), lambda line: print(f"  {line}", flush=True)) as lab:
            for model in given.model:
                for case in lab.cases(lab.add(model)):
                    try:
                        examine(lab, case, given, rows)
                    except TrtError as error:
                        print(f"{case}: {error}\n", flush=True)
                        rows.put(case, {"error": error.message})


if __name__ == "__main__":
    main()
