"""How often does the interval of one repeat's median hold the true median, where samples hang together?

    python benchmarks/median_coverage.py [--series 4000]

Simulated, on the CPU: series of AR(1) noise, whose neighbours correlate by φ. The interval is the one that a repeat's
own samples show, at 95 %, without any prior. Prints a row per number of samples; in brackets that of the scatter
between stretches of the series alone, without the sum of its autocorrelations.
"""

from __future__ import annotations

import argparse
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from pytest_trt.latency import stats
from pytest_trt.latency.student import t_quantile

COUNTS = (200, 400, 1000, 4000)
CORRELATIONS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.99)


def ar1(rng: np.random.Generator, shape: tuple[int, int], correlation: float) -> NDArray[np.float64]:
    """Standard normal series, shape (series, samples)."""
    values = rng.standard_normal(shape)
    for place in range(1, shape[1]):
        values[:, place] *= (1 - correlation**2) ** 0.5
        values[:, place] += correlation * values[:, place - 1]
    return values


def coverage(series: NDArray[np.float64]) -> float:
    """The share of *series* whose interval holds 0, the true median."""
    reach = t_quantile(0.975, stats.batch_count(series.shape[1]) - 1)
    held = [abs(np.median(one)) <= reach * stats.median_error(one) for one in series]
    return float(np.mean(held))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=4000, help="series of each kind (default: 4000)")
    given = parser.parse_args()
    print(f"| samples | {' | '.join(f'φ = {phi:g}' for phi in CORRELATIONS)} |")
    print(f"|---:|{'---:|' * len(CORRELATIONS)}")
    for count in COUNTS:
        cells = []
        for phi in CORRELATIONS:
            series = ar1(np.random.default_rng(7), (given.series, count), phi)
            with patch.object(stats, "_variance_of_mean", lambda _: 0.0):
                alone = coverage(series)
            cells.append(f"{coverage(series):.0%} ({alone:.0%})")
        print(f"| {count} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
