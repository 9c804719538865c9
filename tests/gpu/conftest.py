"""A real TensorRT on a real device. Skipped only where the probe says that one of the two is missing."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def backend():
    from pytest_trt.backends.tensorrt import TensorRTBackend

    found = TensorRTBackend()
    availability = found.probe()
    if not availability.ok:
        pytest.skip(availability.reason)
    return found
