"""A TensorFlow SavedModel -> ONNX, with tf2onnx."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trt.artifacts.sources import digest_of, install_hint
from pytest_trt.environment import version_of
from pytest_trt.errors import ManifestError, ModelError, UnsafeModelError
from pytest_trt.spec.loading import load_proto
from pytest_trt.spec.manifest import Manifest

if TYPE_CHECKING:
    import onnx

__all__ = ["convert_saved_model", "is_saved_model", "saved_model_ingredients"]

_OPSET = 17  # the newest that TensorRT 8.6 reads
_OPTIONS = {"signature": "--signature_def", "tag": "--tag"}
_LAST_LINES = 8


def is_saved_model(path: Path) -> bool:
    """Whether *path* is a folder that TensorFlow wrote."""
    return (path / "saved_model.pb").is_file()


def saved_model_ingredients(manifest: Manifest, folder: Path) -> dict[str, Any]:
    """What a conversion depends on. Raises UnsafeModelError for a link that leaves the folder."""
    files = sorted(file for file in folder.rglob("*") if not file.is_dir())
    for file in files:
        if not file.resolve().is_relative_to(folder.resolve()):
            raise UnsafeModelError(f"{file} is a link out of the SavedModel", hint="copy the file")
    return {
        "saved_model": {file.relative_to(folder).as_posix(): digest_of(file) for file in files},
        "options": _options(manifest),
        "packages": {
            "tensorflow": version_of("tensorflow", "tensorflow-cpu") or "missing",
            "tf2onnx": version_of("tf2onnx") or "missing",
        },
    }


def _options(manifest: Manifest) -> list[str]:
    for name, value in manifest.args.items():
        if name not in _OPTIONS or not isinstance(value, str):
            raise ManifestError(
                f"{manifest.file}: model.args.{name} means nothing to a SavedModel",
                hint='args = { signature = "serving_default", tag = "serve" }',
            )
    given = [word for name, value in manifest.args.items() for word in (_OPTIONS[name], value)]
    return ["--opset", str(_OPSET), *given]


def convert_saved_model(manifest: Manifest, folder: Path) -> onnx.ModelProto:
    """Convert a SavedModel with tf2onnx, in a process of its own: TensorFlow's libraries stay out of this one.

    Raises ModelError with tf2onnx's last words, or where it is not installed.
    """
    for name in ("tensorflow", "tf2onnx"):
        if importlib.util.find_spec(name) is None:
            raise ModelError(
                f"{manifest.file}: {folder.name} is a TensorFlow SavedModel, and {name} is not installed",
                hint=install_hint(ModuleNotFoundError(name=name)),
            )
    with tempfile.TemporaryDirectory(prefix="pytest-trt-") as target:
        file = Path(target) / "model.onnx"
        command = [sys.executable, "-m", "tf2onnx.convert", "--saved-model", str(folder), "--output", str(file)]
        command += _options(manifest)
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode or not file.is_file():
            said = "\n  ".join(done.stderr.strip().splitlines()[-_LAST_LINES:]) or "it gave no reason"
            raise ModelError(f"{manifest.file}: tf2onnx cannot convert {folder.name}:\n  {said}")
        return load_proto(file)
