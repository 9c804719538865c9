"""How long an engine takes: built cold, built with a timing cache, out of the engine cache, and only deserialized.

    python benchmarks/build_times.py models/resnet50 models/minilm --precision=fp32,fp16 --profile=b8 --out=times.json

Per case: ``cold`` in an empty store without a timing cache; ``warm`` in another empty store that has the timing cache
of the cold build; ``cached`` in a new Lab on the cold store, with its key and its digest check; ``bare`` is the
deserialization alone, which the others contain. Cached and bare are medians of ``--rounds``, taken in turn. The model
is typed, and calibrated, before anything is timed. ``builder`` is the part of cold that the builder itself reports: the
first build of a process also loads the library.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from pytest_trt.artifacts.timing_cache import load_timing_cache, save_timing_cache
from pytest_trt.errors import UnsupportedError
from pytest_trt.lab import Lab
from pytest_trt.settings import Settings
from pytest_trt.spec.case import Case

T = TypeVar("T")

OPTIONS = ("precision", "profile", "variant", "backend")
COLUMNS = ("cold_s", "builder_s", "warm_s", "cached_s", "bare_s", "warm/cold", "cached/bare")


def seconds(action: Callable[[], T]) -> tuple[float, T]:
    started = time.perf_counter()
    found = action()
    return time.perf_counter() - started, found


def open_lab(given: argparse.Namespace, store: Path) -> Lab:
    options = {name: getattr(given, name) for name in OPTIONS}
    return Lab(Settings.resolve({**options, "cache_dir": str(store)}, {}, {}), Path.cwd())


def open_case(lab: Lab, model: Path, index: int) -> Case:
    """The case, with its model loaded, typed and calibrated. Raises UnsupportedError."""
    case = lab.cases(lab.add(model))[index]
    lab.request(case)
    return case


def measure(given: argparse.Namespace, model: Path, index: int, folder: Path) -> dict[str, Any]:
    with open_lab(given, folder / "cold") as lab:
        case = open_case(lab, model, index)
        cold, (stored, _) = seconds(partial(lab.engine, case))
        timings = load_timing_cache(lab.store, lab.backend(case.backend))
    if not stored.fresh:
        raise AssertionError(f"{case.id}: the empty store had an engine")
    found: dict[str, Any] = {
        "case": case.id,
        "plan_bytes": len(stored.plan),
        "cold_s": cold,
        "builder_s": stored.facts.get("build_seconds"),
        "warm_s": None if timings is None else warm_build(given, model, index, folder / "warm", timings),
    }
    cached, bare = [], []
    for _ in range(given.rounds):
        with open_lab(given, folder / "cold") as lab:
            case = open_case(lab, model, index)
            took, (again, _) = seconds(partial(lab.engine, case))
            if again.fresh:
                raise AssertionError(f"{case.id}: the engine was not found again")
            cached.append(took)
            lab.close()
            backend, request = lab.backend(case.backend), lab.request(case)
            took, session = seconds(partial(backend.load, stored.plan, request))
            session.close()
            bare.append(took)
    found |= {"cached_s": median(cached), "bare_s": median(bare)}
    found["warm/cold"] = None if found["warm_s"] is None else found["warm_s"] / cold
    found["cached/bare"] = found["cached_s"] / found["bare_s"]
    return found


def warm_build(given: argparse.Namespace, model: Path, index: int, store: Path, timings: bytes) -> float:
    with open_lab(given, store) as lab:
        case = open_case(lab, model, index)
        save_timing_cache(lab.store, lab.backend(case.backend), timings)
        took, (stored, _) = seconds(partial(lab.engine, case))
    if not stored.fresh:
        raise AssertionError(f"{case.id}: the new store had an engine")
    return took


def show(value: float | None) -> str:
    return f"{'-' if value is None else format(value, '.4g'):>12}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="+", type=Path)
    for name in OPTIONS:
        parser.add_argument(f"--{name}")
    parser.add_argument("--rounds", type=int, default=5, help="cached and bare loads of each engine (default: 5)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the times as JSON")
    given = parser.parse_args()
    found = []
    print("".join(f"{name:>12}" for name in COLUMNS), " case")
    for model in given.model:
        with tempfile.TemporaryDirectory() as folder, open_lab(given, Path(folder)) as lab:
            count = len(lab.cases(lab.add(model)))
        for index in range(count):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    times = measure(given, model, index, Path(folder))
                except UnsupportedError as error:
                    print(f"{'skipped':>12}  {model}: {error.message}")
                    continue
            print("".join(show(times[name]) for name in COLUMNS), f" {times['case']}", flush=True)
            found.append(times)
    if found and all(times["warm_s"] is None for times in found):
        print("warm is missing: this backend has no timing cache")
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
