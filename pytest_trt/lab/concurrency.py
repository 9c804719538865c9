"""Several contexts on one engine at once: are the outputs those of one alone, and what is the throughput?"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pytest_trt.errors import EngineFailure
from pytest_trt.record import Record
from pytest_trt.spec.case import Case

if TYPE_CHECKING:
    from pytest_trt.backends import Outputs, Session
    from pytest_trt.lab.workshop import Workshop

__all__ = ["run_streams"]

# Each context runs this often while the others do: an overlap that corrupts memory rarely shows in the first run.
_ROUNDS = 5
# Runs of one context alone, to know whether the engine repeats itself at all.
_ALONE = 3


def run_streams(lab: Workshop, case: Case, record: Record, session: Session, reproduce: str) -> None:
    """Run *case* in ``settings.streams`` contexts and fill ``record.streams``.

    Raises EngineFailure when outputs differ from those of one context alone, bit for bit, although that one repeats
    itself; UnsupportedError where the backend has no second context.
    """
    from pytest_trt.backends.throughput import measure_throughput

    count, seconds = lab.settings.streams, lab.settings.duration
    feeds = lab.samples(case, lab.profile(case).at("opt"), 1)[0][0].feeds
    with ExitStack() as stack, lab.device_lock(case.backend):
        sessions = [session]
        for _ in range(count - 1):
            sessions.append(session.sibling())
            stack.callback(sessions[-1].close)
        alone = [session.run(feeds) for _ in range(_ALONE)]
        repeats = all(not _differences(alone[0], other) for other in alone[1:])
        with ThreadPoolExecutor(count) as pool:
            together = list(pool.map(lambda one: [one.run(feeds) for _ in range(_ROUNDS)], sessions))
        differing = {
            f"context {number}": found
            for number, runs in enumerate(together)
            for outputs in runs
            if (found := _differences(alone[0], outputs))
        }
        for one in sessions:
            one.stage(feeds)
        single = measure_throughput(sessions[:1], seconds)
        several = measure_throughput(sessions, seconds)
    batch = next((shape[0] for shape in lab.profile(case).at("opt").values() if shape), 1)
    record.streams = {
        "streams": count,
        "repeats": repeats,
        "identical": not differing,
        "differences": differing,
        "single": single,
        "several": several,
        "gain": round(several["per_second"] / single["per_second"], 4),
        "batch": batch,
        "simulated": record.simulated,
    }
    if differing and repeats:
        lines = [f"{name}: {', '.join(outputs)}" for name, outputs in differing.items()]
        raise EngineFailure(
            f"{case}: outputs of {count} contexts at once differ from those of one alone",
            "\n".join([*lines, "", reproduce]),
        )


def _differences(expected: Outputs, actual: Outputs) -> list[str]:
    """The names of outputs that are not the same, bit for bit."""
    return [name for name, array in expected.items() if array.tobytes() != actual[name].tobytes()]
