"""What the execution tests need of the doubles beyond building and running: who died when, what was set on a runtime,
plans of an older release, waiting for events. ``LEAN`` are the recorded modules of the lean runtime."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import double_running
import doubles
import fake_cuda

LEAN = ("lean_8.6.0", "lean_10.16.1.11")


class ExecutionCuda(fake_cuda.FakeCuda):
    """Keeps what is enqueued, and whether the host waited: ``events`` are ("record" | "wait", event number)."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[str, int]] = []

    def cudaEventRecord(self, event: Any, stream: Any) -> tuple:
        assert ("stream", stream.number) in self.live
        self.events.append(("record", event.number))
        return super().cudaEventRecord(event, stream)

    def cudaEventSynchronize(self, event: Any) -> tuple:
        assert ("event", event.number) in self.live
        self.events.append(("wait", event.number))
        return self._answer("cudaEventSynchronize")


class Runtime(double_running.Runtime):
    _lean = False

    def __init__(self, logger: Any) -> None:
        double_running.Runtime.__init__(self, logger)

    def __del__(self) -> None:
        self._trt._died.append("lean runtime" if self._lean else "runtime")

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        trt = self._trt
        allowed = self.engine_host_code_allowed
        trt._loads.append({"lean": self._lean, "host_code": allowed, "plugins": list(trt._plugins)})
        if plan.startswith(b"{"):
            content = json.loads(bytes(plan))
            if {"VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"} <= set(content["flags"]) and not self._lean:
                self._logger.log(trt.ILogger.ERROR, "no lean runtime for this plan was loaded")
                return None
            if "VERSION_COMPATIBLE" in content["flags"]:
                content["version"] = trt.__version__
                plan = json.dumps(content).encode()
        return double_running.Runtime.deserialize_cuda_engine(self, plan)


class ICudaEngine(double_running.ICudaEngine):
    def _value(self, name: str) -> Any:
        return double_running.ICudaEngine._value(self, name)

    def __del__(self) -> None:
        self._trt._died.append("engine")

    def get_tensor_format(self, name: str, profile_index: int = 0) -> Any:
        if hasattr(self._trt, "TensorFormat"):
            return double_running.ICudaEngine.get_tensor_format(self, name)
        if not self.__dict__.get("_computing"):
            raise TypeError("Unable to convert function return value to a Python type!")
        return SimpleNamespace(name="LINEAR")

    def get_tensor_vectorized_dim(self, name: str, profile_index: int = 0) -> int:
        return -1 if self._plan["formats"][name] == 1 else 1

    def get_tensor_components_per_element(self, name: str, profile_index: int = 0) -> int:
        return 4 if self._plan["formats"][name] == 1 << 3 else -1

    def get_tensor_format_desc(self, name: str, profile_index: int = 0) -> str:
        # The bits of the formats are the enum's integers, which this module may lack.
        spelled = {0: "Row major linear FP32 format (kLINEAR)", 3: "Four wide channel vectorized row major FP32 format"}
        return next(text for bit, text in spelled.items() if self._plan["formats"][name] & 1 << bit)

    def create_execution_context(self, *arguments: Any) -> Any:
        trt = self._trt
        trt._budgets.append({name: self.__dict__.get("_set", {}).get(name) for name in _BUDGETS})
        return double_running.ICudaEngine.create_execution_context(self, *arguments)


_BUDGETS = ("weight_streaming_budget", "weight_streaming_budget_v2")


class IExecutionContext(double_running.IExecutionContext):
    def __del__(self) -> None:
        self._trt._died.append("context")

    def _compute(self, shapes: dict, addresses: dict, stream_handle: int) -> None:
        self._engine._computing = True
        double_running.IExecutionContext._compute(self, shapes, addresses, stream_handle)
        self._engine._computing = False

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self._trt._profiles.append(profile_index)
        if "no-sharing" in self._trt.misbehave:
            self._trt._logger_of().log(self._trt.ILogger.ERROR, "Profile 0 is chosen by another context")
            return False
        return double_running.IExecutionContext.set_optimization_profile_async(self, profile_index, stream_handle)


def make_tensorrt(version: str, cuda: fake_cuda.FakeCuda, monkeypatch: Any) -> Any:
    """As ``doubles.make_tensorrt``, with these classes. ``_loads``, ``_budgets`` and ``_profiles`` tell what was done,
    ``_died`` in which order objects went. ``misbehave`` also knows ``no-sharing``."""
    for behaviour in (Runtime, ICudaEngine, IExecutionContext):
        monkeypatch.setitem(doubles._BEHAVIOURS, behaviour.__name__, behaviour)
    monkeypatch.setitem(double_running._FORMATS, "UINT8", "Row major linear UInt8")
    trt = doubles.make_tensorrt(version, cuda)
    trt._loads, trt._budgets, trt._profiles, trt._died = [], [], [], []
    trt._logger_of = lambda: double_running.process_logger_of(trt)
    return trt


def activate(version: str, cuda: fake_cuda.FakeCuda, monkeypatch: Any) -> Any:
    """That ``tensorrt``, as what ``import tensorrt`` finds."""
    trt = make_tensorrt(version, cuda, monkeypatch)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr("pytest_trt.backends.tensorrt.plugins._loaded", {})  # each double has its own registry
    return trt
