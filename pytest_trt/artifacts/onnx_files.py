"""ONNX file, or ONNX in an entry of the store -> Model, without reading again what was read and checked before.

A file counts as read when nobody wrote to it since.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_trt.artifacts.facts import as_payload, fact_key, read_fact, recall_model
from pytest_trt.artifacts.file_state import FileState, keeps_change_times
from pytest_trt.artifacts.store import Entry, Store
from pytest_trt.errors import ArtifactError
from pytest_trt.spec.model import Model
from pytest_trt.spec.remembered import RememberedModel, outside

__all__ = ["MODEL_FILE", "obtain_file", "parse_entry"]

MODEL_FILE = "model.onnx"


def obtain_file(store: Store, path: Path, name: str) -> Model:
    """Return the model at *path*, checked as ``Model.load`` does, now or when it was in the same state.

    The state is that of the file and of its external data: see ``FileState``. Raises as ``Model.load`` does.
    """
    now_ns = time.time_ns()
    try:
        real = path.resolve(strict=True)
        state = FileState.of(real.stat())
        usable = state.settled(now_ns) and keeps_change_times(real.parent)
    except (OSError, RuntimeError, ValueError):  # loading says what is wrong
        usable = False
    # The path as it was given as well: what it passes through decides whether the file may be read.
    places = [_digest(path.absolute()), _digest(real)] if usable else []
    key = fact_key("model file", {"places": places, "state": list(state)}) if usable else None
    if key is None:
        return Model.load(path, name=name)
    entry = store.get(key)
    if entry is not None:
        found = read_fact(entry.files)
        if all(_state(real.parent / location) == known for location, known in found["external"].items()):
            return RememberedModel(name, found, lambda: Model.load(path, name=name), path)
    external: list[str] = []
    model = Model.load(path, name=name, external=external)
    facts = _facts(model, real.parent, external, now_ns)
    # Another file may have taken the place between the look and the reading.
    if facts is not None and path.resolve() == real and _state(real) == list(state):
        with contextlib.suppress(ArtifactError):  # then it is read again the next time
            store.put(key, as_payload(facts), label=f"facts of {name}: model file", replace=True)
    return model


def parse_entry(store: Store, entry: Entry, name: str) -> Model:
    """Return the model that *entry* holds as ``model.onnx``."""

    def parsed() -> tuple[Model, dict[str, Any]]:
        import onnx

        return Model.from_proto(onnx.load_model_from_string(entry.files[MODEL_FILE]), name), {}

    if entry.fresh or MODEL_FILE not in entry.digests:
        return parsed()[0]
    return recall_model(store, "model message", {"sha256": entry.digests[MODEL_FILE]}, parsed, name)[0]


def _facts(model: Model, folder: Path, external: Sequence[str], now_ns: int) -> dict[str, Any] | None:
    """What to remember of *model*, which was read after *now_ns*; None if external data was or may have been changed
    since."""
    states = {location: _state(folder / location) for location in external}
    if not all(found is not None and FileState(*found).settled(now_ns) for found in states.values()):
        return None
    return {**outside(model), "external": states}


def _state(path: Path) -> list[int] | None:
    try:
        return list(FileState.of(path.stat())) if keeps_change_times(path.parent) else None
    except OSError:
        return None


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()
