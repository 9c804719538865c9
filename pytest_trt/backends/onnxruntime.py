"""ONNX Runtime on the CPU: the embedded default backend, and what runs references and calibration."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.backends import (
    Availability,
    BuildOptions,
    BuildRequest,
    Built,
    Progress,
    Support,
    refuse_build_options,
    silent,
)
from pytest_trt.environment import cpu_name, version_of
from pytest_trt.errors import BuildError, RunError
from pytest_trt.spec.model import Model

if TYPE_CHECKING:
    import onnxruntime

    from pytest_trt.backends import Array, Feeds, Milliseconds, Outputs
    from pytest_trt.spec.precision import Precision

__all__ = ["CpuBackend", "CpuSession", "GraphRunner", "HostClock"]

_SIMULATED = {"fp16": "float16", "bf16": "bfloat16"}


class CpuBackend:
    """ONNX Runtime's CPU provider. A plan is the optimized model as ONNX Runtime saves it."""

    name = "onnxruntime-cpu"

    def probe(self) -> Availability:
        try:
            import onnxruntime
        except ImportError as error:
            return Availability(False, f'onnxruntime is not installed ({error}); pip install "pytest-trt[cpu]"')
        return Availability(True, versions={"onnxruntime": onnxruntime.__version__})

    def support(self, precision: Precision) -> Support:
        if precision.name == "fp32":
            return Support("native")
        if precision.name == "int8":
            return Support(
                "simulated", "Q/DQ pairs computed in float32 as the model writes them; latency is not that of int8"
            )
        if precision.name in _SIMULATED:
            low = _SIMULATED[precision.name]
            return Support(
                "simulated", f"computed in float32, every {low} tensor rounded to {low}; latency is not that of {low}"
            )
        return Support(
            "unsupported", f"ONNX Runtime's CPU provider has no {precision.name}; run it with --trt-backend=tensorrt"
        )

    def check(self, options: BuildOptions) -> None:
        """This backend has no build options at all."""
        refuse_build_options(self.name, options)

    def identity(self) -> dict[str, str]:
        return {"onnxruntime": version_of("onnxruntime", "onnxruntime-gpu") or "unknown", "cpu": cpu_name()}

    def build(self, request: BuildRequest, progress: Progress = silent) -> Built:
        model = request.model
        facts: dict[str, Any] = {}
        support = self.support(request.precision)
        if support.kind == "simulated":
            facts["simulated"] = support.reason
        low = _SIMULATED.get(request.precision.name)
        if low:
            from pytest_trt.spec.precision.simulate import simulate

            model = Model.from_proto(simulate(model.proto, low), model.name)
        progress(f"onnxruntime: optimizing {model.name}")
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="pytest-trt-") as folder:
            target = Path(folder, "optimized.onnx")
            options = _options("all")
            options.optimized_model_filepath = str(target)
            # Fused into integer kernels, Q/DQ pairs give other numbers on other processors: x86 without VNNI sums
            # uint8 x int8 products in 16 bits, which saturate (seen: cosine 0.52 on a model that has 0.9998).
            options.add_session_config_entry("session.disable_quant_qdq", "1")
            open_session(model, options, Path(folder))
            plan = target.read_bytes()
        facts["build_seconds"] = round(time.perf_counter() - started, 3)
        facts.update(_census(plan))
        return Built(plan, ".onnx", facts)

    def load(self, plan: bytes, request: BuildRequest) -> CpuSession:  # noqa: ARG002 - the plan says all
        return CpuSession(plan)


def _options(optimization: str) -> onnxruntime.SessionOptions:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4  # failures come as exceptions; the log would only repeat them
    options.intra_op_num_threads = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    )
    options.inter_op_num_threads = 1
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = {"none": levels.ORT_DISABLE_ALL, "all": levels.ORT_ENABLE_ALL}[optimization]
    return options


def open_session(model: Model, options: onnxruntime.SessionOptions, folder: Path) -> onnxruntime.InferenceSession:
    """Open *model* on the CPU; above 2 GiB it goes through a file in *folder*. Raises BuildError."""
    import onnxruntime as ort

    source = model.serialized() if model.fits_in_memory_message else str(model.save(folder))
    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except _failures() as error:
        raise BuildError(
            f"onnxruntime cannot build {model.name!r}: {_message(error)}", hint=_hint(str(error))
        ) from error


def _failures() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    # ONNX Runtime's own exceptions have no common base below Exception; RuntimeError covers the unnamed ones.
    named = (
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NotImplemented",
        "NoSuchFile",
        "NoModel",
        "RuntimeException",
        "EPFail",
    )
    return (*(getattr(state, n) for n in named if hasattr(state, n)), RuntimeError, ValueError)


def _message(error: Exception) -> str:
    text = " ".join(str(error).split())
    # "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for Foo(1) node with name 'x'"
    return text.split(" : ", 2)[-1][:600]


def _hint(text: str) -> str | None:
    if (
        "is not a registered function/op" in text
        or "Could not find an implementation" in text
        or "NOT_IMPLEMENTED" in text
    ):
        return (
            "ONNX Runtime's CPU provider has no kernel for this operator and type;"
            " exclude the node from the recipe, or use another backend"
        )
    if "opset" in text.lower() or "ir_version" in text.lower() or "IR version" in text:
        return "the installed onnxruntime is older than the model; export with a lower opset, or upgrade onnxruntime"
    return None


def _census(plan: bytes) -> dict[str, Any]:
    """The size of what ONNX Runtime made of the graph."""
    import onnx

    return {"plan_bytes": len(plan), "layers": len(onnx.load_model_from_string(plan).graph.node)}


class CpuSession:
    """A loaded plan on the CPU."""

    def __init__(self, plan: bytes) -> None:
        import onnxruntime as ort

        try:
            # The plan is optimized already; doing it again could only undo what was measured.
            self._session: onnxruntime.InferenceSession | None = ort.InferenceSession(
                plan, _options("none"), providers=["CPUExecutionProvider"]
            )
        except _failures() as error:
            raise RunError(f"onnxruntime cannot load the plan: {_message(error)}") from error
        self._output_names = [o.name for o in self._session.get_outputs()]
        self._staged: dict[str, Array] = {}

    def run(self, feeds: Feeds) -> Outputs:
        self.stage(feeds)
        return dict(zip(self._output_names, self._compute(), strict=True))

    def stage(self, feeds: Feeds) -> None:
        self._staged = {name: np.ascontiguousarray(array) for name, array in feeds.items()}

    def launch(self) -> None:
        self._compute()

    def _compute(self) -> list[Array]:
        if self._session is None:
            raise RunError("the session is closed")
        try:
            outputs: list[Array] = self._session.run(self._output_names, self._staged)
        except _failures() as error:
            raise RunError(f"onnxruntime failed while running: {_message(error)}") from error
        return outputs

    def clock(self) -> HostClock:
        return HostClock()

    def transfers_ms(self, feeds: Feeds) -> dict[str, float]:  # noqa: ARG002 - nothing is transferred
        return {}

    def sibling(self) -> CpuSession:
        """Another session on the same InferenceSession, which may run in several threads at once."""
        if self._session is None:
            raise RunError("the session is closed")
        other = copy(self)
        other._staged = {}
        return other

    def close(self) -> None:
        self._session = None
        self._staged = {}


class HostClock:
    """``time.perf_counter_ns`` around each launch, which must be synchronous."""

    name = "host"

    def time(self, launch: Callable[[], None], count: int) -> Milliseconds:
        samples = np.empty(count, dtype=np.float64)
        for index in range(count):
            started = time.perf_counter_ns()
            launch()
            samples[index] = time.perf_counter_ns() - started
        return samples / 1e6

    def conditions(self) -> dict[str, Any]:
        return {"load_1min": round(os.getloadavg()[0], 2)} if hasattr(os, "getloadavg") else {}


class GraphRunner:
    """Runs a model as it is written, without graph optimizations: references and calibration.

    *outputs* may name any tensor of the graph, not only its outputs.
    """

    def __init__(self, model: Model, outputs: Sequence[str] | None = None) -> None:
        if outputs is not None:
            model = _with_outputs(model, outputs)
        self.output_names = [spec.name for spec in model.outputs] if outputs is None else list(outputs)
        with tempfile.TemporaryDirectory(prefix="pytest-trt-") as folder:
            self._session = open_session(model, _options("none"), Path(folder))

    def run(self, feeds: Mapping[str, Array]) -> Outputs:
        """Run once. Raises RunError."""
        try:
            arrays = self._session.run(self.output_names, dict(feeds))
        except _failures() as error:
            raise RunError(f"onnxruntime failed while running the reference: {_message(error)}") from error
        return dict(zip(self.output_names, arrays, strict=True))


def _with_outputs(model: Model, names: Sequence[str]) -> Model:
    import onnx

    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    del proto.graph.output[:]
    # A type is not needed: ONNX Runtime infers it.
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return Model.from_proto(proto, model.name)
