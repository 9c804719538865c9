"""The current CUDA device and the versions around it, asked without TensorRT or ONNX Runtime.

Both can end the process where there is no driver, so every probe asks here first: cuda-python answers with an
error code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_trt.backends.cuda import check, runtime
from pytest_trt.errors import RunError

__all__ = ["NoDeviceError", "describe_device"]

_REASONS = {
    "cudaErrorInsufficientDriver": "no NVIDIA driver is loaded, or it is older than this cuda-python needs",
    "cudaErrorNoDevice": "the NVIDIA driver lists no GPU (CUDA_VISIBLE_DEVICES hides one, or there is none)",
    "cudaErrorSystemDriverMismatch": "the NVIDIA driver's kernel module and its libraries have different versions",
}


class NoDeviceError(Exception):
    """CUDA has no device to offer; the text is the reason."""


def describe_device() -> dict[str, str]:
    """Return ``cuda``, ``cuda_driver``, ``gpu``, ``gpu_bus_id``, ``compute_capability`` and ``gpu_memory_bytes`` of the
    current device.

    The PCI bus id tells the GPUs of a machine apart, whichever of them CUDA_VISIBLE_DEVICES hides. Raises
    NoDeviceError: cuda-python, the driver or the device is missing.
    """
    try:
        cuda = runtime()
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and str(error.name).startswith("cuda")
        why = "cuda-python 12.6 or newer is not installed" if missing else f"cuda-python cannot be imported: {error}"
        raise NoDeviceError(f'{why} (pip install "pytest-trt[gpu]")') from error
    if not _ask(cuda.cudaGetDeviceCount):
        raise NoDeviceError(_REASONS["cudaErrorNoDevice"])
    device = _ask(cuda.cudaGetDevice)
    properties = _ask(cuda.cudaGetDeviceProperties, device)
    return {
        "cuda": _dotted(_ask(cuda.cudaRuntimeGetVersion)),
        "cuda_driver": _dotted(_ask(cuda.cudaDriverGetVersion)),
        "gpu": _text(properties.name),
        "gpu_bus_id": _text(_ask(cuda.cudaDeviceGetPCIBusId, 32, device)),
        "compute_capability": f"{properties.major}.{properties.minor}",
        "gpu_memory_bytes": str(int(properties.totalGlobalMem)),
    }


def _ask(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return check(function(*arguments), function.__name__)
    except RunError as error:
        code = error.message.rpartition(": ")[2]
        raise NoDeviceError(_REASONS.get(code, f"CUDA does not work here: {error.message}")) from error
    except RuntimeError as error:
        # Releases of cuda-python that load the driver themselves raise when there is no libcuda at all.
        raise NoDeviceError(f"the NVIDIA driver cannot be loaded: {error}") from error


def _text(value: bytes | str) -> str:
    # A C string in a buffer: what follows its end is not part of it, and not always zero.
    return (value.decode() if isinstance(value, bytes) else str(value)).partition("\0")[0]


def _dotted(number: int) -> str:
    """CUDA writes 12.9 as 12090."""
    return f"{number // 1000}.{number % 1000 // 10}"
