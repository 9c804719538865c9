"""Files of samples: what is read from each kind, and what a broken one says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_trt.errors import InputsError
from pytest_trt.latency.sample_files import read_sample_file, read_samples

QUERY = {"startComputeMs": 1.0, "endComputeMs": 1.5, "h2dMs": 0.1, "computeMs": 0.5, "d2hMs": 0.1, "latencyMs": 0.7}


def benchmarks(*stats: dict[str, Any], **extra: Any) -> dict[str, Any]:
    rows = [{"name": f"b{i}", "fullname": f"t.py::b{i}", "stats": one, **extra} for i, one in enumerate(stats)]
    return {"machine_info": {}, "benchmarks": rows, "version": "5.2.3"}


def written(folder: Path, content: Any) -> Path:
    path = folder / "samples.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def saved(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "samples.npz", **arrays)
    return folder / "samples.npz"


def plain(samples: dict[str, Any]) -> dict[str, list[list[float]]]:
    return {name: [list(repeat) for repeat in repeats] for name, repeats in samples.items()}


def test_npz(tmp_path: Path):
    path = saved(tmp_path, net__graph=np.array([[1.5, 2], [3, 4]], np.float32), one=np.array([1, 2, 3]))
    found = read_sample_file(path)

    assert (found.kind, found.clocks, found.usual_clock) == ("npz", {"net__graph": "graph"}, None)
    assert plain(dict(found.samples)) == {"net__graph": [[1.5, 2], [3, 4]], "one": [[1, 2, 3]]}
    assert {repeat.dtype for repeats in found.samples.values() for repeat in repeats} == {np.dtype(np.float64)}


def test_a_name_that_only_looks_like_a_clock(tmp_path: Path):
    assert read_sample_file(saved(tmp_path, net__fp16=[1.0, 2.0], graph=[1.0, 2.0])).clocks == {}


def test_pytest_benchmark_is_in_seconds(tmp_path: Path):
    path = written(tmp_path, benchmarks({"median": 1, "data": [0.001, 0.0025]}, {"data": [1]}))
    found = read_sample_file(path)

    assert (found.kind, found.clocks, found.usual_clock) == ("pytest-benchmark", {}, "host")
    assert plain(dict(found.samples)) == {"t.py::b0": [[1.0, 2.5]], "t.py::b1": [[1000.0]]}


def test_a_benchmark_that_has_only_a_short_name_is_called_so(tmp_path: Path):
    path = written(tmp_path, {"benchmarks": [{"name": "b", "stats": {"data": [0.001]}}]})

    assert plain(read_samples(path)) == {"b": [[1.0]]}


@pytest.mark.parametrize(
    ("extra", "clocks"),
    [
        ({"clock": "graph"}, {"t.py::b0": "graph"}),
        ({"clock": "queued+graph"}, {"t.py::b0": "queued+graph"}),
        ({"clock": "sundial"}, {}),
        ({"clock": 3}, {}),
        ([], {}),
    ],
)
def test_pytest_benchmark_with_the_clock_that_pytest_trt_notes(tmp_path: Path, extra: Any, clocks: Any):
    path = written(tmp_path, benchmarks({"data": [0.001, 0.002]}, extra_info=extra))

    assert read_sample_file(path).clocks == clocks


def test_trtexec(tmp_path: Path):
    path = written(tmp_path, [QUERY, {**QUERY, "computeMs": 0.75}])
    found = read_sample_file(path)

    assert (found.kind, found.usual_clock) == ("trtexec", "sync")
    assert plain(read_samples(path)) == {"compute": [[0.5, 0.75]]}


@pytest.mark.parametrize(
    ("starts", "counted"),
    [((0.0, 199.9, 200.0, 300.0), [3.0, 4.0]), ((250.0, 260.0), [1.0, 2.0]), ((0.0, 5.0), [1.0, 2.0])],
)
def test_the_warm_up_of_trtexec_is_left_out(tmp_path: Path, starts: Any, counted: list[float]):
    """The default one; not where nothing would be left: then another was asked for."""
    queries = [{"startComputeMs": start, "computeMs": float(n)} for n, start in enumerate(starts, 1)]

    assert plain(read_samples(written(tmp_path, queries))) == {"compute": [counted]}


def test_the_name_of_a_file_says_nothing(tmp_path: Path):
    path = saved(tmp_path, one=[1.0, 2.0])

    assert read_sample_file(path.rename(tmp_path / "samples.json")).kind == "npz"


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.ones((2, 2, 3))}, r"x: the shape is \(2, 2, 3\)"),
        ({"x": np.float64(1)}, r"x: the shape is \(\)"),
        ({"x": np.array([])}, "x: a repeat without samples"),
        ({"x": np.array([1.0, 0.0])}, "x: sample 1 is 0"),
        ({"x": np.array([[1.0, np.nan]])}, "x: sample 1 is nan"),
        ({"x": np.array(["a"])}, "x: <U1 is no duration"),
        ({"x": np.array([True])}, "x: bool is no duration"),
        ({"x": np.array([object()])}, "of numbers"),
        ({}, "there are no samples in it"),
    ],
)
def test_arrays_that_are_no_samples(tmp_path: Path, arrays: Any, said: str):
    with pytest.raises(InputsError, match=said) as caught:
        read_sample_file(saved(tmp_path, **arrays))
    assert "samples.npz" in caught.value.message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "neither .npz nor JSON"),
        ("nonsense", "neither .npz nor JSON"),
        ("[" * 100_000, "neither .npz nor JSON"),
        ({"results": []}, "neither pytest-benchmark's"),
        (3, "neither pytest-benchmark's"),
        ([], "there are no samples in it"),
        (benchmarks(), "there are no samples in it"),
        ([{"latencyMs": 1}], "query 0 has no computeMs"),
        ([QUERY, 1], "query 1 has no computeMs"),
        ([{"computeMs": "1"}], "query 0: computeMs is '1'"),
        ([{"computeMs": True}], "query 0: computeMs is True"),
        ([QUERY, {"computeMs": -0.5}], "query 1: computeMs is -0.5"),
        (benchmarks({"median": 0.1}), "a summary but no samples"),
        (benchmarks({"data": "no"}), "a list of numbers"),
        (benchmarks({"data": []}), "a repeat without samples"),
        (benchmarks({"data": [1]}, {"data": [1]}, fullname="same"), "two benchmarks are called 'same'"),
        ({"benchmarks": [1]}, r"benchmarks\[0\] has no name"),
        ({"benchmarks": [{"name": "b"}]}, r"benchmarks\[0\] has no name, or no stats"),
    ],
)
def test_json_that_is_no_samples(tmp_path: Path, content: Any, said: str):
    with pytest.raises(InputsError, match=said) as caught:
        read_sample_file(written(tmp_path, content))
    assert "samples.json" in caught.value.message


def test_a_missing_file_and_a_broken_archive(tmp_path: Path):
    with pytest.raises(InputsError, match="cannot be read: No such file"):
        read_sample_file(tmp_path / "none.npz")
    broken = tmp_path / "broken.npz"
    broken.write_bytes(saved(tmp_path, x=[1.0, 2.0]).read_bytes()[:60])
    with pytest.raises(InputsError, match="of numbers"):
        read_sample_file(broken)


def test_what_pytest_benchmark_writes_is_read(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """The real thing, so that a change of its format shows."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # it switches itself off in a worker
    pytester.makepyfile("def test_it(benchmark):\n    benchmark.pedantic(sum, ([1, 2],), rounds=7)\n")
    pytester.runpytest_subprocess("--benchmark-json=out.json", "-p", "no:randomly").assert_outcomes(passed=1)

    (repeats,) = read_samples(pytester.path / "out.json").values()

    assert [repeat.size for repeat in repeats] == [7]
