"""Lab: the one object that wires models, backends, artifacts, comparisons, clocks and baselines.

Plugin and CLI are fronts of it. It decides nothing by itself: each step is a call to the module whose noun it
is, and what happened is written into a Record.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trt.artifacts.store import Store
from pytest_trt.backends import Backend, BuildOptions, BuildRequest, Progress, Session, get_backend, silent
from pytest_trt.baselines.drift import accuracy_drift
from pytest_trt.baselines.store import BaselineStore, Match
from pytest_trt.environment import Environment
from pytest_trt.errors import (
    AccuracyFailure,
    BackendUnavailableError,
    LatencyFailure,
    ManifestError,
    TrtError,
    UnsupportedError,
    UsageError,
    nearest,
)
from pytest_trt.record import Record, accuracy_section
from pytest_trt.settings import Settings
from pytest_trt.spec.case import Case
from pytest_trt.spec.default_profile import default_profile
from pytest_trt.spec.manifest import MANIFEST_NAME, Manifest
from pytest_trt.spec.precision import Precision, RecipeResult, apply_recipe, get_precision
from pytest_trt.spec.shapes import Profile, Shape

if TYPE_CHECKING:
    from pytest_trt.accuracy.comparison import Comparison
    from pytest_trt.accuracy.tolerance import ToleranceSet
    from pytest_trt.artifacts.engines import StoredEngine
    from pytest_trt.latency.gate import Verdict
    from pytest_trt.spec.inputs import InputSet, Sample
    from pytest_trt.spec.model import Model

__all__ = ["Lab"]

DEFAULT_THRESHOLD = 0.05
# All samples are judged at opt; at the other corners a few are enough to see that the shape works.
_SAMPLES_AT_OTHER_CORNERS = 4
_SYNTHETIC_SAMPLES = 4


class Lab:
    """Build, check and measure cases under one set of settings.

    *root* is what relative paths and ``baselines/`` are relative to; *progress* is told what takes long.
    Use as a context manager, or call ``close``.
    """

    def __init__(self, settings: Settings, root: Path, progress: Progress = silent) -> None:
        self.settings = settings
        self.root = root
        self.progress = progress
        self.events: list[str] = []  # what the cache had to say, for the report
        self._manifests: dict[str, Manifest] = {}
        self._backends: dict[str, Backend] = {}
        self._models: dict[str, Model] = {}
        self._broken: dict[str, TrtError] = {}
        self._inputs: dict[str, InputSet | None] = {}
        self._synthetic: dict[tuple[str, str], InputSet] = {}
        self._typed: dict[tuple[str, str], tuple[Model, RecipeResult]] = {}
        self._engine: tuple[Case, StoredEngine, Session] | None = None

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the loaded engine. The lab can be used again."""
        if self._engine is not None:
            self._engine[2].close()
            self._engine = None

    # ---- what there is ---------------------------------------------------------------------------------------------

    @cached_property
    def store(self) -> Store:
        """The artifact store that the settings ask for."""
        from pytest_trt.artifacts import open_store

        return open_store(
            self.settings.cache, self.settings.cache_dir, self.settings.cache_size, on_event=self.events.append
        )

    @cached_property
    def baselines(self) -> BaselineStore:
        return BaselineStore(self.settings.baselines or self.root / "baselines")

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
        """Make the model folder, ``trt.toml`` or ``.onnx`` at *path* known. Raises ManifestError."""
        path = self.root / path
        if path.is_dir():
            path = path / MANIFEST_NAME if (path / MANIFEST_NAME).is_file() else path / "model.onnx"
        if not path.is_file():
            raise ManifestError(
                f"{path}: there is no such model",
                hint=f"name an .onnx file, or a folder with {MANIFEST_NAME} or model.onnx",
            )
        manifest = Manifest.load(path, self.settings.variant) if path.name == MANIFEST_NAME else Manifest.bare(path)
        known = self._manifests.setdefault(manifest.name, manifest)
        if known.file != manifest.file:
            raise ManifestError(
                f"two models are called {manifest.name!r}: {known.file} and {manifest.file}",
                hint="give one a name in [model]",
            )
        return known

    def cases(
        self, manifest: Manifest, *, precisions: tuple[str, ...] | None = None, profiles: tuple[str, ...] | None = None
    ) -> list[Case]:
        """Span the matrix for one model; *precisions* and *profiles* are a marker's, and win.

        Raises UsageError for an unknown precision, profile or backend, and for a tolerance that cannot be used.
        """
        precisions = precisions or self.settings.precision or manifest.precisions
        for name in precisions:
            get_precision(name)
        cases = [
            Case(manifest.name, precision, profile, backend, tactics)
            for backend in self.backend_names
            for tactics in self.settings.tactics
            for profile in self._profile_names(manifest, profiles)
            for precision in precisions
        ]
        for case in cases:
            self.tolerance(case)  # a wrong one must show now, not after minutes of building
        return cases

    def _profile_names(self, manifest: Manifest, wanted: tuple[str, ...] | None) -> tuple[str, ...]:
        known = tuple(manifest.profiles) or ("default",)
        for name in wanted or ():
            if name not in known:
                raise UsageError(f"{manifest.file}: no profile {name!r}", hint=nearest(name, known))
        if wanted or not self.settings.profile:
            return wanted or manifest.default_profiles or known
        # A name from the command line is for the models that have it; that no model has it is the front's to say.
        return tuple(name for name in self.settings.profile if name in known)

    # ---- from a case to its parts ----------------------------------------------------------------------------------

    def manifest(self, case: Case) -> Manifest:
        return self._manifests[case.model]

    def model(self, name: str) -> Model:
        """The untyped model, loaded or built once. Raises ModelError."""
        from pytest_trt.artifacts.models import obtain_model

        if name in self._broken:
            raise self._broken[name].again()
        if name not in self._models:
            try:
                self._models[name] = obtain_model(self._manifests[name], self.store, self.progress)
            except TrtError as error:
                # Every case asks for it again: a large file is read, and a slow source run, once only.
                self._broken[name] = error.again()
                raise
        return self._models[name]

    def profile(self, case: Case) -> Profile:
        """The case's profile, checked against the model. Raises ProfileError."""
        manifest, model = self.manifest(case), self.model(case.model)
        profile = manifest.profiles.get(case.profile)
        if profile is None:
            real = self._real_inputs(manifest)
            profile = default_profile(model.inputs, real.sets if real else (), rows=manifest.inputs_file is not None)
        profile.validate(model.inputs)
        return profile

    def inputs(self, case: Case, shapes: Mapping[str, Shape]) -> InputSet:
        """The user's input samples, or labelled synthetic ones. Raises InputsError."""
        from pytest_trt.spec.synthetic import synthetic_inputs

        manifest, key = self.manifest(case), (case.model, str(sorted(shapes.items())))
        real = self._real_inputs(manifest)
        if real is not None:
            return real
        if key not in self._synthetic:
            self._synthetic[key] = synthetic_inputs(
                self.model(case.model).inputs,
                shapes,
                seed=self.settings.seed,
                ranges=manifest.ranges,
                count=_SYNTHETIC_SAMPLES,
            )
        return self._synthetic[key]

    def _real_inputs(self, manifest: Manifest) -> InputSet | None:
        from pytest_trt.artifacts.models import call_source
        from pytest_trt.spec.input_files import inputs_from_arrays, load_inputs

        if manifest.name not in self._inputs:
            model, source = self.model(manifest.name), self._files_of_inputs(manifest)
            found = None
            if source is not None:
                found = load_inputs(
                    source,
                    model.inputs,
                    labels=manifest.labels,
                    model_outputs=model.outputs,
                    allow_nonfinite=manifest.allow_nonfinite,
                )
            elif manifest.inputs_source is not None:
                arrays = call_source(manifest, manifest.inputs_source)
                found = inputs_from_arrays(
                    arrays,
                    model.inputs,
                    origin=manifest.inputs_source,
                    labels=manifest.labels,
                    allow_nonfinite=manifest.allow_nonfinite,
                )
            self._inputs[manifest.name] = found
        return self._inputs[manifest.name]

    def _files_of_inputs(self, manifest: Manifest) -> Path | None:
        if manifest.inputs_file is not None:
            return manifest.inputs_file
        has_sets = manifest.inputs_source is None and any(manifest.folder.glob("test_data_set_*"))
        return manifest.folder if has_sets else None

    def samples(self, case: Case, shapes: Mapping[str, Shape], limit: int | None) -> tuple[list[Sample], str]:
        """The samples at *shapes*, and the fingerprint of exactly these."""
        inputs = self.inputs(case, shapes)
        samples = inputs.samples(shapes, limit=limit)
        return samples, f"{inputs.fingerprint}@{sorted(shapes.items())}[:{limit}]"

    def expected(
        self, case: Case, shapes: Mapping[str, Shape], limit: int | None
    ) -> tuple[list[Sample], list[dict[str, Any]], str]:
        """The samples at *shapes*, their expected outputs (stored ones, else the reference's), and who made these."""
        from pytest_trt.artifacts.references import obtain_reference

        samples, fingerprint = self.samples(case, shapes, limit)
        stored = [sample.expected for sample in samples]
        if all(stored):
            return samples, [dict(outputs) for outputs in stored if outputs], "stored outputs"
        reference = obtain_reference(self.store, self.model(case.model), samples, fingerprint, self.progress)
        return samples, list(reference.outputs), reference.origin

    def typed_model(self, case: Case) -> tuple[Model, RecipeResult]:
        """The model after its precision's recipe, and what the recipe did. Raises PrecisionError."""
        from pytest_trt.spec.model import Model

        key = (case.model, case.precision)
        if key not in self._typed:
            precision, model = get_precision(case.precision), self.model(case.model)
            options = dict(self.manifest(case).precision.get(case.precision, {}))
            calibration: dict[str, Any] = {
                name: options.pop(name) for name in ("calibration", "percentile", "samples") if name in options
            }
            recipe = precision.make_recipe(**options)
            ranges = self._ranges(case, precision, options, calibration)
            result = apply_recipe(recipe, model.proto, ranges)
            # Two typed models in memory at most: cases come precision by precision, profile by profile.
            while len(self._typed) >= 2:
                del self._typed[next(iter(self._typed))]
            self._typed[key] = Model.from_proto(result.proto, model.name), result
        return self._typed[key]

    def _ranges(
        self, case: Case, precision: Precision, options: dict[str, Any], calibration: dict[str, Any]
    ) -> Mapping[str, tuple[float, float]] | None:
        if not precision.calibrated:
            return None
        from pytest_trt.artifacts.calibration import CalibrationOptions, obtain_ranges
        from pytest_trt.spec.precision.ranges import calibration_tensors

        model = self.model(case.model)
        samples, fingerprint = self.samples(case, self.profile(case).at("opt"), calibration.get("samples"))
        chosen = CalibrationOptions(calibration.get("calibration", "entropy"), calibration.get("percentile", 99.99))
        return obtain_ranges(
            self.store, model, calibration_tensors(model.proto, options), samples, fingerprint, chosen, self.progress
        )

    def request(self, case: Case) -> BuildRequest:
        """Everything the backend needs to build *case*. Raises UnsupportedError and UsageError."""
        precision, backend, manifest = get_precision(case.precision), self.backend(case.backend), self.manifest(case)
        support = backend.support(precision)
        if support.kind == "unsupported":
            raise UnsupportedError(support.reason)
        on_tensorrt = case.backend == "tensorrt"
        options = BuildOptions(
            # A manifest's build options are TensorRT's; check() refuses a command line that gives them to another.
            self.settings.workspace or (manifest.workspace_bytes if on_tensorrt else None),
            self.settings.opt_level
            if self.settings.opt_level is not None
            else (manifest.optimization_level if on_tensorrt else None),
            case.tactics,
        )
        backend.check(options)
        profile = self.profile(case)
        return BuildRequest(self.typed_model(case)[0], precision, profile, options)

    def engine(self, case: Case) -> tuple[StoredEngine, Session]:
        """The case's engine, built or cached, and loaded; one is loaded at a time. Raises BuildError, RunError."""
        from pytest_trt.artifacts.engines import obtain_engine

        if self._engine is None or self._engine[0] != case:
            self.close()
            backend, request = self.backend(case.backend), self.request(case)
            stored = obtain_engine(
                self.store, backend, request, label=case.id, progress=self.progress,
                exclusive=lambda: self.device_lock(case.backend), timing_cache=self.settings.timing_cache == "on",
            )  # fmt: skip
            self._engine = case, stored, backend.load(stored.plan, request)
        return self._engine[1], self._engine[2]

    def device_lock(self, backend: str) -> AbstractContextManager[object]:
        """Exclusive use of a backend's device across processes, for builds and measurements."""
        return self.store.lock(f"device-{'gpu' if backend not in ('onnxruntime-cpu', 'fake') else 'cpu'}")

    # ---- the two judgements ----------------------------------------------------------------------------------------

    def record(self, case: Case) -> Record:
        """A record with what is known before anything ran."""
        support = self.backend(case.backend).support(get_precision(case.precision))
        return Record(
            case,
            environment=self.environment(case.backend).to_json(),
            precision={
                "kind": support.kind,
                "reason": support.reason,
                "simulated": support.reason if support.kind == "simulated" else None,
            },
        )

    def check(
        self, case: Case, record: Record, tolerance: Mapping[str, Any] | None = None, origin: str = ""
    ) -> Comparison:
        """Judge the case's outputs at every corner of its profile, and fill *record*.

        *tolerance* overrides the preset, the manifest's and the command line's values; *origin* says where it
        stands. Raises AccuracyFailure: outputs not close, precision not honoured, or worse than the baseline.
        """
        from pytest_trt.accuracy.comparison import Comparison, compare

        _, session = self._judged_engine(case, record)
        limits, allow = self.tolerance(case, tolerance, origin), self.manifest(case).allow_nonfinite
        parts: list[Comparison] = []
        points: dict[str, Any] = {}
        corners = self.profile(case).corners()
        for point, shapes in corners.items() if self.settings.shapes == "corners" else [("opt", corners["opt"])]:
            limit = self.settings.samples or (None if point == "opt" else _SAMPLES_AT_OTHER_CORNERS)
            samples, expected, source = self.expected(case, shapes, limit)
            found = [
                compare(
                    s.cut(session.run(s.feeds)),
                    s.cut(e),
                    tolerance=limits,
                    labels=_labelled(e, s),
                    allow_nonfinite=allow,
                )
                for s, e in zip(samples, expected, strict=True)
            ]
            points[point] = {
                "shapes": {k: list(v) for k, v in shapes.items()},
                "samples": len(samples),
                "ok": all(c.ok for c in found),
            }
            parts += found
        comparison = Comparison.merge(parts)
        record.accuracy = {**accuracy_section(comparison), "points": points, "reference": source}
        match = self.match(case, record)
        drift = (
            accuracy_drift(match.entry["accuracy"], record.accuracy["outputs"]) if match.gates and match.entry else []
        )
        record.accuracy["drift"] = drift
        if not comparison.ok:
            raise AccuracyFailure(f"{case}: {comparison.summary}", f"{comparison.detail}\n\n{self.commands(case)}")
        if drift:
            raise AccuracyFailure(
                f"{case}: accuracy regressed against the baseline", "\n".join([*drift, "", self.commands(case)])
            )
        return comparison

    def measure(self, case: Case, record: Record, threshold: float | None = None) -> Verdict | None:
        """Measure the case at its opt shapes, judge it against its baseline, and fill *record*.

        Returns None where there is no baseline that gates. Raises LatencyFailure for a regression.
        """
        from pytest_trt.latency.gate import Outcome, decide
        from pytest_trt.latency.stats import Summary, summarize
        from pytest_trt.latency.timer import sample

        _, session = self._judged_engine(case, record)
        samples, _ = self.samples(case, self.profile(case).at("opt"), 1)
        with self.device_lock(case.backend):
            session.stage(samples[0].feeds)
            clock = session.clock()
            taken = sample(
                session.launch, clock, warmup_seconds=self.settings.warmup, duration_seconds=self.settings.duration
            )
            transfers = session.transfers_ms(samples[0].feeds)
        summary = summarize(taken.values_ms)
        note = getattr(clock, "note", "")
        record.latency = {
            "clock": taken.clock,
            "summary": summary.to_json(),
            "transfers_ms": transfers,
            "conditions": taken.conditions,
            "warmup_count": taken.warmup_count,
            **({"note": note} if note else {}),
            "samples_ms": [float(f"{v:.6g}") for v in taken.values_ms],
        }
        match = self.match(case, record)
        stored = (match.entry or {}).get("latency")
        if not stored or stored["clock"] != taken.clock:
            return None
        limit = self.threshold(case, threshold)
        verdict = decide(Summary.from_json(stored), summary, threshold=limit, clock=taken.clock)
        record.verdict = {**verdict.to_json(), "gates": match.gates}
        if match.gates and verdict.outcome is Outcome.FAIL:
            recorded = (match.entry or {})["recorded"]
            evidence = [
                f"measured     {summary.median_ms:.4g} ms ({taken.clock})",
                f"baseline     {stored['median_ms']:.4g} ms, recorded {recorded}, {match.file}",
                "",
                self.commands(case),
            ]
            raise LatencyFailure(f"{case}: {verdict.sentence}", "\n".join(evidence))
        return verdict

    def match(self, case: Case, record: Record) -> Match:
        """Find the case's baseline and note its state in *record*."""
        match = self.baselines.match(case, self.environment(case.backend))
        record.baseline = match.to_json()
        return match

    def threshold(self, case: Case, marker: float | None = None) -> float:
        """Marker > command line > manifest > 5 %."""
        return next(
            v
            for v in (marker, self.settings.threshold, self.manifest(case).threshold, DEFAULT_THRESHOLD)
            if v is not None
        )

    def tolerance(self, case: Case, overrides: Mapping[str, Any] | None = None, origin: str = "") -> ToleranceSet:
        """Preset of the precision < manifest < command line < marker; each value knows where it comes from."""
        from pytest_trt.accuracy.tolerance import ToleranceSet, default_tolerance, parse_tolerance

        manifest = self.manifest(case)
        limits = ToleranceSet(default_tolerance(case.precision))
        limits = limits.merged(
            manifest.tolerance.get(case.precision, {}), f"[tolerance.{case.precision}] in {manifest.file.name}"
        )
        if self.settings.tolerance:
            limits = limits.merged(parse_tolerance(self.settings.tolerance), "--trt-tolerance")
        return limits.merged(overrides or {}, origin)

    def commands(self, case: Case) -> str:
        """The commands that continue from a failure of *case*."""
        place = (
            self.manifest(case).folder if self.manifest(case).file.name == MANIFEST_NAME else self.manifest(case).file
        )
        try:
            shown = place.relative_to(self.root)
        except ValueError:
            shown = place
        asked = f"{shown} --precision={case.precision} --profile={case.profile} --backend={case.backend}"
        asked += f" --tactics={','.join(case.tactics)}" if case.tactics else ""
        asked += f" --variant={self.manifest(case).variant}" if self.settings.variant else ""
        asked += f" --seed={self.settings.seed}" if self.settings.seed else ""
        asked += f" --fake={self.settings.fake}" if self.settings.fake else ""
        return f"reproduce    pytest-trt compare {asked}"

    def _judged_engine(self, case: Case, record: Record) -> tuple[StoredEngine, Session]:
        stored, session = self.engine(case)
        result = self.typed_model(case)[1]
        fingerprint = self.model(case.model).fingerprint
        record.engine = {
            "digest": stored.digest,
            "fresh": stored.fresh,
            "model_fingerprint": fingerprint,
            **stored.facts,
        }
        record.precision = {**(record.precision or {}), "recipe": result.notes}
        shapes = self.profile(case).at("opt")
        inputs = self.inputs(case, shapes)
        record.inputs = {
            "origin": inputs.origin,
            "synthetic": inputs.synthetic,
            "notes": list(inputs.notes),
            "left_out": list(inputs.left_out(shapes)),
        }
        if "not_honoured" in stored.facts:
            raise AccuracyFailure(
                f"{case}: the engine does not run in {case.precision}",
                f"{stored.facts['not_honoured']}\n\n{self.commands(case)}",
            )
        return stored, session


def _labelled(expected: Mapping[str, Any], sample: Sample) -> Mapping[str, Any] | None:
    # Labels belong to a classifier's first output.
    return None if sample.labels is None else {next(iter(expected)): sample.labels}
