"""Fixtures of the contract test: a TensorRT of every recorded version on a fake device."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The doubles are modules beside this file, not part of a package.
sys.path.insert(0, str(Path(__file__).parent))

import doubles
import fake_cuda
import queueing_cuda
from hand_network import write_hand


@pytest.fixture
def cuda(monkeypatch):
    """A device; every allocation must be given back by the end of the test unless it says otherwise."""
    fake = fake_cuda.FakeCuda()
    for name, module in fake_cuda.modules(fake).items():
        monkeypatch.setitem(sys.modules, name, module)
    return fake


@pytest.fixture
def device(monkeypatch):
    """A device that works while the host goes on; a test that keeps what it allocated fails."""
    queueing = queueing_cuda.QueueingCuda()
    for name, module in queueing_cuda.modules(queueing).items():
        monkeypatch.setitem(sys.modules, name, module)
    yield queueing
    assert not queueing.live


@pytest.fixture
def stream(device):
    from pytest_trt.backends.cuda import Stream

    stream = Stream()
    yield stream
    stream.close()


@pytest.fixture(params=doubles.VERSIONS)
def trt(request, cuda, monkeypatch):
    module = doubles.make_tensorrt(request.param, cuda)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr("pytest_trt.backends.tensorrt.plugins._loaded", {})  # each double has its own registry
    return module


@pytest.fixture
def backend(trt):
    from pytest_trt.backends.tensorrt import TensorRTBackend

    return TensorRTBackend()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with the network made by hand."""
    return write_hand(tmp_path)
