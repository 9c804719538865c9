"""Manifest -> Model: read the file, or run ``source = "build.py:build"`` once and keep the ONNX it made."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trt.artifacts.key import Key
from pytest_trt.artifacts.store import Store
from pytest_trt.backends import Progress, silent
from pytest_trt.environment import version_of
from pytest_trt.errors import InputsError, ManifestError, ModelError, TrtError, nearest
from pytest_trt.spec.manifest import Manifest
from pytest_trt.spec.model import Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["call_inputs_source", "call_source", "obtain_model", "source_ingredients"]


def obtain_model(manifest: Manifest, store: Store, progress: Progress = silent) -> Model:
    """Return the manifest's model. Raises ModelError, ManifestError or UnsafeModelError."""
    if manifest.path is not None:
        return Model.load(manifest.path, name=manifest.name)
    import onnx

    from pytest_trt.spec.loading import check_proto

    def build() -> dict[str, bytes]:
        progress(f"building the model {manifest.name} with {manifest.source}")
        proto = call_source(manifest, manifest.source or "")
        if not isinstance(proto, onnx.ModelProto):
            raise ModelError(
                f"{manifest.file}: {manifest.source} returned {type(proto).__name__}, not an onnx.ModelProto"
            )
        check_proto(proto, f"{manifest.file}: what {manifest.source} returned")
        return {"model.onnx": Model.from_proto(proto, manifest.name).serialized()}

    entry = store.get_or_build(Key.make("model", source_ingredients(manifest, manifest.source or "")), build)
    return Model.from_proto(onnx.load_model_from_string(entry.files["model.onnx"]), manifest.name)


def source_ingredients(manifest: Manifest, source: str) -> dict[str, Any]:
    """What a source's result depends on: the Python files in its folder and one above, its arguments, its packages."""
    folder = manifest.folder
    files = sorted({*folder.glob("*.py"), *folder.parent.glob("*.py")})
    texts = sorted(folder.glob("*.txt"))
    return {
        "source": source,
        "args": dict(manifest.args),
        "files": {
            file.name if file.parent == folder else f"../{file.name}": _digest(file) for file in (*files, *texts)
        },
        "packages": {name: version_of(name) or "missing" for name in ("onnx", "numpy", *manifest.requires)},
    }


def call_source(manifest: Manifest, source: str) -> Any:
    """Run ``FILE:CALLABLE`` of the model's folder with the manifest's args.

    This executes code, as running the tests of a repository does. Raises ManifestError when there is no such
    file or callable, and ModelError with the callable's own words when it fails.
    """
    try:
        with _no_bytecode():
            return _find(manifest, source)(**manifest.args)
    except TrtError:
        raise
    # The callable is the user's: whatever it raises is one failed model with its own words, the cause is chained.
    except (Exception, SystemExit) as error:
        raise ModelError(f"{manifest.file}: {source} failed: {type(error).__name__}: {error}") from error


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Python takes a .pyc for current by the second and the size of its source: an edit that keeps both would run the
    old code under the new key. And a model's folder is no place for caches."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def call_inputs_source(manifest: Manifest) -> dict[str, NDArray[Any]]:
    """Run the source of the manifest's inputs, as ``call_source`` does. Raises InputsError for what are no arrays."""
    import numpy as np

    source = manifest.inputs_source or ""
    arrays = call_source(manifest, source)
    where = f"{manifest.file}: {source} returned"
    if not isinstance(arrays, Mapping):
        raise InputsError(f"{where} {type(arrays).__name__}, not arrays by the names of inputs", hint="return a dict")
    for name, array in arrays.items():
        if not isinstance(name, str) or not isinstance(array, np.ndarray):
            raise InputsError(
                f"{where} {type(array).__name__} for {name!r}, not a NumPy array", hint="convert it: numpy.asarray(…)"
            )
    return dict(arrays)


def _find(manifest: Manifest, source: str) -> Callable[..., Any]:
    name, colon, attribute = source.partition(":")
    path = (manifest.folder / name).resolve()
    if not colon or not path.is_relative_to(manifest.folder.resolve()) or not path.is_file():
        raise ManifestError(f"{manifest.file}: source {source!r} is not FILE:CALLABLE with a file of this folder")
    module_name = f"pytest_trt_source_{_digest(path)[:16]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ManifestError(f"{manifest.file}: {name} cannot be imported; it must be a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickling inside the module look it up here
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ModelError(f"{manifest.file}: importing {name} failed: {type(error).__name__}: {error}") from error
    if not callable(getattr(module, attribute, None)):
        raise ManifestError(
            f"{manifest.file}: {name} has no callable {attribute!r}", hint=nearest(attribute, vars(module))
        )
    function: Callable[..., Any] = getattr(module, attribute)
    return function


def _digest(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()
