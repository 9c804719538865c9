"""How long comparing takes, next to numpy's and Polygraphy's own ways, on N million float32 pairs.

    python benchmarks/compare.py [N]     default 5

Prints the best of several runs of each, and the ratio of our time to theirs. It judges nothing: times belong to
the machine they were taken on.
"""

from __future__ import annotations

import importlib.util
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pytest_trt.accuracy import DEFAULTS, compare, measure

Floats = NDArray[np.float32]
RTOL, ATOL = 1e-2, 1e-3


def pairs(millions: float) -> tuple[Floats, Floats]:
    """Normally distributed values, and the same with a relative error of about 1e-4: every element is close."""
    rng = np.random.default_rng(0)
    size = int(millions * 1_000_000)
    expected = rng.standard_normal(size, np.float32)
    return expected * (1 + 1e-4 * rng.standard_normal(size, np.float32)), expected


def best_ms(action: Callable[[], object], rounds: int = 7) -> float:
    """Return the fastest of several runs after a warm-up: what the machine can do when it is left alone."""
    action()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def polygraphy_simple(actual: Floats, expected: Floats) -> Callable[[], object]:
    """Return Polygraphy's elementwise comparison of one output, silenced."""
    from polygraphy.comparator import CompareFunc, IterationResult
    from polygraphy.logger import G_LOGGER

    G_LOGGER.module_severity = G_LOGGER.CRITICAL
    results = [
        IterationResult({"x": values}, runner_name=name)
        for name, values in (("actual", actual), ("expected", expected))
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # renamed in 0.53; this name is in every version we allow
        check = CompareFunc.simple(rtol=RTOL, atol=ATOL)
    return lambda: check(*results)


def main(millions: float) -> None:
    actual, expected = pairs(millions)
    ours = {
        "measure": lambda: measure(actual, expected, rtol=RTOL, atol=ATOL),
        "compare, fp16 default": lambda: compare({"x": actual}, {"x": expected}, tolerance=DEFAULTS["fp16"]),
    }
    theirs: dict[str, Callable[[], object]] = {
        "np.testing.assert_allclose": lambda: np.testing.assert_allclose(actual, expected, rtol=RTOL, atol=ATOL)
    }
    if importlib.util.find_spec("polygraphy"):
        theirs["polygraphy CompareFunc.simple"] = polygraphy_simple(actual, expected)
    else:
        print("polygraphy is not installed: left out")
    our_ms = {name: best_ms(action) for name, action in ours.items()}
    their_ms = {name: best_ms(action) for name, action in theirs.items()}
    print(f"{millions:g} million float32 pairs, numpy {np.__version__}, best of 7")
    for name, ms in {**our_ms, **their_ms}.items():
        print(f"  {name:32}{ms:10.1f} ms")
    for name, ms in our_ms.items():
        for other, other_ms in their_ms.items():
            print(f"  {name} / {other}: {ms / other_ms:.2f}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 5)
