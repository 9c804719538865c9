"""Which processes wait for each other: those that use one device."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from pytest_trt.backends import Availability
from pytest_trt.errors import ArtifactError
from pytest_trt.lab import Lab
from pytest_trt.settings import Settings


class OnGpu:
    def __init__(self, **versions: str) -> None:
        self._found = Availability(True, versions=versions)

    def probe(self) -> Availability:
        return self._found


def lab(monkeypatch: pytest.MonkeyPatch, **versions: str) -> Lab:
    found = Lab(Settings(cache="off"), Path())
    monkeypatch.setattr(found, "backend", lambda name: OnGpu(**versions))
    return found


@pytest.fixture(autouse=True)
def _locks_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_two_gpus_are_used_at_once(monkeypatch):
    with ExitStack() as stack:
        for bus_id in ("0000:1B:00.0", "0000:5D:00.0"):
            stack.enter_context(lab(monkeypatch, gpu_bus_id=bus_id).device_lock("tensorrt"))


@pytest.mark.parametrize("versions", [{"gpu_bus_id": "0000:1B:00.0"}, {}])
def test_one_gpu_is_used_by_one_at_a_time(monkeypatch, versions):
    with (
        lab(monkeypatch, **versions).device_lock("tensorrt"),
        pytest.raises(ArtifactError, match="already holds"),
        lab(monkeypatch, **versions).device_lock("onnxruntime-cuda"),
    ):
        pass


def test_the_cpu_is_a_device_of_its_own(monkeypatch):
    with (
        lab(monkeypatch, gpu_bus_id="0000:1B:00.0").device_lock("tensorrt"),
        lab(monkeypatch).device_lock("onnxruntime-cpu"),
        pytest.raises(ArtifactError, match="already holds"),
        lab(monkeypatch).device_lock("fake"),
    ):
        pass
