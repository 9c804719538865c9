"""Workshop: from a typed model to a loaded engine. Requests, builds, sessions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trt.backends import BuildRequest, Progress, Session, silent
from pytest_trt.errors import BuildError, RunError, StaleModelError, UnsupportedError, UsageError
from pytest_trt.lab.typed_models import TypedModels
from pytest_trt.settings import Settings
from pytest_trt.spec.case import AS_IS, Case
from pytest_trt.spec.interface import hold
from pytest_trt.spec.manifest import WHILE_LOADING
from pytest_trt.spec.precision import get_precision

if TYPE_CHECKING:
    from pytest_trt.accuracy.comparison import Comparison
    from pytest_trt.accuracy.tolerance import ToleranceSet
    from pytest_trt.artifacts.engines import StoredEngine
    from pytest_trt.backends import Built
    from pytest_trt.lab.floors import Floors
    from pytest_trt.spec.inputs import Sample

__all__ = ["Workshop"]


class Workshop(TypedModels):
    """A catalog that can build. One engine is loaded at a time; ``close`` frees it."""

    def __init__(self, settings: Settings, root: Path, progress: Progress = silent) -> None:
        super().__init__(settings, root, progress)
        self._engine: tuple[Case, StoredEngine, Session] | None = None
        self.unbuildable: dict[Case, BuildError] = {}  # not tried again, unless somebody empties this
        self.floors: dict[Case, Floors] = {}  # measured by lab.floors
        self.comparisons = 1  # what latency verdicts are corrected for; the front knows how many cases there are
        self.judged_against_plan: Case | None = None  # --trt-baseline-engine is one engine

    def close(self) -> None:
        """Free the loaded engine. The next one that is asked for is loaded as usual."""
        if self._engine is not None:
            self._engine[2].close()
            self._engine = None

    def request(self, case: Case) -> BuildRequest:
        """Everything the backend needs to build *case*. Raises UnsupportedError and UsageError."""
        backend = self.backend(case.backend)
        if self.is_prebuilt(case):
            self.heed(case)  # one that another process sent was not found here
            useless = sorted(set(self.build_options(case).given()) - set(WHILE_LOADING))
            if useless:
                raise UsageError(f"{case}: {useless[0]} cannot change a plan, which is built already")
            return self.blueprint(case)
        support = backend.support(get_precision(case.precision))
        if support.kind == "unsupported":
            raise UnsupportedError(support.reason)
        if case.backend != "tensorrt" and not self.model(case.model).has_graph:
            raise UnsupportedError(f"{case.model} has no ONNX graph: only the tensorrt backend can run it")
        backend.check(self.build_options(case))
        return self.blueprint(case)

    def blueprint(self, case: Case) -> BuildRequest:
        """What ``request`` returns, without asking the backend whether it could build it."""
        wanted = self.build_options(case)
        if self.is_prebuilt(case) and case.graph != AS_IS:
            raise UnsupportedError(f"{case.model} runs a finished plan, which --trt-graph={case.graph} cannot change")
        if not self.model(case.model).has_graph:
            self.graph(case)  # there is the one as it is, and no other
        together = self.profiles(case) if wanted.profiles_per_engine == "all" else ()
        if self.is_prebuilt(case):
            together = hold(self.profile(case), self.plan_interface(case.model).profiles)
        model, precision = self.typed_outline(case)[0], get_precision(case.precision)
        built_here = not self.is_prebuilt(case)
        return BuildRequest(
            model,
            precision,
            self.profile(case),
            wanted,
            together,
            calibration=self._calibration(case) if built_here else None,
            tactic_lock=self.tactic_lock(case) if built_here else {},
        )

    def tactic_lock(self, case: Case) -> Mapping[str, tuple[int, float]]:  # noqa: ARG002 - the Lab's knows baselines
        """What a build of *case* must follow; nothing here."""
        return {}

    def limits(self, case: Case, overrides: Mapping[str, Any] | None = None, origin: str = "") -> ToleranceSet:
        """The tolerances of *case* as ``tolerance`` gives them, multiples of its precision floor measured and put in.

        Raises UnsupportedError where the floor cannot be measured.
        """
        from pytest_trt.lab.floors import with_floors

        return with_floors(self, case, self.tolerance(case, overrides, origin))

    def judge(
        self,
        case: Case,
        actual: Mapping[str, Any],
        sample: Sample,
        expected: Mapping[str, Any],
        limits: ToleranceSet | None = None,
        *,
        allow_nonfinite: bool | None = None,
    ) -> Comparison:
        """Compare one sample's outputs with the expected ones; padding that the sample did not bring is cut off.
        Whether NaN and infinities may stand there is the manifest's to say, unless *allow_nonfinite* does."""
        from pytest_trt.accuracy.comparison import compare

        # Labels belong to a classifier's first output.
        labels = None if sample.labels is None else {next(iter(expected)): sample.labels}
        return compare(
            actual,
            sample.cut(expected),
            tolerance=limits or self.limits(case),
            labels=labels,
            allow_nonfinite=self.manifest(case).allow_nonfinite if allow_nonfinite is None else allow_nonfinite,
        )

    def build(self, case: Case) -> Built:
        """Build the case from nothing: no engine cache, no timing cache. Raises BuildError."""
        from pytest_trt.backends.isolation import build

        if self.is_prebuilt(case):
            raise UsageError(f"{case}: a finished plan is not built", hint="leave --trt-builds out")
        request, settings = self.request(case), self.settings
        with self.device_lock(case.backend):
            return build(
                self.backend(case.backend),
                request,
                self.progress,
                isolate=settings.isolate,
                timeout_s=settings.build_timeout,
            )

    def timings(self, backend: str) -> bytes | None:
        """The tactic timings that builds of *backend* left; None without any, and with ``--trt-timing-cache=off``."""
        from pytest_trt.artifacts.timing_cache import load_timing_cache

        return load_timing_cache(self.store, self.backend(backend)) if self.settings.timing_cache == "on" else None

    def engine(self, case: Case) -> tuple[StoredEngine, Session]:
        """The case's engine, built or cached, and loaded; one is loaded at a time. Raises BuildError, RunError."""
        if self._engine is None or self._engine[0] != case:
            self.close()
            if case in self.unbuildable:
                raise self.unbuildable[case].again()
            try:
                stored, request = self._obtain(case)
            except StaleModelError:
                # What was remembered of the typed model is wrong, and it is made by now: its real key is at hand.
                stored, request = self._obtain(case)
            except BuildError as error:
                self.unbuildable[case] = error.again()  # minutes of building, or a timeout, that repeat in each part
                raise
            self._engine = case, stored, self.backend(case.backend).load(stored.plan, request)
        return self._engine[1], self._engine[2]

    def _obtain(self, case: Case) -> tuple[StoredEngine, BuildRequest]:
        from pytest_trt.artifacts.engines import obtain_engine

        request = self.request(case)
        if self.is_prebuilt(case):
            return self.plan(case.model), request
        return obtain_engine(
            self.store, self.backend(case.backend), request, label=case.id, progress=self.progress,
            exclusive=lambda: self.device_lock(case.backend), timing_cache=self.settings.timing_cache == "on",
            isolate=self.settings.isolate, build_timeout_s=self.settings.build_timeout,
        ), request  # fmt: skip

    def adopt(self, case: Case, stored: StoredEngine) -> None:
        """Load *stored* as the case's engine, in place of building or looking for one. Raises RunError."""
        self.close()
        self._engine = case, stored, self.backend(case.backend).load(stored.plan, self.request(case))

    def build_log(self, case: Case) -> str:
        """What the builder said about the engine that is loaded, if it is the case's; else nothing."""
        return self._engine[1].log if self._engine is not None and self._engine[0] == case else ""

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
        """Exclusive use of a backend's device across processes, for builds and measurements. Each GPU has a lock of its
        own: processes that use several of them, one each, do not wait for one another."""
        if backend in ("onnxruntime-cpu", "fake"):
            return self.store.lock("device-cpu")
        bus_id = self.backend(backend).probe().versions.get("gpu_bus_id", "")
        return self.store.lock("-".join(["device-gpu", *re.findall(r"\w+", bus_id.lower())]))
