"""The double's runtime: an engine evaluates its model with onnx's reference evaluator, reading and writing the (fake)
device memory whose addresses it was given, in the format that was built."""

from __future__ import annotations

import base64
import ctypes
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from double_base import FROM_ONNX, NUMPY, dims_of, make, process_logger_of
from fake_cuda import LAUNCH_MS
from onnx.reference import ReferenceEvaluator

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


def _capsule(address: int) -> Any:
    pack = ctypes.pythonapi.PyCapsule_New
    pack.argtypes, pack.restype = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p], ctypes.py_object
    return pack(address, None, None)


def vector_length(layout: str) -> int:
    """Channels side by side: 4 of CHW4, 8 of HWC8; 1 of LINEAR and HWC."""
    return int(layout.lstrip("CDHWLINEAR") or 1)


def to_memory(array: np.ndarray, layout: str) -> np.ndarray:
    """*array* (N, C, spatial…) as TensorRT's *layout* has it, padded with zeros."""
    length = vector_length(layout)
    if layout == "LINEAR":
        return array
    padded = np.zeros((array.shape[0], -(-array.shape[1] // length) * length, *array.shape[2:]), array.dtype)
    padded[:, : array.shape[1]] = array
    if layout.startswith("C"):
        parts = padded.reshape(array.shape[0], -1, length, *array.shape[2:])
        return np.moveaxis(parts, 2, -1)
    return np.moveaxis(padded, 1, -1)


def from_memory(raw: bytes, shape: tuple[int, ...], layout: str, dtype: Any) -> np.ndarray:
    """The other way around."""
    if layout == "LINEAR":
        return np.frombuffer(raw, dtype=dtype).reshape(shape)
    length = vector_length(layout)
    stored = np.frombuffer(raw, dtype=dtype)
    if layout.startswith("C"):
        parts = np.moveaxis(stored.reshape(shape[0], -(-shape[1] // length), *shape[2:], length), -1, 2)
        return parts.reshape(shape[0], -1, *shape[2:])[:, : shape[1]]
    return np.moveaxis(stored.reshape(shape[0], *shape[2:], -1), -1, 1)[:, : shape[1]]


class Runtime:
    engine_host_code_allowed = False
    _lean = False

    def __init__(self, logger: Any) -> None:
        assert self._trt._cuda.devices, "the real Runtime ends the process here"
        self._logger = logger

    def load_runtime(self, path: str) -> Any:
        if not Path(path).read_bytes().startswith(b"LEAN"):
            self._logger.log(self._trt.ILogger.ERROR, f"{path} is no lean runtime")
            return None
        return make(self._trt, "Runtime", _logger=self._logger, _lean=True)

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        trt = self._trt
        try:
            content = json.loads(bytes(plan))
        except ValueError:
            content = {}
        brings_code = {"VERSION_COMPATIBLE"} == set(content.get("flags", ())) & {
            "VERSION_COMPATIBLE",
            "EXCLUDE_LEAN_RUNTIME",
        }
        if brings_code and not self.engine_host_code_allowed:
            self._logger.log(trt.ILogger.ERROR, "the plan holds host code, which is not allowed")
            return None
        if content.get("version") != trt.__version__:
            self._logger.log(trt.ILogger.ERROR, "Serialization assertion magicTag failed")
            return None
        proto = onnx.load_from_string(base64.b64decode(content["model"]))
        tensors = [(v, "INPUT") for v in proto.graph.input] + [(v, "OUTPUT") for v in proto.graph.output]
        state = {"_plan": content, "_proto": proto, "_tensors": tensors}
        return make(trt, "ICudaEngine", **state, _missing=set(content.get("missing", [])))


class ICudaEngine:
    num_io_tensors = property(lambda self: len(self._tensors))
    num_optimization_profiles = property(lambda self: max(len(self._plan["profiles"]), 1))
    num_layers = property(lambda self: len(self._proto.graph.node))
    device_memory_size = 4096
    device_memory_size_v2 = 4096
    weight_streaming_budget = 0
    weight_streaming_budget_v2 = property(lambda self: self.streamable_weights_size)  # 10.1: all on the device

    def _value(self, name: str) -> Any:
        return next((value, mode) for value, mode in self._tensors if value.name == name)

    def is_debug_tensor(self, name: str) -> bool:
        return name in self._plan["debug"]

    def get_tensor_name(self, index: int) -> str:
        return self._tensors[index][0].name

    def get_tensor_mode(self, name: str) -> Any:
        return getattr(self._trt.TensorIOMode, self._value(name)[1])

    def get_tensor_location(self, name: str) -> Any:
        return self._trt.TensorLocation.DEVICE

    def is_shape_inference_io(self, name: str) -> bool:
        return False

    def get_tensor_dtype(self, name: str) -> Any:
        return getattr(self._trt.DataType, self._plan["dtypes"][name])

    def get_tensor_format(self, name: str, profile_index: int = 0) -> Any:
        formats = self._trt.TensorFormat.__members__.values()
        return next(member for member in formats if self._plan["formats"][name] & 1 << int(member))

    def get_tensor_shape(self, name: str) -> Any:
        dims = self._value(name)[0].type.tensor_type.shape.dim
        return dims_of(self._trt, [d.dim_value if d.HasField("dim_value") else -1 for d in dims])

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list:
        return [dims_of(self._trt, shape) for shape in self._plan["profiles"][profile_index][name]]

    def get_tensor_vectorized_dim(self, name: str, profile_index: int = 0) -> int:
        return 1 if vector_length(self.get_tensor_format(name).name) > 1 else -1

    def get_tensor_components_per_element(self, name: str, profile_index: int = 0) -> int:
        return vector_length(self.get_tensor_format(name).name)

    @property
    def streamable_weights_size(self) -> int:
        sizes = [onnx.numpy_helper.to_array(tensor).nbytes for tensor in self._proto.graph.initializer]
        return sum(sizes) if "WEIGHT_STREAMING" in self._plan["flags"] else 0

    def get_weight_streaming_automatic_budget(self) -> int:
        return self.streamable_weights_size // 2

    def create_execution_context(self, *_: Any) -> Any:
        if "no-context" in self._trt.misbehave:
            return None
        state = {"_engine": self, "_shapes": {}, "_addresses": {}, "_allocators": {}, "_profile": 0}
        return make(self._trt, "IExecutionContext", **state)

    def create_engine_inspector(self) -> Any:
        return make(self._trt, "EngineInspector", _engine=self)


class OnnxParserRefitter:
    num_errors = property(lambda self: len(self._errors))

    def __init__(self, refitter: Any, logger: Any) -> None:
        self._refitter, self._logger, self._errors = refitter, logger, []

    def get_error(self, index: int) -> Any:
        return self._errors[index]

    def refit_from_file(self, path: str) -> bool:
        return self._read(onnx.load(path))

    def refit_from_bytes(self, model: bytes, path: str | None = None) -> bool:
        return self._read(onnx.load_from_string(bytes(model)))

    def _read(self, proto: onnx.ModelProto) -> bool:
        if "no-refit" in self._trt.misbehave:
            self._errors.append(make(self._trt, "ParserError", _desc="no initializer\nof this name", _node=0))
            return False
        self._refitter._given = {tensor.name: tensor for tensor in proto.graph.initializer}
        return True


class Refitter:
    def __init__(self, engine: Any, logger: Any) -> None:
        self._engine, self._logger, self._given = engine, logger, {}

    def get_missing_weights(self) -> list[str]:
        return sorted(self._engine._missing - set(self._given))

    def refit_cuda_engine(self) -> bool:
        if self.get_missing_weights():
            self._logger.log(self._trt.ILogger.ERROR, "[refit.cpp] missing weights")
            return False
        for tensor in self._engine._proto.graph.initializer:
            if tensor.name in self._engine._missing:
                tensor.CopyFrom(self._given[tensor.name])
        self._engine._missing.clear()
        return True


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
            name = FROM_ONNX[types[node.output[0]]]
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
    active_optimization_profile = property(lambda self: self._profile)

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        assert ("stream", stream_handle) in self._trt._cuda.live, "not a stream"
        if not 0 <= profile_index < self._engine.num_optimization_profiles:
            return False
        self._profile = profile_index
        self._shapes.clear()
        return True

    def set_input_shape(self, name: str, shape: Any) -> bool:
        profiles = self._engine._plan["profiles"]
        if profiles and name in profiles[self._profile]:
            low, _, high = profiles[self._profile][name]
            if len(shape) != len(low) or not all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True)):
                return False
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert memory
        self._addresses[name] = memory
        return True

    def set_output_allocator(self, name: str, allocator: Any) -> bool:
        self._allocators[name] = allocator
        return True

    def get_max_output_size(self, name: str) -> int:
        elements = sum(int(np.prod(shape)) for shape in self._shapes.values())
        unknown = [size if size >= 0 else elements for size in self.get_tensor_shape(name)]
        return int(np.prod(unknown)) * np.dtype(NUMPY[self._engine.get_tensor_dtype(name).name]).itemsize

    def set_debug_listener(self, listener: Any) -> bool:
        self._listener = listener
        return True

    def set_tensor_debug_state(self, name: str, flag: bool) -> bool:
        assert self._engine.is_debug_tensor(name), f"{name} was not marked"
        self._debugged = {**self.__dict__.get("_debugged", {}), name: flag}
        return True

    def infer_shapes(self) -> list[str]:
        inputs = [value.name for value, mode in self._engine._tensors if mode == "INPUT"]
        return [name for name in inputs if name not in self._shapes]

    def get_tensor_shape(self, name: str) -> Any:
        if name in self._shapes:
            return dims_of(self._trt, self._shapes[name])
        proto = onnx.ModelProto()
        proto.CopyFrom(self._engine._proto)
        for value in proto.graph.input:
            for dim, size in zip(value.type.tensor_type.shape.dim, self._shapes[value.name], strict=True):
                dim.dim_value = size
        for value in proto.graph.output:
            value.type.tensor_type.ClearField("shape")
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
        dims = next(v for v in inferred.graph.output if v.name == name).type.tensor_type.shape.dim
        return dims_of(self._trt, [d.dim_value if d.HasField("dim_value") else -1 for d in dims])

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
        cuda.enqueue(lambda: self._compute(shapes, addresses, stream_handle))
        return True

    def _compute(self, shapes: dict, addresses: dict, stream_handle: int) -> None:
        trt, cuda, engine = self._trt, self._trt._cuda, self._engine
        feeds = {}
        for value, mode in engine._tensors:
            if mode == "INPUT":
                kind = NUMPY[engine.get_tensor_dtype(value.name).name]
                shape = shapes[value.name]
                layout = engine.get_tensor_format(value.name).name
                nbytes = to_memory(np.zeros(shape, kind), layout).nbytes
                assert cuda.holds(addresses[value.name], max(nbytes, 1), "device"), "an address nobody allocated"
                raw = ctypes.string_at(addresses[value.name], nbytes)
                declared = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
                feeds[value.name] = from_memory(raw, shape, layout, kind).astype(declared)
        names = [value.name for value, mode in engine._tensors if mode == "OUTPUT"]
        for name, result in zip(names, ReferenceEvaluator(engine._proto).run(None, feeds), strict=True):
            typed = np.asarray(result).astype(NUMPY[engine.get_tensor_dtype(name).name])
            content = np.ascontiguousarray(to_memory(typed, engine.get_tensor_format(name).name))
            if name in self._allocators:
                address = self._memory_for(name, content.nbytes, addresses)
                self._allocators[name].notify_shape(name, dims_of(trt, typed.shape))
            else:
                address = addresses[name]
            assert cuda.holds(address, max(content.nbytes, 1), "device")
            ctypes.memmove(address, content.tobytes(), content.nbytes)
        self._show(feeds, stream_handle)
        cuda.clock_ms += LAUNCH_MS

    def _show(self, feeds: dict, stream_handle: int) -> None:
        """Tell the listener what is marked and switched on; the memory is gone as soon as it returns."""
        trt, cuda, listener = self._trt, self._trt._cuda, self.__dict__.get("_listener")
        names = [name for name, on in self.__dict__.get("_debugged", {}).items() if on]
        if listener is None or not names:
            return
        for name, value in zip(names, ReferenceEvaluator(self._engine._proto).run(names, feeds), strict=True):
            kind = next(kind for kind, dtype in NUMPY.items() if np.dtype(dtype) == value.dtype)
            content = np.ascontiguousarray(value)
            error, address = cuda.cudaMalloc(max(content.nbytes, 1))
            assert int(error) == 0
            ctypes.memmove(address, content.tobytes(), content.nbytes)
            location, shape = trt.TensorLocation.DEVICE, dims_of(trt, content.shape)
            listener.process_debug_tensor(
                _capsule(address), location, getattr(trt.DataType, kind), shape, name, stream_handle
            )
            cuda.cudaFree(address)

    def _memory_for(self, name: str, nbytes: int, addresses: dict) -> int:
        """Ask the allocator. A TensorRT that misbehaves takes what it asked another context for as its own."""
        enough = self._engine.__dict__.setdefault("_asked", {})
        if "shared-sizes" in self._trt.misbehave and enough.get(name, 0) >= max(nbytes, 1):
            return addresses[name]
        enough[name] = max(nbytes, 1)
        return self._allocators[name].reallocate_output(name, None, max(nbytes, 1), 256)


class IDebugListener:
    def __init__(self) -> None:
        pass


class IOutputAllocator:
    def __init__(self) -> None:
        pass
