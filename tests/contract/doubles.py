"""A ``tensorrt`` module per recorded version: its real members, signatures and integers; simulated work.

A plan is JSON that holds the ONNX model; running it evaluates that model with onnx's reference evaluator,
reading and writing the (fake) device memory whose addresses it was given.
"""

from __future__ import annotations

import base64
import ctypes
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from fake_cuda import LAUNCH_MS, FakeCuda
from onnx.reference import ReferenceEvaluator
from recorded import check_call, make_class, make_enum

API = Path(__file__).parent / "api"
VERSIONS = ("8.6.0", "10.0.1", "10.13.3.9", "10.16.1.11", "11.0.0.114", "11.4.0.106")

_FROM_ONNX = {1: "FLOAT", 2: "UINT8", 3: "INT8", 6: "INT32", 7: "INT64", 9: "BOOL", 10: "HALF", 16: "BF16"}
_NUMPY = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}
# How the inspector spells types, old and new.
_FORMATS = {
    "FLOAT": "Row major linear FP32",
    "HALF": "Channel major FP16 format where channel % 8 == 0",
    "BF16": "Row major linear BFloat16",
    "INT8": "Thirty-two wide channel vectorized row major Int8 format",
    "INT32": "Row major linear Int32",
    "INT64": "Row major linear Int64",
    "BOOL": "Row major linear Bool",
}
_TYPE_FLAGS = {"FP16", "BF16", "INT8", "FP8", "INT4", "FP4"}


def make_tensorrt(version: str, cuda: FakeCuda) -> Any:
    """Return the module of *version*, which runs on *cuda*.

    ``misbehave`` is a set of: ``no-plan``, ``fp32-only``, ``myelin``, ``no-context``, ``no-enqueue``.
    """
    recording = json.loads((API / f"{version}.json").read_text())
    trt: Any = ModuleType("tensorrt")
    trt.__version__ = recording["version"]
    trt._cuda, trt._log, trt.misbehave = cuda, [], set()
    for name, values in recording["enum_values"].items():
        if "." not in name:
            setattr(trt, name, make_enum(name, values))
    behaviours = {b.__name__: b for b in BEHAVIOURS}
    for name, members in recording["classes"].items():
        is_open = name in ("ILogger", "IOutputAllocator", "IProgressMonitor")
        made = make_class(trt, name, members, behaviours[name], open_to_python=is_open)
        made._trt = trt
        setattr(trt, name, made)
    severity = make_enum("Severity", recording["enum_values"]["ILogger.Severity"])
    trt.ILogger.Severity = severity
    for member, value in severity.__members__.items():
        setattr(trt.ILogger, member, value)
    for name, signature in recording["functions"].items():
        setattr(trt, name, _function(trt, name, signature))
    return trt


def _function(trt: Any, name: str, signature: str) -> Any:
    answers = {"get_nv_onnx_parser_version": 100, "init_libnvinfer_plugins": True}

    def call(*args: object, **kwargs: object) -> object:
        check_call(trt, name, signature, args, kwargs)
        return answers[name]

    return call


def _make(trt: Any, name: str, **state: object) -> Any:
    made = getattr(trt, name)
    thing = made.__new__(made)
    thing.__dict__.update(state)
    return thing


def _dtype(trt: Any, elem_type: int) -> Any:
    name = _FROM_ONNX[elem_type]
    # 8.6 has no 64-bit integers: its parser narrows them.
    return getattr(trt.DataType, "INT32" if name == "INT64" and not hasattr(trt.DataType, "INT64") else name)


def _dims(trt: Any, shape: Any) -> Any:
    return trt.Dims(tuple(shape))


class ILogger:
    def __init__(self) -> None:
        pass


class IProgressMonitor:
    def __init__(self) -> None:
        pass


class IOutputAllocator:
    def __init__(self) -> None:
        pass


class Dims(tuple):
    pass


class IHostMemory(bytes):
    pass


class ITimingCache:
    def serialize(self) -> Any:
        return self._trt.IHostMemory(self._content)


class IOptimizationProfile:
    def set_shape(self, name: str, low: Any, opt: Any, high: Any) -> None:
        if not len(low) == len(opt) == len(high):
            raise ValueError("shapes have different ranks")
        self._shapes[name] = [list(low), list(opt), list(high)]

    def __bool__(self) -> bool:
        return all(a <= b <= c for shapes in self._shapes.values() for a, b, c in zip(*shapes, strict=True))


class ITensor:
    name = property(lambda self: self._name)
    shape = property(lambda self: _dims(self._trt, self._shape))
    dtype = property(lambda self: self._dtype)
    is_shape_tensor = property(lambda self: self._is_shape_tensor)
    is_network_input = True


class INetworkDefinition:
    num_inputs = property(lambda self: len(self._inputs))
    num_outputs = property(lambda self: len(self._proto.graph.output))

    def get_input(self, index: int) -> Any:
        return self._inputs[index]


class ParserError:
    def desc(self) -> str:
        return self._desc

    def node(self) -> int:
        return self._node

    def node_name(self) -> str:
        return self._proto.graph.node[self._node].name

    def node_operator(self) -> str:
        return self._proto.graph.node[self._node].op_type


class OnnxParser:
    num_errors = property(lambda self: len(self._errors))

    def __init__(self, network: Any, logger: Any) -> None:
        self._network, self._logger, self._errors = network, logger, []

    def get_error(self, index: int) -> Any:
        return self._errors[index]

    def parse_from_file(self, path: str) -> bool:
        return self._read(onnx.load(path))

    def parse(self, model: bytes, path: str | None = None) -> bool:
        return self._read(onnx.load_from_string(bytes(model)))

    def _read(self, proto: onnx.ModelProto) -> bool:
        trt = self._trt
        if "no-errors" in trt.misbehave:
            self._logger.log(trt.ILogger.ERROR, "ModelImporter: something broke")
            return False
        if trt.__version__.startswith("8") and not self._network._names & {"EXPLICIT_BATCH"}:
            raise AssertionError("an ONNX network needs an explicit batch dimension before TensorRT 10")
        for index, node in enumerate(proto.graph.node):
            if node.op_type == "NoSuchOp":
                text = "In function importFallbackPluginImporter:\n[8] Assertion failed: plugin not found"
                self._errors.append(_make(trt, "ParserError", _desc=text, _node=index, _proto=proto))
        if self._errors:
            return False
        filled = {tensor.name for tensor in proto.graph.initializer}
        reshapers = {node.input[1] for node in proto.graph.node if node.op_type == "Reshape"}
        self._network._proto = proto
        for value in proto.graph.input:
            if value.name in filled:
                continue
            shape = [d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim]
            dtype = _dtype(trt, value.type.tensor_type.elem_type)
            state = {"_name": value.name, "_shape": shape, "_dtype": dtype}
            self._network._inputs.append(_make(trt, "ITensor", **state, _is_shape_tensor=value.name in reshapers))
        return True


class IBuilderConfig:
    def set_flag(self, member: Any) -> None:
        self._flags.add(member.name)

    def clear_flag(self, member: Any) -> None:
        self._flags.discard(member.name)

    def get_flag(self, member: Any) -> bool:
        return member.name in self._flags

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self._pools[pool.name] = size

    def get_tactic_sources(self) -> int:
        return self._tactics

    def set_tactic_sources(self, mask: int) -> bool:
        self._tactics = mask
        return True

    def create_timing_cache(self, blob: bytes) -> Any:
        if blob and not blob.startswith(b"CACHE"):
            return None
        return _make(self._trt, "ITimingCache", _content=bytes(blob) or b"CACHE " + self._trt.__version__.encode())

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        if not cache._content.startswith(b"CACHE " + self._trt.__version__.encode()):
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self._cache

    def add_optimization_profile(self, profile: Any) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1


class Builder:
    def __init__(self, logger: Any) -> None:
        assert self._trt._cuda.devices, "a Builder without a device is a null pointer"
        self._logger = logger

    def create_network(self, flags: int = 0) -> Any:
        known = self._trt.NetworkDefinitionCreationFlag.__members__
        names = {name for name, member in known.items() if flags & 1 << int(member)}
        assert flags < 1 << (max(int(m) for m in known.values()) + 1), "a bit that no flag has"
        return _make(self._trt, "INetworkDefinition", _names=names, _inputs=[], _proto=None)

    def create_builder_config(self) -> Any:
        sources = self._trt.TacticSource.__members__
        on = [m for name, m in sources.items() if self._trt.__version__.startswith("8") or not name.startswith("CU")]
        tactics = sum(1 << int(member) for member in on)
        state = {"_flags": {"TF32"}, "_pools": {}, "_tactics": tactics, "_cache": None, "_profiles": []}
        return _make(self._trt, "IBuilderConfig", **state)

    def create_optimization_profile(self) -> Any:
        return _make(self._trt, "IOptimizationProfile", _shapes={})

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        trt, level = self._trt, self._trt.ILogger
        trt._log.append((network, config))
        self._logger.log(level.VERBOSE, "a tactic was timed")
        self._logger.log(level.INFO, "[BuilderFlag] timing\nlayers")
        self._logger.log(level.WARNING, "weights are subnormal")
        operators = {node.op_type for node in network._proto.graph.node}
        complaint = None
        if "STRONGLY_TYPED" in network._names and config._flags & _TYPE_FLAGS:
            complaint = "BuilderFlag is not compatible with a strongly typed network"
        elif "STRONGLY_TYPED" not in network._names and "QuantizeLinear" in operators and "INT8" not in config._flags:
            complaint = "Q/DQ layers need BuilderFlag INT8"
        elif any(-1 in tensor._shape for tensor in network._inputs) and not config._profiles:
            complaint = "Network has dynamic or shape inputs, but no optimization profile has been defined"
        elif "no-plan" in trt.misbehave:
            complaint = "[optimizer.cpp] Error Code 10: could not find any implementation; out of memory"
        watcher = config.__dict__.get("_set", {}).get("progress_monitor")
        if watcher is not None:
            watcher.phase_start("Building", None, 2)
            finished = all(watcher.step_complete("Building", step) for step in range(2))
            watcher.phase_finish("Building")
            if not finished:
                return None
        if complaint:
            self._logger.log(level.ERROR, complaint)
            return None
        config._cache._content += b" +1"
        plan = {
            "version": trt.__version__,
            "network": sorted(network._names),
            "flags": sorted(config._flags),
            "profile": config._profiles[0]._shapes if config._profiles else {},
            "detailed": config.__dict__["_set"]["profiling_verbosity"].name,
            "model": base64.b64encode(network._proto.SerializeToString()).decode(),
        }
        return trt.IHostMemory(json.dumps(plan).encode())


class Runtime:
    engine_host_code_allowed = False

    def __init__(self, logger: Any) -> None:
        assert self._trt._cuda.devices, "the real Runtime ends the process here"
        self._logger = logger

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        trt = self._trt
        try:
            content = json.loads(bytes(plan))
        except ValueError:
            content = {}
        if content.get("version") != trt.__version__:
            self._logger.log(trt.ILogger.ERROR, "Serialization assertion magicTag failed")
            return None
        proto = onnx.load_from_string(base64.b64decode(content["model"]))
        tensors = [(v, "INPUT") for v in proto.graph.input] + [(v, "OUTPUT") for v in proto.graph.output]
        return _make(trt, "ICudaEngine", _plan=content, _proto=proto, _tensors=tensors)


class ICudaEngine:
    num_io_tensors = property(lambda self: len(self._tensors))
    num_layers = property(lambda self: len(self._proto.graph.node))
    device_memory_size = 4096
    device_memory_size_v2 = 4096

    def _value(self, name: str) -> Any:
        return next((value, mode) for value, mode in self._tensors if value.name == name)

    def get_tensor_name(self, index: int) -> str:
        return self._tensors[index][0].name

    def get_tensor_mode(self, name: str) -> Any:
        return getattr(self._trt.TensorIOMode, self._value(name)[1])

    def get_tensor_location(self, name: str) -> Any:
        return self._trt.TensorLocation.DEVICE

    def get_tensor_dtype(self, name: str) -> Any:
        return _dtype(self._trt, self._value(name)[0].type.tensor_type.elem_type)

    def get_tensor_shape(self, name: str) -> Any:
        dims = self._value(name)[0].type.tensor_type.shape.dim
        return _dims(self._trt, [d.dim_value if d.HasField("dim_value") else -1 for d in dims])

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list:
        return [_dims(self._trt, shape) for shape in self._plan["profile"][name]]

    def create_execution_context(self, *_: Any) -> Any:
        if "no-context" in self._trt.misbehave:
            return None
        state = {"_engine": self, "_shapes": {}, "_addresses": {}, "_allocators": {}}
        return _make(self._trt, "IExecutionContext", **state)

    def create_engine_inspector(self) -> Any:
        return _make(self._trt, "EngineInspector", _engine=self)


class EngineInspector:
    def get_engine_information(self, layout: Any) -> str:
        assert layout.name == "JSON"
        trt, plan, proto = self._trt, self._engine._plan, self._engine._proto
        if plan["detailed"] != "DETAILED":
            return json.dumps({"Layers": [node.name for node in proto.graph.node]})
        hidden = bool(plan["profile"]) and self.__dict__.get("_set", {}).get("execution_context") is None
        inferred = onnx.shape_inference.infer_shapes(proto)
        types = {v.name: v.type.tensor_type.elem_type for v in [*inferred.graph.value_info, *inferred.graph.output]}
        layers = [{"Name": "in", "LayerType": "Reformat", "Inputs": [{"Format/Datatype": "Row major linear FP32"}]}]
        for node in proto.graph.node:
            name = _FROM_ONNX[types[node.output[0]]]
            if name == "FLOAT" and "STRONGLY_TYPED" not in plan["network"] and "FP16" in plan["flags"]:
                name = "HALF"
            if "fp32-only" in trt.misbehave:
                name = "FLOAT"
            spelled = "N/A due to dynamic shapes" if hidden else _FORMATS[name]
            border = (
                {"DataType": name, "Format": "Linear"}
                if trt.__version__.startswith("11")
                else {"Format/Datatype": spelled}
            )
            kind = "Myelin" if "myelin" in trt.misbehave else "CaskConvolution"
            layers.append({"Name": node.name + "\t\x01", "LayerType": kind, "Inputs": [border], "Outputs": [border]})
        # The real one does not escape control characters in names.
        return json.dumps({"Layers": layers}).replace("\\u0001", "\x01").replace("\\t", "\t")


class IExecutionContext:
    def set_input_shape(self, name: str, shape: Any) -> bool:
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert memory
        self._addresses[name] = memory
        return True

    def set_output_allocator(self, name: str, allocator: Any) -> bool:
        self._allocators[name] = allocator
        return True

    def infer_shapes(self) -> list[str]:
        inputs = [value.name for value, mode in self._engine._tensors if mode == "INPUT"]
        return [name for name in inputs if name not in self._shapes]

    def get_tensor_shape(self, name: str) -> Any:
        if name in self._shapes:
            return _dims(self._trt, self._shapes[name])
        proto = onnx.ModelProto()
        proto.CopyFrom(self._engine._proto)
        for value in proto.graph.input:
            for dim, size in zip(value.type.tensor_type.shape.dim, self._shapes[value.name], strict=True):
                dim.dim_value = size
        for value in proto.graph.output:
            value.type.tensor_type.ClearField("shape")
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
        dims = next(v for v in inferred.graph.output if v.name == name).type.tensor_type.shape.dim
        return _dims(self._trt, [d.dim_value if d.HasField("dim_value") else -1 for d in dims])

    def execute_async_v3(self, stream_handle: int) -> bool:
        trt, cuda = self._trt, self._trt._cuda
        assert ("stream", stream_handle) in cuda.live, "not a stream"
        if "no-enqueue" in trt.misbehave or ("no-capture" in trt.misbehave and cuda.capturing is not None):
            cuda.capture_broken = True
            logger = process_logger_of(trt)
            logger.log(trt.ILogger.ERROR, "[executionContext.cpp] Error Code 1: Cask (launch failed)")
            return False
        # A graph keeps the shapes and addresses of the moment, as a captured kernel does.
        shapes, addresses = dict(self._shapes), dict(self._addresses)
        cuda.enqueue(lambda: self._compute(shapes, addresses))
        return True

    def _compute(self, shapes: dict, addresses: dict) -> None:
        trt, cuda, engine = self._trt, self._trt._cuda, self._engine
        feeds = {}
        for value, mode in engine._tensors:
            if mode == "INPUT":
                kind = _NUMPY[engine.get_tensor_dtype(value.name).name]
                shape = shapes[value.name]
                nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize
                assert cuda.holds(addresses[value.name], max(nbytes, 1), "device"), "an address nobody allocated"
                raw = ctypes.string_at(addresses[value.name], nbytes)
                declared = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
                feeds[value.name] = np.frombuffer(raw, dtype=kind).reshape(shape).astype(declared)
        names = [value.name for value, mode in engine._tensors if mode == "OUTPUT"]
        for name, result in zip(names, ReferenceEvaluator(engine._proto).run(None, feeds), strict=True):
            content = np.ascontiguousarray(result).astype(_NUMPY[engine.get_tensor_dtype(name).name])
            if name in self._allocators:
                address = self._allocators[name].reallocate_output(name, None, content.nbytes, 256)
                self._allocators[name].notify_shape(name, _dims(trt, content.shape))
            else:
                address = addresses[name]
            assert cuda.holds(address, max(content.nbytes, 1), "device")
            ctypes.memmove(address, content.tobytes(), content.nbytes)
        cuda.clock_ms += LAUNCH_MS


def process_logger_of(trt: Any) -> Any:
    from pytest_trt.backends.tensorrt.logger import process_logger

    return process_logger(trt)


BEHAVIOURS = (
    Builder,
    Dims,
    EngineInspector,
    IBuilderConfig,
    ICudaEngine,
    IExecutionContext,
    IHostMemory,
    ILogger,
    INetworkDefinition,
    IOptimizationProfile,
    IOutputAllocator,
    IProgressMonitor,
    ITensor,
    ITimingCache,
    OnnxParser,
    ParserError,
    Runtime,
)
