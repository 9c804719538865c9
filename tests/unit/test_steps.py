from __future__ import annotations

from types import SimpleNamespace

import pytest

from pytest_trt.backends import steps


def test_a_step_lasts_from_the_end_of_the_one_before(monkeypatch: pytest.MonkeyPatch):
    moments = iter([100.0, 100.5, 102.25])
    monkeypatch.setattr(steps, "time", SimpleNamespace(perf_counter=lambda: next(moments)))
    taken = steps.Steps()
    for name in ("parse", "build"):
        taken.done(name)

    assert taken.seconds == {"parse": 0.5, "build": 1.75}
