from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from history_rows import commit, row

from pytest_trt.errors import InputsError
from pytest_trt.history.exports import pytest_benchmark
from pytest_trt.history.imports import read_samples, rows_from

FOREIGN = {
    "machine_info": {
        "cpu": {"brand_raw": "Some CPU"},
        "system": "Linux",
        "machine": "x86_64",
        "python_version": "3.12",
    },
    "commit_info": {"id": "0" * 40, "branch": "(unknown)", "dirty": True, "time": "2026-01-01T00:00:00+00:00"},
    "datetime": "2026-01-02T03:04:05.678901",
    "benchmarks": [
        {"fullname": "tests/a.py::b", "name": "b", "params": None, "stats": {"data": [0.002, 0.003, 0.0025]}}
    ],
}
# The keys and the order of trtexec's own writer; the first two queries are its warm-up.
TIMES = [
    {"startEnqMs": start, "endEnqMs": start, "startH2dMs": start, "endH2dMs": start + 0.1,
     "startComputeMs": start + 0.1, "endComputeMs": start + compute + 0.1,
     "startD2hMs": start, "endD2hMs": start + 0.2, "h2dMs": 0.1,
     "computeMs": compute, "d2hMs": 0.2, "latencyMs": compute + 0.3}
    for start, compute in ((0.0, 9.0), (150.0, 8.0), (250.0, 1.0), (300.0, 1.25), (350.0, 1.5))
]  # fmt: skip


def write(folder: Path, content: Any) -> Path:
    path = folder / "times.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_pytest_benchmark_s_samples_become_milliseconds(tmp_path: Path):
    (found,) = read_samples(write(tmp_path, FOREIGN))

    assert found.name == "tests/a.py::b"
    assert found.samples_ms == pytest.approx((2.0, 3.0, 2.5))
    assert found.clock == "host"
    assert found.environment is not None
    assert found.environment["device"] == "Some CPU"
    assert found.git is not None
    assert (found.git.commit, found.git.branch, found.git.dirty) == ("0" * 40, None, True)


@pytest.mark.parametrize("broken", [[], "text", {"cpu": []}])
def test_what_only_describes_the_samples_may_be_broken(tmp_path: Path, broken: Any):
    content = {**FOREIGN, "machine_info": broken, "commit_info": broken, "datetime": broken}
    content["benchmarks"] = [{**FOREIGN["benchmarks"][0], "extra_info": broken}]

    (made,) = rows_from(read_samples(write(tmp_path, content)), None)

    assert (made.id, made.median_ms, made.git) == ("tests/a.py::b", pytest.approx(2.5), None)


@pytest.mark.parametrize(("name", "called"), [("digits-fp16-b8-tensorrt", "digits-fp16-b8-tensorrt"), (3, "t.py::b")])
def test_what_we_measured_is_called_by_its_id(tmp_path: Path, name: Any, called: str):
    benchmark = {"fullname": "t.py::b", "name": name, "stats": {"data": [1]}}
    content = {"benchmarks": [{**benchmark, "extra_info": {"trt": {"backend": "tensorrt"}, "clock": "graph"}}]}

    (found,) = read_samples(write(tmp_path, content))

    assert (found.name, found.clock, found.environment) == (called, "graph", {"backend": "tensorrt"})


def test_an_export_of_ours_comes_back_as_it_was(tmp_path: Path):
    before = row(1, 1.25, samples=True, simulated="computed in float32")

    (after,) = rows_from(read_samples(write(tmp_path, pytest_benchmark([before]))), None, samples=True)

    assert (after.id, after.case, after.environment, after.simulated) == (
        before.id,
        before.case,
        before.environment,
        before.simulated,
    )
    assert after.series == before.series
    assert (after.slug, after.time, after.commit) == (before.slug, before.time, commit(1))
    assert before.latency is not None
    assert after.latency is not None
    assert after.latency["summary"] == before.latency["summary"]


@pytest.mark.parametrize(("metric", "samples"), [("compute", (1.0, 1.25, 1.5)), ("latency", (1.3, 1.55, 1.8))])
def test_trtexec_s_warm_up_is_left_out(tmp_path: Path, metric: str, samples: tuple[float, ...]):
    (found,) = read_samples(write(tmp_path, TIMES), metric=metric, name="net")

    assert (found.name, found.clock) == ("net", None)
    assert found.samples_ms == pytest.approx(samples)
    assert len(read_samples(write(tmp_path, TIMES), warmup_ms=0)[0].samples_ms) == 5


def test_what_is_imported_in_one_second_keeps_its_order(tmp_path: Path):
    found = read_samples(write(tmp_path, TIMES), name="net")
    times = [rows_from(found, None, clock="queued")[0].time for _ in range(5)]

    assert times == sorted(times)
    assert len(set(times)) == 5


def test_rows_of_trtexec_need_a_clock(tmp_path: Path):
    found = read_samples(write(tmp_path, TIMES), name="net")

    with pytest.raises(InputsError, match="--clock=queued"):
        rows_from(found, None)
    with pytest.raises(InputsError, match="nothing is known of the clock 'sundial'"):
        rows_from(found, None, clock="sundial")
    (made,) = rows_from(found, None, clock="queued+graph", device="NVIDIA H200")
    assert (made.median_ms, made.series.clock, made.series.device, made.slug) == (
        1.25,
        "queued+graph",
        "NVIDIA H200",
        "nvidia-h200_trtexec",
    )
    assert made.latency is not None
    assert "samples_ms" not in made.latency


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not a JSON file"),
        ({"a": 1}, "neither pytest-benchmark's JSON nor times of trtexec"),
        ([], "neither pytest-benchmark's JSON nor times of trtexec"),
        ({"benchmarks": []}, "there is no benchmark in it"),
        ("[" * 100_000, "not a JSON file"),
        ({"benchmarks": [{"fullname": "a"}]}, r"benchmarks\[0\] has no name, or no stats"),
        ({"benchmarks": [{"fullname": "a", "stats": {"mean": 1}}]}, "a has a summary but no samples"),
        ({"benchmarks": [{"fullname": "a", "stats": {"data": [0.0]}}]}, "stats.data of a: sample 0 is 0"),
        ({"benchmarks": [{"fullname": "a", "stats": {"data": ["1"]}}]}, "stats.data of a: a list of numbers is wanted"),
        (TIMES[:2], "all 2 queries began in the warm-up"),
        ([TIMES[4], {"computeMs ": 1.0}], "query 1 has no computeMs"),
        ([{**TIMES[4], "computeMs": "1"}], "query 0: computeMs is '1'"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, content: Any, said: str):
    path = write(tmp_path, content)

    with pytest.raises(InputsError, match=said) as caught:
        read_samples(path)
    assert str(path) in str(caught.value)


def test_an_unknown_metric_is_refused(tmp_path: Path):
    with pytest.raises(InputsError, match="known: compute, latency, h2d, d2h"):
        read_samples(write(tmp_path, TIMES), metric="enqueue")
