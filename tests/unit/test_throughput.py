"""Counting launches of several sessions at once, where each launch is synchronous."""

from __future__ import annotations

import itertools
import threading

import pytest
from networks import conv_net

from pytest_trt.backends import BuildRequest
from pytest_trt.backends.fake import FakeBackend
from pytest_trt.backends.throughput import QueuedSession, measure_throughput
from pytest_trt.errors import RunError
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import PRECISIONS
from pytest_trt.spec.shapes import Profile


class HostClock:
    name = "host"


class SyncSession:
    """Notes in which thread it was launched; fails at the launch number *fails_at*."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.threads: list[int] = []
        self.fails_at = fails_at

    def clock(self) -> HostClock:
        return HostClock()

    def launch(self) -> None:
        self.threads.append(threading.get_ident())
        if len(self.threads) == self.fails_at:
            raise RunError("out of luck")


def test_each_session_launches_in_a_thread_of_its_own():
    sessions = [SyncSession() for _ in range(3)]
    found = measure_throughput(sessions, 0.02)
    assert found["streams"] == 3
    assert found["clock"] == "host"
    assert found["seconds"] >= 0.02
    assert found["launches"] == sum(len(one.threads) - 1 for one in sessions)  # the first one is not counted
    assert found["per_second"] == found["launches"] / found["seconds"]
    here = threading.get_ident()
    for one in sessions:
        assert one.threads[0] == here
        assert len(set(one.threads[1:])) == 1
    assert len({one.threads[-1] for one in sessions}) == 3
    assert here not in {one.threads[-1] for one in sessions}


def test_the_last_launch_counts_although_the_time_is_up():
    sessions = [SyncSession()]
    found = measure_throughput(sessions, 0.0)
    assert found["launches"] == 1


def test_threads_launch_until_the_time_is_up():
    ticks = itertools.count(1000.0)
    found = measure_throughput([SyncSession()], 5.0, now=lambda: next(ticks))
    assert 1 <= found["launches"] <= 5
    assert 5 <= found["seconds"] <= 10


@pytest.mark.parametrize("fails_at", [1, 5])
def test_a_failed_launch_is_raised(fails_at):
    with pytest.raises(RunError, match="out of luck"):
        measure_throughput([SyncSession(), SyncSession(fails_at)], 0.02)


class NotedQueue:
    def __init__(self, name: str, events: list[str]) -> None:
        self.name, self.events = name, events

    def push(self) -> None:
        self.events.append(f"push {self.name}")

    def drain(self) -> None:
        self.events.append(f"drain {self.name}")

    def close(self) -> None:
        self.events.append(f"close {self.name}")


class NotedSession(SyncSession):
    def __init__(self, name: str, events: list[str]) -> None:
        super().__init__()
        self.made = NotedQueue(name, events)

    def queue(self, depth: int) -> NotedQueue:
        assert depth > 1
        return self.made


def test_queues_are_fed_in_turn_and_drained_before_the_clock_is_read():
    events: list[str] = []

    def now() -> float:
        events.append("now")
        return float(events.count("now"))

    found = measure_throughput([NotedSession("a", events), NotedSession("b", events)], 2.0, now=now)
    turn = ["push a", "push b"]
    drained = ["drain a", "drain b"]
    assert events == [*turn, *drained, "now", *turn, "now", *turn, "now", *drained, "now", "close b", "close a"]
    assert found["launches"] == 4
    assert found["seconds"] == 3.0


def test_where_one_session_waits_for_each_launch_all_launch_in_threads():
    events: list[str] = []
    found = measure_throughput([NotedSession("a", events), SyncSession()], 0.0)
    assert (found["streams"], found["launches"], events) == (2, 2, [])


def test_queues_are_closed_when_a_launch_fails():
    events: list[str] = []
    broken = NotedSession("b", events)

    def fail() -> None:
        raise RunError("out of luck")

    broken.made.push = fail  # type: ignore[method-assign]
    with pytest.raises(RunError):
        measure_throughput([NotedSession("a", events), broken], 1.0)
    assert events == ["push a", "close b", "close a"]


def test_simulated_clocks_make_up_the_throughput(conv_request):
    backend = FakeBackend()
    session = backend.load(backend.build(conv_request).plan, conv_request)
    assert not isinstance(session, QueuedSession)
    one = measure_throughput([session], 2.0)
    two = measure_throughput([session, session.sibling()], 2.0)
    assert one["clock"] == two["clock"] == "simulated"
    assert one["seconds"] == 2.0
    mean_ms = session.clock().time(session.launch, 100).mean()
    assert one["per_second"] == pytest.approx(1e3 / mean_ms, rel=1e-3)
    assert two["per_second"] == pytest.approx(2 * one["per_second"], rel=1e-3)


@pytest.fixture
def conv_request() -> BuildRequest:
    model = Model.from_proto(conv_net(), "conv")
    return BuildRequest(model, PRECISIONS["fp32"], Profile.fixed("b2", {"x": (2, 3, 8, 8)}))
