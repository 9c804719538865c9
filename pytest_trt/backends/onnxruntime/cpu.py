"""ONNX Runtime on the CPU: the embedded default backend."""

from __future__ import annotations

import tempfile
import time
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from pytest_trt.backends.feeds import check_feeds
from pytest_trt.backends.modes import check_mode
from pytest_trt.backends.onnxruntime.host_clock import HostClock
from pytest_trt.backends.onnxruntime.low_types import Caller
from pytest_trt.backends.onnxruntime.opening import failures, message, open_session, session_options, without_defaults
from pytest_trt.backends.throughput_clock import ThroughputClock
from pytest_trt.environment import cpu_name, version_of
from pytest_trt.errors import RunError
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision.symmetry import asymmetry_remark

if TYPE_CHECKING:
    from pytest_trt.backends import Array, Feeds, Outputs, Plan
    from pytest_trt.spec.precision import Precision
    from pytest_trt.spec.shapes import Profile

__all__ = ["CpuBackend", "CpuSession", "as_run", "session_config"]

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
        if precision.name in ("int8", "fp8"):
            return Support(
                "simulated",
                f"Q/DQ pairs computed in float32 as the model writes them; latency is not that of {precision.name}",
            )
        if precision.name == "int4":
            return Support(
                "simulated", "weights rounded to int4 blocks, computed in float32; latency is not that of int4"
            )
        if precision.calibrator is not None:
            return Support(
                "unsupported",
                f"{precision.name} is TensorRT's own calibration; --trt-precision=int8 works with any backend",
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
        facts: dict[str, Any] = {}
        support = self.support(request.precision)
        if support.kind == "simulated":
            facts["simulated"] = support.reason
        model = as_run(request)
        progress(f"onnxruntime: optimizing {model.name}")
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="pytest-trt-") as folder:
            target = Path(folder, "optimized.onnx")
            options = session_options("all")
            options.optimized_model_filepath = str(target)
            for key, value in session_config(request.precision).items():
                options.add_session_config_entry(key, value)
            open_session(without_defaults(model), options, Path(folder))
            plan = target.read_bytes()
        facts["build_seconds"] = round(time.perf_counter() - started, 3)
        facts.update(_census(plan))
        if remark := asymmetry_remark(request.model.proto):
            facts["remarks"] = [remark]
        return Built(plan, ".onnx", facts)

    def load(self, plan: Plan, request: BuildRequest) -> CpuSession:
        return CpuSession(bytes(plan), request.profile)


def as_run(request: BuildRequest) -> Model:
    """The model that ONNX Runtime gets: 16-bit types are rounded to, in float32."""
    low = _SIMULATED.get(request.precision.name)
    if low is None:
        return request.model
    from pytest_trt.spec.precision.simulate import simulate

    return Model.from_proto(simulate(request.model.proto, low), request.model.name)


def session_config(precision: Precision) -> dict[str, str]:
    """What a session that optimizes a typed model is told."""
    # Fused into integer kernels, Q/DQ pairs give other numbers on other processors: x86 without VNNI sums
    # uint8 x int8 products in 16 bits, which saturate (seen: cosine 0.52 on a model that has 0.9998).
    config = {"session.disable_quant_qdq": "1"}
    if precision.name == "fp8":
        # It drops a Relu before QuantizeLinear where the zero point says that negative values vanish, and
        # takes that of float8 for such a one (seen in 1.31: 5 dB on a model that has 28).
        config["optimization.disable_specified_optimizers"] = "ReluQuantRewrite"
    return config


def _census(plan: bytes) -> dict[str, Any]:
    """The size of what ONNX Runtime made of the graph."""
    import onnx

    return {"plan_bytes": len(plan), "layers": len(onnx.load_model_from_string(plan).graph.node)}


class CpuSession:
    """A loaded plan on the CPU, which could run any shape; it runs those that an engine of *profile* would."""

    def __init__(self, plan: bytes, profile: Profile) -> None:
        import onnxruntime as ort

        try:
            # The plan is optimized already; doing it again could only undo what was measured.
            session = ort.InferenceSession(plan, session_options("none"), providers=["CPUExecutionProvider"])
        except failures() as error:
            raise RunError(f"onnxruntime cannot load the plan: {message(error)}") from error
        self._caller: Caller | None = Caller(session)
        self._input_names = [i.name for i in session.get_inputs()]
        self._output_names = [o.name for o in session.get_outputs()]
        self._profile = profile
        self._feeds: Feeds = {}
        self._staged: dict[str, Any] = {}

    def run(self, feeds: Feeds) -> Outputs:
        self.stage(feeds)
        return dict(zip(self._output_names, self._compute(), strict=True))

    def stage(self, feeds: Feeds) -> None:
        if self._caller is None:
            raise RunError("the session is closed")
        check_feeds(self._input_names, self._profile, feeds)
        self._feeds, self._staged = feeds, self._caller.stage(feeds)

    def launch(self) -> None:
        self._compute()

    def _compute(self) -> list[Array]:
        if self._caller is None:
            raise RunError("the session is closed")
        try:
            return self._caller.call(self._output_names, self._staged)
        except failures() as error:
            raise RunError(f"onnxruntime failed while running: {message(error)}") from error

    def clock(self, mode: str = "graph", *, l2_flush: bool = False, streams: int = 1) -> HostClock | ThroughputClock:
        """The host's clock for every mode but ``throughput``: each launch ends before the next one begins."""
        check_mode(CpuBackend.name, mode, ("graph", "isolated", "throughput"), l2_flush=l2_flush)
        return ThroughputClock(self, self._feeds, streams) if mode == "throughput" else HostClock()

    def transfers_ms(self, feeds: Feeds) -> dict[str, float]:  # noqa: ARG002 - nothing is transferred
        return {}

    def sibling(self) -> CpuSession:
        """Another session on the same InferenceSession, which may run in several threads at once."""
        if self._caller is None:
            raise RunError("the session is closed")
        other = copy(self)
        other._feeds, other._staged = {}, {}
        return other

    def close(self) -> None:
        self._caller = None
        self._feeds, self._staged = {}, {}
