"""The clock of the fake backend: durations that nobody measured, and that say so."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pytest_trt.backends import Milliseconds

__all__ = ["SimulatedClock"]


class SimulatedClock:
    """Invented durations: between 0.5 and 2 ms by the plan's digest, log-normal noise, times the injected factor. The
    noise is another one in each *load* of a backend, and the same in every run."""

    name = "simulated"

    def __init__(self, seed: int, factor: float, noise: float, load: int = 1) -> None:
        self._base_ms = 0.5 * 4.0 ** float(np.random.default_rng(seed).random()) * factor
        self._rng = np.random.default_rng([seed, load])
        self._noise = noise

    def time(self, launch: Callable[[], None], count: int) -> Milliseconds:
        launch()
        samples: Milliseconds = self._base_ms * np.exp(self._noise * self._rng.standard_normal(count))
        return samples

    def conditions(self) -> dict[str, Any]:
        return {"simulated": True}
