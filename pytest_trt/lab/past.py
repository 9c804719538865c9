"""What the history says of a case that is about to be judged."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from pytest_trt.history.rows import Row
    from pytest_trt.lab import Lab
    from pytest_trt.spec.case import Case

__all__ = ["Past"]

_read: WeakKeyDictionary[Lab, list[Row]] = WeakKeyDictionary()  # a run writes its own rows when all is judged


class Past:
    """The runs in the folder that ``--trt-history`` names; none without one, and of the fake backend, whose times are
    invented. Lines that are no rows are passed over: ``pytest-trt history`` tells of them."""

    def __init__(self, lab: Lab, case: Case, clock: str) -> None:
        self._lab, self._case, self._clock = lab, case, clock

    def medians_of_plan(self, plan: str) -> list[float]:
        """Of the case and the clock, in ms."""
        from pytest_trt.history.noise import medians_of_plan

        return medians_of_plan(self._rows, self._case.id, plan, self._clock, self._environment)

    def ratios_of_equals(self, loads: int) -> list[float]:
        """Of any case, by this clock."""
        from pytest_trt.history.noise import ratios_of_equals

        return ratios_of_equals(self._rows, self._clock, self._environment, loads)

    @cached_property
    def _rows(self) -> list[Row]:
        from pytest_trt.history.log import HistoryLog
        from pytest_trt.latency.modes import prior_of

        folder = self._lab.settings.history
        if folder is None or prior_of(self._clock) == "simulated":
            return []
        if self._lab not in _read:
            _read[self._lab] = HistoryLog(folder).read()[0]
        return _read[self._lab]

    @cached_property
    def _environment(self) -> dict[str, object]:
        return self._lab.environment(self._case.backend).to_json()
