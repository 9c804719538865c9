from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from history_rows import commit, row

from pytest_trt.errors import UsageError
from pytest_trt.history.exports import FORMATS, bencher, github_action_benchmark, pytest_benchmark

TWO = [row(1, 1.25, samples=True), row(1, 2.5, id="net-fp32-b1-tensorrt", simulated="computed in float32")]


def test_pytest_benchmark_compares_two_exports(tmp_path: Path):
    files = []
    for number, factor in ((1, 1.0), (2, 1.5)):
        rows = [row(number, 1.25 * factor), row(number, 2.5 * factor, id="net-fp32-b1-tensorrt", samples=True)]
        files.append(tmp_path / f"{number}.json")
        files[-1].write_text(json.dumps(pytest_benchmark(rows)))
    command = [
        sys.executable,
        "-m",
        "pytest_benchmark",
        "compare",
        *map(str, files),
        "--columns=median,iqr,ops,outliers",
    ]

    done = subprocess.run([*command, "--csv=out"], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    table = [line.split() for line in re.sub(r"\x1b\[\d+m", "", done.stdout).splitlines() if "-tensorrt" in line]
    assert [(line[0], line[1].strip("()")[-1], *line[2:4]) for line in table] == [
        ("digits-fp16-b8-tensorrt", "1", "1.2500", "(1.0)"),
        ("digits-fp16-b8-tensorrt", "2", "1.8750", "(1.50)"),
        ("net-fp32-b1-tensorrt", "1", "2.5000", "(1.0)"),
        ("net-fp32-b1-tensorrt", "2", "3.7500", "(1.50)"),
    ]


def test_pytest_benchmark_gets_seconds_and_says_where_they_are_from():
    content = pytest_benchmark(TWO)
    first, second = content["benchmarks"]

    assert first["stats"]["median"] == pytest.approx(1.25e-3)
    assert first["stats"]["ops"] == pytest.approx(1 / first["stats"]["mean"])
    assert (first["stats"]["rounds"], first["stats"]["iterations"]) == (40, 1)
    assert len(first["stats"]["data"]) == 40
    assert "data" not in second["stats"]
    assert (first["group"], first["param"]) == ("digits", "fp16-b8-tensorrt")
    assert second["extra_info"]["simulated"] == "computed in float32"
    assert content["commit_info"] == {
        "id": commit(1),
        "time": "2026-01-02T00:00:00+00:00",
        "dirty": False,
        "project": "",
        "branch": "main",
    }


def test_what_was_imported_is_no_case_of_ours():
    (found,) = pytest_benchmark([row(case=None, git=None)])["benchmarks"]

    assert (found["group"], found["params"], found["param"]) == (None, None, None)


def test_github_action_benchmark_gets_entries_that_are_better_when_smaller():
    entries = github_action_benchmark(TWO)

    assert [(entry["name"], entry["unit"], entry["value"]) for entry in entries] == [
        ("digits-fp16-b8-tensorrt latency", "ms", 1.25),
        ("digits-fp16-b8-tensorrt plan", "bytes", 1_234_567),
        ("net-fp32-b1-tensorrt latency", "ms", 2.5),
        ("net-fp32-b1-tensorrt plan", "bytes", 1_234_567),
    ]
    assert re.fullmatch(r"± \d\S*", entries[0]["range"])
    assert entries[0]["extra"] == "graph clock, 40 samples\nnvidia-h200_tensorrt_10.16.1"
    assert entries[2]["extra"].endswith("\nsimulated")
    assert {key for entry in entries for key in entry} <= {"name", "unit", "value", "range", "extra"}


def test_bencher_gets_nanoseconds_bytes_and_an_interval():
    found = bencher(TWO)

    latency = found["digits-fp16-b8-tensorrt"]["latency"]
    assert latency["value"] == pytest.approx(1.25e6)
    assert 0.999 < latency["lower_value"] / latency["value"] < 1 < latency["upper_value"] / latency["value"] < 1.001
    assert found["net-fp32-b1-tensorrt"]["file-size"] == {"value": 1_234_567.0}
    assert found["net-fp32-b1-tensorrt"]["rmse"] == {"value": pytest.approx(1e-4)}


@pytest.mark.parametrize("format", FORMATS)
def test_what_cannot_be_exported_is_said(format: str):
    with pytest.raises(UsageError, match="none of these rows has a latency"):
        FORMATS[format]([row(median_ms=None)])
    with pytest.raises(UsageError, match="is there 2 times"):
        FORMATS[format]([row(1), row(1, run="again")])


@pytest.mark.parametrize("format", FORMATS)
def test_exports_are_json(format: str):
    assert json.loads(json.dumps(FORMATS[format](TWO), allow_nan=False))


def test_a_latency_without_its_spread_is_no_benchmark():
    bare = row()
    assert bare.latency is not None
    del bare.latency["spread"]

    with pytest.raises(UsageError, match="spread is not recorded"):
        pytest_benchmark([bare])
