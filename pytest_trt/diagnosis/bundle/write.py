"""Writing a bundle: a whole folder or nothing, and never over another one."""

from __future__ import annotations

import hashlib
import json
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt import __version__
from pytest_trt.backends.tensorrt.command_lines import polygraphy_command, trtexec_command
from pytest_trt.diagnosis.bundle.script import script
from pytest_trt.diagnosis.bundle.toml import checks_of, manifest
from pytest_trt.environment import version_of
from pytest_trt.errors import InputsError, UsageError
from pytest_trt.spec.npz import write_npz
from pytest_trt.spec.precision.stored_ranges import write_ranges

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_trt.diagnosis.bundle.contents import Contents

__all__ = ["Story", "write_bundle"]

SCHEMA = 1
_LIBRARIES = ("numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "tensorrt", "polygraphy")


@dataclass(frozen=True)
class Story:
    """What is told beside the files: the environment of the record, the explanation in words and as JSON, the commands
    that go on from the folder, and the TensorRT that the lines of other tools are for."""

    environment: Mapping[str, Any] | None
    explanation: Mapping[str, Any] | None
    lines: Sequence[str]
    commands: Sequence[str]
    tensorrt: tuple[int, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)


def write_bundle(
    parent: Path,
    contents: Contents,
    story: Story,
    *,
    limit: int,
    draw: Callable[[Path], Sequence[str]] | None = None,
    reduced: tuple[Contents, Story] | None = None,
) -> tuple[Path, list[str]]:
    """Write *contents* into a folder of its name in *parent*, *reduced* into its folder ``reduced``.

    Returns the folder and what is to be said: models above *limit* bytes are left out, and so is what *draw* could not
    draw. A folder of this name holds the same failure already, and is kept. Raises UsageError where nothing can be
    written, InputsError for samples that cannot be stored together.
    """
    target = parent / contents.name
    if target.exists():
        return target, ["written before: the same models, inputs and build options"]
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".bundle-", dir=parent) as temporary:
            folder = Path(temporary) / contents.name
            notes = _write(folder, contents, story, limit, draw)
            if reduced is not None:
                notes += [f"reduced: {note}" for note in _write(folder / "reduced", *reduced, limit, None)]
            if target.exists():  # another process was faster
                return target, ["written before: the same models, inputs and build options"]
            folder.rename(target)
    except OSError as error:
        raise UsageError(f"--trt-bundle: {target} cannot be written: {error}") from error
    return target, notes


def _write(
    folder: Path, contents: Contents, story: Story, limit: int, draw: Callable[[Path], Sequence[str]] | None
) -> list[str]:
    folder.mkdir()
    notes = list(contents.notes)
    arrays = {"inputs": contents.feeds, "expected": contents.expected, "actual": contents.actual}
    for name, rows in arrays.items():
        write_npz(folder / f"{name}.npz", _stacked(rows, name))
    run = dict(contents.run)
    if contents.model is None or contents.typed is None:
        notes.append("no model: there is no ONNX graph")
    elif (size := _model_bytes(contents)) > limit:
        notes.append(
            f"no model: {size / 1e6:.3g} MB of weights are more than --trt-bundle-size={limit / 1e6:g}MB;"
            " copy model.onnx here to go on from this folder"
        )
    else:
        run["model"] = _write_models(folder, contents)
    if contents.model is not None:
        (folder / "trt.toml").write_text(manifest(contents), encoding="utf-8")
        if contents.ranges is not None:
            write_ranges(folder / "ranges.json", contents.ranges)
    if contents.timings is not None and run.get("tool") == "tensorrt":
        (folder / "timing.cache").write_bytes(contents.timings)
        run["timing_cache"] = "timing.cache"
    if "model" not in run and run["tool"] != "pytest-trt":
        run = {"tool": "pytest-trt", "why": "the model was left out of this bundle"}
    (folder / "reproduce.py").write_text(script(contents.title, run["tool"], __version__), encoding="utf-8")
    (folder / "explanation.txt").write_text("\n".join([contents.title, "", *story.lines, ""]), encoding="utf-8")
    (folder / "commands.txt").write_text("\n".join([*_commands(contents, story, run), ""]), encoding="utf-8")
    notes += draw(folder) if draw is not None else []
    about = _about(contents, story, run, notes)
    about["digests"] = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir()) if file.is_file()
    }
    text = json.dumps(about, indent=1, ensure_ascii=False, default=str)
    (folder / "case.json").write_text(text + "\n", encoding="utf-8")
    return notes


def _about(contents: Contents, story: Story, run: Mapping[str, Any], notes: Sequence[str]) -> dict[str, Any]:
    limits = {"": contents.limits.default, **contents.limits.outputs}
    return {
        "schema": SCHEMA,
        "title": contents.title,
        "case": contents.case.to_json(),
        "samples": len(contents.feeds),
        "reference": contents.reference,
        "synthetic": contents.synthetic,
        "tolerance": {name: checks_of(limit) for name, limit in limits.items()},
        "allow_nonfinite": contents.allow_nonfinite,
        "profile": contents.profile.describe(),
        "build_options": contents.build.describe(),
        "run": run,
        "environment": story.environment,
        "versions": {"pytest-trt": __version__, **{n: v for n in _LIBRARIES if (v := version_of(n))}},
        "explanation": story.explanation,
        **story.extra,
        "notes": list(notes),
    }


def _model_bytes(contents: Contents) -> int:
    models = {model.fingerprint: model.nbytes for model in (contents.model, contents.typed, contents.computed) if model}
    return sum(models.values())


def _write_models(folder: Path, contents: Contents) -> str:
    """Write the models, equal ones once; return the name of the one that is run."""
    written: dict[str, str] = {}
    for stem, model in (("model", contents.model), ("typed", contents.typed), ("computed", contents.computed)):
        if model is not None and model.fingerprint not in written:
            written[model.fingerprint] = f"{stem}.onnx"
            model.save(folder, stem)
    run = contents.computed or contents.typed
    assert run is not None
    return written[run.fingerprint]


def _stacked(rows: Sequence[Mapping[str, Any]], what: str) -> dict[str, np.ndarray[Any, Any]]:
    found = {}
    for name in rows[0]:
        arrays = [_plain(np.asarray(row[name])) for row in rows]
        if len({array.shape for array in arrays}) > 1:
            raise InputsError(f"{what} {name!r}: samples of different shapes cannot be stored in one file")
        found[name] = arrays[0] if len(arrays) == 1 else np.stack(arrays)
    return found


def _plain(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What NumPy has no type of is stored as float32, which holds it exactly."""
    return array if array.dtype.kind in "biufc" else array.astype(np.float32)


def _commands(contents: Contents, story: Story, run: Mapping[str, Any]) -> list[str]:
    lines = ["# in this folder", "python reproduce.py", *story.commands]
    if contents.typed is None or contents.request.calibration is not None:
        return lines
    is_typed = contents.model is None or contents.typed.fingerprint != contents.model.fingerprint
    onnx = "typed.onnx" if is_typed else "model.onnx"
    cache = run.get("timing_cache")
    for tool, line in (("trtexec", trtexec_command), ("polygraphy", polygraphy_command)):
        found = line(contents.request, story.tensorrt, onnx=onnx, plan="engine.plan", timing_cache=cache)
        version = ".".join(map(str, story.tensorrt))
        lines += ["", f"# {tool}, TensorRT {version}", *(f"# {note}" for note in found.notes), shlex.join(found.words)]
    return lines
