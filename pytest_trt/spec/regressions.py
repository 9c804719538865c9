"""Regressions: inputs on which an engine once failed, kept beside the model and judged with every run from then on."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_trt.errors import InputsError
from pytest_trt.spec.input_files import load_inputs
from pytest_trt.spec.inputs import Array, InputSet, Sample
from pytest_trt.spec.npz import write_npz
from pytest_trt.spec.shape_points import outside

if TYPE_CHECKING:
    from pytest_trt.spec.model import TensorSpec
    from pytest_trt.spec.shapes import Profile

__all__ = ["Regressions", "load_regressions", "regressions_folder", "save_regression"]


@dataclass(frozen=True)
class Regressions:
    """The saved inputs of one model within one profile. ``left_out`` says of the others why they are not."""

    samples: tuple[Sample, ...] = ()
    left_out: tuple[str, ...] = ()
    fingerprint: str = ""


def regressions_folder(file: Path) -> Path:
    """Where the model of *file* (its ``trt.toml``, or a bare ``NAME.onnx``) keeps them: ``regressions/`` beside the
    manifest, ``NAME.regressions/`` beside a bare model."""
    return file.with_suffix(".regressions") if file.suffix == ".onnx" else file.parent / "regressions"


def save_regression(folder: Path, feeds: Mapping[str, Array], label: str) -> Path:
    """Write *feeds*, one array per input, as ``LABEL-DIGEST.npz`` into *folder* and return its path.

    The bytes depend on the arrays alone, and arrays that are there already, under whatever label, are not written
    again. Raises InputsError when the file cannot be written.
    """
    digest = InputSet((feeds,), label).fingerprint[:8]
    known = sorted(folder.glob(f"*-{digest}.npz"))
    if known:
        return known[0]
    path = folder / f"{re.sub(r'[^A-Za-z0-9._=+]+', '-', label).strip('-') or 'input'}-{digest}.npz"
    buffer = io.BytesIO()
    write_npz(buffer, feeds, compress=True)
    unfinished = path.with_suffix(".tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(buffer.getvalue())
        unfinished.replace(path)
    except OSError as error:
        raise InputsError(
            f"{path}: the failing inputs cannot be written: {error.strerror}", hint="make the folder writable"
        ) from error
    return path


def load_regressions(folder: Path, model_inputs: tuple[TensorSpec, ...], profile: Profile) -> Regressions:
    """Read every ``.npz`` in *folder* whose shapes lie within *profile*, in the order of their names.

    NaN and infinities are allowed: they may be what failed. Raises InputsError for a file that does not belong to the
    model (names, types), since it would never be judged again.
    """
    samples, missed, digests = [], [], []
    for path in sorted(folder.glob("*.npz")):
        try:
            found = load_inputs(path, model_inputs, allow_nonfinite=True)
        except InputsError as error:
            raise InputsError(
                f"regression {path.name}: {error.message}",
                hint=f"it was saved for other inputs of this model: correct it, or remove {path}",
            ) from error
        feeds = dict(found.sets[0])
        reason = outside(profile, {name: array.shape for name, array in feeds.items()})
        if reason:
            missed.append(f"{path.stem}: {reason}")
            continue
        samples.append(Sample(feeds, 1, 1, f"regression {path.stem}"))
        digests.append(found.fingerprint)
    return Regressions(tuple(samples), tuple(missed), "+".join(digests))
