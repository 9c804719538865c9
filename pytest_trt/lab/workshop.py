"""Workshop: from a case to a loaded engine. Recipes, calibration, builds, sessions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trt.backends import BuildOptions, BuildRequest, Progress, Session, silent
from pytest_trt.errors import RunError, UnsupportedError
from pytest_trt.lab.catalog import Catalog
from pytest_trt.settings import Settings, options
from pytest_trt.spec.case import Case
from pytest_trt.spec.precision import Precision, RecipeResult, apply_recipe, get_precision
from pytest_trt.spec.shapes import Shape

if TYPE_CHECKING:
    from pytest_trt.artifacts.engines import StoredEngine
    from pytest_trt.spec.model import Model

__all__ = ["Workshop"]


class Workshop(Catalog):
    """A catalog that can build. One engine is loaded at a time; ``close`` frees it."""

    def __init__(self, settings: Settings, root: Path, progress: Progress = silent) -> None:
        super().__init__(settings, root, progress)
        self._typed: dict[tuple[str, str], tuple[Model, RecipeResult]] = {}
        self._engine: tuple[Case, StoredEngine, Session] | None = None

    def close(self) -> None:
        """Free the loaded engine. The next one that is asked for is loaded as usual."""
        if self._engine is not None:
            self._engine[2].close()
            self._engine = None

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
            # Two typed models in memory at most: cases come precision by precision.
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
        # One model, one set of ranges: whichever profile is tested, and in whatever order, the largest one calibrates.
        shapes = max((profile.at("opt") for profile in self.profiles(case)), key=_elements)
        samples, fingerprint = self.samples(case, shapes, calibration.get("samples"))
        chosen = CalibrationOptions(calibration.get("calibration", "entropy"), calibration.get("percentile", 99.99))
        return obtain_ranges(
            self.store, model, calibration_tensors(model.proto, options), samples, fingerprint, chosen, self.progress
        )

    def request(self, case: Case) -> BuildRequest:
        """Everything the backend needs to build *case*. Raises UnsupportedError and UsageError."""
        precision, backend = get_precision(case.precision), self.backend(case.backend)
        support = backend.support(precision)
        if support.kind == "unsupported":
            raise UnsupportedError(support.reason)
        wanted = self.build_options(case)
        backend.check(wanted)
        profile = self.profile(case)
        together = self.profiles(case) if wanted.profiles_per_engine == "all" else ()
        return BuildRequest(self.typed_model(case)[0], precision, profile, wanted, together)

    def build_options(self, case: Case) -> BuildOptions:
        """Marker > command line > manifest. A manifest's are TensorRT's; ``check`` of another backend refuses those
        of a marker and of the command line."""
        of_manifest = self.manifest(case).build if case.backend == "tensorrt" else BuildOptions()
        parsers = {option.name: option for option in options()}
        of_marker = BuildOptions.of(
            {name: parsers[name].read(text, f"@pytest.mark.trt: {name}") for name, text in case.options}
        )
        return replace(
            of_marker.over(BuildOptions.of({**vars(self.settings), "tactics": None})).over(of_manifest),
            tactics=case.tactics,
        )

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

    def reload(self, case: Case) -> Session:
        """Load the case's engine again, beside the present one where both fit, and return the new session."""
        stored, old = self.engine(case)
        backend, request = self.backend(case.backend), self.request(case)
        try:
            session = backend.load(stored.plan, request)
        except RunError:
            # Two at once may be too much for the device; then the new one takes the old one's place.
            self.close()
            session = backend.load(stored.plan, request)
        old.close()
        self._engine = case, stored, session
        return session

    def device_lock(self, backend: str) -> AbstractContextManager[object]:
        """Exclusive use of a backend's device across processes, for builds and measurements."""
        return self.store.lock(f"device-{'gpu' if backend not in ('onnxruntime-cpu', 'fake') else 'cpu'}")


def _elements(shapes: Mapping[str, Shape]) -> int:
    return sum(math.prod(shape) for shape in shapes.values())
