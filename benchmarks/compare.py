"""How long comparing takes, next to the ways of NumPy, Polygraphy and PyTorch, on N million float32 pairs.

    python benchmarks/compare.py [N] [--data KIND] [--rounds R] [--skip NAME …]     default 50, noise, 7

``measure`` is what a user gets: compiled code where the extra ``fast`` is installed and there are pairs enough, and
NumPy otherwise, which has a row of its own. What is not installed is left out; where PyTorch lives in an environment of
its own, run it there as well. All take turns, each twice in a row, and the second run counts: nobody pays for memory
that the system took back in between, or for code that is loaded once.
Printed are medians over the rounds: of the time, of each round's ratio, and of the processors' time, of all threads
together, which suffers less from what else the machine does. It judges nothing: times belong to the machine that they
were taken on.

Kinds of data, all of normally distributed references:

- noise: an fp16 engine's output. Error of 0.25 % of the rms, rounded to fp16. Everything is close.
- rounding: a relative error of about 1e-4. Everything is close.
- wrong: noise, and 1 of 1000 elements far off.
- negated: no element is close.
- equal: the same bits.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from pytest_trt.accuracy import DEFAULTS, compare, measure
from pytest_trt.accuracy.compiled import float_pass
from pytest_trt.accuracy.workers import available

Floats = NDArray[np.float32]
RTOL, ATOL = 1e-2, 2e-2
KINDS = ("noise", "rounding", "wrong", "negated", "equal")
OURS = "measure"


def pairs(millions: float, kind: str) -> tuple[Floats, Floats]:
    """Return actual and expected."""
    rng = np.random.default_rng(0)
    size = int(millions * 1_000_000)
    expected = rng.standard_normal(size, np.float32)
    if kind == "equal":
        return expected.copy(), expected
    if kind == "negated":
        return -expected, expected
    noise = rng.standard_normal(size, np.float32)
    if kind == "rounding":
        return expected * (1 + np.float32(1e-4) * noise), expected
    actual = (expected + np.float32(2.5e-3) * noise).astype(np.float16).astype(np.float32)
    if kind == "wrong":
        actual[::1000] += 1
    return actual, expected


def ours(actual: Floats, expected: Floats) -> dict[str, Callable[[], object]]:
    fp16 = DEFAULTS["fp16"]
    return {
        OURS: lambda: measure(actual, expected, rtol=RTOL, atol=ATOL),
        "measure, by NumPy": lambda: measure(actual, expected, rtol=RTOL, atol=ATOL, compiled=False),
        "compare, fp16 default": lambda: compare({"x": actual}, {"x": expected}, tolerance=fp16),
    }


def numpy_allclose(actual: Floats, expected: Floats) -> Callable[[], object]:
    return lambda: np.testing.assert_allclose(actual, expected, rtol=RTOL, atol=ATOL)


def torch_close(actual: Floats, expected: Floats) -> Callable[[], object]:
    import torch

    a, e = torch.from_numpy(actual), torch.from_numpy(expected)
    return lambda: torch.testing.assert_close(a, e, rtol=RTOL, atol=ATOL)


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


THEIRS = {
    "numpy": ("np.testing.assert_allclose", numpy_allclose),
    "torch": ("torch.testing.assert_close", torch_close),
    "polygraphy": ("polygraphy CompareFunc.simple", polygraphy_simple),
}


def warm_ms(action: Callable[[], object]) -> tuple[float, float]:
    """Return the time of the second of two runs, and the processors' time. What raises has found a mismatch."""
    start = busy = 0.0
    for _ in range(2):
        start, busy = time.perf_counter(), time.process_time()
        with suppress(AssertionError):
            action()
    return (time.perf_counter() - start) * 1e3, (time.process_time() - busy) * 1e3


def main(millions: float, kind: str, rounds: int, skip: list[str]) -> None:
    data = pairs(millions, kind)
    print(f"{available()} processors; {OURS} is {float_pass(*data, None).__name__}")
    contenders = ours(*data)
    for library, (name, make) in THEIRS.items():
        if library in skip:
            continue
        if importlib.util.find_spec(library):
            contenders[name] = make(*data)
        else:
            print(f"{library} is not installed: left out")
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, action in contenders.items():
            times[name].append(warm_ms(action))
    print(f"{millions:g} million float32 pairs ({kind}), numpy {np.__version__}, median of {rounds} rounds")
    for name, found in times.items():
        ratios = [
            [their / our for their, our in zip(*both, strict=True)] for both in zip(found, times[OURS], strict=True)
        ]
        (wall, busy), (ratio, busy_ratio) = medians(found), medians(ratios)
        print(f"  {name:32}{wall:10.1f} ms{ratio:8.2f} ×    processors {busy:10.1f} ms{busy_ratio:8.2f} ×")


def medians(rows: Iterable[Sequence[float]]) -> list[float]:
    return [statistics.median(column) for column in zip(*rows, strict=True)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("millions", nargs="?", type=float, default=50)
    parser.add_argument("--data", choices=KINDS, default="noise")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--skip", nargs="*", choices=THEIRS, default=[])
    given = parser.parse_args()
    main(given.millions, given.data, given.rounds, given.skip)
