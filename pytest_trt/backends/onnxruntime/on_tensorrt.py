"""ONNX Runtime's TensorRT provider as a backend."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_trt.backends import BuildOptions, Built, Support, silent
from pytest_trt.backends.onnxruntime.engine_archive import SUFFIX, TIMING, engines, pack, unpack
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
from pytest_trt.backends.onnxruntime.providers import CUDA, TENSORRT, Chain
from pytest_trt.backends.onnxruntime.tensorrt_options import check_options, provider_options
from pytest_trt.errors import BuildError, RunError

if TYPE_CHECKING:
    from pytest_trt.backends import BuildRequest, Plan, Progress
    from pytest_trt.spec.precision import Precision

__all__ = ["OrtTensorRTBackend"]


class OrtTensorRTBackend(GpuBackend):
    """ONNX Runtime's TensorRT provider. A plan is an archive of the typed model and the provider's engines."""

    name = "onnxruntime-tensorrt"
    provider = TENSORRT

    def support(self, precision: Precision) -> Support:
        found = self._required()
        if precision.name == "fp32":
            if not self._has_tf32():
                return Support("native")
            return Support(
                "unsupported",
                "TensorRT has TF32 on, and ONNX Runtime's provider cannot switch it off:"
                f" set {TF32_OVERRIDE}=0, or run tf32",
            )
        if precision.name == "tf32":
            return self._tf32_support()
        if precision.name == "bf16" and "trt_bf16_enable" not in found.options:
            return Support("unsupported", "the TensorRT provider of this onnxruntime has no bfloat16 (1.23 has)")
        if precision.name in ("fp16", "bf16", "int8"):
            return Support("native")
        return Support("unsupported", f"ONNX Runtime's TensorRT provider has no {precision.name}")

    def check(self, options: BuildOptions) -> None:
        check_options(self.name, options, self._required().options)

    def build(self, request: BuildRequest, progress: Progress = silent) -> Built:
        facts = self._refuse_unsupported(request.precision)
        model = request.model.serialized()
        progress(f"onnxruntime: building TensorRT engines of {request.model.name}")
        started = time.perf_counter()
        with temporary_folder() as profile, temporary_folder() as folder:
            timings = self._timing_file(folder)
            if timings is not None and request.timing_cache:
                timings.write_bytes(request.timing_cache)
            options = gpu_options(qdq_as_written=False)
            observe(options, profile)
            session = open_building(request, model, self._chain(request, folder, {}), options)
            facts["build_seconds"] = round(time.perf_counter() - started, 3)
            facts.update(partition_facts(session, request, TENSORRT))
            del session
            facts["engines"] = {name: size for name, (size, _) in engines(folder).items()}
            if not facts["engines"]:
                raise BuildError(f"onnxruntime's TensorRT provider left no engine of {request.model.name!r}")
            plan = pack(model, folder)
            kept = timings.read_bytes() if timings is not None and timings.is_file() else None
        if self._has_tf32() and "TF32" not in request.precision.flags_on:
            facts["tf32"] = f"on in what is left in float32: only {TF32_OVERRIDE}=0 switches it off"
        return Built(plan, SUFFIX, {**facts, "plan_bytes": len(plan)}, timing_cache=kept)

    def load(self, plan: Plan, request: BuildRequest) -> GpuSession:
        with ExitStack() as stack:
            folder = stack.enter_context(temporary_folder())
            model = unpack(plan, folder)
            stored = engines(folder)
            stream, given = self._stream(stack)

            def verify() -> None:
                if engines(folder) != stored:
                    raise RunError(
                        "onnxruntime's TensorRT provider built an engine anew instead of using the stored one",
                        hint="the plan does not fit this machine or these shapes: remove it and build it again",
                    )

            session = open_loading(model, self._chain(request, folder, given), qdq_as_written=False)
            verify()
            loaded = GpuSession(session, request, stream, asynchronous=bool(given), verify=verify)
            loaded.keep(stack.pop_all())
        return loaded

    def _chain(self, request: BuildRequest, folder: Path, given: dict[str, str]) -> Chain:
        options = {**provider_options(request, folder, self._required().options), **given}
        # What TensorRT leaves goes to the CUDA provider, as it does for everyone who uses this provider.
        return [(TENSORRT, options), (CUDA, given)]

    def _timing_file(self, folder: Path) -> Path | None:
        """Where the provider keeps its timings. It fails on those of another TensorRT, so the version must be known."""
        found = self._required().availability.versions
        if "tensorrt" not in found:
            return None
        return folder / f"TensorrtExecutionProvider_cache_sm{found['compute_capability'].replace('.', '')}{TIMING}"
