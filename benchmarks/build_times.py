"""How long an engine takes: built cold, built with a timing cache, out of the engine cache, and only deserialized.

    python benchmarks/build_times.py models/resnet50 models/minilm --precision=fp32,fp16 --profile=b8 --out=times.json

Per case: ``cold`` in an empty store without a timing cache; ``warm`` in another empty store that has the timing cache
of the cold build; ``verified`` is the first load from the cold store, which digests the plan in full; ``cached`` one
after it, in a new Lab, by the stamp that the first one left; ``bare`` is the deserialization alone, which the others
contain. Cached and bare are medians of ``--rounds``, taken in turn. Before anything is timed the model is read, typed
and calibrated; how long that takes is ``prepare``, the first time and when the store knows what comes out of it.

Below each case stands where the time goes. ``open`` to ``timings`` are the steps of a TensorRT build (open: making the
builder, which loads its kernels; build: the builder itself; timings: writing the timing cache), ``free`` is the rest of
it; then come ``load``, ``store`` (reading, digesting, writing), ``request`` and what is left. ``--hold-builder`` keeps
a TensorRT builder from before the cold build to the end: what ``open`` and ``free`` lose by that is the loading of its
kernels, which every build repeats unless a builder is alive.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from pytest_trt.artifacts.file_state import SETTLED_NS
from pytest_trt.artifacts.timing_cache import load_timing_cache, save_timing_cache
from pytest_trt.errors import UnsupportedError
from pytest_trt.lab import Lab
from pytest_trt.settings import Settings
from pytest_trt.spec.case import Case

T = TypeVar("T")

OPTIONS = ("precision", "profile", "variant", "backend")
COLUMNS = ("cold_s", "builder_s", "warm_s", "verified_s", "cached_s", "bare_s", "warm/cold", "cached/bare")


class Split:
    """Seconds in named calls, each without the named calls inside it."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._inside = [0.0]

    def watch(self, owner: Any, method: str, name: str) -> None:
        call = getattr(owner, method)

        def timed(*args: Any, **keywords: Any) -> Any:
            self._inside.append(0.0)
            started = time.perf_counter()
            try:
                return call(*args, **keywords)
            finally:
                took = time.perf_counter() - started
                self.seconds[name] += took - self._inside.pop()
                self._inside[-1] += took

        setattr(owner, method, timed)

    def of(self, total: float, steps: dict[str, float]) -> dict[str, float]:
        """Where *total* went; *steps* are those of the build inside it."""
        found = {**steps, **self.seconds, "rest": total - sum(self.seconds.values())}
        if steps:
            found["free"] = found.pop("building") - sum(steps.values())
        return found


def seconds(action: Callable[[], T]) -> tuple[float, T]:
    started = time.perf_counter()
    found = action()
    return time.perf_counter() - started, found


def open_lab(given: argparse.Namespace, store: Path) -> Lab:
    options = {name: getattr(given, name) for name in OPTIONS}
    return Lab(Settings.resolve({**options, "cache_dir": str(store)}, {}, {}), Path.cwd())


def open_case(lab: Lab, model: Path, index: int) -> Case:
    """The case, with its model read, typed and calibrated, or remembered. Raises UnsupportedError."""
    case = lab.cases(lab.add(model))[index]
    lab.request(case)
    return case


def engine(lab: Lab, case: Case) -> tuple[float, Any, dict[str, float]]:
    """Seconds of ``lab.engine``, the engine, and where the seconds went."""
    split = Split()
    backend: Any = lab.backend(case.backend)
    watched = ((backend, "build", "building"), (backend, "load", "load"), (lab, "request", "request"))
    stores = ((lab.store, name, "store") for name in ("get", "get_or_build", "put"))
    for owner, method, name in (*watched, *stores):
        split.watch(owner, method, name)
    took, (stored, _) = seconds(partial(lab.engine, case))
    for owner, method, _ in (*watched, *((lab.store, name, "") for name in ("get", "get_or_build", "put"))):
        delattr(owner, method)
    return took, stored, split.of(took, stored.facts.get("step_seconds", {}) if stored.fresh else {})


def measure(given: argparse.Namespace, model: Path, index: int, folder: Path) -> dict[str, Any]:
    with open_lab(given, folder / "cold") as lab:
        prepare, case = seconds(partial(open_case, lab, model, index))
        cold, stored, split = engine(lab, case)
        timings = load_timing_cache(lab.store, lab.backend(case.backend))
    if not stored.fresh:
        raise AssertionError(f"{case.id}: the empty store had an engine")
    found: dict[str, Any] = {
        "case": case.id,
        "plan_bytes": len(stored.plan),
        "cold_s": cold,
        "builder_s": stored.facts.get("build_seconds"),
        "warm_s": None,
        "cold": {"prepare": prepare, **split},
    }
    if timings is not None:
        found["warm_s"], found["warm"] = warm_build(given, model, index, folder / "warm", timings)
    found |= loads(given, model, index, folder / "cold", stored.plan)
    found["warm/cold"] = None if found["warm_s"] is None else found["warm_s"] / cold
    found["cached/bare"] = found["cached_s"] / found["bare_s"]
    return found


def warm_build(
    given: argparse.Namespace, model: Path, index: int, store: Path, timings: bytes
) -> tuple[float, dict[str, float]]:
    with open_lab(given, store) as lab:
        prepare, case = seconds(partial(open_case, lab, model, index))
        save_timing_cache(lab.store, lab.backend(case.backend), timings)
        took, stored, split = engine(lab, case)
    if not stored.fresh:
        raise AssertionError(f"{case.id}: the new store had an engine")
    return took, {"prepare": prepare, **split}


def loads(given: argparse.Namespace, model: Path, index: int, store: Path, plan: bytes) -> dict[str, Any]:
    """The first load, and medians of those after it beside bare ones."""
    time.sleep(SETTLED_NS / 1e9)  # no stamp is given to what has just been written
    cached, bare, splits = [], [], []
    for _ in range(1 + given.rounds):
        with open_lab(given, store) as lab:
            prepare, case = seconds(partial(open_case, lab, model, index))
            took, again, split = engine(lab, case)
            if again.fresh:
                raise AssertionError(f"{case.id}: the engine was not found again")
            cached.append(took)
            splits.append({"prepare": prepare, **split})
            lab.close()
            backend, request = lab.backend(case.backend), lab.request(case)
            took, session = seconds(partial(backend.load, plan, request))
            session.close()
            bare.append(took)
    usual = {name: median(split.get(name, 0.0) for split in splits[1:]) for name in splits[1]}
    return {
        "verified_s": cached[0],
        "cached_s": median(cached[1:]),
        "bare_s": median(bare[1:]),
        "verified": splits[0],
        "cached": usual,
    }


def show(value: float | None) -> str:
    return f"{'-' if value is None else format(value, '.4g'):>12}"


def show_split(found: dict[str, Any]) -> None:
    for kind in ("cold", "warm", "verified", "cached"):
        if kind in found:
            print(f"{kind:>12}  " + "  ".join(f"{name} {took:.4f}" for name, took in found[kind].items()))


def hold_builder() -> Any:
    """A TensorRT builder that nothing is built with."""
    import tensorrt

    from pytest_trt.backends.tensorrt.logger import process_logger

    return tensorrt.Builder(process_logger(tensorrt))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="+", type=Path)
    for name in OPTIONS:
        parser.add_argument(f"--{name}")
    parser.add_argument("--rounds", type=int, default=5, help="cached and bare loads of each engine (default: 5)")
    parser.add_argument("--hold-builder", action="store_true", help="keep a TensorRT builder alive all the time")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the times as JSON")
    given = parser.parse_args()
    held = hold_builder() if given.hold_builder else None
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
            show_split(times)
            found.append(times)
    del held
    if found and all(times["warm_s"] is None for times in found):
        print("warm is missing: this backend has no timing cache")
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
