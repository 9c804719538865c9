"""What the backends of onnxruntime-gpu share: the probe, the device, TF32, and how sessions are opened."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trt.backends import Support
from pytest_trt.backends.cuda import Stream
from pytest_trt.backends.onnxruntime.opening import session_options
from pytest_trt.backends.onnxruntime.partition import describe, nodes_by_provider
from pytest_trt.backends.onnxruntime.providers import Chain, Found, open_on, probe
from pytest_trt.errors import BackendUnavailableError, BuildError, RunError, UnsupportedError

if TYPE_CHECKING:
    import onnxruntime

    from pytest_trt.backends import Availability, BuildRequest
    from pytest_trt.spec.precision import Precision

__all__ = [
    "TF32_OVERRIDE",
    "GpuBackend",
    "gpu_options",
    "open_building",
    "open_loading",
    "partition_facts",
    "temporary_folder",
]

# NVIDIA's libraries read it when they are loaded; "0" forbids TF32 whatever else is asked for.
TF32_OVERRIDE = "NVIDIA_TF32_OVERRIDE"


class GpuBackend:
    """What both share: the probe, the device, and the TF32 switch of NVIDIA's libraries."""

    name: str
    provider: str

    def __init__(self) -> None:
        self._found: Found | None = None

    def probe(self) -> Availability:
        return self._probed().availability

    def identity(self) -> dict[str, str]:
        """What a plan depends on. The driver is left out: a plan outlives its update."""
        found = self._required().availability.versions
        kept = ("onnxruntime", "tensorrt", "cuda", "gpu", "compute_capability", "gpu_memory_bytes")
        identity = {name: found[name] for name in kept if name in found}
        if TF32_OVERRIDE in os.environ:
            identity[TF32_OVERRIDE.lower()] = os.environ[TF32_OVERRIDE]
        return identity

    def _probed(self) -> Found:
        if self._found is None:
            self._found = probe(self.provider)
        return self._found

    def _required(self) -> Found:
        found = self._probed()
        if not found.availability.ok:
            raise BackendUnavailableError(
                f"backend {self.name!r} cannot work here: {found.availability.reason}",
                hint="--trt-backend=onnxruntime-cpu needs no GPU",
            )
        return found

    def _refuse_unsupported(self, precision: Precision) -> dict[str, Any]:
        """Raise UnsupportedError, or return the facts of a simulation."""
        support = self.support(precision)
        if support.kind == "unsupported":
            raise UnsupportedError(support.reason)
        return {"simulated": support.reason} if support.kind == "simulated" else {}

    def support(self, precision: Precision) -> Support:
        raise NotImplementedError  # the providers differ

    def _has_tf32(self) -> bool:
        """Whether this GPU has TF32 and the environment lets libraries use it."""
        major = int(self._required().availability.versions["compute_capability"].split(".")[0])
        return major >= 8 and os.environ.get(TF32_OVERRIDE) != "0"

    def _tf32_support(self) -> Support:
        if self._has_tf32():
            return Support("native")
        return Support("unsupported", f"no TF32 here: compute capability below 8.0, or {TF32_OVERRIDE}=0")

    def _stream(self, stack: ExitStack) -> tuple[Stream, dict[str, str]]:
        """A stream, and the option that has the provider compute on it; none where it knows no such option."""
        stream = Stream()
        stack.callback(stream.close)
        given = {"user_compute_stream": str(stream.handle)} if self._required().takes_stream else {}
        return stream, given


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pytest-trt-") as folder:
        yield Path(folder)


def gpu_options(*, qdq_as_written: bool = True) -> onnxruntime.SessionOptions:
    options = session_options("all")
    if qdq_as_written:
        # As on the CPU: fused into integer kernels, the pairs would give other numbers. TensorRT must see the pairs.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


def open_building(
    request: BuildRequest, model: bytes, chain: Chain, options: onnxruntime.SessionOptions
) -> onnxruntime.InferenceSession:
    try:
        return open_on(model, chain, options)
    except BuildError as error:
        if request.precision.name == "bf16" and "Could not find an implementation" in error.message:
            raise UnsupportedError(f"no bfloat16 kernel: {error.message}") from error
        raise BuildError(f"{request.model.name!r}: {error.message}", hint=error.hint) from error


def open_loading(model: bytes, chain: Chain, *, qdq_as_written: bool = True) -> onnxruntime.InferenceSession:
    try:
        return open_on(model, chain, gpu_options(qdq_as_written=qdq_as_written))
    except BuildError as error:
        raise RunError(f"the plan cannot be loaded: {error.message}", hint=error.hint) from error


def partition_facts(session: onnxruntime.InferenceSession, request: BuildRequest, provider: str) -> dict[str, Any]:
    """The facts about who runs which node. Raises BuildError when the provider runs none."""
    nodes, how = nodes_by_provider(session, request)
    facts = describe(nodes, provider, how)
    if nodes and not facts["nodes"]:
        raise BuildError(
            f"{request.model.name!r}: not one node runs on {provider}; all are on "
            f"{', '.join(facts['nodes_elsewhere'])}",
            hint="run it with the backend that really computes it",
        )
    return facts
