"""Catalog: what there is to test. Manifests, models, graphs, plans and tolerances, by a case's names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pytest_trt.artifacts.store import Store
from pytest_trt.backends import BUILD_OPTIONS, Backend, Progress, get_backend, silent
from pytest_trt.environment import Environment
from pytest_trt.errors import BackendUnavailableError, ManifestError, TrtError, UnsupportedError, UsageError, nearest
from pytest_trt.lab.option_pairs import check_pairs
from pytest_trt.settings import Settings, options
from pytest_trt.spec.build_options import BuildOptions
from pytest_trt.spec.case import AS_IS, NO_AXES, Axes, Case, plain
from pytest_trt.spec.default_profile import DEFAULT_PROFILE
from pytest_trt.spec.manifest import MANIFEST_NAME, Manifest
from pytest_trt.spec.manifest_schema import WHILE_LOADING
from pytest_trt.spec.precision import get_precision

if TYPE_CHECKING:
    from pytest_trt.accuracy.tolerance import ToleranceSet
    from pytest_trt.artifacts.engines import StoredEngine
    from pytest_trt.spec.interface import Interface
    from pytest_trt.spec.model import Model

__all__ = ["Catalog", "manifest_of"]


def manifest_of(path: Path, variant: str | None) -> Path | None:
    """The ``trt.toml`` beside the ``.onnx`` file at *path*, where one is there and means it. Raises ManifestError."""
    beside = path.with_name(MANIFEST_NAME)
    if path.suffix != ".onnx" or not beside.is_file():
        return None
    return beside if Manifest.load(beside, variant).path == path.absolute() else None


class Catalog:
    """Knows what the names in a case mean. Whatever it loads, it loads once."""

    def __init__(self, settings: Settings, root: Path, progress: Progress = silent) -> None:
        self.settings = settings
        self.root = root
        self.progress = progress
        self.events: list[str] = []  # what the cache had to say, for the report
        self._manifests: dict[str, Manifest] = {}
        self._backends: dict[str, Backend] = {}
        self._models: dict[str, Model] = {}
        self._graphs: dict[tuple[str, str], Model] = {}
        self._broken: dict[str, TrtError] = {}
        self._interfaces: dict[str, Interface] = {}
        self._loaded_as: dict[str, Case] = {}

    @cached_property
    def store(self) -> Store:
        """The artifact store that the settings ask for."""
        from pytest_trt.artifacts import open_store

        return open_store(
            self.settings.cache, self.settings.cache_dir, self.settings.cache_size, on_event=self.events.append
        )

    def backend(self, name: str) -> Backend:
        """Return the backend, or raise UsageError (unknown) or BackendUnavailableError (something is missing)."""
        if name not in self._backends:
            backend = get_backend(name, *([self.settings.fake] if name == "fake" else []))
            found = backend.probe()
            if not found.ok:
                raise BackendUnavailableError(
                    f"--trt-backend={name}: {found.reason}", hint="pytest-trt doctor shows what is there"
                )
            self._backends[name] = backend
        return self._backends[name]

    @cached_property
    def backend_names(self) -> tuple[str, ...]:
        """The backends asked for, or the default: tensorrt where it works, else onnxruntime-cpu."""
        if self.settings.backend:
            return self.settings.backend
        return ("tensorrt" if get_backend("tensorrt").probe().ok else "onnxruntime-cpu",)

    def environment(self, backend_name: str) -> Environment:
        return Environment.of(backend_name, dict(self.backend(backend_name).probe().versions))

    def add(self, path: Path | str) -> Manifest:
        """Make the model folder, ``trt.toml`` or ``.onnx`` at *path* known; a file is tested as the manifest beside it
        says, where that means it. Raises ManifestError."""
        path, hint = self.root / path, f"name an .onnx file, or a folder with {MANIFEST_NAME} or model.onnx"
        if path.is_dir():
            if below := sorted(file.parent.name for file in path.glob(f"*/{MANIFEST_NAME}")):
                hint = f"name a model of this folder: {', '.join(below[:5])}{', …' if below[5:] else ''}"
            path = path / MANIFEST_NAME if (path / MANIFEST_NAME).is_file() else path / "model.onnx"
        if not path.is_file():
            raise ManifestError(f"{path}: there is no such model", hint=hint)
        path = manifest_of(path, self.settings.variant) or path
        return self.know(
            Manifest.load(path, self.settings.variant) if path.name == MANIFEST_NAME else Manifest.bare(path)
        )

    def know(self, manifest: Manifest) -> Manifest:
        """Make the model of *manifest* known. Raises ManifestError."""
        for precision in manifest.tolerance:
            self._preset(manifest, precision)  # a typo must show, also where its precision is not tested
        known = self._manifests.setdefault(manifest.name, manifest)
        if known.file != manifest.file:
            raise ManifestError(
                f"two models are called {manifest.name!r}: {known.file} and {manifest.file}",
                hint="give one a name in [model]",
            )
        for other in self._manifests.values():
            if other is not known and plain(other.name) == plain(known.name):
                raise ManifestError(
                    f"the models {other.name!r} ({other.file}) and {known.name!r} ({known.file}) would share their ids"
                    f" and baselines: both are written {plain(known.name)!r}",
                    hint="give one another name in [model]",
                )
        return known

    def cases(self, manifest: Manifest, axes: Axes = NO_AXES, *, check: bool = True) -> list[Case]:
        """Span the matrix for one model; *axes* are a marker's, and win. Without *check* the
        backends need not be there.

        Raises UsageError for an unknown precision, profile, backend or graph, a tolerance that cannot be used, and a
        build option that the backend lacks.
        """
        settings = self.settings
        if settings.engine and "tensorrt" not in (axes.backends or self.backend_names):
            raise UsageError(
                f"--trt-engine={settings.engine}: only the backend tensorrt runs a plan, and it is not tested here",
                hint="add --trt-backend=tensorrt, or leave --trt-engine out",
            )
        precisions = axes.precisions or settings.precision or manifest.precisions
        for name in precisions:
            get_precision(name)
        cases = [
            Case(manifest.name, precision, profile, backend, tactics, graph, self._options_for(backend, axes))
            for backend in axes.backends or self.backend_names
            for graph in axes.graphs or settings.graph
            for tactics in self._tactics_for(backend, axes, manifest)
            for precision in precisions  # outside of the profiles: they share its typed model
            for profile in self._profile_names(manifest, axes.profiles)
        ]
        _distinct(cases, manifest)
        for case in cases:
            self.tolerance(case)  # a wrong one must show now, not after minutes of building
        for case in {(case.backend, case.tactics): case for case in cases if check}.values():
            self.backend(case.backend).check(self.build_options(case))
        for case in {(case.backend, case.precision): case for case in cases if check}.values():
            check_pairs(self.settings, self.backend(case.backend), case, self.build_options(case))
        for case in cases:
            self.heed(case)
        return cases

    def heed(self, case: Case) -> None:
        """Let the plan of the case's model be read with what a marker says of how it is loaded. A model's inputs are
        asked for by its name alone, and no other door knows that."""
        if self.is_prebuilt(case) and any(name in WHILE_LOADING for name, _ in case.options):
            self._loaded_as.setdefault(case.model, case)

    def _tactics_for(self, backend: str, axes: Axes, manifest: Manifest) -> tuple[tuple[str, ...], ...]:
        if axes.tactics is None and self.settings.tactics:
            return self.settings.tactics
        given = manifest.tactics if axes.tactics is None else axes.tactics
        return (given if backend == "tensorrt" else ()) or ((),)

    @staticmethod
    def _options_for(backend: str, axes: Axes) -> tuple[tuple[str, str], ...]:
        known = BUILD_OPTIONS.get(backend, ())
        return tuple((name, text) for name, text in axes.options if name in known)

    def build_options(self, case: Case) -> BuildOptions:
        """Marker > command line > manifest. Raises UsageError for a marker's value that cannot be read."""
        known = BUILD_OPTIONS.get(case.backend, ())
        of_manifest = {name: value for name, value in self.manifest(case).build.given().items() if name in known}
        of_settings = self._options_of_settings()
        parsers = {option.name: option for option in options()}
        of_marker = BuildOptions.of(
            {name: parsers[name].read(text, f"@pytest.mark.trt: {name}") for name, text in case.options}
        )
        return replace(of_marker.over(of_settings).over(BuildOptions(**of_manifest)), tactics=case.tactics)

    def _options_of_settings(self) -> BuildOptions:
        return BuildOptions.of({**vars(self.settings), "tactics": None})

    def _profile_names(self, manifest: Manifest, wanted: tuple[str, ...] | None) -> tuple[str, ...]:
        known = tuple(manifest.profiles) or (DEFAULT_PROFILE,)
        for name in wanted or ():
            if name not in known:
                raise UsageError(f"{manifest.file}: no profile {name!r}", hint=nearest(name, known))
        if wanted or not self.settings.profile:
            return wanted or manifest.default_profiles or known
        # A name from the command line is for the models that have it; that no model has it is the front's to say.
        return tuple(name for name in self.settings.profile if name in known)

    def manifest(self, case: Case) -> Manifest:
        return self._manifests[case.model]

    def model(self, name: str) -> Model:
        """The untyped model, loaded or built once. Raises ModelError."""
        from pytest_trt.artifacts.models import obtain_model

        if name in self._broken:
            raise self._broken[name].again()
        if name not in self._models:
            try:
                read = partial(self.plan_interface, name) if "tensorrt" in self.backend_names else None
                self._models[name] = obtain_model(self._manifests[name], self.store, self.progress, inspect=read)
            except TrtError as error:
                # Every case asks for it again: a large file is read, and a slow source run, once only.
                self._broken[name] = error.again()
                raise
        return self._models[name]

    def plan_file(self, name: str) -> Path | None:
        """The finished plan that takes the place of building on the tensorrt backend."""
        return self.root / self.settings.engine if self.settings.engine else self._manifests[name].plan

    def is_prebuilt(self, case: Case) -> bool:
        """Whether *case* runs a finished plan in place of building one."""
        return case.backend == "tensorrt" and self.plan_file(case.model) is not None

    def plan(self, name: str) -> StoredEngine:
        """That plan, read. Raises UnsafeModelError where nobody named its digest, ManifestError where there is none."""
        from pytest_trt.artifacts.prebuilt import read_plan

        manifest, path = self._manifests[name], self.plan_file(name)
        if path is None:
            raise ManifestError(f"{manifest.file}: there is no plan", hint="model.plan or --trt-engine names one")
        return read_plan(path, self.settings.trust or manifest.trust)

    def plan_interface(self, name: str) -> Interface:
        """What the plan of a model says of itself."""
        if name not in self._interfaces:
            backend = cast(Any, self.backend("tensorrt"))  # no other has plans
            case, of_manifest = self._loaded_as.get(name), self._manifests[name].build
            options = self.build_options(case) if case else self._options_of_settings().over(of_manifest)
            self._interfaces[name] = backend.interface(self.plan(name).plan, options)
        return self._interfaces[name]

    def graph(self, case: Case) -> Model:
        """The model as the case's graph variant has it; the reference stays that of the untouched model."""
        if case.graph == AS_IS:
            return self.model(case.model)
        if not self.model(case.model).has_graph:
            raise UnsupportedError(f"{case.model} has no ONNX graph that --trt-graph={case.graph} could change")
        from pytest_trt.artifacts.graphs import obtain_graph

        key = (case.model, case.graph)
        if key not in self._graphs:
            self._graphs[key] = obtain_graph(self.store, self.model(case.model), case.graph, self.progress)
        return self._graphs[key]

    def tolerance(self, case: Case, overrides: Mapping[str, Any] | None = None, origin: str = "") -> ToleranceSet:
        """Preset of the precision < manifest < command line < marker; each value knows where it comes from."""
        from pytest_trt.accuracy.tolerance import parse_tolerance

        limits = self._preset(self.manifest(case), case.precision)
        if self.settings.tolerance:
            limits = limits.merged(parse_tolerance(self.settings.tolerance), "--trt-tolerance")
        return limits.merged(overrides or {}, origin)

    def _preset(self, manifest: Manifest, precision: str) -> ToleranceSet:
        from pytest_trt.accuracy.tolerance import ToleranceSet, default_tolerance

        origin = f"[tolerance.{precision}] in {manifest.file.name}"
        return ToleranceSet(default_tolerance(precision)).merged(manifest.tolerance.get(precision, {}), origin)


def _distinct(cases: Iterable[Case], manifest: Manifest) -> None:
    """Raise ManifestError where two of *cases* share an id, and so a baseline."""
    found: dict[str, Case] = {}
    for case in cases:
        other = found.setdefault(case.id, case)
        if other != case:
            raise ManifestError(
                f"{manifest.file}: {other} and {case} would share the id {case.id} and one baseline",
                hint="write their names with other letters or digits",
            )
