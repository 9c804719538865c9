"""The mode ``throughput``: how long a launch takes when several streams are kept busy, batch by batch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.backends.throughput import measure_throughput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_trt.backends import Feeds, Session

__all__ = ["ThroughputClock"]

_BATCH_SECONDS = 0.02
# Nothing passes there, and a short batch would round the count of its launches.
_SIMULATED_BATCH_SECONDS = 1.0


class ThroughputClock:
    """Each sample is a batch: the host's time for it over the number of launches in it.

    *session* and *streams* - 1 siblings of it launch what is staged, *feeds*; after staging other inputs another clock
    is needed. ``close`` closes the siblings, not *session*. Raises UnsupportedError where there is no sibling.
    """

    def __init__(self, session: Session, feeds: Feeds, streams: int) -> None:
        self._sessions, self._resources = [session], ExitStack()
        with ExitStack() as stack:
            for _ in range(streams - 1):
                self._sessions.append(session.sibling())
                stack.callback(self._sessions[-1].close)
                self._sessions[-1].stage(feeds)
            self._base = session.clock()
            self._resources = stack.pop_all()
        self.name = f"throughput+streams={streams}+{self._base.name}"
        self.note = getattr(self._base, "note", "")
        self._seconds = _SIMULATED_BATCH_SECONDS if self._base.name == "simulated" else _BATCH_SECONDS

    def time(self, launch: Callable[[], None], count: int) -> NDArray[np.float64]:  # noqa: ARG002 - the sessions launch
        """Run *count* batches; return ms per launch in each, shape ``(count,)``. Raises RunError."""
        found = (measure_throughput(self._sessions, self._seconds)["per_second"] for _ in range(count))
        return np.array([1e3 / per_second for per_second in found], dtype=np.float64)

    def conditions(self) -> dict[str, Any]:
        return self._base.conditions()

    def close(self) -> None:
        """May be called twice."""
        self._resources.close()
