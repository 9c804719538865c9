"""The baselines whose case is gone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_trt.baselines.entries import median_ms
from pytest_trt.errors import BaselineError
from pytest_trt.record import Record

if TYPE_CHECKING:
    from pytest_trt.lab import Lab
    from pytest_trt.spec.case import Case

__all__ = ["orphans"]


def orphans(lab: Lab, cases: Sequence[Case]) -> list[Record]:
    """A record for each baseline whose case is gone, given all *cases* of one model; none where the command line chose
    among its profiles."""
    if lab.settings.profile:
        return []
    records = []
    for backend in dict.fromkeys(case.backend for case in cases):
        environment = lab.environment(backend)
        beside = [case for case in cases if case.backend == backend]
        with suppress(BaselineError):  # a file that cannot be read: the cases say so
            for gone, entry in lab.baselines.orphans(beside, environment):
                found = {"state": "orphaned", "median_ms": median_ms(entry)}
                records.append(Record(gone, environment=environment.to_json(), baseline=found))
    return records
