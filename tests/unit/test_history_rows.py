from __future__ import annotations

import json

import pytest
from history_rows import row
from pytest_benchmark.stats import Stats
from records import passed, simulated

from pytest_trt.history.git import GitState
from pytest_trt.history.rows import Row, rows_of, spread
from pytest_trt.record import Record
from pytest_trt.spec.case import Case

GIT = GitState("ab" * 20, "main", True, "2026-01-02T03:04:05+00:00")


def test_a_row_keeps_what_a_comparison_needs():
    found, other = rows_of([passed(), simulated()], GIT)

    assert found.id == "digits-fp16-b8-tensorrt"
    assert found.git == GIT
    assert found.revision == "abababab+dirty"
    assert found.slug == "nvidia-h200_tensorrt_10.16.1"
    assert (found.median_ms, found.plan_bytes, found.outcome) == (1.25, 1_234_567, "passed")
    assert found.engine is not None
    assert found.engine["plan"] == "cd" * 32
    assert found.accuracy == {"y": {"ok": True, "max_abs": 0.00125, "rmse": 2.5e-4, "cosine": 0.99994, "top1": 1.0}}
    assert found.simulated is None
    assert other.simulated is not None
    assert found.run == other.run
    assert found.series != other.series


def test_two_runs_never_have_one_name():
    assert rows_of([passed()], GIT)[0].run != rows_of([passed()], GIT)[0].run


@pytest.mark.parametrize("kept", [False, True])
def test_samples_are_kept_only_where_asked_for(kept: bool):
    (found,) = rows_of([passed()], None, samples=kept)

    assert found.latency is not None
    assert ("samples_ms" in found.latency) is kept
    assert found.latency["spread"]["max"] == 1.275


def test_a_skipped_case_has_no_row():
    skipped = Record(Case("net", "tf32", "b1", "onnxruntime-cpu"), outcomes={"accuracy": "skipped"})

    assert rows_of([skipped], None) == []


def test_a_failed_case_without_an_engine_has_one():
    broken = Record(Case("net", "fp32", "b1", "onnxruntime-cpu"), outcomes={"accuracy": "error"})

    (found,) = rows_of([broken], None)

    assert (found.outcome, found.latency, found.engine, found.slug) == ("error", None, None, "")


@pytest.mark.parametrize("samples", [False, True])
def test_a_row_survives_json(samples: bool):
    for before in [*rows_of([passed(), simulated()], GIT, samples=samples), row(3), row(4, None, git=None)]:
        assert Row.from_json(json.loads(json.dumps(before.to_json()))) == before


def test_unknown_fields_of_a_later_version_are_ignored():
    assert Row.from_json({**row().to_json(), "mood": "good"}) == row()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 2}, "schema 2 is not 1"),
        ({"run": 7}, "run is no text"),
        ({"engine": [1]}, "engine is no object"),
        ({"latency": {"clock": "graph"}}, "latency has no summary"),
    ],
)
def test_what_is_no_row_is_refused(change: dict[str, object], said: str):
    with pytest.raises((ValueError, TypeError), match=said):
        Row.from_json({**row().to_json(), **change})


def test_the_spread_is_pytest_benchmark_s():
    samples = [1.0, 1.5, 0.9, 1.1, 1.05, 7.0, 1.02]
    stats = Stats()
    stats.data = samples

    found = spread(samples)

    assert found["iqr"] == pytest.approx(stats.iqr)
    assert found["stddev"] == pytest.approx(stats.stddev, rel=1e-5)
    assert found["outliers"] == stats.outliers == "1;1"


def test_the_error_is_relative_and_of_the_worst_output():
    accuracy = {"y": {"rmse": 1e-3, "expected_rms": 10.0}, "z": {"rmse": 2e-3, "expected_rms": 4.0}, "w": {"ok": True}}

    assert row(accuracy=accuracy).rmse == pytest.approx(5e-4)
    assert row(accuracy=None).rmse is None
