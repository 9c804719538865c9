"""Manifest -> Model, decided by what is there: a file, a folder of TensorFlow's, a plan, or what a source returns."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trt.artifacts.exporters import export_ingredients, export_module, is_torch_module
from pytest_trt.artifacts.key import Key
from pytest_trt.artifacts.onnx_files import obtain_file, parse_entry
from pytest_trt.artifacts.saved_models import convert_saved_model, is_saved_model, saved_model_ingredients
from pytest_trt.artifacts.sources import (
    NetworkSource,
    call_inputs_source,
    call_source,
    digest_of,
    is_network_builder,
    obtain_source,
    source_ingredients,
)
from pytest_trt.artifacts.store import Store
from pytest_trt.backends import Progress, silent
from pytest_trt.errors import ManifestError, ModelError, UnsafeModelError
from pytest_trt.spec.interface import Interface
from pytest_trt.spec.manifest import Manifest
from pytest_trt.spec.model import Model

if TYPE_CHECKING:
    import onnx

__all__ = ["call_inputs_source", "obtain_model", "source_ingredients"]

# In place of a model, an entry can say what the source is instead.
_MARK = "made.json"


def obtain_model(
    manifest: Manifest,
    store: Store,
    progress: Progress = silent,
    *,
    inspect: Callable[[], Interface] | None = None,
) -> Model:
    """Return the manifest's model, held against its ``[interface]`` where it has one.

    *inspect* loads the manifest's plan and says its inputs, outputs and profiles; without it, a model that is only a
    plan has those of ``[interface]``. Raises ModelError, ManifestError or UnsafeModelError.
    """
    if manifest.source is not None:
        model = _from_source(manifest, manifest.source, store, progress)
    elif manifest.path is None:
        model = _from_plan(manifest, inspect)
    elif is_saved_model(manifest.path):
        model = _from_saved_model(manifest, manifest.path, store, progress)
    else:
        model = obtain_file(store, manifest.path, manifest.name)
    wrong = manifest.interface.mismatch(Interface.of(model)) if manifest.interface else None
    if wrong:
        raise ModelError(f"{manifest.file}: the model is not what [interface] declares: {wrong}")
    return model


def _from_source(manifest: Manifest, source: str, store: Store, progress: Progress) -> Model:
    ingredients = source_ingredients(manifest, source)
    key = Key.make("model", ingredients)
    made: list[Any] = []

    def result() -> Any:
        if not made:
            progress(f"building the model {manifest.name} with {source}")
            made.append(_result(manifest, source))
        return made[0]

    entry = store.get_or_build(key, lambda: _payload(manifest, source, result()))
    if _MARK not in entry.files:
        return parse_entry(store, entry, manifest.name)
    mark = json.loads(entry.files[_MARK])
    if mark["is"] == "network":
        return _from_network(manifest, source, key)
    if mark["is"] == "file":
        file = _inside(manifest, source, mark["path"])
        if not file.is_file():  # the source writes it, and it is gone: the entry says only where it was
            result()
        return obtain_file(store, file, manifest.name)
    exported = store.get_or_build(
        Key.make("model", {"source": ingredients, "export": export_ingredients(manifest)}),
        lambda: {"model.onnx": _serialized(export_module(manifest, result(), progress), manifest)},
    )
    return parse_entry(store, exported, manifest.name)


def _result(manifest: Manifest, source: str) -> Any:
    """What the source gives; a module and a network builder are themselves the result, and are not called."""
    found = obtain_source(manifest, source)
    if is_network_builder(found):
        return found
    if is_torch_module(found):
        if manifest.args:
            raise ManifestError(
                f"{manifest.file}: {source} is a finished module, which takes no model.args",
                hint="name its class, or a function that makes it",
            )
        return found
    return call_source(manifest, source)


def _payload(manifest: Manifest, source: str, made: Any) -> dict[str, bytes]:
    import onnx

    from pytest_trt.spec.loading import check_proto

    if isinstance(made, onnx.ModelProto):
        check_proto(made, f"{manifest.file}: what {source} returned")
        return {"model.onnx": _serialized(made, manifest)}
    if is_network_builder(made):
        mark = {"is": "network"}
    elif isinstance(made, (str, Path)):
        mark = {"is": "file", "path": _inside(manifest, source, made).relative_to(manifest.folder).as_posix()}
    elif is_torch_module(made[0] if isinstance(made, tuple) and made else made):
        mark = {"is": "torch"}
    else:
        raise ModelError(
            f"{manifest.file}: {source} returned {type(made).__name__}, not an onnx.ModelProto, the path of an .onnx"
            " file, or a torch.nn.Module",
        )
    return {_MARK: json.dumps(mark).encode()}


def _inside(manifest: Manifest, source: str, path: str | Path) -> Path:
    """The file in the folder that a source names."""
    folder = manifest.folder.resolve()
    file = (folder / path).resolve()
    if not file.is_relative_to(folder):
        raise UnsafeModelError(
            f"{manifest.file}: {source} names {file}, outside the model's folder", hint="copy the file into it"
        )
    return manifest.folder / file.relative_to(folder)


def _from_network(manifest: Manifest, source: str, key: Key) -> Model:
    declared = manifest.interface
    if declared is None or not declared.outputs:
        raise ManifestError(
            f"{manifest.file}: {source} fills a TensorRT network; its inputs and outputs must be known without one",
            hint='declare both: [interface.inputs] and [interface.outputs], name = ["N", 3, 224, 224]',
        )
    return Model.from_interface(declared, manifest.name, identity=key.digest, network=NetworkSource(manifest, source))


def _from_plan(manifest: Manifest, inspect: Callable[[], Interface] | None) -> Model:
    if manifest.plan is None:
        raise ManifestError(f"{manifest.file}: [model] has neither path, source nor plan")
    interface = inspect() if inspect is not None else manifest.interface
    if interface is None:
        raise ModelError(
            f"{manifest.file}: only TensorRT can read the inputs and outputs of {manifest.plan.name}",
            hint="run it with --trt-backend=tensorrt, or declare them in [interface.inputs] and [interface.outputs]",
        )
    try:
        identity = digest_of(manifest.plan)
    except OSError as error:
        raise ModelError(f"{manifest.plan}: cannot be read: {error.strerror}") from error
    return Model.from_interface(interface, manifest.name, identity=identity)


def _from_saved_model(manifest: Manifest, folder: Path, store: Store, progress: Progress) -> Model:
    key = Key.make("model", saved_model_ingredients(manifest, folder))

    def convert() -> dict[str, bytes]:
        progress(f"converting the SavedModel {folder.name} of {manifest.name} with tf2onnx")
        return {"model.onnx": _serialized(convert_saved_model(manifest, folder), manifest)}

    return parse_entry(store, store.get_or_build(key, convert), manifest.name)


def _serialized(proto: onnx.ModelProto, manifest: Manifest) -> bytes:
    return Model.from_proto(proto, manifest.name).serialized()
