"""Faults: what the fake backend can be told to inject, by name.

They stand apart from the backend, because ``--trt-fake`` is read here and carried out there.

``error`` (relative error added to every float output), ``latency`` (factor on every sample of engines built so),
``noise`` (relative spread of samples), ``fp32`` (1: the build silently ignores the precision), ``build`` (1: the build
fails), ``hang`` (seconds that the build takes longer), ``crash`` (1: the build dies of SIGSEGV, in a process of its
own), ``log`` (1: the builder logs), ``reformats`` (so many layers that only move data), ``tactic`` (another number:
other tactics), ``lottery`` (1: each build is another plan, with another latency), ``unstable`` (so many last bits from
run to run), ``race`` (1: outputs of several contexts differ), ``fusion`` (relative error of what node number ``at``,
the last one by default, makes; not at optimization level 0), ``shy`` (1: that error vanishes where its tensor is marked
as an output), ``debug`` (1: inner tensors can be looked at without that).
"""

from __future__ import annotations

from pytest_trt.errors import UsageError, nearest

__all__ = ["parse_faults"]

_FAULTS = {
    "error": 0.0,
    "latency": 1.0,
    "noise": 0.002,
    "fp32": 0.0,
    "build": 0.0,
    "hang": 0.0,
    "crash": 0.0,
    "log": 0.0,
    "reformats": 0.0,
    "tactic": 0.0,
    "lottery": 0.0,
    "unstable": 0.0,
    "race": 0.0,
    "fusion": 0.0,
    "at": -1.0,
    "shy": 0.0,
    "debug": 0.0,
}
_LONGEST_HANG_S = 86400.0


def parse_faults(injected: str | None) -> dict[str, float]:
    """The value of every fault: what *injected* gives (``"latency=1.5,error=0.1"``), the harmless one for the others.

    Raises UsageError for a name that is no fault and for a value that is no number, or no bearable one.
    """
    faults = dict(_FAULTS)
    for part in (injected or "").split(","):
        if not part.strip():
            continue
        name, _, value = part.strip().partition("=")
        if name not in _FAULTS:
            raise UsageError(f"--trt-fake: unknown fault {name!r}", hint=nearest(name, _FAULTS))
        try:
            faults[name] = float(value)
        except ValueError as error:
            raise UsageError(f"--trt-fake: {name}={value!r} is not a number") from error
    if not 0 <= faults["hang"] <= _LONGEST_HANG_S:
        raise UsageError(f"--trt-fake: hang={faults['hang']:g} is not within 0 and {_LONGEST_HANG_S:g} s")
    return faults
