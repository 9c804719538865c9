"""Lab: the one object that wires models, backends, artifacts, comparisons, clocks and baselines.

``Catalog`` knows what there is, ``Samples`` what runs through it, ``TypedModels`` what is made of it for a precision,
``Workshop`` builds and loads that, ``Lab`` has it judged.
Plugin and CLI are fronts of it. It decides nothing by itself: each step is a call to the module whose noun it is, and
what happened is written into a Record.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pytest_trt.backends import Session
from pytest_trt.baselines.entries import fingerprint_of
from pytest_trt.baselines.store import BaselineStore, Match
from pytest_trt.lab.again import compare_again
from pytest_trt.lab.engine_gate import judge_census
from pytest_trt.lab.explaining import subject_at
from pytest_trt.lab.workshop import Workshop
from pytest_trt.record import Record, latency_section
from pytest_trt.spec.case import Case
from pytest_trt.spec.precision import get_precision

if TYPE_CHECKING:
    from pytest_trt.accuracy.comparison import Comparison
    from pytest_trt.diagnosis.hunt import Bisection, Explanation, Taps
    from pytest_trt.latency.gate import Verdict
    from pytest_trt.search import Worst

__all__ = ["Lab"]

DEFAULT_THRESHOLD = 0.05
DEFAULT_EXAMPLES = 100


class Lab(Workshop):
    """Build, check and measure cases under one set of settings.

    ``Lab(settings, root, progress)``: *root* is what relative paths and ``baselines/`` are relative to; *progress*
    is told what takes long. Use as a context manager, or call ``close``.
    """

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @cached_property
    def baselines(self) -> BaselineStore:
        return BaselineStore(self.settings.baselines or self.root / "baselines")

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
        """Judge the case's outputs at the points of its profile and on its saved regressions, and fill *record*.

        *tolerance* overrides the preset, the manifest's and the command line's values; *origin* says where it
        stands. Raises AccuracyFailure (outputs not close, or they or a metric worse than the baseline), MetricError (a
        metric cannot be computed) or EngineFailure (precision not honoured; a shape within the profile refused;
        structure or tactics not those of the baseline, where that was asked).
        """
        from pytest_trt.lab.accuracy_gate import judge

        limits = self.limits(case, tolerance, origin)
        return judge(self, case, record, self._judged_session(case, record), limits, tolerance)

    def explain(
        self,
        case: Case,
        *,
        point: str = "opt",
        seconds: float | None = None,
        stages: Collection[str] | None = None,
    ) -> Explanation:
        """Split the error of *case* at a point of its profile among conversion, parser, fusion, builds and runs (or
        some of these *stages*), and look at the values of its typed model. Raises what building and running the case
        raises."""
        from pytest_trt.diagnosis.hunt import explain
        from pytest_trt.diagnosis.stages import STAGES

        limit = self.settings.explain_seconds if seconds is None else seconds
        subject = subject_at(self, case, point, self.settings.samples)
        return explain(subject, seconds=limit, stages=STAGES if stages is None else stages)

    def bisect(
        self,
        case: Case,
        *,
        point: str = "opt",
        anew: bool = False,
        on_engine: bool = False,
        group: int = 8,
        limit: int | None = None,
        seconds: float = 600.0,
        stages: Collection[str] | None = None,
        explanation: Explanation | None = None,
        latency: bool = False,
        taps: Taps = "outputs",
    ) -> Bisection:
        """Explain *case*, then search the nodes that its precision must leave in float32, or the first tensor of its
        engine that diverges. *anew* searches nodes although the case is close. *on_engine* judges nodes by engines of
        the case's own backend; *group* is how many tensors are marked at a time; *limit* bounds evaluations and builds,
        of which none begins after *seconds*; *stages* are those that are run beside the engine, by default all. An
        *explanation* that was made already is not made again. *latency* also measures what the exclusions cost.
        *taps*: inner tensors are looked at as outputs, or as debug tensors. Raises TrtError."""
        from pytest_trt.diagnosis.hunt import bisect
        from pytest_trt.diagnosis.stages import STAGES

        found = bisect(
            self,
            subject_at(self, case, point, self.settings.samples),
            anew=anew,
            on_engine=on_engine,
            group=group,
            limit=limit,
            seconds=seconds,
            stages=STAGES if stages is None else stages,
            explanation=explanation,
            taps=taps,
        )
        if latency:
            from pytest_trt.lab.exclusion_cost import with_cost

            found = with_cost(self, case, found)
        return found

    def bundle(self, case: Case, found: Bisection, *, point: str = "opt", seconds: float = 600.0) -> list[str]:
        """Write *case*, which *found* says is not close, into ``settings.bundle``; return what to say of it. Its model
        is reduced for about *seconds*."""
        from pytest_trt.lab.bundling import bundle_failure

        attribution = found.explanation.attribution
        if attribution.culprit == "none" or self.settings.bundle is None:
            return []
        subject = subject_at(self, case, point, self.settings.samples)
        summary = next(stage.summary for stage in reversed(attribution.stages) if stage.ok is False)
        return bundle_failure(self, self.record(case), subject, summary, found, searched_for=seconds)

    def tactic_lock(self, case: Case) -> Mapping[str, tuple[int, float]]:
        """The timing-cache entries of the case's baseline, which its build must follow: with ``--trt-lock`` and an
        editable timing cache. Elsewhere a lock only judges."""
        if self.settings.lock == "off" or not self.build_options(case).editable_timing_cache:
            return {}
        match = self.baselines.match(case, self.environment(case.backend))
        stored = ((match.entry or {}).get("lock") or {}) if match.gates else {}
        return {key: (int(tactic), float(ms)) for key, (tactic, ms) in stored.get("timing", {}).items()}

    def run_streams(self, case: Case, record: Record) -> None:
        """Run the case in several contexts at once (``settings.streams``), and fill *record*. Raises EngineFailure."""
        from pytest_trt.lab.concurrency import run_streams

        run_streams(self, case, record, self._judged_session(case, record), self.reproduce(case))

    def search(
        self,
        case: Case,
        record: Record,
        tolerance: Mapping[str, Any] | None = None,
        origin: str = "",
        *,
        examples: int | None = None,
        special_values: bool | str = False,
        save: bool = True,
    ) -> Worst:
        """Search for the case's worst input (``settings.search`` examples), fill *record*, and save what fails beside
        the model. Raises AccuracyFailure or EngineFailure, UsageError without hypothesis."""
        from pytest_trt.lab.search import search

        return search(
            self,
            case,
            record,
            self._judged_session(case, record),
            self.limits(case, tolerance, origin),
            self.reproduce(case, tolerance),
            examples=examples or self.settings.search or DEFAULT_EXAMPLES,
            special_values=special_values,
            save=save,
        )

    def draw(self, case: Case, record: Record) -> None:
        """Build the case several times from nothing (``settings.builds``), and fill *record* with how far the engines
        are apart. Raises AccuracyFailure when one of them is not close to the reference."""
        from pytest_trt.lab.lottery import draw

        draw(self, case, record, self.reproduce(case))

    def measure(self, case: Case, record: Record, threshold: float | None = None) -> Verdict | None:
        """Measure the case at its opt shapes, judge it against its baseline, and fill *record*.

        Returns None where neither the old engine is at hand nor a number of the same clock is stored, else the worse of
        the verdicts on the recent recording and on the anchor. That on a stale baseline gates nothing. Raises
        LatencyFailure for a regression that a second process sees as well.
        """
        from pytest_trt.lab.latency_gate import judge
        from pytest_trt.lab.loads import sample_loads
        from pytest_trt.latency.stats import summarize

        taken, transfers, note = sample_loads(self, case, self._judged_session(case, record))
        summary = summarize(*(samples.values_ms for samples in taken))
        record.latency = latency_section(taken, summary, transfers, note)
        match = self.match(case, record)
        return judge(self, case, record, match, summary, self.threshold(case, threshold))

    def match(self, case: Case, record: Record) -> Match:
        """Find the case's baseline and note its state in *record*."""
        fingerprint, known = fingerprint_of(record), self._manifests
        match = self.baselines.match(case, self.environment(case.backend), fingerprint=fingerprint, known=known)
        record.baseline = match.to_json()
        return match

    def threshold(self, case: Case, marker: float | None = None) -> float:
        """Marker > command line > manifest > 5 %."""
        given = (marker, self.settings.threshold, self.manifest(case).threshold)
        return next((value for value in given if value is not None), DEFAULT_THRESHOLD)

    def reproduce(self, case: Case, tolerance: Mapping[str, Any] | None = None) -> str:
        """The last line of a failure: the command that compares *case* again, within a test's *tolerance*."""
        return f"reproduce    {compare_again(self, case, tolerance)}"

    def _judged_session(self, case: Case, record: Record) -> Session:
        stored, session = self.engine(case)
        # Hundreds of names per engine: they go into a report only where they are gated.
        left_out = ("tactics", "timing") if self.settings.lock == "off" else ()
        record.engine = {
            "digest": stored.digest,
            "plan": stored.plan_digest,
            "fresh": stored.fresh,
            "model_fingerprint": self.model(case.model).fingerprint,
            **{name: fact for name, fact in stored.facts.items() if name not in left_out},
        }
        if given := self.build_options(case).reported():  # a plan's own facts know nothing of how it was loaded
            record.engine["options"] = given
        record.precision = {**(record.precision or {}), "recipe": self.typed_outline(case)[1]}
        shapes = self.profile(case).at("opt")
        inputs = self.inputs(case, shapes)
        record.inputs = {
            "origin": inputs.origin,
            "synthetic": inputs.synthetic,
            "notes": list(inputs.notes),
            "left_out": list(inputs.left_out(shapes)),
        }
        judge_census(self.settings, record, self.reproduce(case))
        return session
