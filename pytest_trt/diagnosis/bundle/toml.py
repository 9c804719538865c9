"""A bundle's manifest: the failing case as a model folder, so that every command works on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_trt.accuracy.tolerance import FIELDS
from pytest_trt.settings import as_words

if TYPE_CHECKING:
    from pytest_trt.accuracy.tolerance import Tolerance
    from pytest_trt.diagnosis.bundle.contents import Contents

__all__ = ["checks_of", "limits_of", "manifest"]

# An axis of the matrix, and what was measured instead: neither is a key of a manifest.
_NOT_HERE = ("tactics",)


def manifest(contents: Contents) -> str:
    """The text of ``trt.toml``. Tolerances stand there in full: presets may change, this case must not."""
    case = contents.case
    tables: list[tuple[str, Mapping[str, Any]]] = [
        ("model", {"name": contents.model_name, "path": "model.onnx"}),
        ("inputs", _inputs(contents)),
        (f"profiles.{_key(case.profile)}", _profile(contents)),
        ("run", {"precisions": [case.precision]}),
    ]
    recipe = dict(contents.recipe)
    if contents.ranges is not None:
        recipe["ranges"] = "ranges.json"
    tables += [(f"precision.{case.precision}", recipe)] if recipe else []
    tables.append((f"tolerance.{case.precision}", limits_of(contents.limits.default)))
    for name, limit in contents.limits.outputs.items():
        tables.append((f"tolerance.{case.precision}.outputs.{_key(name)}", limits_of(limit)))
    options = {n: as_words(v) for n, v in contents.build.given().items() if n not in _NOT_HERE}
    tables += [("build", options)] if options else []
    return "\n".join(f"[{name}]\n{_lines(table)}" for name, table in tables)


def checks_of(limit: Tolerance) -> dict[str, Any]:
    """Every field of a tolerance, as ``reproduce.py`` reads it; None where nothing is checked."""
    return {name: getattr(limit, name) for name in FIELDS if name != "floor"}


def limits_of(limit: Tolerance) -> dict[str, Any]:
    """The same in the words of a manifest: ``off`` where nothing is checked."""
    return {name: "off" if value is None else value for name, value in checks_of(limit).items()}


def _inputs(contents: Contents) -> dict[str, Any]:
    said = {"allow_nonfinite": contents.allow_nonfinite, "synthetic": contents.synthetic}
    return {"file": "inputs.npz", "expected": "expected.npz", **{name: True for name, so in said.items() if so}}


def _profile(contents: Contents) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, shapes in contents.profile.ranges.items():
        points = {point: list(getattr(shapes, point)) for point in ("min", "opt", "max")}
        found[name] = points["opt"] if points["min"] == points["max"] else points
    return found


def _lines(table: Mapping[str, Any]) -> str:
    return "".join(f"{_key(name)} = {_value(value)}\n" for name, value in table.items())


def _key(name: str) -> str:
    plain = name.replace("_", "").replace("-", "")
    return name if plain.isascii() and plain.isalnum() else _text(name)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(name)} = {_value(entry)}" for name, entry in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(entry) for entry in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return _text(value) if isinstance(value, str) else repr(value)


def _text(text: str) -> str:
    # JSON's escapes are TOML's, but for the delete character.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
