"""The clock of sessions whose launches are synchronous."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pytest_trt.backends import Milliseconds

__all__ = ["HostClock"]


class HostClock:
    """``time.perf_counter_ns`` around each launch, which must be synchronous."""

    name = "host"

    def time(self, launch: Callable[[], None], count: int) -> Milliseconds:
        samples = np.empty(count, dtype=np.float64)
        for index in range(count):
            started = time.perf_counter_ns()
            launch()
            samples[index] = time.perf_counter_ns() - started
        return samples / 1e6

    def conditions(self) -> dict[str, Any]:
        return {"load_1min": round(os.getloadavg()[0], 2)} if hasattr(os, "getloadavg") else {}
