"""Case -> expected outputs: stored ones, or ONNX Runtime once, on the CPU in float32, from the user's inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_trt.artifacts.key import Key
from pytest_trt.artifacts.store import Store
from pytest_trt.artifacts.stored_outputs import pack, unpack
from pytest_trt.backends import Progress, silent
from pytest_trt.counted import counted
from pytest_trt.environment import version_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_trt.spec.inputs import Sample
    from pytest_trt.spec.model import Model

__all__ = ["Reference", "obtain_reference"]


@dataclass(frozen=True)
class Reference:
    """Expected outputs, one mapping per sample. ``origin`` says who made them."""

    outputs: tuple[dict[str, NDArray[Any]], ...]
    origin: str
    fresh: bool


def obtain_reference(
    store: Store, model: Model, samples: Sequence[Sample], samples_fingerprint: str, progress: Progress = silent
) -> Reference:
    """Run *samples* through the untyped model, without graph optimizations, or look the outputs up.

    Raises BuildError or RunError when ONNX Runtime cannot run the model.
    """
    key = Key.make(
        "reference",
        {
            "model": model.fingerprint,
            "inputs": samples_fingerprint,
            "onnxruntime": version_of("onnxruntime", "onnxruntime-gpu") or "missing",
            "optimizations": "none",
        },
    )

    def build() -> dict[str, bytes]:
        from pytest_trt.backends.onnxruntime import GraphRunner

        progress(f"reference: running {model.name} in onnxruntime, float32, {counted(len(samples), 'sample')}")
        runner = GraphRunner(model)
        return pack(runner.run(sample.feeds) for sample in samples)

    entry = store.get_or_build(key, build, label=f"reference of {model.name}")
    return Reference(unpack(entry.files, len(samples), model), "onnxruntime-cpu fp32", entry.fresh)
