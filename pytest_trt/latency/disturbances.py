"""What speaks against a measurement: a device that was not alone, or not at its clock. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["disturbances"]

# An idle device saves power; the others are somebody's wish and hold for every measurement.
_HARMLESS = {"gpu_idle", "applications_clocks_setting", "sync_boost", "display_clock_setting"}
_CLOCK_SPREAD = 0.05
# trtexec warns from here on.
_ENQUEUE_SHARE = 0.8


def disturbances(
    conditions: Sequence[Mapping[str, Any]], parts_ms: Mapping[str, Sequence[float] | NDArray[np.float64]] | None = None
) -> list[str]:
    """One sentence for each reason to doubt samples that were taken under *conditions*, one mapping per load.

    *conditions* hold a value where a reading stayed the same, a list of readings where it did not, as
    ``Samples.conditions``. *parts_ms* are the times that a clock of mode ``queued`` tells apart.
    """
    found = []
    others = max((int(value) for value in _readings(conditions, "other_processes")), default=0)
    if others:
        found.append(f"{others} other process{'es' * (others > 1)} computed on this device")
    reasons = {name for names in _readings(conditions, "throttle_reasons") for name in names} - _HARMLESS
    if reasons:
        found.append(f"the device held its clock back ({', '.join(sorted(reasons))})")
    clocks = list(_readings(conditions, "sm_clock_mhz"))
    if clocks and max(clocks) > min(clocks) * (1 + _CLOCK_SPREAD):
        found.append(f"the SM clock moved between {min(clocks)} and {max(clocks)} MHz")
    load = max((float(value) for value in _readings(conditions, "load_1min")), default=0.0)
    cpus = max((int(value) for value in _readings(conditions, "cpus")), default=0)
    if cpus and load > cpus + 1:  # the measurement itself is one
        found.append(f"the host was busy (load {load:g} on {cpus} processors)")
    if parts_ms:
        enqueue, gpu = (float(np.median(parts_ms[name])) for name in ("enqueue_ms", "gpu_ms"))
        if enqueue > _ENQUEUE_SHARE * gpu:
            found.append(f"the host limits it: enqueueing takes {enqueue:.3g} ms of {gpu:.3g} ms GPU compute")
    return found


def _readings(conditions: Sequence[Mapping[str, Any]], name: str) -> Iterator[Any]:
    """All readings called *name*. Throttle reasons are a list already: several readings are a list of lists."""
    for one in conditions:
        value = one.get(name)
        several = isinstance(value, list) and (name != "throttle_reasons" or any(isinstance(v, list) for v in value))
        readings: list[Any] = list(value or ()) if several else [value]
        yield from (reading for reading in readings if reading is not None)
