"""What the host does at this moment: its load and the frequency of its processors. Read from the system's files."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any

__all__ = ["host_conditions"]

# A mean needs no more of them, and each file costs the kernel a look at that processor.
_MOST_CPUS = 8
_SYSTEM = Path("/sys/devices/system/cpu")
_CPUINFO = Path("/proc/cpuinfo")


def host_conditions(*, system: Path = _SYSTEM, cpuinfo: Path = _CPUINFO) -> dict[str, Any]:
    """Read ``load_1min``, ``cpus`` (that this process may use), ``cpu_mhz`` (their mean) and ``cpu_governor``.

    What this system does not tell is left out: virtual machines often have no frequency to show.
    """
    found: dict[str, Any] = {}
    if hasattr(os, "getloadavg"):
        with contextlib.suppress(OSError):  # the system may not know it
            found["load_1min"] = round(os.getloadavg()[0], 2)
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 0))
    if cpus:
        found["cpus"] = len(cpus)
    sampled = cpus[:_MOST_CPUS]
    mhz = [int(khz) / 1e3 for cpu in sampled if (khz := _read(system, cpu, "scaling_cur_freq")).isdigit()]
    mhz = mhz or _from_cpuinfo(cpuinfo, sampled)
    if mhz:
        found["cpu_mhz"] = round(sum(mhz) / len(mhz))
    governors = sorted({governor for cpu in sampled if (governor := _read(system, cpu, "scaling_governor"))})
    if governors:
        found["cpu_governor"] = "/".join(governors)
    return found


def _read(system: Path, cpu: int, name: str) -> str:
    try:
        return (system / f"cpu{cpu}" / "cpufreq" / name).read_text().strip()
    except OSError:
        return ""


def _from_cpuinfo(path: Path, cpus: list[int]) -> list[float]:
    try:
        text = path.read_text()
    except OSError:
        return []
    found, cpu = [], -1
    for name, value in re.findall(r"^(processor|cpu MHz)\s*:\s*([\d.]+)", text, re.MULTILINE):
        if name == "processor":
            cpu = int(value)
        elif cpu in cpus:
            found.append(float(value))
    return found
