"""Manifest: a model folder's ``trt.toml``, or a bare ``.onnx`` file, as one frozen value."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_trt.errors import ManifestError, UsageError, nearest
from pytest_trt.option_values import tactic_sets
from pytest_trt.settings import as_text, options
from pytest_trt.spec.build_options import BuildOptions
from pytest_trt.spec.interface import Interface
from pytest_trt.spec.manifest_schema import EXPORTERS, WHILE_LOADING, check_tables, check_values, error, in_words, share
from pytest_trt.spec.metrics import MetricSpec, parse_metrics
from pytest_trt.spec.precision import PRECISIONS
from pytest_trt.spec.shapes import Profile, ShapeRange

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["EXPORTERS", "MANIFEST_NAME", "WHILE_LOADING", "Manifest"]

MANIFEST_NAME = "trt.toml"


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
    expected_file: Path | None = None  # stored outputs of inputs_file
    inputs_source: str | None = None
    labels: str | None = None
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    allow_nonfinite: bool = False
    synthetic: bool = False  # what file or source give is invented, and every report says so
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    precision: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tolerance: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    metrics: Mapping[str, MetricSpec] = field(default_factory=dict)
    threshold: float | None = None
    build: BuildOptions = field(default_factory=BuildOptions)
    precisions: tuple[str, ...] = ("fp32",)
    default_profiles: tuple[str, ...] = ()
    tactics: tuple[tuple[str, ...], ...] = ()  # sets; none: TensorRT's own
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
            hint = "save it as UTF-8" if isinstance(error, UnicodeDecodeError) else None
            raise ManifestError(f"{file}: cannot be read: {error}", hint=hint) from error
        return _Reader(file).manifest(table, variant)


class _Reader:
    """Turns one file's tables into a Manifest; holds the file's name for the messages."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def manifest(self, table: dict[str, Any], variant: str | None) -> Manifest:
        variants = table.pop("variants", {})
        check_tables(self.file, table)
        table, chosen = self.overlay(table, variants, variant)
        check_values(self.file, table)
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
            expected_file=self.inside(inputs["expected"], "inputs.expected") if "expected" in inputs else None,
            inputs_source=inputs.get("source"),
            labels=inputs.get("labels"),
            ranges={k: self.pair(k, v) for k, v in inputs.get("range", {}).items()},
            allow_nonfinite=inputs.get("allow_nonfinite", False),
            synthetic=inputs.get("synthetic", False),
            profiles={k: self.profile(k, v) for k, v in table.get("profiles", {}).items()},
            precision={name: self.recipe(name, keys) for name, keys in precision.items()},
            tolerance=table.get("tolerance", {}),
            metrics=self.metrics(table.get("metrics", {})),
            threshold=share(self.file, "latency.threshold", table.get("latency", {}).get("threshold")),
            build=self.build_options(table.get("build", {})),
            precisions=tuple(run.get("precisions", ("fp32",))),
            default_profiles=tuple(run.get("profiles", ())),
            tactics=self.tactic_sets(run),
            variant=chosen,
        )

    def error(self, message: str, hint: str | None = None) -> ManifestError:
        return error(self.file, message, hint)

    def recipe(self, name: str, keys: dict[str, Any]) -> dict[str, Any]:
        if "ranges" not in keys:
            return keys
        return {**keys, "ranges": self.inside(keys["ranges"], f"precision.{name}.ranges")}

    def overlay(self, table: dict[str, Any], variants: Any, variant: str | None) -> tuple[dict[str, Any], str | None]:
        if not isinstance(variants, dict):
            raise self.error(f"variants must be a table, not {in_words(type(variants))}")
        default = table.get("model", {}).get("variant")
        for name, overlay in variants.items():
            if not isinstance(overlay, dict):
                raise self.error(f"[variants.{name}] must be a table")
            check_tables(self.file, overlay, prefix=f"variants.{name}.")
        if default is not None and default not in variants:
            hint = nearest(default, variants) if variants else f"there is no variant; write [variants.{default}.model]"
            raise self.error(f"model.variant names {default!r}", hint=hint)
        chosen = variant if variant in variants else default
        return (_merge(table, variants[chosen]) if chosen else table), chosen

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

    def metrics(self, table: dict[str, Any]) -> dict[str, MetricSpec]:
        try:
            return parse_metrics(table)
        except ManifestError as error:
            raise self.error(error.message, hint=error.hint) from error

    def interface(self, table: dict[str, Any]) -> Interface:
        try:
            return Interface.parse(table)
        except ManifestError as error:
            raise self.error(error.message, hint=error.hint) from error

    def tactic_sets(self, run: dict[str, Any]) -> tuple[tuple[str, ...], ...]:
        """One set of tactic sources for each entry of ``run.tactics``."""
        if "tactics" not in run:
            return ()
        self.named("run.tactics", run, run["tactics"])
        try:
            return tactic_sets(";".join(run["tactics"]))
        except ValueError as error:
            raise self.error(f"run.tactics: {error}") from error

    def named(self, where: str, run: dict[str, Any], known: Collection[str]) -> None:
        names = run.get(where.removeprefix("run."))
        if names is not None and not names:
            raise self.error(f"{where} is empty: nothing would be tested", hint="leave it out for the default")
        for name in names or ():
            if name not in known:
                raise self.error(f"{where} names {name!r}", hint=nearest(name, known))

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
            raise self.error(f"inputs.range.{name} must be [low, high], both included, not {value!r}")
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
            has = ", ".join(value) if isinstance(value, dict) else repr(value)
            raise self.error(f"{where} must be a shape, or {{ min = […], opt = […], max = […] }}; it has {has}")
        return ShapeRange(*(self.shape(f"{where}.{point}", value[point]) for point in ("min", "opt", "max")))

    def shape(self, where: str, value: Any) -> tuple[int, ...]:
        if not isinstance(value, list) or not all(
            isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in value
        ):
            raise self.error(
                f"{where} must be a list of sizes, not {value!r}",
                hint="a size is 0, 1, 2, …; where it may vary, give { min = […], opt = […], max = […] }",
            )
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
