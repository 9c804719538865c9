"""Latency modes on a GPU: each one works, is called what it is, and never hangs."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from networks import INT64, model, node, weights

from pytest_trt.backends import BuildOptions, BuildRequest
from pytest_trt.backends.buffers import DeviceBuffer
from pytest_trt.backends.cuda import Stream
from pytest_trt.backends.hold import Hold
from pytest_trt.latency.modes import prior_of
from pytest_trt.latency.priors import PRIORS
from pytest_trt.latency.timer import sample
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import PRECISIONS
from pytest_trt.spec.shapes import Profile, ShapeRange

pytestmark = pytest.mark.gpu

X = np.random.default_rng(3).standard_normal((8, 256)).astype(np.float32)


def load(backend, proto, name):
    profile = Profile("p", {"x": ShapeRange((1, 256), (8, 256), (64, 256))})
    request = BuildRequest(Model.from_proto(proto, name), PRECISIONS["fp32"], profile, BuildOptions(opt_level=1))
    session = backend.load(backend.build(request).plan, request)
    session.stage({"x": X})
    return session


@pytest.fixture(scope="module")
def session(backend):
    nodes = [node("Gemm", ["x", "w"], ["h"], name="gemm"), node("Relu", ["h"], ["y"], name="relu")]
    with load(
        backend, model(nodes, {"x": ["N", 256]}, {"y": ["N", 256]}, {"w": weights(1, 256, 256)}), "gemm"
    ) as found:
        yield found


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("graph", {}),
        ("queued", {}),
        ("isolated", {}),
        ("isolated", {"l2_flush": True}),
        ("throughput", {}),
        ("throughput", {"streams": 3}),
    ],
    ids=str,
)
def test_every_mode_gives_samples(session, mode, options):
    before = session.run({"x": X})["y"]
    clock = session.clock(mode, **options)
    taken = sample(session.launch, clock, warmup_seconds=0.05, duration_seconds=0.2)

    assert (taken.values_ms > 0).all()
    assert prior_of(taken.clock) in PRIORS
    assert taken.conditions["host_wait"] in ("auto", "spin", "yield", "blocking")
    np.testing.assert_array_equal(session.run({"x": X})["y"], before)


def test_graphs_are_held_on_a_driver_that_can(session):
    clock = session.clock("isolated")
    assert ("held" in clock.name) != ("launch gaps count" in clock.note)
    assert (clock.time(session.launch, 200) > 0).all()


def test_a_launch_that_waits_for_a_held_stream_is_freed(session):
    stream, memory = Stream(), DeviceBuffer()
    memory.reserve(4096)
    hold = Hold(stream, limit_s=0.2)
    with hold:
        memory.clear(stream)
        stream.synchronize()  # for ever, were it not for the limit
    assert hold.expired
    with hold:
        memory.clear(stream)
    stream.synchronize()
    assert not hold.expired
    hold.close()
    memory.close()
    stream.close()


def test_the_parts_of_queued_add_up(session):
    clock = session.clock("queued")
    clock.time(session.launch, 100)
    parts = clock.parts

    assert all(part.shape == (100,) for part in parts.values())
    assert ((parts["h2d_ms"] > 0) & (parts["d2h_ms"] > 0)).all() == ("transfers" in clock.name)
    np.testing.assert_allclose(parts["latency_ms"], parts["h2d_ms"] + parts["gpu_ms"] + parts["d2h_ms"])
    assert (parts["enqueue_ms"] > 0).all()


def test_shapes_that_depend_on_the_data_are_never_held(backend):
    proto = model([node("NonZero", ["x"], ["y"], name="nz")], {"x": ["N", 256]}, {"y": (INT64, [2, None])})
    with load(backend, proto, "nonzero") as dependent:
        for mode in ("isolated", "queued", "throughput"):
            clock = dependent.clock(mode)
            assert (clock.time(dependent.launch, 5) > 0).all()
            assert "held" not in clock.name


COMPUTES = """
import sys
from pytest_trt.backends.buffers import DeviceBuffer
memory = DeviceBuffer()
memory.reserve(1 << 20)
print("here", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(importlib.util.find_spec("pynvml") is None, reason="nvidia-ml-py is not installed")
def test_another_process_on_the_device_is_seen(session):
    clock = session.clock()
    alone = clock.conditions().get("other_processes")
    if alone is None:
        pytest.skip("this driver does not list processes")
    with subprocess.Popen([sys.executable, "-c", COMPUTES], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"here\n"
        found = clock.conditions()["other_processes"]
        other.communicate()
    assert found == alone + 1
