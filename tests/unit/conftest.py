"""What several unit tests share."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from pytest_trt import accuracy
from pytest_trt.accuracy.compiled import CompiledPass, float_pass


@pytest.fixture(scope="module", params=["numpy", "compiled"])
def measure(request):
    """measure() by NumPy, and by compiled code whatever the size: their results are held to the same."""
    compiled = request.param == "compiled"
    if compiled:
        pytest.importorskip("numba", reason="the extra `fast` is not installed")
        for dtype in (np.float32, np.float64):  # loads Numba: no test's memory
            one = np.ones(1, dtype)
            assert float_pass(one, one, True) is CompiledPass
    return partial(accuracy.measure, compiled=compiled)
