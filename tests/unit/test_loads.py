"""Loads of one engine: how many are sampled, what each is given, and that each is another one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from project import write_model

from pytest_trt.lab import Lab
from pytest_trt.lab.loads import sample_loads
from pytest_trt.latency import timer
from pytest_trt.settings import Settings

LOADS = 4


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    write_model(tmp_path / "tiny")
    settings = Settings(
        backend=("fake",), profile=("b8",), cache_dir=tmp_path / "cache", loads=LOADS, duration=0.4, warmup=0.08
    )
    with Lab(settings, tmp_path) as made:
        yield made


def test_the_record_says_how_many_there_were(lab: Lab):
    (case,) = lab.cases(lab.add("tiny"))
    record = lab.record(case)
    lab.measure(case, record)

    assert record.latency["summary"]["loads"] == LOADS


def test_each_is_another_session_and_only_the_first_warms_the_device(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    sessions: list[Any] = []
    seconds: list[tuple[float, float]] = []
    sample = timer.sample

    def noted(launch: Any, *arguments: Any, **options: Any) -> timer.Samples:
        sessions.append(launch.__self__)
        seconds.append((options["warmup_seconds"], options["duration_seconds"]))
        return sample(launch, *arguments, **options)

    monkeypatch.setattr(timer, "sample", noted)
    (case,) = lab.cases(lab.add("tiny"))
    taken, _, _ = sample_loads(lab, case, lab.engine(case)[1])

    assert len(taken) == len({id(session) for session in sessions}) == LOADS
    assert seconds == [(0.08, 0.1), *[(0.02, 0.1)] * (LOADS - 1)]
