"""The TensorRT half of a bundle's ``reproduce.py`` on the doubles of six versions: its calls are theirs."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_trt.backends import BuildOptions, BuildRequest
from pytest_trt.backends.cannot_run import CannotRun
from pytest_trt.backends.tensorrt.versions.standalone import Driver, run_tensorrt
from pytest_trt.diagnosis.bundle.running import how_to_run
from pytest_trt.spec.case import Case
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import PRECISIONS
from pytest_trt.spec.shapes import Profile, ShapeRange

WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3) / 10
X = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
PROFILE = Profile("b", {"x": ShapeRange((1, 4), (2, 4), (8, 4))})


class FakeDriver:
    """Device memory of the fake runtime, which checks that every address was allocated and is given back."""

    def __init__(self, cuda: Any) -> None:
        self.cuda = cuda
        self.stream = cuda.native(cuda.cudaStreamCreateWithFlags(1)[1])

    def allocate(self, nbytes: int) -> int:
        return int(self.cuda.cudaMalloc(max(nbytes, 1))[1])

    def free(self, pointer: int) -> None:
        self.cuda.cudaFree(pointer)

    def upload(self, pointer: int, array: np.ndarray) -> None:
        ctypes.memmove(pointer, array.tobytes(), array.nbytes)

    def download(self, array: np.ndarray, pointer: int) -> None:
        ctypes.memmove(array.ctypes.data, pointer, array.nbytes)

    def synchronize(self) -> None:
        pass


def model(path: Path, inputs: str | int = "N") -> Model:
    """x · w, and an int64 output beside it."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "mm"), helper.make_node("Cast", ["n"], ["m"], "cast", to=6)],
        "m",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [inputs, 4]),
            helper.make_tensor_value_info("n", TensorProto.INT32, [3]),
        ],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [inputs, 3]),
            helper.make_tensor_value_info("m", TensorProto.INT32, [3]),
        ],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(proto, path)
    return Model.load(path)


FEED = {"x": X, "n": np.arange(3, dtype=np.int32)}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("dynamic", [True, False])
def test_the_script_runs_what_the_backend_built(trt, backend, cuda, tmp_path, precision, dynamic):
    found = model(tmp_path / "typed.onnx", "N" if dynamic else 2)
    profile = Profile(
        "b", {**(PROFILE.ranges if dynamic else {"x": ShapeRange.fixed((2, 4))}), "n": ShapeRange.fixed((3,))}
    )
    options = BuildOptions(opt_level=2, workspace=2**30, avg_timing=2, tactics=("-JIT_CONVOLUTIONS",))
    request = BuildRequest(found, PRECISIONS[precision], profile, options)
    built = backend.build(request)
    how, computed = how_to_run(Case("m", precision, "b", "tensorrt"), request, built.facts)
    assert computed is found
    theirs = trt._log[-1]

    outputs = run_tensorrt(tmp_path / "typed.onnx", how, [FEED, FEED], FakeDriver(cuda))

    for row in outputs:
        np.testing.assert_allclose(row["y"], X @ WEIGHT, atol=1e-2)
        np.testing.assert_array_equal(row["m"], FEED["n"])
    assert summary(trt._log[-1]) == summary(theirs)
    assert {kind for kind, _ in cuda.live} <= {"stream"}


def test_a_float32_model_in_the_place_of_an_int8_one_is_built(trt, backend, cuda, tmp_path):
    """TensorRT 8.6.0 ends with "no scaling factors detected" where INT8 is set and nothing is quantized."""
    profile = Profile.fixed("b", {"x": (2, 4), "n": (3,)})
    request = BuildRequest(model(tmp_path / "model.onnx", 2), PRECISIONS["int8"], profile)
    built = backend.build(request)
    assert "INT8" not in built.facts["flags"]
    how, _ = how_to_run(Case("m", "int8", "b", "tensorrt"), request, built.facts)
    assert "INT8" in how["flags_on"]

    (row,) = run_tensorrt(tmp_path / "model.onnx", how, [FEED], FakeDriver(cuda))

    np.testing.assert_allclose(row["y"], X @ WEIGHT, atol=1e-2)


def summary(logged: Any) -> Any:
    """Of a build of the double, what the script has to do alike."""
    _, config = logged
    # A script reports to nobody while it builds.
    given = {name: value for name, value in config._set.items() if name != "progress_monitor"}
    return sorted(config._flags), config._pools, config._tactics, given, [p._shapes for p in config._profiles]


def test_a_timing_cache_is_used_where_it_fits(trt, backend, cuda, tmp_path):
    request = BuildRequest(
        model(tmp_path / "typed.onnx", 2), PRECISIONS["fp32"], Profile.fixed("b", {"x": (2, 4), "n": (3,)})
    )
    built = backend.build(request)
    how, _ = how_to_run(Case("m", "fp32", "b", "tensorrt"), request, built.facts)
    assert built.timing_cache
    (tmp_path / "timing.cache").write_bytes(built.timing_cache)

    (row,) = run_tensorrt(tmp_path / "typed.onnx", {**how, "timing_cache": "timing.cache"}, [FEED], FakeDriver(cuda))

    np.testing.assert_allclose(row["y"], X @ WEIGHT, rtol=1e-6)


def test_without_a_driver_it_says_so(trt, tmp_path, monkeypatch):
    def nothing(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", nothing)
    with pytest.raises(CannotRun, match=r"no CUDA driver \(libcuda\.so\.1"):
        Driver()
