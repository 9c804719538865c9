"""TensorRT's half of a bundle's ``reproduce.py``, for 8.6, 10 and 11. Its source is copied there: it knows nothing of
this package, and asks nothing but TensorRT and the driver that it needs anyway.

Features are found by the presence of a member, and enum members by name, as everywhere in this folder.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pytest_trt.backends.cannot_run import CannotRun

__all__ = ["Driver", "run_tensorrt"]


class Driver:
    """Memory of the device, through the CUDA driver's own library."""

    def __init__(self) -> None:
        try:
            self.cuda = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise CannotRun(f"there is no CUDA driver ({error})") from error
        context = ctypes.c_void_p()
        self.check(self.cuda.cuInit(0), "cuInit")
        self.check(self.cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0), "cuDevicePrimaryCtxRetain")
        self.check(self.cuda.cuCtxSetCurrent(context), "cuCtxSetCurrent")
        self.stream = self.create_stream()

    def check(self, code: int, what: str) -> None:
        if code:
            raise CannotRun(f"{what} failed: CUDA error {code}")

    def create_stream(self) -> int:
        stream = ctypes.c_void_p()
        self.check(self.cuda.cuStreamCreate(ctypes.byref(stream), 1), "cuStreamCreate")
        return stream.value or 0

    def allocate(self, nbytes: int) -> int:
        pointer = ctypes.c_uint64()
        self.check(self.cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(max(nbytes, 1))), "cuMemAlloc")
        return pointer.value

    def free(self, pointer: int) -> None:
        self.check(self.cuda.cuMemFree_v2(ctypes.c_uint64(pointer)), "cuMemFree")

    def upload(self, pointer: int, array: np.ndarray[Any, Any]) -> None:
        source = ctypes.c_void_p(array.ctypes.data)
        size = ctypes.c_size_t(array.nbytes)
        self.check(self.cuda.cuMemcpyHtoD_v2(ctypes.c_uint64(pointer), source, size), "cuMemcpyHtoD")

    def download(self, array: np.ndarray[Any, Any], pointer: int) -> None:
        target = ctypes.c_void_p(array.ctypes.data)
        size = ctypes.c_size_t(array.nbytes)
        self.check(self.cuda.cuMemcpyDtoH_v2(target, ctypes.c_uint64(pointer), size), "cuMemcpyDtoH")

    def synchronize(self) -> None:
        self.check(self.cuda.cuStreamSynchronize(ctypes.c_void_p(self.stream)), "cuStreamSynchronize")


def run_tensorrt(
    model: Path, how: Mapping[str, Any], feeds: Sequence[Mapping[str, Any]], device: Any = None
) -> list[dict[str, Any]]:
    """Build an engine of *model* as ``how`` says, and return its outputs for each sample.

    Raises ImportError without TensorRT, CannotRun where it, a plugin or the driver refuses; TensorRT's own messages
    are on stderr then.
    """
    import tensorrt as trt

    device = device or Driver()
    logger = errors_only(trt)
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(logger, "")
    for library in how["plugins"]:
        try:
            ctypes.CDLL(library)
        except OSError as error:
            raise CannotRun(f"the plugin library {library} cannot be loaded: {error}") from error
    plan = build(trt, logger, model, how)
    runtime = trt.Runtime(logger)
    if "VERSION_COMPATIBLE" in how["flags_on"]:
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise CannotRun(f"TensorRT {trt.__version__} cannot load the plan that it built of {model.name}")
    context = engine.create_execution_context()
    if context is None:
        raise CannotRun(f"TensorRT {trt.__version__} makes no execution context for {model.name}")
    return [execute(trt, engine, context, device, feed) for feed in feeds]


def errors_only(trt: Any) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]  # a base of an untyped library
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                sys.stderr.write(f"TensorRT: {message}\n")

    return Logger()


def build(trt: Any, logger: Any, model: Path, how: Mapping[str, Any]) -> bytes:
    """The plan; with the builder's options that this version has, and a word about each that it lacks."""
    builder = trt.Builder(logger)
    known = trt.NetworkDefinitionCreationFlag.__members__
    strong = "STRONGLY_TYPED" in known and how["typing"] != "weak"
    wanted = ["EXPLICIT_BATCH", *(["STRONGLY_TYPED"] if strong else [])]
    network = builder.create_network(sum(1 << int(known[name]) for name in wanted if name in known))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(model)):
        told = "; ".join(" ".join(str(parser.get_error(index).desc()).split()) for index in range(parser.num_errors))
        raise CannotRun(f"TensorRT {trt.__version__} cannot parse {model.name}: {told[:600] or 'see above'}")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    configure(trt, config, how, set(how["type_flags"] if strong else unusable(trt, network, how)))
    # The tactics of the engine that failed; another device or version refuses them, and times its own.
    kept = (model.parent / how["timing_cache"]).read_bytes() if how["timing_cache"] else b""
    cache = config.create_timing_cache(kept)
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)
    add_profile(builder, network, config, how["profile"])
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise CannotRun(f"TensorRT {trt.__version__} cannot build an engine of {model.name}")
    return bytes(plan)


def unusable(trt: Any, network: Any, how: Mapping[str, Any]) -> list[str]:
    """The flags that a weakly typed network has no use for: INT8 without Q/DQ pairs asks for a calibrator."""
    if "INT8" not in how["flags_on"]:
        return []
    layers = (network.get_layer(index) for index in range(network.num_layers))
    return [] if any(layer.type == trt.LayerType.DEQUANTIZE for layer in layers) else ["INT8"]


def configure(trt: Any, config: Any, how: Mapping[str, Any], left_out: set[str]) -> None:
    for name in how["flags_on"]:
        # The types of a strongly typed network are the model's: there the flags of types are an error.
        if name in trt.BuilderFlag.__members__ and name not in left_out:
            config.set_flag(trt.BuilderFlag.__members__[name])
    for name in how["flags_off"]:
        if name in trt.BuilderFlag.__members__:
            config.clear_flag(trt.BuilderFlag.__members__[name])
    for name, size in how["memory_pools"].items():
        if name in trt.MemoryPoolType.__members__:
            config.set_memory_pool_limit(trt.MemoryPoolType.__members__[name], size)
    if how["tactics"]:
        sources = int(config.get_tactic_sources())
        for entry in how["tactics"]:
            if entry[1:] in trt.TacticSource.__members__:
                bit = 1 << int(trt.TacticSource.__members__[entry[1:]])
                sources = sources | bit if entry[0] == "+" else sources & ~bit
        config.set_tactic_sources(sources)
    for attribute, value in how["attributes"].items():
        if hasattr(type(config), attribute):
            setattr(config, attribute, value)
    for attribute, (enum, member) in how["enums"].items():
        if hasattr(trt, enum) and member in getattr(trt, enum).__members__:
            setattr(config, attribute, getattr(trt, enum).__members__[member])


def add_profile(builder: Any, network: Any, config: Any, shapes: Mapping[str, Any]) -> None:
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    dynamic = [tensor.name for tensor in tensors if any(size < 0 for size in tensor.shape)]
    if not dynamic:
        return
    profile = builder.create_optimization_profile()
    for name in dynamic:
        profile.set_shape(name, *(tuple(shape) for shape in shapes[name]))
    config.add_optimization_profile(profile)


def execute(trt: Any, engine: Any, context: Any, device: Any, feed: Mapping[str, Any]) -> dict[str, Any]:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    addresses, outputs = {}, {}
    try:
        for name in inputs:
            if name not in feed:
                raise CannotRun(f"the model wants an input {name!r}, and there are {', '.join(map(repr, feed))}")
            # 8.6 has int32 where the model has int64.
            array = np.array(feed[name], dtype=type_of(engine, name), order="C")
            if not context.set_input_shape(name, array.shape):
                raise CannotRun(f"input {name!r}: the engine refuses the shape {array.shape}")
            addresses[name] = device.allocate(array.nbytes)
            device.upload(addresses[name], array)
            context.set_tensor_address(name, addresses[name])
        for name in [name for name in names if name not in inputs]:
            shape = tuple(int(size) for size in context.get_tensor_shape(name))
            if any(size < 0 for size in shape):
                raise CannotRun(f"the shape of output {name!r} depends on the values: only pytest-trt runs that")
            outputs[name] = np.empty(shape, type_of(engine, name))
            addresses[name] = device.allocate(outputs[name].nbytes)
            context.set_tensor_address(name, addresses[name])
        if not context.execute_async_v3(device.stream):
            raise CannotRun(f"TensorRT {trt.__version__} cannot run the engine")
        device.synchronize()
        for name, array in outputs.items():
            device.download(array, addresses[name])
    finally:
        for pointer in addresses.values():
            device.free(pointer)
    return outputs


def type_of(engine: Any, name: str) -> np.dtype[Any]:
    kind = engine.get_tensor_dtype(name).name
    known = {"FLOAT": "float32", "HALF": "float16", "BOOL": "bool"}
    known.update({kind: kind.lower() for kind in ("INT8", "INT32", "INT64", "UINT8")})
    if kind not in known:
        raise CannotRun(f"{name!r} is {kind}, which NumPy does not have: only pytest-trt runs that")
    return np.dtype(known[kind])
