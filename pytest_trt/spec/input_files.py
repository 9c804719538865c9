"""Inputs and stored outputs from files: every array is matched with an input or output of the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pytest_trt.counted import counted
from pytest_trt.errors import InputsError, nearest
from pytest_trt.spec.data_sets import by_name, numbered, test_sets
from pytest_trt.spec.dtypes import fit_dtype
from pytest_trt.spec.input_formats import read_json, read_npy_file, read_npy_folder, read_npz
from pytest_trt.spec.inputs import Array, InputSet
from pytest_trt.spec.shapes import format_shape

if TYPE_CHECKING:
    from pytest_trt.spec.model import TensorSpec

__all__ = ["inputs_from_arrays", "load_expected", "load_inputs"]

_Set = tuple[str, dict[str, Array]]  # title, arrays by name


def load_inputs(
    path: Path | str,
    model_inputs: tuple[TensorSpec, ...],
    *,
    labels: str | None = None,
    model_outputs: tuple[TensorSpec, ...] = (),
    allow_nonfinite: bool = False,
) -> InputSet:
    """Read inputs from *path*: an ``.npz``, a folder of ``NAME.npy``, Polygraphy's JSON (a file or its folder of
    iterations), one ``test_data_set_N`` folder or the folder that holds them; a single ``.npy`` where the model
    has one input.

    *labels* names an integer array beside the inputs, one entry per row. Arrays named as *model_outputs*, and
    the ``output_K.pb`` of test data sets, become ``expected``. In a test data set, a tensor's own name decides
    which input it is; without one, or under one the model does not know, its number K does.

    Raises InputsError: nothing readable there, a missing or unknown name, a type that cannot be converted
    without loss, NaN or infinity in an input unless *allow_nonfinite*.
    """
    path = Path(path)
    if test_sets(path):
        if labels:
            raise InputsError(
                f"{path}: test data sets have no labels ({labels!r} is asked for)", hint="use an .npz file"
            )
        return _load_data_sets(path, model_inputs, model_outputs, allow_nonfinite)
    return _assemble(
        _stored(path, model_inputs),
        model_inputs,
        origin=f"file {path.name}" if path.is_file() else f"folder {path.name}",
        labels=labels,
        model_outputs=model_outputs,
        allow_nonfinite=allow_nonfinite,
    )


def inputs_from_arrays(
    arrays: Mapping[str, Array],
    model_inputs: tuple[TensorSpec, ...],
    *,
    origin: str,
    labels: str | None = None,
    allow_nonfinite: bool = False,
) -> InputSet:
    """Take inputs from memory, as ``load_inputs`` takes them from an ``.npz``; *origin* says who made them."""
    return _assemble(
        [(origin, dict(arrays))],
        model_inputs,
        origin=origin,
        labels=labels,
        model_outputs=(),
        allow_nonfinite=allow_nonfinite,
    )


def _assemble(
    stored: list[_Set],
    model_inputs: tuple[TensorSpec, ...],
    *,
    origin: str,
    labels: str | None,
    model_outputs: tuple[TensorSpec, ...],
    allow_nonfinite: bool,
) -> InputSet:
    notes: list[str] = []
    outputs_by_name = {spec.name: spec for spec in model_outputs if spec.name not in {s.name for s in model_inputs}}
    sets, expected, label_parts = [], [], []
    for title, arrays in stored:
        arrays = dict(arrays)
        if labels is not None:
            label_parts.append(_labels(arrays, labels, title))
        outputs = {name: arrays.pop(name) for name in list(arrays) if name in outputs_by_name}
        expected.append(
            {n: _fit(a, outputs_by_name[n], f"{title}: output {n!r}", notes) for n, a in outputs.items()} or None
        )
        sets.append(_feeds(arrays, model_inputs, title, notes, allow_nonfinite))
    return InputSet(
        tuple(sets),
        origin,
        labels=np.concatenate(label_parts) if label_parts else None,
        expected=tuple(expected) if any(expected) else (),
        notes=tuple(dict.fromkeys(notes)),
        titles=tuple(title for title, _ in stored),
    )


def load_expected(path: Path | str, model_outputs: tuple[TensorSpec, ...]) -> tuple[dict[str, Array], ...]:
    """Read stored outputs from *path*, in the formats of ``load_inputs`` and in Polygraphy's RunResults JSON.

    Returns one mapping of output name to array per set; arrays that are no output of the model are ignored.
    Raises InputsError when an output is missing or does not have the model's type.
    """
    path = Path(path)
    if test_sets(path):
        stored = [
            (folder.name, by_name(numbered(folder, "output"), model_outputs, folder, "output", []))
            for folder in test_sets(path)
        ]
    else:
        stored = _stored(path, model_outputs, results=True)
    result = []
    for title, arrays in stored:
        _require(arrays, model_outputs, title, "output")
        result.append({s.name: _fit(arrays[s.name], s, f"{title}: output {s.name!r}", []) for s in model_outputs})
    return tuple(result)


def _stored(path: Path, specs: tuple[TensorSpec, ...], *, results: bool = False) -> list[_Set]:
    """Return the named arrays at *path*, one mapping per set."""
    if path.is_dir():
        if any(path.glob("*.npy")):
            return [(path.name, read_npy_folder(path))]
        files = sorted(path.glob("*.json"))
        if files:
            return [item for file in files for item in _json_sets(file, results)]
        raise InputsError(
            f"{path}: the folder holds no inputs",
            hint="put NAME.npy files, test_data_set_N folders or Polygraphy's JSON files there, or name an .npz file",
        )
    if path.suffix == ".npz":
        return [(path.name, read_npz(path))]
    if path.suffix == ".json":
        return _json_sets(path, results)
    if path.suffix == ".npy" and len(specs) == 1:
        return [(path.name, {specs[0].name: read_npy_file(path)})]
    if not path.exists():
        raise InputsError(f"{path}: no such file or folder", hint="check the path; it counts from the model's folder")
    raise InputsError(
        f"{path}: inputs of kind {path.suffix or 'no suffix'!r} cannot be read"
        + (f" for a model of {len(specs)} inputs" if path.suffix == ".npy" else ""),
        hint="use .npz, a folder of NAME.npy, test_data_set_N, or Polygraphy's .json",
    )


def _json_sets(path: Path, results: bool) -> list[_Set]:
    kind, sets = read_json(path)
    if kind == "results" and not results:
        raise InputsError(f"{path} holds outputs (RunResults), not inputs", hint="save inputs with --save-inputs")
    if not sets:
        raise InputsError(f"{path} is an empty list", hint="save at least one iteration")
    return [(path.name if len(sets) == 1 else f"{path.name}[{i}]", arrays) for i, arrays in enumerate(sets)]


def _labels(arrays: dict[str, Array], name: str, title: str) -> Array:
    if name not in arrays:
        raise InputsError(f"{title}: there is no array {name!r} for the labels", hint=nearest(name, arrays))
    array = arrays.pop(name)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputsError(
            f"{title}: labels {name!r} are {format_shape(array.shape)} of {array.dtype}",
            hint="store one integer (the class index) per row: shape N, int64",
        )
    return array.astype(np.int64)


def _feeds(
    arrays: Mapping[str, Array], specs: tuple[TensorSpec, ...], title: str, notes: list[str], allow_nonfinite: bool
) -> dict[str, Array]:
    names = {spec.name for spec in specs}
    for name in arrays:
        if name not in names:
            raise InputsError(f"{title}: array {name!r} is no input of the model", hint=nearest(name, names))
    _require(arrays, specs, title, "input")
    feeds = {}
    for spec in specs:
        array = _fit(arrays[spec.name], spec, f"{title}: input {spec.name!r}", notes)
        if not allow_nonfinite and ("float" in spec.dtype or "complex" in spec.dtype):
            bad = int(array.size - np.count_nonzero(np.isfinite(array)))
            if bad:
                raise InputsError(
                    f"{title}: input {spec.name!r} has {counted(bad, 'value')} of NaN or infinity",
                    hint="correct them, or allow them explicitly (allow_nonfinite)",
                )
        feeds[spec.name] = array
    return feeds


def _require(arrays: Iterable[str], specs: tuple[TensorSpec, ...], title: str, kind: str) -> None:
    stored = set(arrays)
    for spec in specs:
        if spec.name not in stored:
            raise InputsError(
                f"{title}: no array for {kind} {spec.name!r} ({spec.dtype} {format_shape(spec.shape)})",
                hint=nearest(spec.name, stored) if stored else "the file is empty",
            )


def _fit(array: Array, spec: TensorSpec, where: str, notes: list[str]) -> Array:
    array, note = fit_dtype(array, spec, where)
    if note:
        notes.append(note)
    return array


def _load_data_sets(
    path: Path, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], allow_nonfinite: bool
) -> InputSet:
    notes: list[str] = []
    folders = test_sets(path)
    sets, expected = [], []
    for folder in folders:
        arrays = by_name(numbered(folder, "input"), inputs, folder, "input", notes)
        sets.append(_feeds(arrays, inputs, str(folder), notes, allow_nonfinite))
        stored = numbered(folder, "output") if outputs else []
        named = by_name(stored, outputs, folder, "output", notes) if stored else {}
        specs = {spec.name: spec for spec in outputs}
        expected.append({n: _fit(a, specs[n], f"{folder}: output {n!r}", notes) for n, a in named.items()} or None)
    titles = tuple(folder.name for folder in folders)
    return InputSet(
        tuple(sets),
        titles[0] if len(titles) == 1 else f"{titles[0]}..{titles[-1].rpartition('_')[2]}",
        expected=tuple(expected) if any(expected) else (),
        notes=tuple(dict.fromkeys(notes)),
        titles=titles,
    )
