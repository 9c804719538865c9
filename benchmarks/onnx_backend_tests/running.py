"""Running tests through pytest-trt's collector, in child processes: a crash ends one test, not the run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from cases import TestCase
from outcomes_plugin import VARIABLE

__all__ = ["Result", "read_outcomes", "run"]

_ORDER = ("crashed", "error", "failed", "skipped", "passed")
_CASES_PER_PROCESS = 300  # a Lab keeps the models that it has loaded


@dataclass
class Result:
    """What became of one test: the worst of its items, and what that one said."""

    case: TestCase
    outcome: str = "not collected"
    message: str = ""
    seconds: float = 0.0
    items: dict[str, str] = field(default_factory=dict)

    def add(self, item: str, outcome: str, message: str, seconds: float) -> None:
        self.items[item] = outcome
        self.seconds += seconds
        # The items of a broken model are skipped with a pointer to it.
        if self.outcome == "not collected" or _ORDER.index(outcome) < _ORDER.index(self.outcome):
            self.outcome, self.message = outcome, message


def run(cases: Sequence[TestCase], root: Path, options: Sequence[str], jobs: int) -> list[Result]:
    """Run *cases*, which lie below *root*, with pytest's *options*; *jobs* processes at a time."""
    size = max(1, min(_CASES_PER_PROCESS, -(-len(cases) // jobs)))
    batches = [cases[start : start + size] for start in range(0, len(cases), size)]
    (root / "pytest.ini").write_text("[pytest]\ntrt_models = */*/model.onnx\n", encoding="utf-8")
    with ThreadPoolExecutor(jobs) as pool:
        found = pool.map(lambda item: _run_batch(item[0], item[1], root, options), enumerate(batches))
        return [result for results in found for result in results]


def _run_batch(number: int, cases: Sequence[TestCase], root: Path, options: Sequence[str]) -> list[Result]:
    results = {case.id: Result(case) for case in cases}
    asked, out, log = (root / f"batch_{number}.{suffix}" for suffix in ("json", "jsonl", "log"))
    waiting = list(cases)
    while waiting:
        asked.write_text(json.dumps({"folders": [str(case.folder) for case in waiting], "out": str(out)}))
        out.write_text("")
        with log.open("a", encoding="utf-8") as stream:
            code = subprocess.run(
                [sys.executable, "-m", "pytest", str(root), *_PYTEST, *options],
                cwd=root,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=_environment(asked),
                check=False,
            ).returncode
        crashed = read_outcomes(out, results)
        if code in (0, 1) or crashed is None:
            if code not in (0, 1):
                raise SystemExit(f"pytest ended with {code}: see {log}")
            break
        results[crashed].add("process", "crashed", f"the process ended with {code}: see {log}", 0.0)
        waiting = [case for case in waiting if results[case.id].outcome == "not collected"]
    return list(results.values())


_PYTEST = (
    *("-p", "outcomes_plugin", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:xdist"),
    *("-q", "--no-header", "--tb=short", "--benchmark-disable", "-W", "ignore"),
)


def _environment(asked: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    path = os.pathsep.join(filter(None, (str(Path(__file__).parent), *sys.path)))
    # Nothing is timed here. In a temporary folder of their own, these processes do not take turns with each other,
    # nor wait for others of this machine that measure.
    temporary = asked.with_suffix("")
    temporary.mkdir(exist_ok=True)
    return {**kept, VARIABLE: str(asked), "PYTHONPATH": path, "TMPDIR": str(temporary)}


def read_outcomes(out: Path, results: dict[str, Result]) -> str | None:
    """Enter what *out* says into *results*; return the test in which the process ended, if it ended within one."""
    open_id = None
    for line in out.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        nodeid = row.get("started") or row["item"]
        file, _, item = nodeid.partition("::")
        case_id = Path(file).parent.as_posix()
        if "started" in row:
            open_id = case_id
            continue
        open_id = None
        results[case_id].add(item, row["outcome"], row["message"], row["seconds"])
    return open_id
