"""Where the time of a build goes."""

from __future__ import annotations

import time

__all__ = ["Steps"]


class Steps:
    """Seconds between one step's end and the next one's, by the step's name; the first begins when this is made."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def done(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self._last = round(now - self._last, 4), now
