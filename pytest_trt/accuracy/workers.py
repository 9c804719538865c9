"""Work that is spread over threads and comes back in order. NumPy lets go of the interpreter while it computes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import TypeVar

__all__ = ["MAX_THREADS", "available", "in_order"]

Result = TypeVar("Result")

# More would wait for each other: between two operations a thread needs the interpreter. It bounds the buffers too.
MAX_THREADS = 4


def available() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_order(jobs: int, worker: Callable[[], Callable[[int], Result]]) -> list[Result]:
    """Return ``[do(0), do(1), …, do(jobs - 1)]``, computed by as many threads as there are processors and jobs.

    Every thread calls *worker* once for its own ``do``, so what that holds on to is never shared. Which thread
    does which job is left to chance; the list is not. The first error of a job is raised.
    """
    waiting = deque(range(jobs))
    results: dict[int, Result] = {}

    def run() -> None:
        do = worker()
        while waiting:
            try:
                job = waiting.popleft()
            except IndexError:  # another thread was faster
                return
            results[job] = do(job)

    threads = min(available(), jobs, MAX_THREADS)
    if threads <= 1:
        run()
    else:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(threads - 1, "pytest-trt-compare") as pool:
            others = [pool.submit(run) for _ in range(threads - 1)]
            try:
                run()
            finally:
                waiting.clear()
            for other in others:
                other.result()
    return [results[job] for job in range(jobs)]
