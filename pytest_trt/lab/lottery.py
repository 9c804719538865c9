"""The build lottery: the same request, built several times from nothing. How far apart are the engines?"""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median
from typing import TYPE_CHECKING, Any

from pytest_trt.baselines.tactic_lock import share_of_equal
from pytest_trt.errors import AccuracyFailure
from pytest_trt.record import Record
from pytest_trt.spec.case import Case

if TYPE_CHECKING:
    from pytest_trt.backends import Built, Session
    from pytest_trt.lab.workshop import Workshop

__all__ = ["distance", "draw", "same"]

# Loads of one plan differ as well: the engines are measured in turn, this often each.
_ROUNDS = 3


def draw(lab: Workshop, case: Case, record: Record, reproduce: str) -> None:
    """Build *case* ``settings.builds`` times, without engine cache and without timing cache; fill ``record.builds``.

    Raises AccuracyFailure when an engine's outputs are not close to the reference, BuildError.
    """
    import hashlib

    count = lab.settings.builds
    lab.close()
    built = []
    for number in range(count):
        lab.progress(f"build {number + 1} of {count}: {case.id}")
        built.append(lab.build(case))
    backend, request = lab.backend(case.backend), lab.request(case)
    samples, expected, _ = lab.expected(case, lab.profile(case).at("opt"), lab.settings.samples)
    with ExitStack() as stack, lab.device_lock(case.backend):
        sessions: list[Session] = []
        for one in built:
            sessions.append(backend.load(one.plan, request))
            stack.callback(sessions[-1].close)
        outputs = [[s.cut(session.run(s.feeds)) for s in samples] for session in sessions]
        medians = _measure(lab, sessions, samples[0].feeds)
    wrong = [
        number
        for number, found in enumerate(outputs)
        if not all(
            lab.judge(case, actual, sample, stored).ok
            for actual, sample, stored in zip(found, samples, expected, strict=True)
        )
    ]
    record.builds = {
        "count": count,
        "plans": [hashlib.sha256(one.plan).hexdigest()[:16] for one in built],
        "plan_bytes": [len(one.plan) for one in built],
        "build_seconds": [one.facts.get("build_seconds") for one in built],
        "medians_ms": [float(f"{value:.5g}") for value in medians],
        "spread": round(max(medians) / min(medians) - 1, 5),
        "equal_outputs": all(same(outputs[0], other) for other in outputs[1:]),
        "max_abs": max((distance(outputs[0], other) for other in outputs[1:]), default=0.0),
        "equal_tactics": _equal_tactics(built),
        "wrong": wrong,
        "simulated": record.simulated,
    }
    if wrong:
        raise AccuracyFailure(
            f"{case}: {len(wrong)} of {count} builds are not close to the reference",
            f"builds       {', '.join(str(number + 1) for number in wrong)}\n\n{reproduce}",
        )


def _measure(lab: Workshop, sessions: list[Session], feeds: Any) -> list[float]:
    from pytest_trt.latency.timer import sample

    settings = lab.settings
    times: list[list[float]] = [[] for _ in sessions]
    for session in sessions:
        session.stage(feeds)
    for number in range(_ROUNDS):
        for taken, session in zip(times, sessions, strict=True):
            found = sample(
                session.launch,
                session.clock(settings.latency_mode, l2_flush=settings.l2_flush, streams=settings.streams),
                warmup_seconds=settings.warmup if number == 0 else settings.warmup / 4,
                duration_seconds=settings.duration / _ROUNDS,
                interval=settings.interval,
            )
            taken.append(float(median(found.values_ms)))
    return [median(taken) for taken in times]


def same(left: list[dict[str, Any]], right: list[dict[str, Any]]) -> bool:
    """Whether two engines gave the same outputs, bit for bit; an entry for each sample."""
    return all(a[name].tobytes() == b[name].tobytes() for a, b in zip(left, right, strict=True) for name in a)


def distance(left: list[dict[str, Any]], right: list[dict[str, Any]]) -> float:
    """The largest absolute difference between the outputs of two engines; an entry for each sample."""
    from pytest_trt.accuracy.measurement import measure

    found = (
        measure(a[name], b[name], rtol=None, atol=None).max_abs for a, b in zip(left, right, strict=True) for name in a
    )
    return max((peak.value for peak in found if peak is not None), default=0.0)


def _equal_tactics(built: list[Built]) -> float | None:
    """The share of layers whose tactic is the same in all builds, or None where tactics are not visible."""
    first, *others = [{"layers": one.facts.get("tactics") or {}} for one in built]
    shares = [share_of_equal(first, other) for other in others]
    return None if None in shares else min(share for share in shares if share is not None)
