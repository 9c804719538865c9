"""The probe answers with a reason wherever something is missing, and never ends the process."""

from __future__ import annotations

import builtins
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import doubles
import fake_cuda
import pytest

from pytest_trt.backends import BuildOptions
from pytest_trt.backends.tensorrt import TensorRTBackend
from pytest_trt.backends.tensorrt.probe import probe
from pytest_trt.errors import BackendUnavailableError
from pytest_trt.spec.precision import PRECISIONS


@pytest.fixture
def no_import(monkeypatch):
    """Make ``import NAME`` raise the given error."""
    real = builtins.__import__

    def forbid(name: str, error: Exception) -> None:
        for loaded in [key for key in sys.modules if key == name or key.startswith(name + ".")]:
            monkeypatch.delitem(sys.modules, loaded)

        def refuse(asked, *args, **kwargs):
            if asked == name or asked.startswith(name + "."):
                raise error
            return real(asked, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", refuse)

    return forbid


def test_everything_is_there(trt):
    found = probe()
    assert found.ok
    assert found.reason == ""
    assert found.versions == {
        "tensorrt": trt.__version__,
        "cuda": "12.9",
        "cuda_driver": "13.0",
        "gpu": "Fake GPU",
        "gpu_bus_id": "0000:01:00.0",
        "compute_capability": "9.0",
        "gpu_memory_bytes": str(80 * 2**30),
    }


def test_no_cuda_python(no_import):
    no_import("cuda", ModuleNotFoundError("No module named 'cuda'", name="cuda"))
    found = probe()
    assert not found.ok
    assert "cuda-python 12.6 or newer is not installed" in found.reason
    assert found.versions == {}


def test_cuda_python_that_does_not_load(no_import):
    no_import("cuda", ImportError("libcudart.so.12: cannot open shared object file"))
    assert "cannot be imported: libcudart.so.12" in probe().reason


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (fake_cuda.cudaError_t.cudaErrorInsufficientDriver, "no NVIDIA driver is loaded"),
        (fake_cuda.cudaError_t.cudaErrorNoDevice, "lists no GPU"),
        (fake_cuda.cudaError_t.cudaErrorIllegalAddress, "cudaErrorIllegalAddress"),
    ],
)
def test_cuda_without_a_device(cuda, monkeypatch, error, said):
    # Importing TensorRT here would be a mistake: nothing may touch it before CUDA works.
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    cuda.fail["cudaGetDeviceCount"] = error
    found = probe()
    assert not found.ok
    assert said in found.reason


def test_no_device_counted(cuda, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(cuda, "cudaGetDeviceCount", lambda: (fake_cuda.OK, 0), raising=False)
    assert "lists no GPU" in probe().reason


def test_a_cuda_python_that_loads_the_driver_itself(cuda, monkeypatch):
    def cudaGetDeviceCount():
        raise RuntimeError("Failed to dlopen libcuda.so.1")

    monkeypatch.setattr(cuda, "cudaGetDeviceCount", cudaGetDeviceCount, raising=False)
    assert "driver cannot be loaded: Failed to dlopen" in probe().reason


def test_tensorrt_is_not_asked_before_cuda(cuda, no_import):
    class TouchedError(Exception):
        """No error that the probe expects: it would come out of it."""

    no_import("tensorrt", TouchedError())
    cuda.devices = 0
    assert not probe().ok
    cuda.devices = 1
    with pytest.raises(TouchedError):
        probe()


def test_no_tensorrt(cuda, no_import):
    no_import("tensorrt", ModuleNotFoundError("No module named 'tensorrt'", name="tensorrt"))
    found = probe()
    assert not found.ok
    assert found.reason.startswith("tensorrt is not installed")
    assert found.versions["gpu"] == "Fake GPU"  # what was found is still told


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'tensorrt_libs'", name="tensorrt_libs"),
        ImportError("libnvinfer.so.8: cannot open shared object file"),
        OSError("libcudnn.so.8: cannot open shared object file"),
        RuntimeError("no TensorRT libraries found"),
        AttributeError("module 'numpy' has no attribute 'bool'"),
    ],
)
def test_tensorrt_that_does_not_load(cuda, no_import, error):
    no_import("tensorrt", error)
    found = probe()
    assert not found.ok
    assert found.reason == f"tensorrt cannot be imported: {error}"


def test_too_old_and_lean(cuda, monkeypatch):
    old = ModuleType("tensorrt")
    old.__version__ = "8.5.3.1"
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    assert probe().reason == "TensorRT 8.5.3.1 is older than 8.6"
    old.__version__ = "10.16.1.11"
    assert "lean runtime" in probe().reason


def test_the_backend_says_why_it_cannot_work(cuda, monkeypatch):
    cuda.devices = 0
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    backend = TensorRTBackend()
    for call in (
        backend.identity,
        lambda: backend.support(PRECISIONS["fp16"]),
        lambda: backend.check(BuildOptions()),
        lambda: backend.load(b"", None),
        lambda: backend.build(None),
    ):
        with pytest.raises(BackendUnavailableError, match="lists no GPU"):
            call()


def test_the_probe_is_asked_once(cuda, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", doubles.make_tensorrt("10.0.1", cuda))
    backend = TensorRTBackend()
    first = backend.probe()
    cuda.devices = 0
    assert backend.probe() is first


def test_this_machine_survives_the_probe():
    """In a process of its own, with nothing simulated: a crash would be an exit code, not an exception."""
    code = (
        "from pytest_trt.backends.tensorrt import TensorRTBackend\n"
        "found = TensorRTBackend().probe()\n"
        "print('OK' if found.ok else 'REASON ' + found.reason)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = done.stdout.strip()
    assert answer == "OK" or len(answer) > len("REASON ")
