"""An onnxruntime-gpu without a GPU: ONNX Runtime's CPU provider under the names of the GPU providers.

Arrays "on the device" lie in the host memory of ``contract.fake_cuda``. The TensorRT provider keeps engines as the
real one does: in files named by the graph's inputs and outputs, whatever the nodes between them compute.
"""

from __future__ import annotations

import hashlib
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from contract import fake_cuda
from contract.fake_cuda import LAUNCH_MS, FakeCuda
from networks import conv_net, weights

from pytest_trt.backends import BuildRequest
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import PRECISIONS
from pytest_trt.spec.shapes import Profile, ShapeRange

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
OVERRIDE = "NVIDIA_TF32_OVERRIDE"
NOSYNC = "disable_synchronize_execution_providers"

PROFILE = Profile("p", {"x": ShapeRange((1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))})
FEEDS = {"x": weights(9, 2, 3, 8, 8)}
OTHER = {"x": weights(8, 4, 3, 8, 8)}

OPTIONS = {
    CUDA: {"device_id", "user_compute_stream", "use_tf32"},
    TENSORRT: {
        "device_id",
        "user_compute_stream",
        "trt_min_subgraph_size",
        "trt_engine_cache_enable",
        "trt_engine_cache_path",
        "trt_timing_cache_enable",
        "trt_timing_cache_path",
        "trt_fp16_enable",
        "trt_bf16_enable",
        "trt_int8_enable",
        "trt_max_workspace_size",
        "trt_builder_optimization_level",
        "trt_sparsity_enable",
        "trt_auxiliary_streams",
        "trt_profile_min_shapes",
        "trt_profile_opt_shapes",
        "trt_profile_max_shapes",
    },
}

Real = onnxruntime.InferenceSession


class Device(FakeCuda):
    """The fake device, which also knows ONNX Runtime's own allocations."""

    def __init__(self) -> None:
        super().__init__()
        self.foreign: set[int] = set()

    def holds(self, pointer: int, nbytes: int, kind: str) -> bool:
        return super().holds(pointer, nbytes, kind) or (kind == "device" and pointer in self.foreign)


@dataclass
class World:
    """What is installed. ``broken`` providers are left out of sessions without a word, as ONNX Runtime does;
    ``refused`` are options that this release does not know; ``leaves`` are operators that a GPU provider leaves."""

    cuda: Device
    available: tuple[str, ...] = (TENSORRT, CUDA, CPU)
    broken: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    leaves: set[str] = field(default_factory=set)
    says_assignment: bool = True
    fails: Callable[[onnx.ModelProto], str | None] = lambda proto: None
    opened: list[dict[str, dict[str, str]]] = field(default_factory=list)

    @property
    def last(self) -> dict[str, dict[str, str]]:
        """The providers of the last session, with their options."""
        return self.opened[-1]

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(self.available))
        monkeypatch.setattr(onnxruntime, "set_default_logger_severity", lambda severity: None)
        kind = AssigningSession if self.says_assignment else Session
        monkeypatch.setattr(onnxruntime, "InferenceSession", type("InferenceSession", (kind,), {"world": self}))


def working(monkeypatch: pytest.MonkeyPatch) -> World:
    """Install an onnxruntime-gpu that works; tests change it before they make a backend."""
    found = World(Device())
    for name, module in fake_cuda.modules(found.cuda).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delenv(OVERRIDE, raising=False)
    found.install(monkeypatch)
    return found


def request(proto: onnx.ModelProto | None = None, precision: str = "tf32", **more: Any) -> BuildRequest:
    """A request for *proto* as it is, without a recipe."""
    return BuildRequest(Model.from_proto(proto or conv_net(), "net"), PRECISIONS[precision], PROFILE, **more)


def loaded(backend: Any, wanted: BuildRequest | None = None) -> Any:
    wanted = wanted or request()
    return backend.load(backend.build(wanted).plan, wanted)


class Session:
    """One InferenceSession."""

    world: World

    def __init__(self, source: Any, options: Any = None, providers: Any = (), **more: Any) -> None:
        chain = {p: {} for p in providers if isinstance(p, str)} | dict(p for p in providers if isinstance(p, tuple))
        order = [p if isinstance(p, str) else p[0] for p in providers]
        self._stream = None
        gpu = [name for name in order if name != CPU]
        if not gpu:
            self._real = Real(source, options, providers=[CPU], **more)
            return
        proto = onnx.load_model_from_string(source) if isinstance(source, bytes) else onnx.load(source)
        for name in order:
            if name not in self.world.available:
                warnings.warn(f"Specified provider '{name}' is not in available provider names", stacklevel=2)
            for option in chain[name]:
                if option not in OPTIONS[name] or option in self.world.refused:
                    raise RuntimeError(f"Invalid {name} option: {option}")
        if said := self.world.fails(proto):
            raise RuntimeError(said)
        self._providers = [n for n in order if n in self.world.available and n not in self.world.broken]
        self.world.opened.append({name: chain[name] for name in order})
        self._options = {
            n: {o: chain[n].get(o, "") for o in OPTIONS.get(n, ()) if o not in self.world.refused} for n in order
        }
        self._nodes = [(n.name, n.op_type) for n in proto.graph.node]
        self._stream = chain[gpu[0]].get("user_compute_stream")
        self._cache = (
            Path(chain[gpu[0]].get("trt_engine_cache_path", "")) if "trt_engine_cache_path" in chain[gpu[0]] else None
        )
        if self._cache is not None:
            source = self.engine(proto)
        self._real = Real(source, options, providers=[CPU])

    def engine(self, proto: onnx.ModelProto) -> bytes:
        """Use the engine of that name, or build it."""
        outside = ",".join(value.name for value in (*proto.graph.input, *proto.graph.output))
        file = self._cache / f"TRTKernel_{hashlib.sha256(outside.encode()).hexdigest()[:8]}_sm90.engine"
        if not file.is_file():
            file.write_bytes(proto.SerializeToString())
            timings = self._cache / "TensorrtExecutionProvider_cache_sm90.timing"
            timings.write_bytes((timings.read_bytes() if timings.is_file() else b"") + b"timed ")
        return file.read_bytes()

    def get_providers(self) -> list[str]:
        return self._providers

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return self._options

    def assigned(self) -> list[Any]:
        def place(kind: str) -> str:
            return CPU if kind in self.world.leaves else self._providers[0]

        return [
            SimpleNamespace(
                ep_name=place(kind), get_nodes=lambda name=name, kind=kind: [SimpleNamespace(name=name, op_type=kind)]
            )
            for name, kind in self._nodes
        ]

    def get_inputs(self) -> Any:
        return self._real.get_inputs()

    def get_outputs(self) -> Any:
        return self._real.get_outputs()

    def run(self, names: Any, feeds: Any) -> Any:
        return self._real.run(names, feeds)

    def end_profiling(self) -> str:
        return self._real.end_profiling()

    def io_binding(self) -> Binding:
        return Binding(self._real.io_binding(), self.world)

    def run_with_iobinding(self, binding: Binding, options: Any = None) -> None:
        try:
            asynchronous = options.get_run_config_entry(NOSYNC) == "1"
        except RuntimeError:  # no such entry
            asynchronous = False
        assert asynchronous == (self._stream is not None), "only a run on our stream may skip the synchronization"
        if self._stream is not None:
            assert ("stream", int(self._stream)) in self.world.cuda.live, "the session outlived its stream"
        self._real.run_with_iobinding(binding.real)
        self.world.cuda.clock_ms += LAUNCH_MS


class AssigningSession(Session):
    """Of releases that say themselves which provider has which node."""

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return self.assigned()


class Binding:
    """Binds to the CPU what is bound to the device; keeps count of addresses that ONNX Runtime allocated."""

    def __init__(self, real: Any, world: World) -> None:
        self.real, self.world = real, world

    def bind_input(self, name: str, device: str, number: int, kind: Any, shape: Any, pointer: int) -> None:
        assert device == "cuda"
        nbytes = int(np.prod(shape)) * np.dtype(kind).itemsize
        assert self.world.cuda.holds(pointer, nbytes, "device")
        self.real.bind_input(name, "cpu", 0, kind, shape, pointer)

    def bind_output(self, name: str, device: str, number: int) -> None:
        assert device == "cuda"
        self.real.bind_output(name, "cpu", 0)

    def get_outputs(self) -> Any:
        outputs = self.real.get_outputs()
        self.world.cuda.foreign.update(output.data_ptr() for output in outputs)
        return outputs
