"""``FILE:CALLABLE`` of a model's folder: finding it, calling it, and what its result depends on.

Everything here runs code of the folder, as running the tests of a repository does.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trt.environment import version_of
from pytest_trt.errors import InputsError, ManifestError, ModelError, TrtError, nearest
from pytest_trt.spec.manifest import Manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_trt.spec.inputs import Sample

__all__ = [
    "NetworkSource",
    "call_inputs_source",
    "call_reference",
    "call_source",
    "digest_of",
    "install_hint",
    "is_network_builder",
    "no_bytecode",
    "obtain_source",
    "source_ingredients",
]

# Module -> what brings it.
_EXTRAS = {
    "torch": 'pip install "pytest-trt[torch]"',
    "onnxscript": 'pip install onnxscript, which exporter = "dynamo" needs',
    "tensorflow": 'pip install "pytest-trt[tensorflow]"',
    "tf2onnx": 'pip install "pytest-trt[tensorflow]"',
}


def source_ingredients(manifest: Manifest, source: str) -> dict[str, Any]:
    """What a source's result depends on: the Python files in its folder and one above, the data files that the
    manifest names, its arguments, its packages. Raises ManifestError for a data file that cannot be read."""
    folder = manifest.folder
    files = sorted({*folder.glob("*.py"), *folder.parent.glob("*.py")})
    texts = sorted(folder.glob("*.txt"))
    ingredients: dict[str, Any] = {
        "source": source,
        "args": dict(manifest.args),
        "files": {
            file.name if file.parent == folder else f"../{file.name}": digest_of(file) for file in (*files, *texts)
        },
        "packages": {name: version_of(name) or "missing" for name in ("onnx", "numpy", *manifest.requires)},
    }
    if manifest.files:
        try:
            ingredients["data"] = {str(file.relative_to(folder)): digest_of(file) for file in manifest.files}
        except OSError as error:
            raise ManifestError(f"{manifest.file}: model.files: {error.filename}: {error.strerror}") from error
    return ingredients


def call_source(manifest: Manifest, source: str) -> Any:
    """Run ``FILE:CALLABLE`` of the model's folder with the manifest's args, and return what it returns.

    Raises ManifestError when there is no such file or callable, and ModelError with the callable's own words when
    it fails.
    """
    return _call(manifest, source, obtain_source(manifest, source))


def call_inputs_source(manifest: Manifest) -> dict[str, NDArray[Any]]:
    """Run the source of the manifest's inputs, as ``call_source`` does. Raises InputsError for what are no arrays."""
    source = manifest.inputs_source or ""
    return _arrays(call_source(manifest, source), f"{manifest.file}: {source} returned", "inputs")


def call_reference(manifest: Manifest, samples: Sequence[Sample]) -> list[dict[str, NDArray[Any]]]:
    """Run the manifest's ``reference`` on the feeds of each sample: a dict of arrays in, the expected outputs out.

    Raises as ``call_source`` does, and InputsError for what are no arrays.
    """
    source = manifest.reference or ""
    function = obtain_source(manifest, source)
    where = f"{manifest.file}: {source} returned"
    found = [_arrays(_call(manifest, source, function, dict(sample.feeds)), where, "outputs") for sample in samples]
    for name, array in (item for outputs in found for item in outputs.items()):
        if array.dtype.kind not in "biuf":  # an .npz would forget ml_dtypes' types
            raise InputsError(f"{where} {array.dtype} for {name!r}", hint="convert it to float32")
    return found


def is_network_builder(function: Any) -> bool:
    """Whether *function* fills a TensorRT network: its first parameter is called ``network``."""
    if inspect.isclass(function):
        return False
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # not every callable of C has one
        return False
    return next(iter(parameters), "") == "network"


@dataclass(frozen=True)
class NetworkSource:
    """``(network, tensorrt)`` -> what must live until the build is over. The file is imported by each call, so that
    this can go to another process."""

    manifest: Manifest
    source: str

    def __call__(self, network: Any, trt: Any) -> Any:
        return _call(self.manifest, self.source, obtain_source(self.manifest, self.source), network, trt)


def obtain_source(manifest: Manifest, source: str) -> Any:
    """Import FILE of ``FILE:CALLABLE`` and return the callable. Raises ManifestError or ModelError."""
    name, colon, attribute = source.partition(":")
    path = (manifest.folder / name).resolve()
    if not (name and colon) or not path.is_relative_to(manifest.folder.resolve()):
        raise ManifestError(f"{manifest.file}: source {source!r} is not FILE:CALLABLE with a file of this folder")
    if not path.is_file():
        raise ManifestError(f"{manifest.file}: source {source!r}: there is no {name} in this folder")
    module_name = f"pytest_trt_source_{digest_of(path)[:16]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ManifestError(f"{manifest.file}: {name} cannot be imported; it must be a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickling inside the module look it up here
    try:
        with no_bytecode():
            spec.loader.exec_module(module)
    # The file is the user's: whatever it raises is one failed model with its own words, the cause is chained.
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"{manifest.file}: importing {name} failed: {type(error).__name__}: {error}", hint=install_hint(error)
        ) from error
    if not callable(getattr(module, attribute, None)):
        known = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise ManifestError(f"{manifest.file}: {name} has no callable {attribute!r}", hint=nearest(attribute, known))
    return getattr(module, attribute)


def install_hint(error: BaseException) -> str | None:
    """What brings the module that *error* says is missing, where that is one of ours to know."""
    missing = error.name or "" if isinstance(error, ModuleNotFoundError) else ""
    return _EXTRAS.get(missing.partition(".")[0])


def digest_of(path: Path) -> str:
    """The SHA-256 of a file. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _call(manifest: Manifest, source: str, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        with no_bytecode():
            return function(*arguments, **manifest.args)
    except TrtError:
        raise
    # The callable is the user's, see above.
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"{manifest.file}: {source} failed: {type(error).__name__}: {error}", hint=install_hint(error)
        ) from error


@contextmanager
def no_bytecode() -> Iterator[None]:
    """Python takes a .pyc for current by the second and the size of its source: an edit that keeps both would run the
    old code under the new key. And a model's folder is no place for caches."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _arrays(returned: Any, where: str, what: str) -> dict[str, NDArray[Any]]:
    import numpy as np

    if not isinstance(returned, Mapping):
        raise InputsError(f"{where} {type(returned).__name__}, not arrays by the names of {what}", hint="return a dict")
    for name, array in returned.items():
        if not isinstance(name, str) or not isinstance(array, np.ndarray):
            raise InputsError(
                f"{where} {type(array).__name__} for {name!r}, not a NumPy array", hint="convert it: numpy.asarray(…)"
            )
    return dict(returned)
