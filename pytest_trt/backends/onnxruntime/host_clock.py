"""The clock of sessions whose launches are synchronous."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.backends.host_conditions import host_conditions

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
        """The load and the frequency of the host, see ``host_conditions``."""
        return host_conditions()
