"""What runs a case. The seam: protocols and plain values; one third-party library per module.

The path of the data::

    BuildRequest (a typed Model, a Profile, tactics, options)
        └─ Backend.build ─> Built (plan bytes + what really happened)
              └─ Backend.load ─> Session
                    ├─ run(feeds) ─> outputs                       accuracy
                    └─ stage(feeds); clock().time(launch, n) ─> ms  latency
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from pytest_trt.errors import UsageError, nearest
from pytest_trt.option import flag_of
from pytest_trt.spec.build_options import BuildOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pytest_trt.spec.model import Model
    from pytest_trt.spec.precision import Precision
    from pytest_trt.spec.shapes import Profile

    Array = NDArray[Any]
    Plan = bytes | memoryview  # a plan out of the engine cache is mapped into memory, not copied
    Feeds = Mapping[str, Array]
    Outputs = dict[str, Array]
    Milliseconds = NDArray[np.float64]

__all__ = [
    "BACKENDS",
    "BUILD_OPTIONS",
    "Availability",
    "Backend",
    "BuildOptions",
    "BuildRequest",
    "Built",
    "Calibration",
    "Clock",
    "DebuggingBackend",
    "Session",
    "Support",
    "get_backend",
    "refuse_build_options",
]

# A build reports what it is doing through this: one short line of plain text per call.
Progress = Callable[[str], None]


def silent(message: str) -> None:
    """A Progress that says nothing."""


@dataclass(frozen=True)
class Availability:
    """Whether a backend can work here. ``reason`` says what is missing; ``versions`` what was found."""

    ok: bool
    reason: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Support:
    """How a backend runs a precision.

    ``native``: in kernels of that precision. ``simulated``: the same rounding, computed in another
    type; *reason* says how, and every report repeats the word. ``unsupported``: the case is skipped.
    """

    kind: Literal["native", "simulated", "unsupported"]
    reason: str = ""


@dataclass(frozen=True)
class Calibration:
    """What TensorRT's own (implicit) calibration needs. ``batches`` are feeds of one shape, real samples; ``cache``
    is what an earlier calibration of the same model, samples and algorithm left, which makes batches needless.
    ``fingerprint`` is that of the samples: other samples, other ranges, another plan."""

    algorithm: str  # "entropy2", "entropy", "minmax", "legacy"
    batches: Sequence[Feeds]
    fingerprint: str
    cache: bytes | None = None


@dataclass(frozen=True)
class BuildRequest:
    """All that a build depends on, apart from the machine. ``profiles`` are all that the engine shall hold, and
    ``profile`` is the one of them to run; empty: the engine has only that one."""

    model: Model  # already typed by the precision's recipe
    precision: Precision
    profile: Profile
    options: BuildOptions = field(default_factory=BuildOptions)
    profiles: tuple[Profile, ...] = ()
    calibration: Calibration | None = None
    # Inner tensors that each run shows beside the outputs, under their names in the model, where the engine has them.
    debug_tensors: tuple[str, ...] = ()
    # Entries of an editable timing cache that the build must follow: key of a layer -> (tactic's hash, ms).
    tactic_lock: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    timing_cache: bytes | None = None  # only speeds a build up; not part of the key

    @property
    def held_profiles(self) -> tuple[Profile, ...]:
        """The profiles of the engine, in their order in it."""
        return self.profiles or (self.profile,)

    @property
    def profile_index(self) -> int:
        return [profile.name for profile in self.held_profiles].index(self.profile.name)


@dataclass(frozen=True)
class Built:
    """A finished build.

    ``plan`` is the raw artifact: a TensorRT plan that ``trtexec --loadEngine`` opens, or an optimized
    ONNX file. ``facts`` is what really happened, JSON-able: ``{"build_seconds": 1.2, "simulated": "…",
    "census": {…}, "structure": {…}, "tactics": {…}, …}``; it goes into the record and the cache entry. ``log`` is
    what the builder said, one message a line.
    """

    plan: bytes
    suffix: str  # ".plan", ".onnx"
    facts: dict[str, Any] = field(default_factory=dict)
    timing_cache: bytes | None = None
    log: str = ""
    calibration_cache: bytes | None = None


class Clock(Protocol):
    """Times repeated launches.

    ``name`` says how: ``graph``, ``sync`` (CUDA events), ``host``, ``simulated``, or another mode with its traits
    (``isolated+graph+held``). Durations of different names are not comparable.
    """

    name: str

    def time(self, launch: Callable[[], None], count: int) -> Milliseconds:
        """Launch *count* times; return one duration in ms per launch, shape ``(count,)``, float64."""
        ...

    def conditions(self) -> dict[str, Any]:
        """Readings of the device at this moment (SM clock in MHz, throttle reasons, …); may be empty."""
        ...


class Session(Protocol):
    """A loaded engine. Not thread-safe. ``close()`` frees everything it holds; it may be called twice."""

    def run(self, feeds: Feeds) -> Outputs:
        """Run once: copy *feeds* in, compute, copy the outputs out. Arrays are the caller's own."""
        ...

    def stage(self, feeds: Feeds) -> None:
        """Put *feeds* where ``launch`` reads them, so that only the computation is repeated."""
        ...

    def launch(self) -> None:
        """Compute once on the staged inputs. On a GPU this only enqueues."""
        ...

    def clock(self, mode: str = "graph", *, l2_flush: bool = False, streams: int = 1) -> Clock:
        """The clock for ``launch`` in *mode* (see ``modes``); where no graph can be captured, its ``note`` says why.

        *l2_flush* belongs to ``isolated``, *streams* to ``throughput``. Raises UnsupportedError for a mode that this
        backend lacks, UsageError for an unknown one.
        """
        ...

    def transfers_ms(self, feeds: Feeds) -> dict[str, float]:
        """Median ``h2d_ms`` and ``d2h_ms`` of the copies that ``launch`` leaves out; empty on a CPU."""
        ...

    def sibling(self) -> Session:
        """Another session on the same loaded engine, with a context and a stream of its own. The engine lives as long
        as any of them. Raises UnsupportedError where the backend has no such thing."""
        ...

    def close(self) -> None: ...


class Backend(Protocol):
    """One way to build and run a typed model."""

    name: str

    def probe(self) -> Availability:
        """Say whether this backend works here. Never raises and never crashes the process."""
        ...

    def support(self, precision: Precision) -> Support:
        """Say how *precision* would run here."""
        ...

    def check(self, options: BuildOptions) -> None:
        """Raise UsageError for an option that this backend or this version of it lacks (at collection)."""
        ...

    def identity(self) -> dict[str, str]:
        """What a plan depends on besides the request: library versions, device name, …; JSON-able."""
        ...

    def build(self, request: BuildRequest, progress: Progress = silent) -> Built:
        """Build. Raises BuildError, which names the node and operator where the parser says them."""
        ...

    def load(self, plan: Plan, request: BuildRequest) -> Session:
        """Load *plan*, which ``build`` made from an equal request. Raises RunError."""
        ...


@runtime_checkable
class DebuggingBackend(Protocol):
    """A backend whose engines may show inner tensors that are no outputs: ``BuildRequest.debug_tensors``."""

    def can_debug(self) -> bool:
        """Whether they do here."""
        ...


# name on the command line -> where its ``Backend`` instance lies; imported on first use.
BACKENDS: dict[str, tuple[str, str]] = {
    "onnxruntime-cpu": ("pytest_trt.backends.onnxruntime", "CpuBackend"),
    "onnxruntime-cuda": ("pytest_trt.backends.onnxruntime.on_cuda", "CudaBackend"),
    "onnxruntime-tensorrt": ("pytest_trt.backends.onnxruntime.on_tensorrt", "OrtTensorRTBackend"),
    "tensorrt": ("pytest_trt.backends.tensorrt", "TensorRTBackend"),
    "fake": ("pytest_trt.backends.fake", "FakeBackend"),
}


# The build options that a backend has; one without a row has none. A manifest and a marker speak to those that have
# them, so that one test runs on every backend; what the command line asks of a backend without them is an error.
BUILD_OPTIONS: dict[str, tuple[str, ...]] = {
    "tensorrt": BuildOptions.names(),
    "fake": BuildOptions.names(),
    "onnxruntime-tensorrt": ("workspace", "opt_level", "sparsity", "max_aux_streams"),
}


def refuse_build_options(backend: str, options: BuildOptions) -> None:
    """For backends without a builder. Raises UsageError that names the first option that is given."""
    for name in options.given():
        flag = flag_of(name)
        raise UsageError(
            f"{flag} is TensorRT's; {backend} has nothing like it",
            hint=f"leave {flag} out, or test with --trt-backend=tensorrt alone; a manifest's [build] and a marker give"
            " it to the backends that have it",
        )


def get_backend(name: str, *arguments: object) -> Backend:
    """Return a new backend by its name. Raises UsageError with the nearest known name."""
    if name not in BACKENDS:
        raise UsageError(f"unknown backend {name!r}", hint=nearest(name, BACKENDS))
    module, attribute = BACKENDS[name]
    backend: Backend = getattr(import_module(module), attribute)(*arguments)
    return backend
