"""The double's builder: a plan is JSON that holds the ONNX model and what was asked of the build."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import onnx
from double_base import make

_TYPE_FLAGS = {"FP16", "BF16", "INT8", "FP8", "INT4", "FP4"}


class ILogger:
    def __init__(self) -> None:
        pass


class IProgressMonitor:
    def __init__(self) -> None:
        pass


class IHostMemory(bytes):
    pass


class ITimingCache:
    def serialize(self) -> Any:
        entries = b"|" + json.dumps(self._entries).encode() if self._entries else b""
        return self._trt.IHostMemory(self._content + entries)

    def combine(self, other: Any, ignore_mismatch: bool) -> bool:
        if other._content != self._content:
            return ignore_mismatch
        self._entries = {**other._entries, **self._entries}
        return True

    def queryKeys(self) -> list:
        assert self._editable, "only an editable cache tells its keys"
        return [self._trt.TimingCacheKey.parse(text) for text in self._entries]

    def query(self, key: Any) -> Any:
        return self._trt.TimingCacheValue(*self._entries[key._text])

    def update(self, key: Any, value: Any) -> bool:
        assert self._editable, "only an editable cache is edited"
        if "no-entry" in self._trt.misbehave:
            return False
        self._entries[key._text] = [value.tacticHash, value.timingMSec]
        return True


class TimingCacheKey:
    @staticmethod
    def parse(trt: Any, text: str) -> Any:
        if not text.startswith("0x"):
            raise RuntimeError(f"not a key: {text}")
        return make(trt, "TimingCacheKey", _text=text)

    def __str__(self) -> str:
        return self._text


class TimingCacheValue:
    def __init__(self, tactic: int, time_ms: float) -> None:
        self.tacticHash, self.timingMSec = tactic, time_ms


class IInt8EntropyCalibrator:
    def __init__(self) -> None:
        pass


class IInt8EntropyCalibrator2(IInt8EntropyCalibrator):
    def __init__(self) -> None:
        pass


class IInt8LegacyCalibrator(IInt8EntropyCalibrator):
    def __init__(self) -> None:
        pass


class IInt8MinMaxCalibrator(IInt8EntropyCalibrator):
    def __init__(self) -> None:
        pass


class IBuilderConfig:
    def set_flag(self, member: Any) -> None:
        self._flags.add(member.name)

    def clear_flag(self, member: Any) -> None:
        self._flags.discard(member.name)

    def get_flag(self, member: Any) -> bool:
        # By value, as the bindings do: two names can mean one flag.
        return any(self._trt.BuilderFlag.__members__[name] == member for name in self._flags)

    def set_preview_feature(self, feature: Any, enable: bool) -> None:
        self._preview[feature.name] = enable

    def set_calibration_profile(self, profile: Any) -> bool:
        self._calibration_profile = profile
        return True

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
        content, _, entries = bytes(blob).partition(b"|")
        state = {"_entries": json.loads(entries or b"{}"), "_editable": "EDITABLE_TIMING_CACHE" in self._flags}
        return make(self._trt, "ITimingCache", _content=content or b"CACHE " + self._trt.__version__.encode(), **state)

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
        state = {"_names": names, "_inputs": [], "_outputs": [], "_proto": None, "_refittable": set()}
        return make(self._trt, "INetworkDefinition", **state)

    def create_builder_config(self) -> Any:
        sources = self._trt.TacticSource.__members__
        on = [m for name, m in sources.items() if self._trt.__version__.startswith("8") or not name.startswith("CU")]
        tactics = sum(1 << int(member) for member in on)
        state = {"_flags": {"TF32"}, "_pools": {}, "_tactics": tactics, "_cache": None, "_profiles": []}
        return make(self._trt, "IBuilderConfig", **state, _preview={}, _calibration_profile=None)

    def create_optimization_profile(self) -> Any:
        return make(self._trt, "IOptimizationProfile", _shapes={})

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        trt, level = self._trt, self._trt.ILogger
        trt._log.append((network, config))
        self._logger.log(level.VERBOSE, "a tactic was timed")
        self._logger.log(level.INFO, "[BuilderFlag] timing\nlayers")
        self._logger.log(level.WARNING, "weights are subnormal")
        operators = {node.op_type for node in network._proto.graph.node}
        strong = "STRONGLY_TYPED" in network._names
        given = config.__dict__.get("_set", {})
        retyped = [
            tensor for tensor in (*network._inputs, *network._outputs) if "dtype" in tensor.__dict__.get("_set", {})
        ]
        stripped = "STRIP_PLAN" in config._flags
        refit = config._flags & {"REFIT", "REFIT_IDENTICAL", "REFIT_INDIVIDUAL"}
        complaint = None
        if strong and config._flags & _TYPE_FLAGS:
            complaint = "BuilderFlag is not compatible with a strongly typed network"
        elif strong and (retyped or given.get("int8_calibrator") is not None):
            complaint = "types and ranges are the model's in a strongly typed network"
        elif not strong and "WEIGHT_STREAMING" in config._flags:
            complaint = "Weight streaming needs a strongly typed network"
        elif len(refit) > 1:
            complaint = "REFIT, REFIT_IDENTICAL and REFIT_INDIVIDUAL exclude each other"
        elif (
            "no-lean-library" in trt.misbehave
            and "VERSION_COMPATIBLE" in config._flags
            and "EXCLUDE_LEAN_RUNTIME" not in config._flags
        ):
            complaint = "Unable to load library: libnvinfer_lean.so"
        elif "ERROR_ON_TIMING_CACHE_MISS" in config._flags and b"+1" not in config._cache._content:
            complaint = "Error Code 2: a tactic is missing in the timing cache"
        elif not strong and "QuantizeLinear" in operators and "INT8" not in config._flags:
            complaint = "Q/DQ layers need BuilderFlag INT8"
        elif (
            "INT8" in config._flags
            and "DequantizeLinear" not in operators
            and config.__dict__.get("_set", {}).get("int8_calibrator") is None
        ):
            complaint = "Calibration failure occurred with no scaling factors detected"
        elif any(-1 in tensor._shape for tensor in network._inputs) and not config._profiles:
            complaint = "Network has dynamic or shape inputs, but no optimization profile has been defined"
        elif "no-plan" in trt.misbehave:
            complaint = "[optimizer.cpp] Error Code 10: could not find any implementation; out of memory"
        watcher = given.get("progress_monitor")
        if watcher is not None:
            watcher.phase_start("Building", None, 2)
            finished = all(watcher.step_complete("Building", step) for step in range(2))
            watcher.phase_finish("Building")
            if not finished:
                return None
        if complaint:
            self._logger.log(level.ERROR, complaint)
            return None
        calibrator = given.get("int8_calibrator")
        if calibrator is not None:
            self._calibrate(calibrator, [tensor.name for tensor in network._inputs])
        config._cache._content += b" +1"
        if config._cache._editable:
            for index, node in enumerate(network._proto.graph.node):
                config._cache._entries.setdefault(f"{index:#034x} {node.op_type}", [0xF00 + index, 0.25])
        proto = onnx.ModelProto()
        proto.CopyFrom(network._proto)
        missing = []
        if stripped:
            for tensor in proto.graph.initializer:
                if "REFIT_INDIVIDUAL" not in config._flags or tensor.name in network._refittable:
                    missing.append(tensor.name)
                    zeros = np.zeros_like(onnx.numpy_helper.to_array(tensor))
                    tensor.CopyFrom(onnx.numpy_helper.from_array(zeros, tensor.name))
        tensors = [*network._inputs, *network._outputs]
        plan = {
            "version": trt.__version__,
            "network": sorted(network._names),
            "flags": sorted(config._flags),
            "profile": config._profiles[0]._shapes if config._profiles else {},
            "profiles": [profile._shapes for profile in config._profiles],
            "dtypes": {tensor.name: tensor.dtype.name for tensor in tensors},
            "formats": {tensor.name: tensor.allowed_formats for tensor in tensors},
            "missing": missing,
            "debug": sorted(network.__dict__.get("_debug", ())),
            "detailed": given["profiling_verbosity"].name,
            "model": base64.b64encode(proto.SerializeToString()).decode(),
        }
        return trt.IHostMemory(json.dumps(plan).encode())

    def _calibrate(self, calibrator: Any, names: list[str]) -> None:
        """Take all batches, unless there is a table already; the table only counts them."""
        if calibrator.read_calibration_cache() is not None:
            return
        batches = 0
        while addresses := calibrator.get_batch(names):
            assert len(addresses) == len(names)
            assert all(self._trt._cuda.holds(address, 1, "device") for address in addresses)
            batches += 1
        calibrator.write_calibration_cache(memoryview(b"TRT table of %d batches" % batches))
