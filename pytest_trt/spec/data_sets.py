"""Test data sets in the layout of ONNX's model zoo and backend tests: ``test_data_set_N/{input,output}_K.pb``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_trt.errors import InputsError, nearest
from pytest_trt.spec.input_formats import read_tensor_proto
from pytest_trt.spec.inputs import Array
from pytest_trt.spec.shapes import format_shape

if TYPE_CHECKING:
    from pytest_trt.spec.model import TensorSpec

__all__ = ["by_name", "numbered", "test_sets"]


def test_sets(path: Path) -> list[Path]:
    """Return the test data set folders at *path* by number; empty when it is something else."""
    if not path.is_dir():
        return []
    if path.name.startswith("test_data_set_") or any(path.glob("input_*.pb")):
        return [path]
    folders = [p for p in path.glob("test_data_set_*") if p.is_dir()]
    for folder in folders:
        if not re.fullmatch(r"test_data_set_[0-9]{1,9}", folder.name):
            raise InputsError(f"{folder}: a test data set has a number in its name", hint="rename it: test_data_set_0")
    return sorted(folders, key=lambda p: int(p.name.rpartition("_")[2]))


def numbered(folder: Path, kind: str) -> list[tuple[str, Array]]:
    """Return name and array of ``KIND_0.pb, KIND_1.pb, …`` in order."""
    files: dict[int, Path] = {}
    for path in folder.glob(f"{kind}_*.pb"):
        match = re.fullmatch(rf"{kind}_([0-9]{{1,6}})\.pb", path.name)
        if not match or int(match[1]) in files:
            raise InputsError(
                f"{path}: its name has no number of its own", hint=f"name them {kind}_0.pb, {kind}_1.pb, …"
            )
        files[int(match[1])] = path
    if sorted(files) != list(range(len(files))):
        raise InputsError(
            f"{folder} has {', '.join(files[i].name for i in sorted(files))}: numbers are left out",
            hint=f"name them {kind}_0.pb to {kind}_{len(files) - 1}.pb",
        )
    return [read_tensor_proto(files[i]) for i in range(len(files))]


def by_name(
    stored: list[tuple[str, Array]], specs: tuple[TensorSpec, ...], folder: Path, kind: str, notes: list[str]
) -> dict[str, Array]:
    """Match numbered tensors with the model's inputs or outputs."""
    if len(stored) != len(specs):
        raise InputsError(
            f"{folder} has {len(stored)} {kind} files, but the model has {len(specs)} {kind}s",
            hint=f"store {kind}_0.pb to {kind}_{len(specs) - 1}.pb, for: {', '.join(s.name for s in specs)}",
        )
    names = [name for name, _ in stored]
    known = {spec.name for spec in specs}
    if set(names) == known:
        return dict(stored)
    result = {}
    for index, ((name, array), spec) in enumerate(zip(stored, specs, strict=True)):
        # Sets whose tensors were named before the model was renamed are common: the number decides, if it fits.
        fits = array.ndim == len(spec.shape) and all(
            not isinstance(d, int) or d == a for d, a in zip(spec.shape, array.shape, strict=True)
        )
        if name and name != spec.name:
            if name in known or not fits:
                raise InputsError(
                    f"{folder}/{kind}_{index}.pb holds {name!r} ({array.dtype} {format_shape(array.shape)}), "
                    f"but {kind} {index} of the model is {spec.name!r} ({spec.dtype} {format_shape(spec.shape)})",
                    hint=nearest(name, known),
                )
            notes.append(
                f"{folder.name}: {kind}_{index}.pb calls its tensor {name!r}; taken by its number as {spec.name!r}"
            )
        result[spec.name] = array
    return result
