"""What do we add to TensorRT's own calls? Prints host microseconds per call, and how much more ours take.

    python benchmarks/overhead.py models/digits --precision=fp32 --profile=b8 --out=overhead.json

Each call is timed by itself and the device is waited for in between, so that a full queue is not counted; the calls
take turns, so that a change of the machine's speed meets all of them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from pytest_trt.backends.clocks import GraphClock
from pytest_trt.backends.cuda import runtime
from pytest_trt.backends.tensorrt import TensorRTSession
from pytest_trt.backends.tensorrt.probe import import_tensorrt
from pytest_trt.lab import Lab
from pytest_trt.settings import Settings

# ours -> (what it is compared with, what it may add in microseconds)
LIMITS = {"session.launch": ("execute_async_v3", 20.0), "graph launch": ("cudaGraphLaunch", 5.0)}


def launches(session: TensorRTSession) -> dict[str, Callable[[], Any]]:
    """The bare calls and ours, all of the same work."""
    clock = session.clock()
    execute, handle = session._context.execute_async_v3, session._stream.handle
    calls: dict[str, Callable[[], Any]] = {
        "execute_async_v3": lambda: execute(handle),
        "session.launch": session.launch,
    }
    if isinstance(clock, GraphClock):
        cuda, executable, stream = runtime(), clock._captured_graph(session.launch)._exec, session._stream.raw
        calls["cudaGraphLaunch"] = lambda: cuda.cudaGraphLaunch(executable, stream)
        calls["graph launch"] = clock.launcher(session.launch)
    else:
        print(clock.note)
    return calls


def runs(session: TensorRTSession, feeds: dict[str, Any], stack: ExitStack) -> dict[str, Callable[[], Any]]:
    """Everything that a caller pays for outputs on the host, by us and by Polygraphy."""
    calls: dict[str, Callable[[], Any]] = {
        "session.run": lambda: session.run(feeds),
        "session.run, no copy": lambda: session.run(feeds, copy=False),
    }
    try:
        from polygraphy.backend.trt import TrtRunner
        from polygraphy.exception import PolygraphyException
    except ImportError:
        print("Polygraphy is not installed: not compared")
        return calls
    typed = {binding.name: np.ascontiguousarray(feeds[binding.name], binding.dtype) for binding in session._inputs}
    try:
        runner = stack.enter_context(TrtRunner(session._loaded.engine, optimization_profile=0))
        runner.infer(typed, check_inputs=False)
    except PolygraphyException as error:
        print(f"Polygraphy cannot run this engine: {error}")
        return calls
    calls["polygraphy TrtRunner.infer"] = lambda: runner.infer(typed, check_inputs=False)
    return calls


def time_in_turns(calls: dict[str, Callable[[], Any]], wait: Callable[[], None], count: int) -> dict[str, float]:
    """Median microseconds of each call."""
    taken: dict[str, list[int]] = {name: [] for name in calls}
    for _ in range(count):
        for name, call in calls.items():
            started = time.perf_counter_ns()
            call()
            taken[name].append(time.perf_counter_ns() - started)
            wait()
    return {name: float(np.median(values)) / 1e3 for name, values in taken.items()}


def measure(given: argparse.Namespace) -> dict[str, Any]:
    options = {k: getattr(given, k) for k in ("precision", "profile", "variant", "cache_dir")}
    with Lab(Settings.resolve({**options, "backend": "tensorrt"}, {}, {}), Path.cwd()) as lab, ExitStack() as stack:
        case = lab.cases(lab.add(given.model))[0]
        stored, _ = lab.engine(case)
        lab.close()
        backend, request = lab.backend(case.backend), lab.request(case)
        feeds = lab.samples(case, lab.profile(case).at("opt"), 1)[0][0].feeds
        session = stack.enter_context(TensorRTSession(import_tensorrt(), stored.plan, request))
        session.stage(feeds)
        calls = launches(session)
        time_in_turns(calls, session.synchronize, 50)
        found = time_in_turns(calls, session.synchronize, given.count)
        # Nothing is staged in this one: a run would bring it back each time.
        plain = stack.enter_context(session.sibling())
        whole = runs(plain, dict(feeds), stack)
        time_in_turns(whole, plain.synchronize, 50)
        found.update(time_in_turns(whole, plain.synchronize, given.count))
        return {"case": str(case), "identity": dict(backend.identity()), "microseconds": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="models/digits")
    for name in ("precision", "profile", "variant", "cache-dir"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--count", type=int, default=1000, help="calls of each kind")
    parser.add_argument("--out", type=Path, help="write the numbers here, as JSON")
    given = parser.parse_args()
    result = measure(given)
    found = result["microseconds"]
    print(f"{result['case']}: host time per call, median of {given.count}")
    for name, value in found.items():
        print(f"{name:<28}{value:>10.2f} us", end="")
        if name in LIMITS:
            bare, limit = LIMITS[name]
            print(
                f"  {value / found[bare]:.2f}x {bare}, adds {value - found[bare]:.2f} us of {limit:g} allowed", end=""
            )
        print()
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
