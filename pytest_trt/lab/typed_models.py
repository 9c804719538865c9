"""TypedModels: from a case to the model that its backend gets. Recipes, and the ranges that they quantize by.

It stands apart from ``Workshop``, which builds what is made here: diagnosis asks for typed models that nobody builds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trt.backends import Calibration, Progress, silent
from pytest_trt.lab.samples import Samples
from pytest_trt.settings import Settings
from pytest_trt.spec.case import Case
from pytest_trt.spec.precision import Precision, RecipeResult, apply_recipe, get_precision
from pytest_trt.spec.shapes import Shape

if TYPE_CHECKING:
    from pytest_trt.diagnosis.conversion import Conversion
    from pytest_trt.spec.inputs import Sample
    from pytest_trt.spec.model import Model

__all__ = ["TypedModels"]

# What a manifest says of a precision's ranges, and not of its recipe.
_OF_CALIBRATION = ("calibration", "percentile", "samples", "ranges")


class TypedModels(Samples):
    """A catalog that can make typed models, from samples where they are calibrated. The last two stay in memory."""

    def __init__(self, settings: Settings, root: Path, progress: Progress = silent) -> None:
        super().__init__(settings, root, progress)
        self._typed: dict[tuple[str, str, str], tuple[Model, RecipeResult]] = {}
        self._outlines: dict[tuple[str, str, str], tuple[Model, Mapping[str, Any]]] = {}

    def typed_model(self, case: Case) -> tuple[Model, RecipeResult]:
        """The model after its precision's recipe, and what the recipe did. Raises PrecisionError."""
        from pytest_trt.spec.model import Model

        untyped = self.model(case.model)
        if not untyped.has_graph or self.is_prebuilt(case):
            why = "not applied: the plan is built" if self.is_prebuilt(case) else "not applied: there is no ONNX graph"
            return untyped, RecipeResult(untyped.proto, False, {"recipe": why})
        key = (case.model, case.precision, case.graph)
        if key not in self._typed:
            precision, model = get_precision(case.precision), self.graph(case)
            options, calibration = self._options_of(case)
            recipe = precision.make_recipe(**options)
            ranges = self._ranges(case, precision, options, calibration)
            result = apply_recipe(recipe, model.proto, ranges)
            # Two typed models in memory at most: cases come precision by precision.
            while len(self._typed) >= 2:
                del self._typed[next(iter(self._typed))]
            self._typed[key] = Model.from_proto(result.proto, model.name), result
            self._outlines.pop(key, None)  # one copy is enough
        return self._typed[key]

    def typed_outline(self, case: Case) -> tuple[Model, Mapping[str, Any]]:
        """The typed model and its recipe's notes. Where the store knows fingerprint, inputs and outputs, the graph is
        only made if something asks for it. Raises PrecisionError."""
        from pytest_trt.artifacts.typed_models import recall_typed

        def make() -> tuple[Model, Mapping[str, Any]]:
            model, result = self.typed_model(case)
            return model, result.notes

        key = (case.model, case.precision, case.graph)
        if key in self._typed or not self.model(case.model).has_graph or self.is_prebuilt(case):
            return make()
        if key not in self._outlines:
            precision, source = get_precision(case.precision), self.graph(case)
            options, calibration = self._options_of(case)
            ranges = self._ranges(case, precision, options, calibration)
            outline = recall_typed(self.store, source, precision, options, ranges, make)
            if key in self._typed:
                return outline
            while len(self._outlines) >= 2:
                del self._outlines[next(iter(self._outlines))]
            self._outlines[key] = outline
        return self._outlines[key]

    def conversion(self, case: Case) -> Conversion:
        """The case's recipe and its needs, with nothing excluded by name yet. Raises PrecisionError."""
        from pytest_trt.diagnosis.conversion import Conversion

        precision = get_precision(case.precision)
        options, calibration = self._options_of(case)
        excluded = tuple(options.pop("exclude_nodes", ()))
        ranges = self._ranges(case, precision, options, calibration)
        return Conversion(self.graph(case), precision, ranges, options, excluded)

    def _options_of(self, case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the manifest says of the case's precision: options of its recipe, and those of its calibration."""
        options = dict(self.manifest(case).precision.get(case.precision, {}))
        return options, {name: options.pop(name) for name in _OF_CALIBRATION if name in options}

    def _calibration_samples(self, case: Case, limit: int | None) -> tuple[list[Sample], str]:
        # One model, one set of ranges: whichever profile is tested, and in whatever order, the largest one calibrates.
        shapes = max((profile.at("opt") for profile in self.profiles(case)), key=_elements)
        return self.samples(case, shapes, limit)

    def _ranges(
        self, case: Case, precision: Precision, options: dict[str, Any], calibration: dict[str, Any]
    ) -> Mapping[str, tuple[float, float]] | None:
        if not precision.calibrated:
            return None
        if "ranges" in calibration:
            from pytest_trt.spec.precision.stored_ranges import read_ranges

            return read_ranges(calibration["ranges"])
        from pytest_trt.artifacts.calibration import CalibrationOptions, obtain_ranges
        from pytest_trt.artifacts.typed_models import recall_tensors

        model = self.graph(case)
        samples, fingerprint = self._calibration_samples(case, calibration.get("samples"))
        chosen = CalibrationOptions(
            calibration.get("calibration", precision.calibration), calibration.get("percentile", 99.99)
        )
        tensors = recall_tensors(self.store, model, options, precision.name)
        return obtain_ranges(self.store, model, tensors, samples, fingerprint, chosen, self.progress)

    def _calibration(self, case: Case) -> Calibration | None:
        """The samples for TensorRT's own calibration, where the precision is one that it calibrates."""
        algorithm = get_precision(case.precision).calibrator
        if algorithm is None:
            return None
        limit = self.manifest(case).precision.get(case.precision, {}).get("samples")
        samples, fingerprint = self._calibration_samples(case, limit)
        return Calibration(algorithm, [sample.feeds for sample in samples], fingerprint)


def _elements(shapes: Mapping[str, Shape]) -> int:
    return sum(math.prod(shape) for shape in shapes.values())
