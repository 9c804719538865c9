"""What an exclusion costs: the latency of a case with some nodes in float32, against that without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["LatencyCost"]


@dataclass(frozen=True)
class LatencyCost:
    """``ratio`` is with / without exclusions, ``low`` … ``high`` its 95 % interval; both sides took turns on one clock,
    over ``rounds`` loads of each. ``simulated`` says why these times are not those of the precision; else empty."""

    before_ms: float
    after_ms: float
    ratio: float
    low: float
    high: float
    clock: str
    rounds: int
    simulated: str = ""

    def to_json(self) -> dict[str, Any]:
        figures = ("before_ms", "after_ms", "ratio", "low", "high")
        return {
            **{name: float(f"{getattr(self, name):.5g}") for name in figures},
            "clock": self.clock,
            "rounds": self.rounds,
            "simulated": self.simulated,
        }
