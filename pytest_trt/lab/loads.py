"""Loads: one engine is loaded several times and sampled each time, because loads of one plan differ.

Apart from ``Lab``, because here stands how samples are taken, and there what is made of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_trt.backends import Session
    from pytest_trt.lab import Lab
    from pytest_trt.latency.timer import Samples
    from pytest_trt.spec.case import Case

__all__ = ["sample_loads"]


def sample_loads(lab: Lab, case: Case, session: Session) -> tuple[list[Samples], dict[str, float], str]:
    """The samples of each load at the opt shapes, beginning with *session*, the transfers in ms, and the clock's note.
    The device is locked meanwhile."""
    from pytest_trt.latency.timer import sample

    settings = lab.settings
    feeds = lab.samples(case, lab.profile(case).at("opt"), 1)[0][0].feeds
    taken = []
    with lab.device_lock(case.backend):
        for load in range(settings.loads):
            if load:
                session = lab.reload(case)
            session.stage(feeds)
            clock = session.clock(settings.latency_mode, l2_flush=settings.l2_flush, streams=settings.streams)
            found = sample(
                session.launch,
                clock,
                # The device is warm after the first load; the others only need their own first launches done.
                warmup_seconds=settings.warmup / (4 if load else 1),
                duration_seconds=settings.duration / settings.loads,
                interval=settings.interval,
            )
            taken.append(found)
        return taken, session.transfers_ms(feeds), getattr(clock, "note", "")
