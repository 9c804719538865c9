"""The records so far, on disk while a session runs: what is left of one that was killed."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_trt.record import Record

__all__ = ["PartialReport"]

# Writing all records again after each case must cost a long session nothing that it would notice.
_SHARE_OF_TIME = 0.02


class PartialReport:
    """``report.json.partial`` beside *report*, which appears at the end of a session only: a job that runs out of time
    ends without one. It has another name, so that nothing takes half of the cases for all of them."""

    def __init__(self, report: Path, root: Path) -> None:
        self.path = report.with_name(report.name + ".partial")
        self._root = root
        self._not_before = 0.0

    def keep(self, records: Sequence[Record]) -> None:
        """Write *records*, unless the last time was a moment ago. Where nothing can be written, the report at the end
        says so."""
        from pytest_trt.errors import UsageError
        from pytest_trt.record import merge_records
        from pytest_trt.report.export import write_report

        started = time.monotonic()
        if started < self._not_before:
            return
        fresh = self.path.with_name(self.path.name + ".tmp")
        try:
            write_report(fresh, merge_records(records), self._root)
        except UsageError:
            self._not_before = math.inf
            return
        fresh.replace(self.path)
        ended = time.monotonic()
        self._not_before = ended + (ended - started) / _SHARE_OF_TIME

    def remove(self) -> None:
        """The report is there: this one has nothing more to say."""
        self.path.unlink(missing_ok=True)
