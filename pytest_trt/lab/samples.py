"""Samples: the shapes at which a case runs, what it is fed there, and what is expected of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trt.backends import Progress, silent
from pytest_trt.lab.catalog import Catalog
from pytest_trt.settings import Settings
from pytest_trt.spec.case import Case
from pytest_trt.spec.default_profile import default_profile
from pytest_trt.spec.manifest import Manifest
from pytest_trt.spec.shapes import Profile, Shape, format_shape

if TYPE_CHECKING:
    from pytest_trt.spec.inputs import InputSet, Sample
    from pytest_trt.spec.regressions import Regressions

__all__ = ["Samples"]

_SYNTHETIC_SAMPLES = 4


class Samples(Catalog):
    """Knows what runs through the models of the catalog. Whatever it reads, it reads once."""

    def __init__(self, settings: Settings, root: Path, progress: Progress = silent) -> None:
        super().__init__(settings, root, progress)
        self._inputs: dict[str, InputSet | None] = {}
        self._synthetic: dict[tuple[str, str], InputSet] = {}

    def profile(self, case: Case) -> Profile:
        """The case's profile, checked against the model. Raises ProfileError."""
        return next(profile for profile in self.profiles(case) if profile.name == case.profile)

    def profiles(self, case: Case) -> tuple[Profile, ...]:
        """All profiles of the case's model, each checked against it; a derived one where the manifest has none."""
        manifest, model = self.manifest(case), self.model(case.model)
        found = tuple(manifest.profiles.values()) or model.profiles[:1]
        if not found:
            real = self._real_inputs(manifest)
            rows = manifest.inputs_file is not None or manifest.inputs_source is not None
            found = (default_profile(model.inputs, real.sets if real else (), rows=rows),)
        for profile in found:
            profile.validate(model.inputs)
        return found

    def inputs(self, case: Case, shapes: Mapping[str, Shape]) -> InputSet:
        """The user's input samples, or labelled synthetic ones. Raises InputsError.

        Beyond the corners, which the user's samples must fit, their values are repeated or cut to the shape.
        """
        from pytest_trt.spec.shape_points import fitted
        from pytest_trt.spec.synthetic import synthetic_inputs

        manifest, key = self.manifest(case), (case.model, str(sorted(shapes.items())))
        real = self._real_inputs(manifest)
        if real is not None:
            return real if self.settings.shapes in ("opt", "corners") else fitted(real, shapes)
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
        from pytest_trt.artifacts.models import call_inputs_source
        from pytest_trt.spec.input_files import inputs_from_arrays, load_expected, load_inputs

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
                if manifest.expected_file is not None:
                    found = found.with_expected(load_expected(manifest.expected_file, model.outputs))
            elif manifest.inputs_source is not None:
                found = inputs_from_arrays(
                    call_inputs_source(manifest),
                    model.inputs,
                    origin=manifest.inputs_source,
                    labels=manifest.labels,
                    allow_nonfinite=manifest.allow_nonfinite,
                )
            self._inputs[manifest.name] = replace(found, synthetic=True) if found and manifest.synthetic else found
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
        samples, fingerprint = self.samples(case, shapes, limit)
        stored = [sample.expected for sample in samples]
        if all(stored):
            return samples, [dict(outputs) for outputs in stored if outputs], "stored outputs"
        if self.inputs(case, shapes).expected:
            said = ", ".join(f"{name} {format_shape(shape)}" for name, shape in shapes.items())
            self.events.append(f"{case.model}: not every sample at {said} has stored outputs: none of them is used")
        return samples, *self.expected_of(case, samples, fingerprint)

    def expected_of(self, case: Case, samples: Sequence[Sample], fingerprint: str) -> tuple[list[dict[str, Any]], str]:
        """The reference's outputs for *samples*, and who made them."""
        from pytest_trt.artifacts.called_reference import obtain_called_reference
        from pytest_trt.artifacts.references import obtain_reference

        manifest, model = self.manifest(case), self.model(case.model)
        if manifest.reference or not model.has_graph:
            reference = obtain_called_reference(self.store, manifest, model, samples, fingerprint, self.progress)
        else:
            reference = obtain_reference(self.store, model, samples, fingerprint, self.progress)
        return list(reference.outputs), reference.origin

    def regressions(self, case: Case) -> Regressions:
        """The inputs on which the model failed before, as far as they lie within the case's profile."""
        from pytest_trt.spec.regressions import load_regressions, regressions_folder

        folder = regressions_folder(self.manifest(case).file)
        return load_regressions(folder, self.model(case.model).inputs, self.profile(case))
