"""BuildOptions: the axes of a build besides model, precision and profile, each under one name everywhere.

A field here is the option ``--trt-NAME`` (``--trt-plugin`` for ``plugins``), the marker argument ``NAME=``, the key
``NAME`` of a manifest's ``[build]`` and the ingredient ``options.NAME`` of the cache key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from pytest_trt.errors import UsageError

__all__ = ["BuildOptions", "IoFormat"]


@dataclass(frozen=True)
class IoFormat:
    """What one input or output of the engine shall look like in memory. ``dtype`` and ``layout`` are names of
    TensorRT's DataType and TensorFormat; None leaves the type as it is."""

    tensor: str
    layout: str
    dtype: str | None = None

    @classmethod
    def parse(cls, text: str) -> IoFormat:
        """Read ``x=HALF:CHW16`` or ``x=CHW16``, as the option has checked it."""
        tensor, _, wanted = text.rpartition("=")
        dtype, _, layout = wanted.rpartition(":")
        return cls(tensor, layout, dtype or None)


@dataclass(frozen=True)
class BuildOptions:
    """Knobs of a build. ``None`` and empty leave the library's default; whatever differs is in the cache key, by name.

    ``check`` of a backend says which of them it lacks; the meaning of each is that of TensorRT's own option.
    """

    workspace: int | None = None  # bytes
    memory_pools: tuple[tuple[str, int], ...] = ()  # MemoryPoolType -> bytes
    opt_level: int | None = None  # 0 to 5
    tactics: tuple[str, ...] = ()  # "+EDGE_MASK_CONVOLUTIONS", "-JIT_CONVOLUTIONS"
    typing: str | None = None  # "strong", "weak"
    profiles_per_engine: str | None = None  # "one", "all"
    sparsity: bool | None = None
    max_aux_streams: int | None = None
    tiling: str | None = None  # "none", "fast", "moderate", "full"
    max_tactics: int | None = None
    avg_timing: int | None = None
    refit: str | None = None  # "off", "on", "identical", "individual"
    strip_plan: bool | None = None
    weight_streaming: bool | None = None
    hardware_compatibility: str | None = None  # "none", "ampere-plus", "same-capability"
    version_compatibility: str | None = None  # "off", "on", "exclude-lean"
    lean_runtime: Path | None = None  # the library that runs an "exclude-lean" plan; used while loading only
    plugins: tuple[Path, ...] = ()  # shared libraries
    io_formats: tuple[str, ...] = ()  # "x=HALF:CHW16": TENSOR=[DTYPE:]LAYOUT
    builder_flags: tuple[str, ...] = ()  # "+STRICT_NANS", "-REJECT_EMPTY_ALGORITHMS"
    timing_cache_miss: str | None = None  # "build", "error"
    editable_timing_cache: bool | None = None
    dla: int | None = None  # a core; always refused, with the reason

    def given(self) -> dict[str, Any]:
        """The options that differ from the default, by name."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) != f.default}

    def describe(self) -> dict[str, Any]:
        """What of this can change the plan, as JSON: an option that is not given is not there. Libraries are
        described by their content. Raises UsageError when one cannot be read."""
        plain: dict[str, Any] = {}
        for name, value in self.given().items():
            if name in _NOT_IN_PLAN:
                continue
            if name == "plugins":
                plain[name] = _digests(name, value)
            elif name == "memory_pools":
                plain[name] = dict(value)
            else:
                plain[name] = sorted(value) if isinstance(value, tuple) else value
        return plain

    def reported(self) -> dict[str, Any]:
        """All options that are given, as JSON: ``describe``, and what decides nothing but how a plan is loaded and
        whether a build may go on. Raises UsageError when a library cannot be read."""
        beside = {name: value for name, value in self.given().items() if name in _NOT_IN_PLAN}
        if self.lean_runtime is not None:
            beside["lean_runtime"] = _digests("lean_runtime", (self.lean_runtime,))
        return {**self.describe(), **beside}

    def over(self, other: BuildOptions) -> BuildOptions:
        """These options, and *other*'s where these leave the default."""
        return replace(other, **self.given())

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(f.name for f in fields(cls))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> BuildOptions:
        """The options among *values*; None means "not given"."""
        return cls(**{name: values[name] for name in cls.names() if values.get(name) is not None})


# They decide how a plan is loaded, or whether a build may go on; not what comes out of it.
_NOT_IN_PLAN = ("lean_runtime", "timing_cache_miss")


def _digests(option: str, libraries: tuple[Path, ...]) -> dict[str, str]:
    """The SHA-256 of each library by its file's name; several of one name have theirs side by side."""
    found: dict[str, set[str]] = {}
    for path in libraries:
        found.setdefault(path.name, set()).add(_digest(option, path))
    return {name: ",".join(sorted(digests)) for name, digests in found.items()}


def _digest(option: str, path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(f"{option}: {path} cannot be read: {error.strerror}") from error
