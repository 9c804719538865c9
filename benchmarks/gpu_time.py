"""How much GPU time a measurement takes, as its own clocks see it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pytest_trt.lab import Lab

__all__ = ["CountedLab"]

_AHEAD = 256  # launches of the graph clock's block, before which one more goes ahead


class Counted:
    """*inner*, with its clocks counting the GPU time that they see into ``ms``."""

    def __init__(self, inner: Any, ms: list[float]) -> None:
        self._inner, self._ms = inner, ms

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def load(self, *arguments: Any) -> Counted:
        return Counted(self._inner.load(*arguments), self._ms)

    def clock(self, *arguments: Any, **options: Any) -> Counted:
        return Counted(self._inner.clock(*arguments, **options), self._ms)

    def time(self, launch: Callable[[], None], count: int) -> Any:
        values = self._inner.time(launch, count)
        ahead = math.ceil(count / _AHEAD) if self._inner.name == "graph" else 0
        self._ms.append(float(values.sum() + np.median(values) * ahead))
        return values


class CountedLab(Lab):
    """A lab whose engines count the GPU time that measuring them takes."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.ms: list[float] = []

    def backend(self, name: str) -> Any:
        return Counted(super().backend(name), self.ms)
