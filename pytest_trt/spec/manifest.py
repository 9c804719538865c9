"""Manifest: a model folder's ``trt.toml``, or a bare ``.onnx`` file, as one frozen value."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_trt.errors import ManifestError, UsageError, nearest
from pytest_trt.settings import as_text, options
from pytest_trt.spec.build_options import BuildOptions
from pytest_trt.spec.interface import Interface
from pytest_trt.spec.precision import CALIBRATIONS, PRECISIONS
from pytest_trt.spec.shapes import Profile, ShapeRange

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["EXPORTERS", "MANIFEST_NAME", "WHILE_LOADING", "Manifest"]

MANIFEST_NAME = "trt.toml"
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
        "source": (str,),
        "labels": (str,),
        "range": (dict,),
        "allow_nonfinite": (bool,),
        "synthetic": (bool,),
    },
    "build": dict.fromkeys(
        (n for n in BuildOptions.names() if n != "tactics"), (str, int, bool, list, dict)
    ),  # read by the options' own parsers
    "latency": {"threshold": (int, float)},
    "run": {"precisions": (list,), "profiles": (list,)},
}
_PRECISION_KEYS: dict[str, tuple[type, ...]] = {
    "exclude_nodes": (list,),
    "exclude_ops": (list,),
    "calibration": (str,),
    "percentile": (int, float),
    "samples": (int,),
    "block_size": (int,),
}
# key -> smallest and greatest value; a threshold of 0 would call every difference a regression.
_LIMITS = {
    "threshold": (1e-6, 100),
    "percentile": (1e-6, 100),
    "samples": (1, 10**9),
    "block_size": (64, 128),
}
# Build options that a finished plan can need as well.
WHILE_LOADING = ("plugins", "lean_runtime", "version_compatibility", "strip_plan")
_TABLES = (*_SCHEMA, "profiles", "precision", "tolerance", "variants")


@dataclass(frozen=True)
class Manifest:
    """What is known of a model before it is loaded.

    One of ``path`` and ``source`` is set, or neither and ``plan`` is. Paths are absolute; ``source`` and ``reference``
    are ``FILE:CALLABLE`` with FILE inside the folder. ``profiles`` may be empty: then one is derived from the model's
    inputs.
    """

    name: str
    folder: Path
    file: Path  # trt.toml or the bare .onnx: where messages point
    path: Path | None = None
    source: str | None = None
    plan: Path | None = None  # takes the place of building
    trust: str | None = None  # the plan's SHA-256, or its first digits
    reference: str | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[Path, ...] = ()  # what sources read besides code: part of their cache keys
    exporter: str = EXPORTERS[0]
    requires: tuple[str, ...] = ()
    interface: Interface | None = None
    inputs_file: Path | None = None
    inputs_source: str | None = None
    labels: str | None = None
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    allow_nonfinite: bool = False
    synthetic: bool = False  # what file or source give is invented, and every report says so
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    precision: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tolerance: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    threshold: float | None = None
    build: BuildOptions = field(default_factory=BuildOptions)
    precisions: tuple[str, ...] = ("fp32",)
    default_profiles: tuple[str, ...] = ()
    variant: str | None = None

    @classmethod
    def bare(cls, path: Path) -> Manifest:
        """A manifest for an ``.onnx`` file that has none; inputs of the ONNX model zoo's layout are found later."""
        path = path.absolute()
        return cls(
            name=path.stem if path.stem != "model" else path.parent.name, folder=path.parent, file=path, path=path
        )

    @classmethod
    def load(cls, file: Path, variant: str | None = None) -> Manifest:
        """Read a ``trt.toml``; *variant* replaces the manifest's default overlay where it has one of that name.

        Raises ManifestError that names the file, the key and the nearest known one.
        """
        file = file.absolute()
        try:
            table = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ManifestError(f"{file}: cannot be read: {error}") from error
        return _Reader(file).manifest(table, variant)


class _Reader:
    """Turns one file's tables into a Manifest; holds the file's name for the messages."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def manifest(self, table: dict[str, Any], variant: str | None) -> Manifest:
        variants = table.pop("variants", {})
        self.check(table)
        table, chosen = self.overlay(table, variants, variant)
        self.check_values(table)
        model, inputs = table.get("model", {}), table.get("inputs", {})
        folder = self.file.parent
        path, source = model.get("path"), model.get("source")
        if path and source:
            raise self.error("[model] has both path and source", hint="keep one: a file, or the callable that makes it")
        if not path and not source and "plan" not in model:
            path = "model.onnx"
        run, precision = table.get("run", {}), table.get("precision", {})
        self.named("run.precisions", run, PRECISIONS)
        self.named("run.profiles", run, table.get("profiles") or ("default",))
        return Manifest(
            name=model.get("name", folder.name),
            folder=folder,
            file=self.file,
            path=self.inside(path, "model.path") if path else None,
            source=source,
            plan=self.inside(model["plan"], "model.plan") if "plan" in model else None,
            trust=model.get("trust"),
            reference=model.get("reference"),
            args=model.get("args", {}),
            files=tuple(self.inside(name, "model.files") for name in model.get("files", ())),
            exporter=model.get("exporter", EXPORTERS[0]),
            interface=self.interface(table["interface"]) if "interface" in table else None,
            requires=tuple(model.get("requires", ())),
            inputs_file=self.inside(inputs["file"], "inputs.file") if "file" in inputs else None,
            inputs_source=inputs.get("source"),
            labels=inputs.get("labels"),
            ranges={k: self.pair(k, v) for k, v in inputs.get("range", {}).items()},
            allow_nonfinite=inputs.get("allow_nonfinite", False),
            synthetic=inputs.get("synthetic", False),
            profiles={k: self.profile(k, v) for k, v in table.get("profiles", {}).items()},
            precision=precision,
            tolerance=table.get("tolerance", {}),
            threshold=table.get("latency", {}).get("threshold"),
            build=self.build_options(table.get("build", {})),
            precisions=tuple(run.get("precisions", ("fp32",))),
            default_profiles=tuple(run.get("profiles", ())),
            variant=chosen,
        )

    def error(self, message: str, hint: str | None = None) -> ManifestError:
        return ManifestError(f"{self.file}: {message}", hint=hint)

    def overlay(self, table: dict[str, Any], variants: Any, variant: str | None) -> tuple[dict[str, Any], str | None]:
        if not isinstance(variants, dict):
            raise self.error(f"variants must be a table, not {type(variants).__name__}")
        default = table.get("model", {}).get("variant")
        for name, overlay in variants.items():
            if not isinstance(overlay, dict):
                raise self.error(f"[variants.{name}] must be a table")
            self.check(overlay, prefix=f"variants.{name}.")
        if default is not None and default not in variants:
            raise self.error(f"model.variant names {default!r}", hint=nearest(default, variants))
        chosen = variant if variant in variants else default
        return (_merge(table, variants[chosen]) if chosen else table), chosen

    def check(self, table: dict[str, Any], prefix: str = "") -> None:
        for name, value in table.items():
            if name not in _TABLES or (prefix and name == "variants"):
                raise self.error(f"unknown table [{prefix}{name}]", hint=nearest(name, _TABLES))
            if not isinstance(value, dict):
                raise self.error(f"{prefix}{name} must be a table, not {type(value).__name__}")
            if name in _SCHEMA:
                self.check_keys(value, _SCHEMA[name], f"{prefix}{name}")
            elif name in ("precision", "tolerance"):
                for precision, keys in value.items():
                    if precision not in PRECISIONS:
                        raise self.error(
                            f"unknown precision in [{prefix}{name}.{precision}]", hint=nearest(precision, PRECISIONS)
                        )
                    if not isinstance(keys, dict):
                        raise self.error(f"{prefix}{name}.{precision} must be a table")
                    if name == "precision":
                        allowed = {key: _PRECISION_KEYS[key] for key in PRECISIONS[precision].options}
                        self.check_keys(keys, allowed, f"{prefix}precision.{precision}")

    def check_keys(self, table: dict[str, Any], schema: Mapping[str, tuple[type, ...]], where: str) -> None:
        for key, value in table.items():
            if key not in schema:
                hint = nearest(key, schema) if schema else "this table takes no keys"
                raise self.error(f"unknown key {key!r} in [{where}]", hint=hint)
            if not isinstance(value, schema[key]) or (isinstance(value, bool) and bool not in schema[key]):
                wanted = " or ".join(t.__name__ for t in schema[key])
                raise self.error(f"{where}.{key} must be {wanted}, not {type(value).__name__}")
            if isinstance(value, list) and not all(isinstance(item, str) for item in value):
                raise self.error(f"{where}.{key} must be a list of strings")
            if key in _LIMITS:
                low, high = _LIMITS[key]
                if not low <= table[key] <= high:
                    raise self.error(f"{where}.{key} must lie in {low:g} … {high:g}, not {value}")

    def build_options(self, build: dict[str, Any]) -> BuildOptions:
        """The table in the words of the options; libraries are looked for from the model's folder."""
        parsers = {option.name: option for option in options()}
        values: dict[str, Any] = {}
        for name, value in build.items():
            try:
                values[name] = parsers[name].read(as_text(value), f"build.{name}")
            except UsageError as error:
                raise self.error(error.message, hint=error.hint) from error
        folder = self.file.parent
        if "plugins" in values:
            values["plugins"] = tuple(folder / path for path in values["plugins"])
        if "lean_runtime" in values:
            values["lean_runtime"] = folder / values["lean_runtime"]
        return BuildOptions.of(values)

    def interface(self, table: dict[str, Any]) -> Interface:
        try:
            return Interface.parse(table)
        except ManifestError as error:
            raise self.error(error.message, hint=error.hint) from error

    def named(self, where: str, run: dict[str, Any], known: Collection[str]) -> None:
        names = run.get(where.removeprefix("run."))
        if names is not None and not names:
            raise self.error(f"{where} is empty: nothing would be tested", hint="leave it out for the default")
        for name in names or ():
            if name not in known:
                raise self.error(f"{where} names {name!r}", hint=nearest(name, known))

    def check_values(self, table: dict[str, Any]) -> None:
        """What a type cannot say: names that exist, keys that exclude each other."""
        for precision, keys in table.get("precision", {}).items():
            method = keys.get("calibration", CALIBRATIONS[0])
            if method not in CALIBRATIONS:
                raise self.error(
                    f"precision.{precision}.calibration = {method!r} is unknown", hint=nearest(method, CALIBRATIONS)
                )
        model = table.get("model", {})
        if model.get("exporter", EXPORTERS[0]) not in EXPORTERS:
            raise self.error(
                f"model.exporter = {model['exporter']!r} is unknown", hint=nearest(model["exporter"], EXPORTERS)
            )
        if "trust" in model and "plan" not in model:
            raise self.error("model.trust is the digest of a plan, and there is no model.plan")
        useless = sorted(set(table.get("build", {})) - set(WHILE_LOADING)) if "plan" in model else []
        if useless:
            raise self.error(f"build.{useless[0]} cannot change model.plan, which is built already")
        if {"file", "source"} <= set(table.get("inputs", {})):
            raise self.error(
                "[inputs] has both file and source", hint="keep one: a file, or the callable that makes them"
            )

    def inside(self, relative: str, where: str) -> Path:
        """A path of the manifest must stay in its folder: a model from elsewhere could read any file of the machine."""
        folder = self.file.parent.resolve()
        target = folder / relative
        try:
            target = target.resolve(strict=True)  # only the strict form tells a loop of links, from Python 3.13 on
        except FileNotFoundError:
            target = target.resolve()  # that it is missing is the loader's to say
        except (OSError, RuntimeError, ValueError) as error:  # a loop of links; a NUL in the name
            raise self.error(f"{where} = {relative!r} cannot be followed: {error}") from error
        if not target.is_relative_to(folder):
            raise self.error(
                f"{where} = {relative!r} leaves the model's folder", hint="copy the file beside the manifest"
            )
        return self.file.parent / relative

    def pair(self, name: str, value: Any) -> tuple[float, float]:
        if (
            not isinstance(value, list)
            or len(value) != 2
            or not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value)
            or not value[0] <= value[1]
        ):
            raise self.error(f"inputs.range.{name} must be [low, high], both inclusive")
        return value[0], value[1]

    def profile(self, name: str, table: Any) -> Profile:
        where = f"profiles.{name}"
        if not isinstance(table, dict):
            raise self.error(f"[{where}] must be a table of input = shape")
        return Profile(name, {key: self.shapes(f"{where}.{key}", value) for key, value in table.items()})

    def shapes(self, where: str, value: Any) -> ShapeRange:
        if isinstance(value, list):
            return ShapeRange.fixed(self.shape(where, value))
        if not isinstance(value, dict) or set(value) != {"min", "opt", "max"}:
            raise self.error(f"{where} must be a shape, or {{ min = […], opt = […], max = […] }}")
        return ShapeRange(*(self.shape(f"{where}.{point}", value[point]) for point in ("min", "opt", "max")))

    def shape(self, where: str, value: Any) -> tuple[int, ...]:
        if not isinstance(value, list) or not all(
            isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in value
        ):
            raise self.error(f"{where} must be a list of sizes")
        return tuple(value)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        # args belong to one callable as a whole, and range to the inputs of one model: replaced, not mixed.
        whole = key in ("args", "range")
        merged[key] = (
            _merge(merged[key], value)
            if not whole and isinstance(value, dict) and isinstance(merged.get(key), dict)
            else value
        )
    return merged
