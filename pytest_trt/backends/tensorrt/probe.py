"""Whether TensorRT works here, found without ever touching it on a machine where it would crash.

``tensorrt.Runtime`` ends the process by a segmentation fault where there is no driver, so CUDA is asked
first, through cuda-python, which answers with an error code.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from pytest_trt.backends import Availability
from pytest_trt.backends.cuda import check, runtime
from pytest_trt.backends.tensorrt.versions import MINIMUM, version
from pytest_trt.errors import RunError

__all__ = ["import_tensorrt", "probe"]

_REASONS = {
    "cudaErrorInsufficientDriver": "no NVIDIA driver is loaded, or it is older than this cuda-python needs",
    "cudaErrorNoDevice": "the NVIDIA driver lists no GPU (CUDA_VISIBLE_DEVICES hides one, or there is none)",
    "cudaErrorSystemDriverMismatch": "the NVIDIA driver's kernel module and its libraries have different versions",
}


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
        cuda = runtime()
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and str(error.name).startswith("cuda")
        why = "cuda-python 12.6 or newer is not installed" if missing else f"cuda-python cannot be imported: {error}"
        return Availability(False, f'{why} (pip install "pytest-trt[gpu]")')
    try:
        versions = _describe_device(cuda)
    except _NoDeviceError as error:
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
    if version(trt) < MINIMUM:
        oldest = ".".join(map(str, MINIMUM))
        return Availability(False, f"TensorRT {trt.__version__} is older than {oldest}", versions)
    if not hasattr(trt, "Builder"):
        return Availability(False, f"this TensorRT {trt.__version__} is a lean runtime: it has no builder", versions)
    return Availability(True, versions=versions)


class _NoDeviceError(Exception):
    """CUDA has no device to offer; the text is the reason."""


def _describe_device(cuda: Any) -> dict[str, str]:
    """Read the versions and the current device. Raises _NoDeviceError."""
    count = _ask(cuda.cudaGetDeviceCount)
    if not count:
        raise _NoDeviceError(_REASONS["cudaErrorNoDevice"])
    device = _ask(cuda.cudaGetDevice)
    properties = _ask(cuda.cudaGetDeviceProperties, device)
    name = properties.name
    return {
        "cuda": _dotted(_ask(cuda.cudaRuntimeGetVersion)),
        "cuda_driver": _dotted(_ask(cuda.cudaDriverGetVersion)),
        "gpu": (name.decode() if isinstance(name, bytes) else str(name)).rstrip("\0"),
        "compute_capability": f"{properties.major}.{properties.minor}",
        "gpu_memory_bytes": str(int(properties.totalGlobalMem)),
    }


def _ask(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return check(function(*arguments), function.__name__)
    except RunError as error:
        code = error.message.rpartition(": ")[2]
        raise _NoDeviceError(_REASONS.get(code, f"CUDA does not work here: {error.message}")) from error
    except RuntimeError as error:
        # Releases of cuda-python that load the driver themselves raise when there is no libcuda at all.
        raise _NoDeviceError(f"the NVIDIA driver cannot be loaded: {error}") from error


def _dotted(number: int) -> str:
    """CUDA writes 12.9 as 12090."""
    return f"{number // 1000}.{number % 1000 // 10}"
