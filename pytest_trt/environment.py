"""Environment: what a result was true in. Read without importing TensorRT, CUDA or ONNX Runtime.

``Environment.key`` holds only what stays the same between two runs on one machine (no clocks, no loads, no
host names), so that baselines of equal environments can be compared; volatile readings belong to a record.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import subprocess
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

__all__ = ["Environment", "Gpu", "cpu_name", "git_commit", "gpus", "version_of"]

# Of what a backend's probe finds, the versions that a result depends on; the rest describes the device again.
_LIBRARIES = ("tensorrt", "cuda", "onnxruntime", "fake")


@dataclass(frozen=True)
class Gpu:
    """One GPU as the driver names it."""

    name: str
    compute_capability: str
    memory_mb: int
    driver: str
    bus_id: str = ""


@dataclass(frozen=True)
class Environment:
    """The stable facts that a measurement depends on; ``libraries`` are the versions that the backend named."""

    backend: str
    device: str
    driver: str
    libraries: tuple[tuple[str, str], ...]
    system: str

    @classmethod
    def of(cls, backend: str, libraries: dict[str, str]) -> Environment:
        """Describe this machine as *backend* sees it; *libraries* is what its probe found."""
        on_gpu = backend not in ("onnxruntime-cpu", "fake")
        gpu = _used(libraries) if on_gpu else None
        return cls(
            backend=backend,
            device=f"{gpu.name} {gpu.memory_mb} MB sm_{gpu.compute_capability.replace('.', '')}" if gpu else cpu_name(),
            driver=gpu.driver if gpu else "",
            libraries=tuple(sorted((k, v) for k, v in libraries.items() if k in _LIBRARIES)),
            system=f"{platform.system()}-{platform.machine()}",
        )

    @property
    def slug(self) -> str:
        """A folder name: the device, the backend and its main library."""
        device = self.device.split(" MB")[0].rsplit(" ", 1)[0] if " MB" in self.device else self.device
        main = dict(self.libraries).get(self.backend.split("-")[0], "")
        return _slug(f"{device}_{self.backend}_{main}".rstrip("_"))

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "libraries": dict(self.libraries)}

    def differences(self, other: dict[str, object]) -> list[str]:
        """Say which fields of a stored environment differ from this one: ``driver: 550 → 580``."""
        mine = self.to_json()
        lines = []
        # A field that only one side has is a difference as well: half a description is no match.
        for name in {**mine, **other}:
            old, new = other.get(name), mine.get(name)
            if name == "libraries" and isinstance(old, dict) and isinstance(new, dict):
                lines += [
                    f"{k}: {old.get(k, '-')} → {new.get(k, '-')}"
                    for k in sorted({*old, *new})
                    if old.get(k) != new.get(k)
                ]
            elif new != old:
                lines.append(f"{name}: {old} → {new}")
        return lines


def _used(libraries: dict[str, str]) -> Gpu | None:
    """The GPU that CUDA uses, as NVML names it: NVML lists those that CUDA_VISIBLE_DEVICES hides, too, and in another
    order. Without NVML, as CUDA names it."""
    known, bus_id = gpus(), libraries.get("gpu_bus_id", "")
    for gpu in known:
        if bus_id and _place(gpu.bus_id) == _place(bus_id):
            return gpu
    if known or "gpu" not in libraries:
        return next(iter(known), None)
    memory_mb = int(libraries.get("gpu_memory_bytes", 0)) // 2**20
    return Gpu(libraries["gpu"], libraries.get("compute_capability", ""), memory_mb, "", bus_id)


def _place(bus_id: str) -> str:
    """A PCI bus id with a domain of four digits: NVML writes eight of them, CUDA four."""
    domain, _, rest = bus_id.lower().partition(":")
    return f"{domain[-4:]}:{rest}"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-")


@functools.lru_cache(maxsize=1)
def gpus() -> tuple[Gpu, ...]:
    """The GPUs that NVML lists; empty without the driver or without nvidia-ml-py."""
    try:
        import pynvml
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        found = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
            memory = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) // 2**20
            bus_id = _text(pynvml.nvmlDeviceGetPciInfo(handle).busId)
            found.append(Gpu(_text(pynvml.nvmlDeviceGetName(handle)), f"{major}.{minor}", memory, driver, bus_id))
        return tuple(found)
    finally:
        pynvml.nvmlShutdown()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


@functools.lru_cache(maxsize=1)
def cpu_name() -> str:
    """The processor's model and the number of cores this process may use: ``AMD EPYC x2``."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    model = ""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        match = re.search(r"^model name\s*:\s*(.+)$", info.read_text(errors="replace"), re.MULTILINE)
        model = match.group(1).strip() if match else ""
    return f"{model or platform.processor() or platform.machine()} x{cores}"


def version_of(*distributions: str) -> str | None:
    """The installed version of the first of *distributions* that is there."""
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


@functools.lru_cache(maxsize=4)
def git_commit(folder: Path) -> str | None:
    """The commit that *folder* is at, ``+dirty`` when changed; None outside git."""
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty=+dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
