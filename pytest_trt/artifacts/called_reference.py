"""Expected outputs from the manifest's own ``reference``, for models that ONNX Runtime cannot run, or should not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_trt.artifacts.key import Key
from pytest_trt.artifacts.references import Reference
from pytest_trt.artifacts.sources import call_reference, source_ingredients
from pytest_trt.artifacts.store import Store
from pytest_trt.artifacts.stored_outputs import pack, unpack
from pytest_trt.backends import Progress, silent
from pytest_trt.counted import counted
from pytest_trt.errors import InputsError

if TYPE_CHECKING:
    from pytest_trt.spec.inputs import Sample
    from pytest_trt.spec.manifest import Manifest
    from pytest_trt.spec.model import Model

__all__ = ["obtain_called_reference"]


def obtain_called_reference(
    store: Store,
    manifest: Manifest,
    model: Model,
    samples: Sequence[Sample],
    samples_fingerprint: str,
    progress: Progress = silent,
) -> Reference:
    """Run *samples* through the manifest's ``reference``, or look its outputs up.

    Raises InputsError where the manifest has none, or when it does not give the model's outputs.
    """
    source = manifest.reference
    if source is None:
        raise InputsError(
            f"{manifest.file}: nothing to compare with: {model.name!r} has no ONNX graph that ONNX Runtime could run,"
            " no stored outputs and no reference",
            hint='give [model] reference = "FILE.py:CALLABLE", or store expected outputs beside the inputs',
        )
    wanted = {spec.name for spec in model.outputs}
    key = Key.make("reference", {**source_ingredients(manifest, source), "inputs": samples_fingerprint})

    def build() -> dict[str, bytes]:
        progress(f"reference: running {source} of {manifest.name}, {counted(len(samples), 'sample')}")
        found = list(call_reference(manifest, samples))
        for outputs in found:
            for name in sorted(wanted ^ set(outputs)):
                what = "no" if name in wanted else "an unknown"
                raise InputsError(
                    f"{manifest.file}: {source} returned {what} output {name!r}",
                    hint=f"the model's outputs: {', '.join(sorted(wanted))}",
                )
        return pack(found)

    entry = store.get_or_build(key, build, label=f"reference of {manifest.name}")
    return Reference(unpack(entry.files, len(samples), model), f"{source} of the model's folder", entry.fresh)
