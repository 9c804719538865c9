"""The GPU providers of onnxruntime-gpu: is one really there, and sessions that run on it or not at all.

ONNX Runtime goes on without a provider whose libraries cannot be loaded, and opens the session on the CPU. Every
session from here was asked which providers it has.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trt.backends import Availability
from pytest_trt.backends.cuda import Stream
from pytest_trt.backends.device import NoDeviceError, describe_device
from pytest_trt.backends.onnxruntime.opening import failures, hint_for, message, session_options
from pytest_trt.errors import BuildError, RunError

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["CPU", "CUDA", "TENSORRT", "Chain", "Found", "import_onnxruntime", "open_on", "probe"]

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
_LIBRARIES = {CUDA: "libonnxruntime_providers_cuda.so", TENSORRT: "libonnxruntime_providers_tensorrt.so"}
_WARNING = 2  # ONNX Runtime's default severity

# Providers in the order in which they may take nodes, each with its options; the CPU comes last without saying.
Chain = Sequence[tuple[str, dict[str, str]]]


@dataclass(frozen=True)
class Found:
    """What a probe found. ``options`` are those that the provider knows; ``takes_stream``: it can compute on ours."""

    availability: Availability
    options: frozenset[str] = frozenset()
    takes_stream: bool = False


def import_onnxruntime() -> Any:
    """Import ONNX Runtime, and load CUDA and cuDNN from NVIDIA's packages where they are installed so."""
    import onnxruntime as ort

    _preload(ort)
    return ort


@functools.lru_cache(maxsize=1)
def _preload(ort: Any) -> None:
    if hasattr(ort, "preload_dlls") and CUDA in ort.get_available_providers():
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find; opening a session says more
            ort.preload_dlls()


def open_on(source: bytes | str, chain: Chain, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """Open a session whose first provider is the first of *chain*; others are left out where they are not built in.

    Raises BuildError, also when ONNX Runtime would go on without the first one.
    """
    ort = import_onnxruntime()
    wanted = chain[0][0]
    there = [link for link in chain if link[0] == wanted or link[0] in ort.get_available_providers()]
    said = io.StringIO()
    with _quiet(ort), contextlib.redirect_stdout(said):
        try:
            session = ort.InferenceSession(source, options, providers=[*there, CPU], enable_fallback=0)
        except failures() as error:
            raise BuildError(
                f"onnxruntime's {_short(wanted)} provider cannot build: {message(error)}",
                hint=hint_for(str(error), _short(wanted)),
            ) from error
    if wanted not in session.get_providers():
        # Releases that ignore enable_fallback print the error and go on without the provider.
        printed = re.search(r"^EP Error (.*?) when using", said.getvalue(), re.DOTALL | re.MULTILINE)
        why = message(RuntimeError(printed[1])) if printed else _missing_library(ort, wanted)
        raise BuildError(f"onnxruntime left the {_short(wanted)} provider out{f': {why}' if why else ''}")
    return session


def probe(provider: str) -> Found:
    """Say whether *provider* works here. Never raises, and never crashes: the device is asked before its libraries."""
    try:
        ort = import_onnxruntime()
    except ImportError as error:
        return _missing(f'onnxruntime-gpu is not installed ({error}); pip install "pytest-trt[gpu]"')
    except (OSError, RuntimeError) as error:
        return _missing(f"onnxruntime cannot be imported: {error}")
    versions = {"onnxruntime": str(ort.__version__)}
    if provider not in ort.get_available_providers():
        return _missing(
            f"this onnxruntime {ort.__version__} is built without the {_short(provider)} provider"
            " (pip uninstall onnxruntime onnxruntime-gpu; pip install onnxruntime-gpu)",
            versions,
        )
    try:
        versions = {**versions, **describe_device()}
        known, takes_stream = _try_out(provider)
    except NoDeviceError as error:
        return _missing(str(error), versions)
    except RunError as error:
        return _missing(error.message, versions)
    except BuildError as error:
        # ONNX Runtime advises to install TensorRT or CUDA; the loader names the file.
        why = _missing_library(ort, provider)
        return _missing(error.message if why in error.message else f"{error.message} ({why})", versions)
    if provider == TENSORRT and (version := _tensorrt_version()):
        versions["tensorrt"] = version
    return Found(Availability(True, versions=versions), known, takes_stream)


def _missing(reason: str, versions: dict[str, str] | None = None) -> Found:
    return Found(Availability(False, reason, versions or {}))


def _try_out(provider: str) -> tuple[frozenset[str], bool]:
    """Open a session on a graph of one node. Return the options that it knows, and whether it takes a stream."""
    model, stream = _smallest_model(), Stream()
    # Too few nodes for an engine: nothing is built.
    options = {"trt_min_subgraph_size": "1000"} if provider == TENSORRT else {}
    try:
        try:
            given = {**options, "user_compute_stream": str(stream.handle)}
            session = open_on(model, [(provider, given)], session_options("all"))
            takes_stream = True
        except BuildError:
            session = open_on(model, [(provider, options)], session_options("all"))
            takes_stream = False
        known = frozenset(session.get_provider_options().get(provider, {}))
        del session  # before the stream that it computes on
        return known, takes_stream
    finally:
        stream.close()


def _smallest_model() -> bytes:
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "smallest", [x], [y])
    # Every release that has a GPU provider knows these versions.
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    return bytes(proto.SerializeToString())


@contextlib.contextmanager
def _quiet(ort: Any) -> Iterator[None]:
    """A library that cannot be loaded is logged by the process-wide logger; the exception says it as well."""
    ort.set_default_logger_severity(4)
    try:
        yield
    finally:
        ort.set_default_logger_severity(_WARNING)


def _missing_library(ort: Any, provider: str) -> str:
    """What the loader says about the provider's library. Only after ONNX Runtime failed to load it."""
    library = Path(ort.__file__).parent / "capi" / _LIBRARIES[provider]
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error)
    return ""


def _tensorrt_version() -> str:
    """The version of the libnvinfer that this process has loaded; empty where it cannot be told."""
    maps = Path("/proc/self/maps")
    # Its folder may have spaces, and a name that is no text in this locale.
    loaded = re.search(r"(/.*/libnvinfer\.so\S*)", os.fsdecode(maps.read_bytes())) if maps.is_file() else None
    if loaded is None:
        return ""
    try:
        number = int(ctypes.CDLL(loaded[1]).getInferLibVersion())
    except (OSError, AttributeError):
        return ""
    # 8.6.1 is written 8601, 10.13.3 is written 101303.
    major = 10000 if number >= 100000 else 1000
    return f"{number // major}.{number % major // 100}.{number % 100}"


def _short(provider: str) -> str:
    return {CUDA: "CUDA", TENSORRT: "TensorRT"}.get(provider, provider)
