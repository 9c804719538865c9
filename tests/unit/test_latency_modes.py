"""Modes without a GPU: names and their priors, what speaks against samples, what host and device tell, refusals."""

from __future__ import annotations

import os
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from networks import conv_net

from pytest_trt.backends import BuildRequest, nvml
from pytest_trt.backends.fake import FakeBackend
from pytest_trt.backends.host_conditions import host_conditions
from pytest_trt.backends.onnxruntime import CpuBackend
from pytest_trt.errors import UnsupportedError, UsageError
from pytest_trt.latency import PRIORS, decide
from pytest_trt.latency.disturbances import disturbances
from pytest_trt.latency.modes import prior_of
from pytest_trt.latency.timer import sample
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import PRECISIONS
from pytest_trt.spec.shapes import Profile

FEEDS = {"x": np.ones((2, 3, 8, 8), np.float32)}


@pytest.fixture
def load():
    request = BuildRequest(
        Model.from_proto(conv_net(), "conv"), PRECISIONS["fp32"], Profile.fixed("b2", {"x": (2, 3, 8, 8)})
    )

    def make(backend):
        session = backend.load(backend.build(request).plan, request)
        session.stage(FEEDS)
        return session

    return make


@pytest.mark.parametrize(
    ("clock", "prior"),
    [
        *((name, name) for name in PRIORS),
        ("queued+graph", "graph"),
        ("queued+transfers+blocking", "sync"),
        ("isolated+graph+held", "sync"),
        ("throughput+streams=4+graph", "sync"),
        ("throughput+streams=4+host", "host"),
        ("simulated+isolated+l2-flush", "simulated"),
        ("throughput+streams=1+simulated", "simulated"),
    ],
)
def test_each_clock_has_a_prior(clock: str, prior: str):
    assert prior_of(clock) == prior
    assert decide(np.ones(30), np.ones(30), threshold=0.05, clock=prior_of(clock)).outcome


def test_an_unknown_clock_stays_unknown():
    assert prior_of("sundial+shade") == "sundial+shade"


# What speaks against samples


QUIET = {"sm_clock_mhz": 1980, "throttle_reasons": [], "other_processes": 0, "load_1min": 1.5, "cpus": 16}


@pytest.mark.parametrize(
    ("reading", "said"),
    [
        ({}, None),
        ({"other_processes": 2}, "2 other processes computed on this device"),
        ({"other_processes": [0, 1, 0]}, "1 other process computed on this device"),
        ({"other_processes": [None, None]}, None),
        ({"throttle_reasons": ["gpu_idle"]}, None),
        ({"throttle_reasons": ["sw_power_cap"]}, "the device held its clock back (sw_power_cap)"),
        (
            {"throttle_reasons": [[], ["hw_slowdown", "gpu_idle"], ["sw_power_cap"]]},
            "the device held its clock back (hw_slowdown, sw_power_cap)",
        ),
        ({"throttle_reasons": list("febdca")}, "the device held its clock back (a, b, c, d, e, f)"),
        ({"sm_clock_mhz": [1980, 1890, 1980]}, None),
        ({"sm_clock_mhz": [1980, 1880, 1980]}, "the SM clock moved between 1880 and 1980 MHz"),
        ({"load_1min": [3.0, 17.5]}, "the host was busy (load 17.5 on 16 processors)"),
        ({"load_1min": 16.9}, None),
    ],
)
def test_disturbances(reading: dict, said: str | None):
    assert disturbances([QUIET, {**QUIET, **reading}]) == ([said] if said else [])
    assert disturbances([{}]) == []


def test_loads_at_different_clocks_are_a_disturbance():
    assert disturbances([QUIET, {**QUIET, "sm_clock_mhz": 1500}])


@pytest.mark.parametrize("gpu", [1.0, 20.0])
@pytest.mark.parametrize(("enqueue", "limited"), [(0.7, False), (0.9, True)])
def test_a_queue_that_the_host_limits(enqueue: float, limited: bool, gpu: float):
    parts = {"enqueue_ms": np.full(9, enqueue * gpu), "gpu_ms": np.full(9, gpu)}
    assert bool(disturbances([QUIET], parts)) is limited


# What host and device tell


def test_the_host_tells_its_load_and_its_frequency(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3}, raising=False)
    monkeypatch.setattr(os, "getloadavg", lambda: (1.234, 9.0, 9.0), raising=False)
    for cpu, khz in ((0, 2_000_000), (1, 9_000_000), (3, 3_000_000)):
        folder = tmp_path / f"cpu{cpu}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(f"{khz}\n")
        (folder / "scaling_governor").write_text("powersave\n")

    assert host_conditions(system=tmp_path, cpuinfo=tmp_path / "none") == {
        "load_1min": 1.23,
        "cpus": 2,
        "cpu_mhz": 2500,
        "cpu_governor": "powersave",
    }


def test_the_frequency_may_be_in_cpuinfo(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 2}, raising=False)
    lines = "".join(
        f"processor\t: {cpu}\nmodel\t: 85\ncpu MHz\t\t: {mhz}\n\n" for cpu, mhz in enumerate((9e3, 2500.1, 3500.2))
    )
    (tmp_path / "cpuinfo").write_text(lines)

    assert host_conditions(system=tmp_path, cpuinfo=tmp_path / "cpuinfo")["cpu_mhz"] == 3000


def test_a_host_that_tells_nothing(tmp_path, monkeypatch):
    def unknown():
        raise OSError

    monkeypatch.setattr(os, "getloadavg", unknown, raising=False)
    assert host_conditions(system=tmp_path, cpuinfo=tmp_path / "none").keys() == {"cpus"}


class NVMLError(Exception):
    pass


@pytest.fixture
def gpu(monkeypatch):
    """NVML with one device; ``pids`` are what computes on it, ``fails`` the calls that it lacks."""
    module = ModuleType("pynvml")
    module.pids, module.fails = [os.getpid()], set()
    module.NVMLError, module.NVML_CLOCK_SM, module.NVML_TEMPERATURE_GPU = NVMLError, 1, 0

    def answer(name, value):
        def call(*arguments):
            if name in module.fails:
                raise NVMLError
            return value()

        setattr(module, name, call)

    answer("nvmlInit", lambda: None)
    answer("nvmlDeviceGetHandleByPciBusId", object)
    answer("nvmlDeviceGetClockInfo", lambda: 1980)
    answer("nvmlDeviceGetPowerUsage", lambda: 123_456)
    answer("nvmlDeviceGetTemperature", lambda: 41)
    answer("nvmlDeviceGetCurrentClocksThrottleReasons", lambda: 0x5)
    answer("nvmlDeviceGetComputeRunningProcesses", lambda: [SimpleNamespace(pid=pid) for pid in module.pids])
    monkeypatch.setitem(sys.modules, "pynvml", module)
    nvml._device.cache_clear()
    yield module
    nvml._device.cache_clear()


def test_readings_of_a_device(gpu):
    assert nvml.device_conditions("0000:01:00.0") == {
        "sm_clock_mhz": 1980,
        "power_w": 123.5,
        "temperature_c": 41,
        "throttle_reasons": ["gpu_idle", "sw_power_cap"],
        "other_processes": 0,
    }


@pytest.mark.parametrize(
    ("pids", "others"),
    [
        ([os.getpid()], 0),
        ([os.getpid(), 999_999_001], 1),
        ([999_999_001, 999_999_002], 1),  # we are one of them, under the host's number
        ([999_999_001], 0),
        ([], None),  # this one is there: it is the list that is missing
    ],
)
def test_other_processes_are_counted_without_this_one(gpu, pids, others):
    gpu.pids = pids
    assert nvml.device_conditions("0000:01:00.0").get("other_processes") == others


@pytest.mark.parametrize(
    ("pids", "others"),
    [([os.getpid(), 999_999_001], 0), ([os.getpid(), 999_999_001, 3], 1), ([7, 8], 0), ([7, 8, 9], 1)],
)
def test_a_process_that_only_waits_is_not_counted(gpu, monkeypatch, pids, others):
    monkeypatch.setattr(nvml, "_idle", set())
    nvml.disregard(999_999_001)
    gpu.pids = pids
    assert nvml.device_conditions("0000:01:00.0")["other_processes"] == others


def test_a_driver_without_the_list_of_processes(gpu):
    gpu.fails.add("nvmlDeviceGetComputeRunningProcesses")
    found = nvml.device_conditions("0000:01:00.0")
    assert "other_processes" not in found
    assert found["sm_clock_mhz"] == 1980


# Sessions without a GPU


@pytest.mark.parametrize("mode", ["graph", "isolated"])
def test_on_the_cpu_every_launch_is_isolated(load, mode):
    session = load(CpuBackend())
    clock = session.clock(mode)
    taken = sample(session.launch, clock, warmup_seconds=0.0, duration_seconds=0.0)

    assert taken.clock == "host"
    assert (taken.values_ms > 0).all()
    assert taken.conditions["cpus"] >= 1
    session.close()


def test_throughput_on_the_cpu(load):
    session = load(CpuBackend())
    clock = session.clock("throughput", streams=2)
    times = clock.time(session.launch, 2)

    assert clock.name == "throughput+streams=2+host"
    assert times.shape == (2,)
    assert (times > 0).all()
    assert clock.conditions()["cpus"] >= 1
    clock.close()
    clock.close()
    session.launch()  # the session is not closed with its clock
    session.close()


def test_what_the_cpu_has_not(load):
    session = load(CpuBackend())
    with pytest.raises(UnsupportedError, match="onnxruntime-cpu has no latency mode 'queued'") as caught:
        session.clock("queued")
    assert "graph, isolated, throughput" in caught.value.hint
    with pytest.raises(UnsupportedError, match="onnxruntime-cpu has no L2 cache to flush"):
        session.clock("isolated", l2_flush=True)
    with pytest.raises(UsageError, match="unknown latency mode"):
        session.clock("fast")
    session.close()


def test_invented_durations_are_named_by_their_mode(load):
    session = load(FakeBackend())
    session.stage(FEEDS)
    names = [session.clock(mode).name for mode in ("graph", "queued", "isolated", "throughput")]

    assert names == ["simulated", "simulated+queued", "simulated+isolated", "throughput+streams=1+simulated"]
    assert session.clock("isolated", l2_flush=True).name == "simulated+isolated+l2-flush"
    one, four = (session.clock("throughput", streams=n).time(session.launch, 1)[0] for n in (1, 4))
    mean_ms = session.clock().time(session.launch, 100).mean()
    assert one == pytest.approx(mean_ms, rel=0.01)
    assert four == pytest.approx(mean_ms / 4, rel=0.01)
    with pytest.raises(UsageError):
        session.clock("queued", l2_flush=True)
