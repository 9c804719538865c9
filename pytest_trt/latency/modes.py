"""Names of clocks: what they measure, and which prior holds for them. Pure.

A clock's name is its mode and its traits: ``graph``, ``sync``, ``host``, ``queued+transfers+blocking``,
``isolated+graph+held``, ``throughput+streams=4+graph``. Only durations of one name are compared.
"""

from __future__ import annotations

__all__ = ["prior_of"]


def prior_of(clock: str) -> str:
    """The name in ``PRIORS`` of the noise to expect from *clock*; *clock* itself when it has another form.

    Graphs back to back, with one queued ahead, are what the prior of ``graph`` was recorded on. Of ``isolated`` and
    ``throughput`` nothing was recorded: they get the larger prior of their device.
    """
    mode, *traits = clock.split("+")
    for known in ("simulated", "host"):
        if known in (mode, *traits):
            return known
    if mode == "queued":
        return "graph" if "graph" in traits else "sync"
    return "sync" if mode in ("isolated", "throughput") else clock
