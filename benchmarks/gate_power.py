"""What does the gate do on recorded noise? An operating table, beside three other gates on the same pairs of samples.

    python benchmarks/gate_power.py TRACES            default: $TRT_TRACES
    python benchmarks/gate_power.py TRACES --held-out priors of every key from the other keys only
    python benchmarks/gate_power.py TRACES --priors   what the recordings say about the noise
    python benchmarks/gate_power.py --loads           what engines that take turns show, by calculation

TRACES is a folder of ``.npz`` files, each with arrays of (repeats, samples) in ms under MODEL-PRECISION__CLOCK. Repeats
of one key ran the same code, so that a red verdict on two of them is false. A slowdown is one side times a factor.
Needs scipy, for the gates beside ours.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trt.latency import PRIORS, Outcome, Prior, decide

THRESHOLD = 0.03
MOST_PAIRS = 500  # of one key
Array = NDArray[np.float64]
Gate = Callable[[Array, Array], Outcome]


@dataclass(frozen=True)
class Row:
    """One row: which keys of which file, how many repeats a side, and the slowdown to be seen."""

    title: str
    file: str
    clock: str
    slowdown: float | None = 0.06
    repeats: int = 1
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.title + (f", +{self.slowdown:.0%}" if self.slowdown is not None else "")

    def pairs(self, array: Array) -> Iterator[tuple[Array, Array]]:
        """Every ordered pair of different sides: the halves of a pair, or sets of repeats; these have none in common
        where there are enough for that (of 4 and 5 builds, two sets of three share one or two)."""
        if self.options.get("paired"):
            for one in array:
                yield one[:1], one[1:]
                yield one[1:], one[:1]
            return
        sets = itertools.permutations(itertools.combinations(range(len(array)), self.repeats), 2)
        apart = len(array) >= 2 * self.repeats
        drawn = [(a, b) for a, b in sets if not (apart and set(a) & set(b))]
        if len(drawn) > MOST_PAIRS:
            drawn = random.Random(0).sample(drawn, MOST_PAIRS)
        for a, b in drawn:
            yield array[list(a)], array[list(b)]


BUILDS = {"repeats": "builds", "rebuilt": True}
ROWS = (
    Row("h200-quiet, graph, one repeat a side", "h200-quiet", "graph"),
    Row("h200-quiet, sync, one repeat a side", "h200-quiet", "sync"),
    Row("h200-contended, graph, one repeat a side", "h200-contended", "graph"),
    Row("h200-contended, sync, one repeat a side", "h200-contended", "sync"),
    Row("h200-quiet, sync, three repeats a side", "h200-quiet", "sync", repeats=3),
    Row("h200-rebuilds, three builds a side", "h200-rebuilds", "graph", None, 3, BUILDS),
    Row("h200-rebuilds, one build a side", "h200-rebuilds", "graph", None, 1, BUILDS),
    Row("h200-rebuilds, three a side, not said to be builds", "h200-rebuilds", "graph", None, 3),
    Row("cpu2core, one repeat a side", "cpu2core", "host", 0.06),
    Row("cpu2core, three repeats a side", "cpu2core", "host", repeats=3),
    Row("cpu2core-paired, one process", "cpu2core-paired", "host", 0.10, 1, {"paired": True}),
)


def ours(row: Row, prior: Prior, baseline: Array, candidate: Array) -> Outcome:
    return decide(baseline, candidate, threshold=THRESHOLD, clock=row.clock, prior=prior, **row.options).outcome


def mean_of_pytest_benchmark(baseline: Array, candidate: Array) -> Outcome:
    """``--benchmark-compare-fail=mean:5%``: the means of all samples, and nothing else."""
    return Outcome.FAIL if candidate.mean() > 1.05 * baseline.mean() else Outcome.PASS


def mann_whitney(baseline: Array, candidate: Array) -> Outcome:
    """Red when the candidate's samples are larger (p < 0.05, one-sided) and its median is by the threshold."""
    from scipy.stats import mannwhitneyu

    larger = mannwhitneyu(candidate.ravel(), baseline.ravel(), alternative="greater").pvalue < 0.05
    slower = np.median(candidate) > (1 + THRESHOLD) * np.median(baseline)
    return Outcome.FAIL if larger and slower else Outcome.PASS


def plain_bootstrap(baseline: Array, candidate: Array) -> Outcome:
    """A 95 % interval of the ratio of medians, from single samples drawn anew as if they were independent."""
    rng = np.random.default_rng(0)
    medians = [np.median(rng.choice(side.ravel(), (500, side.size)), axis=1) for side in (baseline, candidate)]
    low, high = np.percentile(medians[1] / medians[0], [2.5, 97.5])
    limit = 1 + THRESHOLD
    return Outcome.FAIL if low > limit else Outcome.PASS if high < limit else Outcome.INCONCLUSIVE


OTHERS: dict[str, Gate] = {
    "pytest-benchmark `mean:5%`": mean_of_pytest_benchmark,
    "Mann–Whitney": mann_whitney,
    "bootstrap of medians": plain_bootstrap,
}


TWO_OUTCOMES = ("pytest-benchmark `mean:5%`", "Mann–Whitney")


class Traces:
    """The recordings of a folder, and the noise that they show."""

    def __init__(self, folder: Path) -> None:
        self.arrays: dict[str, dict[str, Array]] = {}
        for file in sorted(folder.glob("*.npz")):
            with np.load(file) as content:
                self.arrays[file.stem] = {key: content[key].astype(np.float64) for key in content.files}

    def keys(self, row: Row) -> dict[str, Array]:
        return {k: a for k, a in self.arrays.get(row.file, {}).items() if k.endswith(f"__{row.clock}")}

    def spreads(self, files: tuple[str, ...], clock: str, without: str = "") -> list[Array]:
        """Per key, the logarithms of the repeats' medians, or of their ratios where they are pairs."""
        found = []
        for key, array in ((k, a) for f in files for k, a in self.arrays.get(f, {}).items()):
            if key.endswith(f"__{clock}") and key != without:
                logs = np.log(np.median(array, axis=-1))
                found.append(np.diff(logs, axis=1).ravel() if logs.ndim == 2 else logs)
        return found

    def priors(self, without: str = "", pairs: Array | None = None) -> dict[str, tuple[float, float, int]]:
        """Per level of noise: pooled standard deviation, its one-sided 95 % upper limit, degrees of freedom.

        *without* leaves a key out; *pairs* are used in place of the recorded ratios of pairs on the host clock.
        """
        gpu = ("h200-quiet", "h200-contended")
        groups = {
            "graph: processes": self.spreads(gpu, "graph", without),
            "sync: processes": self.spreads(gpu, "sync", without),
            "host: processes": self.spreads(("cpu2core",), "host", without),
            "graph: pairs": [one * 2**0.5 for one in self.spreads(("h200-blocks",), "graph", without)],
            "sync: pairs": [one * 2**0.5 for one in self.spreads(("h200-blocks",), "sync", without)],
            "host: pairs": self.spreads(("cpu2core-paired",), "host") if pairs is None else [pairs],
            "graph: builds": self.spreads(("h200-rebuilds",), "graph", without),
        }
        return {level: pooled(group) for level, group in groups.items() if group}


def pooled(groups: list[Array]) -> tuple[float, float, int]:
    from scipy.stats import chi2

    dof = sum(one.size - 1 for one in groups)
    variance = sum(one.var(ddof=1) * (one.size - 1) for one in groups) / dof
    return float(variance**0.5), float((variance * dof / chi2.ppf(0.05, dof)) ** 0.5), dof


def with_priors(row: Row, traces: Traces, *, held_out: bool) -> Iterator[tuple[Array, Prior]]:
    """The arrays of a row with the clock's prior; with *held_out* with what the other keys say, without a rounding.

    Of pairs there is one key: each half of its processes is judged with what the other half says.
    """
    own = PRIORS[row.clock]
    for key, array in traces.keys(row).items():
        if not held_out:
            yield array, own
            continue
        parts: list[tuple[Array, Array | None]] = [(array, None)]
        if row.options.get("paired"):
            ratios = np.diff(np.log(np.median(array, axis=-1)), axis=1).ravel()
            half = len(array) // 2
            parts = [(array[:half], ratios[half:]), (array[half:], ratios[:half])]
        for part, others in parts:
            limits = {
                level: pooled if level == "sync: processes" else upper  # as the priors were made
                for level, (pooled, upper, _) in traces.priors(key, others).items()
            }
            yield (
                part,
                replace(
                    own,
                    processes=limits.get(f"{row.clock}: processes", own.processes),
                    pairs=limits.get(f"{row.clock}: pairs", own.pairs),
                    builds=limits.get(f"{row.clock}: builds", own.builds),
                ),
            )


def cell(same: list[Outcome], slower: list[Outcome], *, three: bool) -> str:
    """False FAIL / missed / inconclusive, in percent; the last of unchanged or of slower pairs, whichever is more."""

    def share(outcomes: list[Outcome], wanted: Outcome) -> float:
        return 100 * outcomes.count(wanted) / len(outcomes)

    missed = f"{share(slower, Outcome.PASS):.1f}" if slower else "–"
    open_ = max(share(found, Outcome.INCONCLUSIVE) for found in (same, slower) if found)
    return f"{share(same, Outcome.FAIL):.1f} / {missed} / {f'{open_:.1f}' if three else '–'}"


def operating_table(traces: Traces, *, held_out: bool) -> Iterator[str]:
    names = ["pytest-trt"] if held_out else ["pytest-trt", *OTHERS]
    yield f"| data | pairs | {' | '.join(names)} |"
    yield f"|---|---:|{'---:|' * len(names)}"
    for row in ROWS:
        found: dict[str, tuple[list[Outcome], list[Outcome]]] = {name: ([], []) for name in names}
        for array, prior in with_priors(row, traces, held_out=held_out):
            gates = {"pytest-trt": partial(ours, row, prior), **OTHERS}
            for baseline, candidate in row.pairs(array):
                for name in names:
                    found[name][0].append(gates[name](baseline, candidate))
                    if row.slowdown is not None:
                        found[name][1].append(gates[name](baseline, candidate * (1 + row.slowdown)))
        count = len(next(iter(found.values()))[0])
        if count:
            cells = [cell(same, slower, three=name not in TWO_OUTCOMES) for name, (same, slower) in found.items()]
            yield f"| {row.label} | {count} | {' | '.join(cells)} |"


def loads_table() -> Iterator[str]:
    """What engines that take turns show on a GPU, by calculation: loads without any noise beside that of the prior."""
    yield "| `--trt-loads` | loads of each, at most | interval of the ratio | 5 % slower is red at a threshold of |"
    yield "|---:|---:|---:|---:|"
    for asked in (1, 3, 7, 11):
        looks = [3 * asked * times for times in (1, 2, 4)]
        found = []
        for loads in looks:
            same = np.ones((loads, 40))
            verdict = decide(
                same, same, threshold=THRESHOLD, clock="graph", paired=True, repeats="loads", looks=len(looks)
            )
            # Seen in 95 of 100 runs: 1 + threshold times a factor that does not depend on the threshold.
            found.append((verdict.high - 1, 1.05 * (1 + THRESHOLD) / (1 + verdict.detectable) - 1))
        cells = [" → ".join(map(str, looks)), " → ".join(f"± {half:.1%}" for half, _ in found)]
        cells.append(" → ".join(f"{limit:.1%}" if limit > 0 else "none" for _, limit in found))
        yield f"| {asked} | {' | '.join(cells)} |"


def seconds_per_decision(traces: Traces, row: Row) -> float:
    pairs = [pair for array in traces.keys(row).values() for pair in row.pairs(array)]
    started = time.perf_counter()
    for baseline, candidate in pairs:
        ours(row, PRIORS[row.clock], baseline, candidate)
    return (time.perf_counter() - started) / len(pairs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="?", type=Path, default=os.environ.get("TRT_TRACES"))
    parser.add_argument("--held-out", action="store_true", help="priors of every key from the other keys")
    parser.add_argument("--priors", action="store_true", help="the noise that the recordings show, and nothing else")
    parser.add_argument("--loads", action="store_true", help="what engines in turns show, by calculation; no TRACES")
    given = parser.parse_args()
    if given.loads:
        print("\n".join(loads_table()))
        return 0
    if given.traces is None:
        parser.error("give the folder of the recordings, or set TRT_TRACES")
    traces = Traces(Path(given.traces))
    if not traces.arrays:
        parser.error(f"{given.traces} holds no .npz files")
    if given.priors:
        for level, (spread, upper, dof) in traces.priors().items():
            print(f"{level:<18} {spread:7.3%}   upper limit {upper:7.3%}   {dof} degrees of freedom")
        return 0
    for line in operating_table(traces, held_out=given.held_out):
        print(line, flush=True)
    print(f"\none decision: {seconds_per_decision(traces, ROWS[0]) * 1e3:.1f} ms (two sides of 400 samples)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
