"""ONNX Runtime's CUDA provider as a backend."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pytest_trt.backends import BuildOptions, Built, Support, refuse_build_options, silent
from pytest_trt.backends.onnxruntime.gpu import (
    TF32_OVERRIDE,
    GpuBackend,
    gpu_options,
    open_building,
    open_loading,
    partition_facts,
    temporary_folder,
)
from pytest_trt.backends.onnxruntime.gpu_session import GpuSession
from pytest_trt.backends.onnxruntime.partition import observe
from pytest_trt.backends.onnxruntime.providers import CUDA
from pytest_trt.spec.precision.symmetry import asymmetry_remark

if TYPE_CHECKING:
    from pytest_trt.backends import BuildRequest, Plan, Progress
    from pytest_trt.spec.precision import Precision

__all__ = ["CudaBackend"]

_SIMULATED_INT8 = "Q/DQ pairs computed in float32 as the model writes them; latency is not that of int8"


class CudaBackend(GpuBackend):
    """ONNX Runtime's CUDA provider. A plan is the typed model: the provider optimizes it whenever it is loaded."""

    name = "onnxruntime-cuda"
    provider = CUDA

    def support(self, precision: Precision) -> Support:
        found = self._required()
        if precision.name == "fp32":
            if "use_tf32" in found.options or not self._has_tf32():
                return Support("native")
            return Support(
                "unsupported",
                f"this onnxruntime cannot switch TF32 off: upgrade to 1.18 or newer, or {TF32_OVERRIDE}=0",
            )
        if precision.name == "tf32":
            return self._tf32_support()
        if precision.name == "int8":
            return Support("simulated", _SIMULATED_INT8)
        if precision.name in ("fp16", "bf16"):
            return Support("native")
        return Support("unsupported", f"ONNX Runtime's CUDA provider has no {precision.name}")

    def check(self, options: BuildOptions) -> None:
        """This backend has no build options at all."""
        refuse_build_options(self.name, options)

    def build(self, request: BuildRequest, progress: Progress = silent) -> Built:
        facts = self._refuse_unsupported(request.precision)
        plan = request.model.serialized()
        progress(f"onnxruntime: optimizing {request.model.name} for the CUDA provider")
        started = time.perf_counter()
        with temporary_folder() as folder:
            options = gpu_options()
            observe(options, folder)
            session = open_building(request, plan, [(CUDA, self._options(request.precision))], options)
            facts["build_seconds"] = round(time.perf_counter() - started, 3)
            facts.update(partition_facts(session, request, CUDA))
        if remark := asymmetry_remark(request.model.proto):
            facts["remarks"] = [remark]
        return Built(plan, ".onnx", {**facts, "plan_bytes": len(plan)})

    def load(self, plan: Plan, request: BuildRequest) -> GpuSession:
        with ExitStack() as stack:
            stream, given = self._stream(stack)
            session = open_loading(bytes(plan), [(CUDA, {**self._options(request.precision), **given})])
            loaded = GpuSession(session, request, stream, asynchronous=bool(given))
            loaded.keep(stack.pop_all())
        return loaded

    def _options(self, precision: Precision) -> dict[str, str]:
        # Before 1.18 the provider has no such option; ``support`` has refused what needs it.
        if "use_tf32" not in self._required().options:
            return {}
        return {"use_tf32": "1" if "TF32" in precision.flags_on else "0"}
