"""What a diagnosis needs from the one who builds: the Lab gives it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pytest_trt.accuracy.comparison import Comparison
    from pytest_trt.accuracy.tolerance import ToleranceSet
    from pytest_trt.artifacts.engines import StoredEngine
    from pytest_trt.backends import Backend, BuildOptions, BuildRequest, Built, Progress, Session
    from pytest_trt.diagnosis.conversion import Conversion
    from pytest_trt.settings import Settings
    from pytest_trt.spec.case import Case
    from pytest_trt.spec.inputs import Sample
    from pytest_trt.spec.model import Model
    from pytest_trt.spec.precision import RecipeResult
    from pytest_trt.spec.shapes import Profile, Shape

__all__ = ["Converter", "Workbench"]


class Workbench(Protocol):
    """Builds, runs and judges the case of a name; see ``Workshop`` for what each method raises."""

    settings: Settings
    progress: Progress

    def backend(self, name: str) -> Backend: ...
    def model(self, name: str) -> Model: ...
    def graph(self, case: Case) -> Model: ...
    def typed_model(self, case: Case) -> tuple[Model, RecipeResult]: ...
    def profile(self, case: Case) -> Profile: ...
    def build_options(self, case: Case) -> BuildOptions: ...
    def is_prebuilt(self, case: Case) -> bool: ...
    def request(self, case: Case) -> BuildRequest: ...
    def engine(self, case: Case) -> tuple[StoredEngine, Session]: ...
    def build(self, case: Case) -> Built: ...
    def timings(self, backend: str) -> bytes | None: ...
    def device_lock(self, backend: str) -> AbstractContextManager[object]: ...
    def tolerance(self, case: Case, overrides: Mapping[str, Any] | None = None, origin: str = "") -> ToleranceSet: ...
    def expected(
        self, case: Case, shapes: Mapping[str, Shape], limit: int | None
    ) -> tuple[list[Sample], list[dict[str, Any]], str]: ...
    def judge(
        self,
        case: Case,
        actual: Mapping[str, Any],
        sample: Sample,
        expected: Mapping[str, Any],
        limits: ToleranceSet | None = None,
    ) -> Comparison: ...


class Converter(Workbench, Protocol):
    """A workbench that also says how a case's precision is made."""

    def conversion(self, case: Case) -> Conversion:
        """The case's recipe with nothing excluded by name yet. Raises PrecisionError."""
        ...
