"""Outputs of a reference as the files of one entry: an array per sample and output."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.spec.dtypes import numpy_dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_trt.spec.model import Model

__all__ = ["pack", "unpack"]

_FILE = "outputs.npz"


def pack(outputs: Iterable[Mapping[str, NDArray[Any]]]) -> dict[str, bytes]:
    """The files of an entry that holds *outputs*, one mapping per sample."""
    arrays = {f"{index}/{name}": _bare(array) for index, found in enumerate(outputs) for name, array in found.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # the stub takes allow_pickle for a keyword of any array
    return {_FILE: buffer.getvalue()}


def unpack(files: Mapping[str, bytes], count: int, model: Model) -> tuple[dict[str, NDArray[Any]], ...]:
    """The outputs of *model* for *count* samples, out of an entry's files."""
    types = {spec.name: spec.dtype for spec in model.outputs}
    outputs: list[dict[str, NDArray[Any]]] = [{} for _ in range(count)]
    with np.load(io.BytesIO(files[_FILE]), allow_pickle=False) as archive:
        for member in archive.files:
            index, _, name = member.partition("/")
            array = archive[member]
            outputs[int(index)][name] = array.view(numpy_dtype(types[name])) if array.dtype.kind == "V" else array
    return tuple(outputs)


def _bare(array: NDArray[Any]) -> NDArray[Any]:
    """*array*, as raw bytes where NumPy lacks its type: a file of bfloat16 or float8 could not be read again."""
    return array if array.dtype.type.__module__ == "numpy" else array.view(f"V{array.itemsize}")
