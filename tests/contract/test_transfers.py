"""How long copies take, on a simulated device that works while the host goes on."""

from __future__ import annotations

import statistics

import pytest
from queueing_cuda import CALL_MS

from pytest_trt.backends.transfers import median_ms
from pytest_trt.errors import RunError


def test_the_median_of_twenty_copies_is_taken_one_at_a_time(device, stream):
    durations = [1.0] * 11 + [50.0] * 9
    left = list(durations)

    def copy() -> None:
        device.kernel_ms = left.pop()
        device.kernel(stream)

    assert median_ms(stream, copy) == pytest.approx(statistics.median(durations) + CALL_MS)
    assert not left
    timed = [call for call in device.calls if call != "cudaEventElapsedTime"]
    assert timed == ["cudaEventRecord", "kernel", "cudaEventRecord", "cudaStreamSynchronize"] * 20


def test_a_copy_that_fails_leaves_nothing_behind(stream):
    def copy() -> None:
        raise RunError("out of luck")

    with pytest.raises(RunError, match="out of luck"):
        median_ms(stream, copy)
