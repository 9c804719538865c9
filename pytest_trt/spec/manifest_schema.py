"""What a ``trt.toml`` may say: its tables, their keys, and what keys rule each other out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_trt.errors import ManifestError, nearest
from pytest_trt.option_values import ratio
from pytest_trt.spec.build_options import BuildOptions
from pytest_trt.spec.precision import CALIBRATIONS, PRECISIONS

__all__ = ["EXPORTERS", "WHILE_LOADING", "check_tables", "check_values", "error", "in_words", "share"]

EXPORTERS = ("torchscript", "dynamo")

# table -> key -> type; a table of None holds names the user chooses. The one place that says what is allowed.
_SCHEMA: dict[str, dict[str, tuple[type, ...]]] = {
    "model": {
        "name": (str,),
        "path": (str,),
        "source": (str,),
        "plan": (str,),
        "trust": (str,),
        "reference": (str,),
        "args": (dict,),
        "files": (list,),
        "exporter": (str,),
        "variant": (str,),
        "requires": (list,),
    },
    "interface": {"inputs": (dict,), "outputs": (dict,)},
    "inputs": {
        "file": (str,),
        "expected": (str,),
        "source": (str,),
        "labels": (str,),
        "range": (dict,),
        "allow_nonfinite": (bool,),
        "synthetic": (bool,),
    },
    "build": dict.fromkeys(
        (n for n in BuildOptions.names() if n != "tactics"), (str, int, bool, list, dict)
    ),  # read by the options' own parsers
    "latency": {"threshold": (int, float, str)},  # a share, as on the command line
    "run": {"precisions": (list,), "profiles": (list,), "tactics": (list,)},
}
_PRECISION_KEYS: dict[str, tuple[type, ...]] = {
    "exclude_nodes": (list,),
    "exclude_ops": (list,),
    "calibration": (str,),
    "percentile": (int, float),
    "samples": (int,),
    "block_size": (int,),
    "ranges": (str,),
}
# key -> smallest and greatest value
_LIMITS = {
    "percentile": (1e-6, 100),
    "samples": (1, 10**9),
    "block_size": (64, 128),
}
# Build options that a finished plan can need as well.
WHILE_LOADING = ("plugins", "lean_runtime", "version_compatibility", "strip_plan")
_TABLES = (*_SCHEMA, "profiles", "precision", "tolerance", "metrics", "variants")
# What TOML calls the types that Python reads.
_WORDS = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


def in_words(kind: type) -> str:
    """*kind* as a user of TOML says it."""
    return _WORDS.get(kind, f"a {kind.__name__}")


def error(file: Path, message: str, hint: str | None = None) -> ManifestError:
    """The error that names *file*."""
    return ManifestError(f"{file}: {message}", hint=hint)


def check_tables(file: Path, table: dict[str, Any], prefix: str = "") -> None:
    """What a table may be called and its keys may hold. Raises ManifestError with the nearest known name."""
    for name, value in table.items():
        if name not in _TABLES or (prefix and name == "variants"):
            raise error(file, f"unknown table [{prefix}{name}]", hint=nearest(name, _TABLES))
        if not isinstance(value, dict):
            raise error(file, f"{prefix}{name} must be a table, not {in_words(type(value))}")
        if name in _SCHEMA:
            _check_keys(file, value, _SCHEMA[name], f"{prefix}{name}")
        elif name in ("precision", "tolerance"):
            for precision, keys in value.items():
                if precision not in PRECISIONS:
                    raise error(
                        file, f"unknown precision in [{prefix}{name}.{precision}]", hint=nearest(precision, PRECISIONS)
                    )
                if not isinstance(keys, dict):
                    raise error(file, f"{prefix}{name}.{precision} must be a table")
                if name == "precision":
                    allowed = {key: _PRECISION_KEYS[key] for key in PRECISIONS[precision].options}
                    _check_keys(file, keys, allowed, f"{prefix}precision.{precision}")


def check_values(file: Path, table: dict[str, Any]) -> None:
    """What a type cannot say: names that exist, keys that exclude each other."""
    for precision, keys in table.get("precision", {}).items():
        method = keys.get("calibration", CALIBRATIONS[0])
        if method not in CALIBRATIONS:
            raise error(
                file, f"precision.{precision}.calibration = {method!r} is unknown", hint=nearest(method, CALIBRATIONS)
            )
    model = table.get("model", {})
    if model.get("exporter", EXPORTERS[0]) not in EXPORTERS:
        raise error(
            file, f"model.exporter = {model['exporter']!r} is unknown", hint=nearest(model["exporter"], EXPORTERS)
        )
    if "trust" in model and "plan" not in model:
        raise error(file, "model.trust is the digest of a plan, and there is no model.plan")
    useless = sorted(set(table.get("build", {})) - set(WHILE_LOADING)) if "plan" in model else []
    if useless:
        raise error(file, f"build.{useless[0]} cannot change model.plan, which is built already")
    if "expected" in table.get("inputs", {}) and "file" not in table["inputs"]:
        raise error(file, "inputs.expected are the outputs of inputs.file, and there is no inputs.file")
    if {"file", "source"} <= set(table.get("inputs", {})):
        raise error(file, "[inputs] has both file and source", hint="keep one: a file, or the callable that makes them")


def share(file: Path, where: str, value: object) -> float | None:
    """*value* as the command line reads a share, ``0.05`` or ``"5%"``; None stays None. Raises ManifestError."""
    try:
        return None if value is None else ratio(str(value))
    except ValueError as wrong:
        raise error(file, f"{where}: cannot use {value!r}: {wrong}") from wrong


def _check_keys(file: Path, table: dict[str, Any], schema: Mapping[str, tuple[type, ...]], where: str) -> None:
    for key, value in table.items():
        if key not in schema:
            hint = nearest(key, schema) if schema else "this table takes no keys"
            raise error(file, f"unknown key {key!r} in [{where}]", hint=hint)
        if not isinstance(value, schema[key]) or (isinstance(value, bool) and bool not in schema[key]):
            wanted = " or ".join(in_words(t) for t in schema[key] if not (t is int and float in schema[key]))
            raise error(file, f"{where}.{key} must be {wanted}, not {in_words(type(value))}")
        if isinstance(value, list) and not all(isinstance(item, str) for item in value):
            raise error(file, f"{where}.{key} must be a list of strings")
        if key in _LIMITS:
            low, high = _LIMITS[key]
            if not low <= table[key] <= high:
                raise error(file, f"{where}.{key} must lie in {low:g} … {high:g}, not {value}")
