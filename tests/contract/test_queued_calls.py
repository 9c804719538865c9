"""The mode ``queued`` makes the calls of the bare loop that the benchmark holds it against, in the same order."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from test_clocks_session import cuda, load, trt  # noqa: F401 - fixtures

from pytest_trt.backends.tensorrt.versions.trtexec import queue_defaults

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


class Calls:
    """The CUDA calls that were made, their handles by the order in which they first came."""

    def __init__(self, device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[tuple[Any, ...]] = []
        names = {"cudaEventRecord", "cudaMemcpyAsync", "cudaStreamWaitEvent", "cudaEventSynchronize", "cudaGraphLaunch"}
        for name in (*names, "cudaEventElapsedTime"):
            monkeypatch.setattr(device, name, self._noting(name, getattr(device, name)), raising=False)

    def take(self) -> list[tuple[Any, ...]]:
        seen: dict[Any, int] = {}
        taken, self.made = self.made, []
        return [
            (name, *(seen.setdefault(id(x), len(seen)) if hasattr(x, "number") else x for x in rest))
            for name, *rest in taken
        ]

    def _noting(self, name: str, function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            self.made.append((name, *arguments))
            return function(*arguments)

        return call


def test_the_calls_are_those_of_a_bare_loop(trt, cuda, monkeypatch):  # noqa: F811
    monkeypatch.syspath_prepend(BENCHMARKS)
    event_loop = __import__("event_loop")
    monkeypatch.delitem(sys.modules, "event_loop")
    how = queue_defaults(trt)
    with load() as session:
        clock = session.clock("queued")
        loop = event_loop.loop_beside(session, how)
        calls = Calls(cuda, monkeypatch)
        clock.time(session.launch, 3)
        ours = calls.take()
        loop.time(3)
        bare = calls.take()
        loop.close()

    assert len(ours) > 20 if how.transfers else len(ours) > 10
    assert ours == bare
