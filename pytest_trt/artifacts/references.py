"""Case -> expected outputs: stored ones, or ONNX Runtime once, on the CPU in float32, from the user's inputs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.artifacts.key import Key
from pytest_trt.artifacts.store import Store
from pytest_trt.backends import Progress, silent
from pytest_trt.environment import version_of
from pytest_trt.spec.dtypes import numpy_dtype

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

        progress(f"reference: running {model.name} in onnxruntime, float32, {len(samples)} samples")
        runner = GraphRunner(model)
        arrays = {f"{i}/{name}": _bare(a) for i, s in enumerate(samples) for name, a in runner.run(s.feeds).items()}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]  # the stub takes allow_pickle for a keyword of any array
        return {"outputs.npz": buffer.getvalue()}

    entry = store.get_or_build(key, build, label=f"reference of {model.name}")
    types = {spec.name: spec.dtype for spec in model.outputs}
    outputs: list[dict[str, NDArray[Any]]] = [{} for _ in samples]
    with np.load(io.BytesIO(entry.files["outputs.npz"]), allow_pickle=False) as archive:
        for member in archive.files:
            index, _, name = member.partition("/")
            array = archive[member]
            outputs[int(index)][name] = array.view(numpy_dtype(types[name])) if array.dtype.kind == "V" else array
    return Reference(tuple(outputs), "onnxruntime-cpu fp32", entry.fresh)


def _bare(array: NDArray[Any]) -> NDArray[Any]:
    """*array*, as raw bytes where NumPy lacks its type: a file of bfloat16 or float8 could not be read again."""
    return array if array.dtype.type.__module__ == "numpy" else array.view(f"V{array.itemsize}")
