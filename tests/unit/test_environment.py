"""Environment: what is compared between two runs, and how it is read without the libraries it describes."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from history_rows import git

from pytest_trt import environment
from pytest_trt.environment import Environment, Gpu, cpu_name, git_commit, gpus, version_of

H200 = Gpu("NVIDIA H200", "9.0", 143771, "570.86.15", "00000000:1B:00.0")
T4 = Gpu("NVIDIA T4", "7.5", 15360, "570.86.15", "00000000:5D:00.0")


@pytest.fixture(autouse=True)
def _fresh_readings() -> Iterator[None]:
    """What a process reads once is read anew in each test, and not left to the next one."""
    for cached in (gpus, cpu_name, git_commit):
        cached.cache_clear()
    yield
    for cached in (gpus, cpu_name, git_commit):
        cached.cache_clear()


@pytest.fixture
def on_h200(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "gpus", lambda: (H200, T4))


@pytest.mark.usefixtures("on_h200")
def test_a_backend_on_the_gpu_is_described_by_the_first_gpu():
    found = Environment.of("tensorrt", {"tensorrt": "10.16.1", "cuda": "12.8", "device": "NVIDIA H200", "sm": "90"})

    assert (found.device, found.driver) == ("NVIDIA H200 143771 MB sm_90", "570.86.15")
    assert found.libraries == (("cuda", "12.8"), ("tensorrt", "10.16.1"))
    assert found.slug == "nvidia-h200_tensorrt_10.16.1"


@pytest.mark.usefixtures("on_h200")
@pytest.mark.parametrize(
    ("bus_id", "device"),
    [("0000:1b:00.0", "NVIDIA H200 143771 MB sm_90"), ("0000:5d:00.0", "NVIDIA T4 15360 MB sm_75")],
)
def test_the_gpu_that_cuda_uses_is_described_not_the_first_one(bus_id: str, device: str):
    assert Environment.of("tensorrt", {"gpu_bus_id": bus_id}).device == device


def test_without_nvml_the_gpu_is_described_as_cuda_names_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(environment, "gpus", lambda: ())
    found = {"gpu": "NVIDIA T4", "gpu_memory_bytes": str(15360 * 2**20), "compute_capability": "7.5"}

    assert Environment.of("tensorrt", found).device == "NVIDIA T4 15360 MB sm_75"


@pytest.mark.usefixtures("on_h200")
@pytest.mark.parametrize("backend", ["onnxruntime-cpu", "fake"])
def test_a_backend_on_the_cpu_is_described_by_the_cpu(backend: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(environment, "cpu_name", lambda: "AMD EPYC 9575F x2")
    found = Environment.of(backend, {backend.split("-")[0]: "1.31.1"})

    assert (found.device, found.driver) == ("AMD EPYC 9575F x2", "")
    assert found.slug == f"amd-epyc-9575f-x2_{backend}_1.31.1"


def test_a_slug_is_a_folder_name():
    odd = Environment("tensorrt", 'Quadro "RTX" 6000/8000: (A) 1 MB sm_75', "", (("tensorrt", "10.0 beta/1"),), "x")

    assert odd.slug == "quadro-rtx-6000-8000-a-_tensorrt_10.0-beta-1"
    assert Environment("fake", "cpu", "", (), "x").slug == "cpu_fake"


def test_nothing_differs_from_itself():
    found = Environment.of("fake", {"fake": "1"})

    assert found.differences(found.to_json()) == []


@pytest.mark.usefixtures("on_h200")
def test_each_difference_is_told():
    now = Environment.of("tensorrt", {"tensorrt": "10.16.1", "cuda": "12.8"})
    then = {**now.to_json(), "driver": "550.54", "libraries": {"tensorrt": "10.9.0", "onnxruntime": "1.20"}}

    assert now.differences(then) == [
        "driver: 550.54 → 570.86.15",
        "cuda: - → 12.8",
        "onnxruntime: 1.20 → -",
        "tensorrt: 10.9.0 → 10.16.1",
    ]


@pytest.mark.usefixtures("on_h200")
@pytest.mark.parametrize("field", ["backend", "device", "driver", "libraries", "system"])
def test_a_field_that_is_not_stored_differs(field: str):
    """Half a description must not pass for the same environment: it would gate."""
    now = Environment.of("tensorrt", {"tensorrt": "10.16.1"})
    then = now.to_json()
    del then[field]

    assert [line.partition(":")[0] for line in now.differences(then)] == [field]


def test_a_field_of_a_later_version_differs():
    now = Environment.of("fake", {"fake": "1"})

    assert now.differences({**now.to_json(), "clocks": "locked"}) == ["clocks: locked → None"]


def test_as_json_it_makes_the_same_environment():
    found = Environment.of("fake", {"fake": "1"})
    data = found.to_json()

    assert Environment(**{**data, "libraries": tuple(data["libraries"].items())}) == found  # type: ignore[arg-type, attr-defined]


def fake_nvml(**changes: object) -> types.ModuleType:
    """Two GPUs, as nvidia-ml-py shows them; older releases give bytes."""
    module = types.ModuleType("pynvml")

    class NVMLError(Exception):
        pass

    calls: list[str] = []
    memory = types.SimpleNamespace(total=143771 * 2**20)
    functions: dict[str, object] = {
        "NVMLError": NVMLError,
        "calls": calls,
        "nvmlInit": lambda: calls.append("init"),
        "nvmlShutdown": lambda: calls.append("shutdown"),
        "nvmlSystemGetDriverVersion": lambda: b"570.86.15",
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetCudaComputeCapability": lambda handle: (9, 0),
        "nvmlDeviceGetMemoryInfo": lambda handle: memory,
        "nvmlDeviceGetName": lambda handle: "NVIDIA H200",
        "nvmlDeviceGetPciInfo": lambda handle: types.SimpleNamespace(busId=b"00000000:1B:00.0"),
        **changes,
    }
    for name, value in functions.items():
        setattr(module, name, value)
    return module


def test_gpus_are_those_that_nvml_lists(monkeypatch: pytest.MonkeyPatch):
    nvml = fake_nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)

    assert gpus() == (H200, H200)
    assert nvml.calls == ["init", "shutdown"]
    assert gpus() is gpus()


def test_no_driver_is_no_gpu(monkeypatch: pytest.MonkeyPatch):
    nvml = fake_nvml()

    def init() -> None:
        raise nvml.NVMLError("Driver Not Loaded")

    monkeypatch.setattr(nvml, "nvmlInit", init)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)

    assert gpus() == ()
    assert nvml.calls == []


def test_no_nvml_is_no_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)

    assert gpus() == ()


def test_nvml_is_shut_down_when_a_reading_fails(monkeypatch: pytest.MonkeyPatch):
    nvml = fake_nvml()

    def count() -> int:
        raise nvml.NVMLError("Unknown Error")

    monkeypatch.setattr(nvml, "nvmlDeviceGetCount", count)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)

    with pytest.raises(nvml.NVMLError):
        gpus()
    assert nvml.calls == ["init", "shutdown"]


def test_the_cpu_has_a_name_and_a_number_of_cores():
    name, _, cores = cpu_name().rpartition(" x")

    assert name
    assert int(cores) >= 1


def test_versions_are_read_from_metadata():
    import numpy

    assert version_of("numpy") == numpy.__version__
    assert version_of("no-such-distribution-1", "numpy") == numpy.__version__
    assert version_of("no-such-distribution-1") is None


def test_the_commit_of_a_folder(tmp_path: Path):
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-q", "-m", "first")
    commit = git(tmp_path, "rev-parse", "--short=12", "HEAD")
    assert git_commit(tmp_path) == commit

    (tmp_path / "a").write_text("2")
    git_commit.cache_clear()
    assert git_commit(tmp_path) == f"{commit}+dirty"


def test_outside_of_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit(tmp_path) is None

    monkeypatch.setenv("PATH", str(tmp_path))
    git_commit.cache_clear()
    assert git_commit(tmp_path) is None
