"""The TensorRT backend. TensorRT and CUDA are imported when it is first used, never before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_trt.backends import Availability, silent
from pytest_trt.backends.tensorrt.building import build
from pytest_trt.backends.tensorrt.options import check_options
from pytest_trt.backends.tensorrt.probe import import_tensorrt, probe
from pytest_trt.backends.tensorrt.session import TensorRTSession
from pytest_trt.backends.tensorrt.versions import support, typing
from pytest_trt.backends.tensorrt.versions.debugging import can_debug
from pytest_trt.errors import BackendUnavailableError, UnsupportedError

if TYPE_CHECKING:
    from pytest_trt.backends import BuildOptions, BuildRequest, Built, Plan, Progress, Support
    from pytest_trt.spec.interface import Interface
    from pytest_trt.spec.precision import Precision

__all__ = ["TensorRTBackend", "TensorRTSession"]


class TensorRTBackend:
    """Builds with TensorRT 8.6, 10 or 11 and runs on the current CUDA device.

    Everything but ``probe`` raises BackendUnavailableError where a GPU, its driver or TensorRT is missing.
    """

    name = "tensorrt"

    def __init__(self) -> None:
        self._found: Availability | None = None

    def probe(self) -> Availability:
        if self._found is None:
            self._found = probe()
        return self._found

    def support(self, precision: Precision) -> Support:
        trt = self._tensorrt()
        major, minor = self.probe().versions["compute_capability"].split(".")
        return support(trt, precision, (int(major), int(minor)))

    def check(self, options: BuildOptions) -> None:
        check_options(self._tensorrt(), options)

    def identity(self) -> dict[str, str]:
        """What a plan depends on. The driver is left out: a plan outlives its update."""
        trt = self._tensorrt()
        kept = ("tensorrt", "cuda", "gpu", "compute_capability", "gpu_memory_bytes")
        found = self.probe().versions
        return {
            **{name: found[name] for name in kept},
            "onnx_parser": str(trt.get_nv_onnx_parser_version()),
            "typing": typing(trt),
        }

    def build(self, request: BuildRequest, progress: Progress = silent) -> Built:
        trt = self._tensorrt()
        found = self.support(request.precision)
        if found.kind == "unsupported":
            raise UnsupportedError(found.reason)
        return build(trt, request, progress)

    def merge_timings(self, older: bytes, newer: bytes) -> bytes:
        """One timing cache of two that were made on devices of this model by this version."""
        from pytest_trt.backends.tensorrt.logger import process_logger
        from pytest_trt.backends.tensorrt.options import merged_timing_caches

        trt = self._tensorrt()
        return merged_timing_caches(trt.Builder(process_logger(trt)).create_builder_config(), older, newer)

    def interface(self, plan: Plan, options: BuildOptions) -> Interface:
        """What a finished *plan* says of itself: inputs, outputs, profiles. Raises RunError."""
        from pytest_trt.backends.tensorrt.interface import read_interface

        return read_interface(self._tensorrt(), plan, options)

    def can_debug(self) -> bool:
        return can_debug(self._tensorrt())

    def load(self, plan: Plan, request: BuildRequest) -> TensorRTSession:
        return TensorRTSession(self._tensorrt(), plan, request)

    def _tensorrt(self) -> Any:
        found = self.probe()
        if not found.ok:
            raise BackendUnavailableError(
                f"backend 'tensorrt' cannot work here: {found.reason}",
                hint="--trt-backend=onnxruntime-cpu needs no GPU",
            )
        return import_tensorrt()
