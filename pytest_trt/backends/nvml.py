"""NVML: what the device does at this moment. Optional: without nvidia-ml-py there are no readings."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

__all__ = ["device_conditions", "disregard"]

# NVML's bits for why a clock is lower than it could be; ``gpu_idle`` is no reason to distrust a sample.
_REASONS = {
    0x1: "gpu_idle",
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}


def device_conditions(bus_id: str) -> dict[str, Any]:
    """Read ``sm_clock_mhz``, ``power_w``, ``temperature_c``, ``throttle_reasons`` and ``other_processes`` of a device.

    ``other_processes`` is the number of processes besides this one that compute there; this one must use the device,
    so that an empty list of processes is no list. *bus_id* is the device's PCI bus id, since NVML numbers devices in
    another order than CUDA does. A reading that this device does not give is left out; all are when nvidia-ml-py or the
    driver is missing.
    """
    try:
        import pynvml
    except ImportError:
        return {}
    try:
        device = _device(bus_id)
    except pynvml.NVMLError:
        return {}
    # Renamed in CUDA 12.2; older drivers know only the first name.
    reasons = getattr(
        pynvml, "nvmlDeviceGetCurrentClocksEventReasons", pynvml.nvmlDeviceGetCurrentClocksThrottleReasons
    )
    readings: dict[str, Callable[[], Any]] = {
        "sm_clock_mhz": lambda: int(pynvml.nvmlDeviceGetClockInfo(device, pynvml.NVML_CLOCK_SM)),
        "power_w": lambda: round(pynvml.nvmlDeviceGetPowerUsage(device) / 1000, 1),
        "temperature_c": lambda: int(pynvml.nvmlDeviceGetTemperature(device, pynvml.NVML_TEMPERATURE_GPU)),
        "throttle_reasons": lambda: [name for bit, name in _REASONS.items() if int(reasons(device)) & bit],
        "other_processes": lambda: _others([int(p.pid) for p in pynvml.nvmlDeviceGetComputeRunningProcesses(device)]),
    }
    found = {}
    for name, read in readings.items():
        try:
            value = read()
        except pynvml.NVMLError:
            continue
        if value is not None:
            found[name] = value
    return found


def disregard(pid: int) -> None:
    """Do not count the process *pid* from here on: it holds the device's memory, and computes nothing."""
    _idle.add(pid)


_idle: set[int] = set()


def _others(pids: list[int]) -> int | None:
    """How many of *pids* are not us; None where there is none at all. NVML may number processes as the host does,
    where a container knows itself by another number: then as many of them are taken for this one and those to be
    disregarded."""
    if not pids:
        return None
    ours = {os.getpid(), *_idle}
    return len(set(pids) - ours) if os.getpid() in pids else max(0, len(pids) - len(ours))


@functools.lru_cache(maxsize=16)
def _device(bus_id: str) -> Any:
    # NVML counts its users and stays initialized with the process: opening it takes milliseconds each time.
    import pynvml

    pynvml.nvmlInit()
    return pynvml.nvmlDeviceGetHandleByPciBusId(bus_id.encode())
