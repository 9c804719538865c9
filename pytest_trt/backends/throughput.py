"""How many launches a second several sessions of one engine do together, by the host's clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Barrier
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from pytest_trt.backends import Session

__all__ = ["Queue", "QueuedSession", "measure_throughput"]

# Enough that a stream never waits for the host, few enough that the last ones end soon after the time is up.
_DEPTH = 8
_SIMULATED_LAUNCHES = 100


class Queue(Protocol):
    """Launches on their way to a device."""

    def push(self) -> None:
        """Launch once; wait for the oldest launch first when too many are under way."""
        ...

    def drain(self) -> None:
        """Wait for all launches."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class QueuedSession(Protocol):
    """A Session whose launches only enqueue. One host thread then keeps several of them busy."""

    def queue(self, depth: int) -> Queue:
        """A queue of launches of what is staged, the cheapest there are; at most *depth* wait at once."""
        ...


def measure_throughput(
    sessions: Sequence[Session], seconds: float, *, now: Callable[[], float] = time.perf_counter
) -> dict[str, Any]:
    """Launch on all *sessions* at once for *seconds*; each must be staged, and used by nobody else meanwhile.

    Returns ``{"streams": 2, "launches": 5210, "seconds": 1.0002, "per_second": 5209.0, "clock": "graph"}``; clock as in
    ``Clock.name``: ``simulated`` is made up. Where launches only enqueue, the calling thread enqueues in turn and waits
    for the last; elsewhere each session launches in a thread of its own. Raises RunError as ``launch`` does.
    """
    clock = sessions[0].clock()
    if clock.name == "simulated":
        # No launch computes anything there: what the clock makes up is all that can be counted.
        launch_ms = clock.time(sessions[0].launch, _SIMULATED_LAUNCHES).mean()
        launches, elapsed = int(len(sessions) * seconds * 1e3 / launch_ms), seconds
    elif all(isinstance(session, QueuedSession) for session in sessions):
        queued = [session for session in sessions if isinstance(session, QueuedSession)]
        launches, elapsed = _in_turn(queued, seconds, now)
    else:
        launches, elapsed = _in_threads(sessions, seconds, now)
    return {
        "streams": len(sessions),
        "launches": launches,
        "seconds": elapsed,
        "per_second": launches / elapsed,
        "clock": clock.name,
    }


def _in_turn(sessions: Sequence[QueuedSession], seconds: float, now: Callable[[], float]) -> tuple[int, float]:
    with ExitStack() as stack:
        queues = []
        for session in sessions:
            queues.append(session.queue(_DEPTH))
            stack.callback(queues[-1].close)
        _round(queues)  # what happens once, happens before
        launches, started = 0, now()
        while launches == 0 or now() - started < seconds:
            for queue in queues:
                queue.push()
            launches += len(queues)
        for queue in queues:
            queue.drain()
        return launches, now() - started


def _round(queues: Sequence[Queue]) -> None:
    for queue in queues:
        queue.push()
    for queue in queues:
        queue.drain()


def _in_threads(sessions: Sequence[Session], seconds: float, now: Callable[[], float]) -> tuple[int, float]:
    for session in sessions:
        session.launch()  # what happens once, happens before
    starting = Barrier(len(sessions) + 1)

    def repeat(session: Session) -> int:
        starting.wait()
        started, done = now(), 0
        while done == 0 or now() - started < seconds:
            session.launch()
            done += 1
        return done

    with ThreadPoolExecutor(len(sessions)) as pool:
        running = [pool.submit(repeat, session) for session in sessions]
        starting.wait()
        started = now()
        launches = sum(one.result() for one in running)
        return launches, now() - started
