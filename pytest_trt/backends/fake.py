"""A simulated backend: exact results by ONNX's reference evaluator, deterministic latency, and faults on demand.

It lets every gate, report and option be tested without a GPU, here and in the CI of those who use the
plugin. Everything it prints says ``simulated``. ``faults`` says what can be injected, ``simulated_clock`` what its
durations are.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import time
from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.backends import Availability, BuildOptions, BuildRequest, Built, Progress, Support, silent
from pytest_trt.backends.build_child import inside_build_child, log_line
from pytest_trt.backends.faults import parse_faults
from pytest_trt.backends.feeds import check_feeds
from pytest_trt.backends.modes import MODES, check_mode
from pytest_trt.backends.simulated_clock import SimulatedClock
from pytest_trt.backends.throughput_clock import ThroughputClock
from pytest_trt.errors import BuildError, RunError, UnsupportedError

if TYPE_CHECKING:
    from pytest_trt.backends import Feeds, Outputs, Plan
    from pytest_trt.spec.model import Model
    from pytest_trt.spec.precision import Precision
    from pytest_trt.spec.shapes import Profile

__all__ = ["FakeBackend", "FakeSession"]

_TICKETS = itertools.count(1)


class FakeBackend:
    """Implements the seam without any runtime library. *injected* is ``"latency=1.5,error=0.1"``."""

    name = "fake"

    def __init__(self, injected: str | None = None) -> None:
        self.arguments = (injected,) if injected else ()
        self.faults = parse_faults(injected)
        self._loads = 0

    def probe(self) -> Availability:
        return Availability(True, versions={"fake": "1"})

    def support(self, precision: Precision) -> Support:
        if precision.name == "fp32":
            return Support("native")
        quantizes = "" if precision.calibrator is None else ", without a calibration"
        return Support("simulated", f"the fake backend computes {precision.name} in float32{quantizes}")

    def check(self, options: BuildOptions) -> None:
        """Every option is accepted, so that the plumbing of all of them can be tested."""

    def can_debug(self) -> bool:
        return bool(self.faults["debug"])

    def identity(self) -> dict[str, str]:
        # A slowdown is the engine's, not the machine's: the old engine beside it keeps its own time.
        slowed = {"latency": f"{self.faults['latency']:g}"} if self.faults["latency"] != 1 else {}
        return {"fake": "1", **slowed}

    def build(self, request: BuildRequest, progress: Progress = silent) -> Built:
        progress(f"fake: building {request.model.name}")
        log = self._misbehave(request)
        facts: dict[str, Any] = {"build_seconds": 0.0, "layers": len(request.model.proto.graph.node), "plan_bytes": 0}
        support = self.support(request.precision)
        if support.kind == "simulated":
            facts["simulated"] = support.reason
        if self.faults["fp32"] and request.precision.name != "fp32":
            facts["not_honoured"] = f"{request.precision.name} was asked, every layer runs in float32 (injected)"
        described = {"fake": 1, "model": request.model.fingerprint, "precision": request.precision.name}
        if self.faults["latency"] != 1:
            described["latency"] = self.faults["latency"]
        if self.faults["lottery"]:
            described["ticket"] = next(_TICKETS)
        plan = json.dumps(described).encode()
        return Built(plan, ".fake", {**facts, **self._anatomy(request, len(plan))}, log=log)

    def _anatomy(self, request: BuildRequest, plan_bytes: int) -> dict[str, Any]:
        """What a census would say: every node is a layer."""
        nodes, reformats = request.model.proto.graph.node, int(self.faults["reformats"])
        structure = {"layers": len(nodes) + reformats, "fused": 0, "reformats": reformats, "myelin": 0}
        return {
            "plan_bytes": plan_bytes,
            "options": request.options.describe(),
            "structure": {**structure, "plan_bytes": plan_bytes, "device_memory_bytes": 0},
            "tactics": {node.name: f"fake_{int(self.faults['tactic'])}" for node in nodes},
        }

    def _misbehave(self, request: BuildRequest) -> str:
        """Do to a build what was injected; return what the builder logs. Raises BuildError."""
        log = ""
        if self.faults["log"]:
            log = f"fake: {len(request.model.proto.graph.node)} nodes\nfake: what follows is as injected"
            for line in log.splitlines():
                log_line(line)
        if self.faults["hang"]:
            time.sleep(self.faults["hang"])
        if self.faults["crash"]:
            if not inside_build_child():
                raise BuildError(
                    "the fake builder was told to crash, and would take the whole session along",
                    hint="add --trt-isolate=on, or leave crash=1 out of --trt-fake",
                    log=log,
                )
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.faults["build"]:
            raise BuildError("the fake builder was told to fail", hint="leave build=1 out of --trt-fake", log=log)
        return log

    def load(self, plan: Plan, request: BuildRequest) -> FakeSession:
        try:
            described = json.loads(bytes(plan))
            described["precision"]
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(f"this is no plan of the fake backend: {error}") from error
        self._loads += 1
        misfused = self.faults["fusion"] and request.options.opt_level != 0
        model = self._misfused(request.model) if misfused else request.model
        return FakeSession(model, described, self.faults, request.profile, self._loads, request.debug_tensors)

    def _misfused(self, model: Model) -> Model:
        """*model* with a factor of 1 + ``fusion`` behind the node that was injected."""
        import onnx

        from pytest_trt.spec.model import Model
        from pytest_trt.spec.precision.graph import Names, copy_model, infer_types

        types, proto = infer_types(model.proto), copy_model(model.proto)
        index = int(self.faults["at"]) % len(proto.graph.node)
        node, names = proto.graph.node[index], Names(proto.graph)
        tensor, is_output = node.output[0], node.output[0] in {value.name for value in proto.graph.output}
        if self.faults["shy"] and is_output:
            return model
        node.output[0] = names.fresh(f"{tensor}_exact")
        factor = names.fresh(f"{tensor}_factor")
        value = onnx.helper.make_tensor(factor, types[tensor], (), [1 + self.faults["fusion"]])
        proto.graph.initializer.append(value)
        proto.graph.node.insert(index + 1, onnx.helper.make_node("Mul", [node.output[0], factor], [tensor]))
        return Model.from_proto(proto, model.name)


class FakeSession:
    """Evaluates the model in NumPy through ``onnx.reference``; float16 and bfloat16 graphs in float32."""

    def __init__(
        self,
        model: Model,
        described: dict[str, Any],
        faults: dict[str, float],
        profile: Profile,
        load: int = 1,
        debug_tensors: tuple[str, ...] = (),
    ) -> None:
        from onnx.reference import ReferenceEvaluator

        low = {"fp16": "float16", "bf16": "bfloat16"}.get(described["precision"])
        proto = model.proto
        if low:
            from pytest_trt.spec.precision.simulate import simulate

            proto = simulate(proto, low)
        elif described["precision"] == "int8":
            from onnx.version_converter import convert_version

            # The evaluator knows Q/DQ from opset 19 on only; what they compute here is the same before.
            proto = convert_version(proto, max(19, *(o.version for o in proto.opset_import if not o.domain)))
        try:
            self._evaluator: ReferenceEvaluator | None = ReferenceEvaluator(proto)
        except NotImplementedError as error:  # an operator that is not ONNX's own
            raise UnsupportedError(f"the fake backend has ONNX's evaluator, which refuses: {error}") from error
        self._inputs = [spec.name for spec in model.inputs]
        self._names = [spec.name for spec in model.outputs] + list(debug_tensors)
        self._faults = faults
        self._profile = profile
        self._staged: Feeds = {}
        self._calls = 0
        self._context = 0
        self._load = load
        self._factor = float(described.get("latency", 1.0))
        unslowed = {name: value for name, value in described.items() if name != "latency"}
        self._seed = int(hashlib.sha256(json.dumps(unslowed, sort_keys=True).encode()).hexdigest()[:8], 16)

    def run(self, feeds: Feeds) -> Outputs:
        if self._evaluator is None:
            raise RunError("the session is closed")
        check_feeds(self._inputs, self._profile, feeds)
        with np.errstate(all="ignore"):  # infinity is a result, as it is in any engine
            outputs = dict(zip(self._names, self._evaluator.run(self._names, dict(feeds)), strict=True))
        if self._faults["unstable"]:
            self._calls += 1
            outputs = {
                name: self._shifted(array, self._calls * int(self._faults["unstable"]))
                for name, array in outputs.items()
            }
        if self._faults["race"]:
            outputs = {name: self._shifted(array, self._context) for name, array in outputs.items()}
        error = self._faults["error"]
        if error:
            rng = np.random.default_rng(self._seed)
            for name, array in outputs.items():
                if array.dtype.kind == "f":
                    outputs[name] = (array * (1 + error * rng.standard_normal(array.shape))).astype(array.dtype)
        return outputs

    def stage(self, feeds: Feeds) -> None:
        """Only looked at: a launch of this backend computes nothing."""
        check_feeds(self._inputs, self._profile, feeds)
        self._staged = feeds

    def launch(self) -> None:
        if self._evaluator is None:
            raise RunError("the session is closed")

    def clock(
        self, mode: str = "graph", *, l2_flush: bool = False, streams: int = 1
    ) -> SimulatedClock | ThroughputClock:
        """The durations are the same in every mode; the name tells which one they are invented for."""
        check_mode(FakeBackend.name, mode, MODES, l2_flush=l2_flush, flushes=True)
        if mode == "throughput":
            return ThroughputClock(self, self._staged, streams)
        clock = SimulatedClock(self._seed, self._factor, self._faults["noise"], self._load)
        if mode != "graph":
            clock.name = "+".join(["simulated", mode, *(["l2-flush"] if l2_flush else [])])
        return clock

    def transfers_ms(self, feeds: Feeds) -> dict[str, float]:  # noqa: ARG002 - nothing is transferred
        return {}

    def sibling(self) -> FakeSession:
        if self._evaluator is None:
            raise RunError("the session is closed")
        other = copy(self)
        other._context = self._context + 1
        return other

    @staticmethod
    def _shifted(array: Any, steps: int) -> Any:
        """*array* a few last bits further; what is no float stays."""
        if array.dtype.kind != "f":
            return array
        return array + np.asarray(steps, array.dtype) * np.spacing(np.abs(array))

    def close(self) -> None:
        self._evaluator = None
