"""Whether TensorRT works here, found without ever touching it on a machine where it would crash.

``tensorrt.Runtime`` ends the process by a segmentation fault where there is no driver, so CUDA is asked
first, through cuda-python, which answers with an error code.
"""

from __future__ import annotations

import warnings
from typing import Any

from pytest_trt.backends import Availability
from pytest_trt.backends.device import NoDeviceError, describe_device
from pytest_trt.backends.tensorrt.versions import MINIMUM, has_builder, too_old

__all__ = ["import_tensorrt", "probe"]


def import_tensorrt() -> Any:
    """Import TensorRT. Only after CUDA was found to work."""
    with warnings.catch_warnings():
        # Its import warns on new Python versions; that is not the user's to mend, and -W error must not break it.
        warnings.simplefilter("ignore", DeprecationWarning)
        import tensorrt
    return tensorrt


def probe() -> Availability:
    """Say whether TensorRT can build and run here, and in which versions. Never raises, never crashes."""
    try:
        versions = describe_device()
    except NoDeviceError as error:
        return Availability(False, str(error))
    try:
        trt = import_tensorrt()
    except ModuleNotFoundError as error:
        if error.name == "tensorrt":
            return Availability(False, 'tensorrt is not installed (pip install "pytest-trt[gpu]")', versions)
        return Availability(False, f"tensorrt cannot be imported: {error}", versions)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        # A missing libnvinfer, libcudnn or libcublas shows as any of these, depending on who loads it.
        return Availability(False, f"tensorrt cannot be imported: {error}", versions)
    versions = {"tensorrt": str(trt.__version__), **versions}
    if too_old(trt):
        oldest = ".".join(map(str, MINIMUM))
        return Availability(False, f"TensorRT {trt.__version__} is older than {oldest}", versions)
    if not has_builder(trt):
        return Availability(False, f"this TensorRT {trt.__version__} is a lean runtime: it has no builder", versions)
    return Availability(True, versions=versions)
