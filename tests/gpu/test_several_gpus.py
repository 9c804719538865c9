"""Which GPU a process uses, and which one the others take it for. Skipped where there is one GPU only."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.gpu

ASK = """
import json
from pathlib import Path

from pytest_trt.backends.device import describe_device
from pytest_trt.backends.nvml import device_conditions
from pytest_trt.environment import Environment, gpus

found = describe_device()
listed = [gpu.bus_id.lower()[-12:] for gpu in gpus()]
environment = Environment.of("tensorrt", found)
readings = device_conditions(found["gpu_bus_id"])
print(json.dumps([found["gpu_bus_id"].lower()[-12:], found["gpu"], listed, environment.device, sorted(readings)]))
"""


def asked(visible: str) -> list:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": visible}
    done = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, list)
    return found


def test_each_gpu_is_known_by_its_place(backend):
    from pytest_trt.environment import gpus

    count = len(gpus())
    if count < 2:
        pytest.skip("one GPU only")
    answers = [asked(str(index)) for index in range(count)]

    places = [answer[0] for answer in answers]
    assert len(set(places)) == count, "each has a lock of its own"
    for place, name, listed, device, readings in answers:
        assert place in listed, "NVML lists the one that CUDA uses, also where the others are hidden"
        assert device.startswith(name)
        assert "sm_clock_mhz" in readings
