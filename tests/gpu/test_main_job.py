"""The main job on a real GPU: a trained model, real inputs, through the same Lab as everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_trt.lab import Lab
from pytest_trt.settings import Settings
from pytest_trt.spec.case import Axes

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parents[2]


@pytest.fixture
def lab(backend, tmp_path):
    settings = Settings.resolve(
        {
            "cache_dir": str(tmp_path / "cache"),
            # Another build is another engine: the recorded baselines would judge the lottery.
            "baselines": str(tmp_path / "baselines"),
            "backend": "tensorrt",
            "profile": "b8",
            "duration": "0.1",
        },
        {},
        {},
    )
    with Lab(settings, ROOT) as found:
        yield found


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "int8"])
def test_digits_are_right_and_run_in_what_was_asked(lab: Lab, precision: str) -> None:
    (case,) = lab.cases(lab.add("models/digits"), Axes(precisions=(precision,)))
    record = lab.record(case)

    comparison = lab.check(case, record)
    lab.measure(case, record)

    assert comparison.ok
    assert record.accuracy is not None
    assert record.accuracy["outputs"]["logits"]["actual_accuracy"] >= 0.95
    assert record.latency is not None
    assert record.latency["clock"] == "graph"
    assert record.latency["summary"]["median_ms"] > 0
    wanted = {"fp16": "HALF", "int8": "INT8"}.get(precision)
    assert record.engine is not None
    if wanted and isinstance(record.engine["precisions"], dict):
        assert wanted in record.engine["precisions"]


def test_the_second_engine_comes_from_the_cache(lab: Lab) -> None:
    (case,) = lab.cases(lab.add("models/digits"), Axes(precisions=("fp32",)))

    first, _ = lab.engine(case)
    lab.close()
    second, _ = lab.engine(case)

    assert first.fresh
    assert not second.fresh
    assert second.plan == first.plan
