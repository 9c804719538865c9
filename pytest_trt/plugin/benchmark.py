"""The bridge to pytest-benchmark: our samples in its table, its JSON, its saved runs and comparisons.

pytest-benchmark times a callable; ours are timed already, with a better clock. So its fixture runs an empty
callable under a timer that replays our samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_trt.record import Record

__all__ = ["feed"]


def feed(item: pytest.Item, record: Record) -> None:
    """Add *record*'s samples to pytest-benchmark's session. Does nothing where it is switched off (``-p
    no:benchmark``, ``--benchmark-disable``, xdist)."""
    session = getattr(item.config, "_benchmarksession", None)
    samples = (record.latency or {}).get("samples_ms")
    if session is None or session.disabled or session.skip or not samples:
        return
    from pytest_benchmark.fixture import BenchmarkFixture
    from pytest_benchmark.utils import NameWrapper

    options = {
        **session.options,
        "timer": NameWrapper(_replay(samples)),
        "group": record.case.model,
        "disable_gc": False,
    }
    fixture = BenchmarkFixture(
        item, add_stats=session.benchmarks.append, logger=session.logger, warner=item.warn, disabled=False, **options
    )
    fixture.name = record.case.id
    fixture.params = record.case.to_json()
    fixture.param = record.case.variant_id
    fixture.extra_info = {
        "clock": (record.latency or {})["clock"],
        "trt": record.environment,
        "simulated": record.simulated,
    }
    fixture.pedantic(lambda: None, rounds=len(samples))


def _replay(samples_ms: Iterable[float]) -> Callable[[], float]:
    """A timer whose readings, in pairs, differ by the samples, in seconds."""

    def readings() -> Iterable[float]:
        for sample in samples_ms:
            yield 0.0
            yield sample / 1e3
        while True:  # pedantic() may read once more after the last round
            yield 0.0

    iterator = iter(readings())
    return lambda: next(iterator)
