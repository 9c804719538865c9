"""Lab: the one object that wires models, backends, artifacts, comparisons, clocks and baselines.

``Catalog`` knows what there is, ``Workshop`` builds and loads it, ``Lab`` judges it. Plugin and CLI are fronts of
it. It decides nothing by itself: each step is a call to the module whose noun it is, and what happened is written
into a Record.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pytest_trt.backends import Session
from pytest_trt.baselines.drift import accuracy_drift
from pytest_trt.baselines.store import BaselineStore, Match
from pytest_trt.errors import AccuracyFailure, LatencyFailure
from pytest_trt.lab.workshop import Workshop
from pytest_trt.record import Record, accuracy_section, latency_section
from pytest_trt.spec.case import Case
from pytest_trt.spec.manifest import MANIFEST_NAME
from pytest_trt.spec.precision import get_precision

if TYPE_CHECKING:
    from pytest_trt.accuracy.comparison import Comparison
    from pytest_trt.accuracy.tolerance import ToleranceSet
    from pytest_trt.latency.gate import Verdict
    from pytest_trt.latency.timer import Samples
    from pytest_trt.spec.inputs import Sample

__all__ = ["Lab"]

DEFAULT_THRESHOLD = 0.05
# All samples are judged at opt; at the other corners a few are enough to see that the shape works.
_SAMPLES_AT_OTHER_CORNERS = 4


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
        """Judge the case's outputs at every corner of its profile, and fill *record*.

        *tolerance* overrides the preset, the manifest's and the command line's values; *origin* says where it
        stands. Raises AccuracyFailure: outputs not close, precision not honoured, or worse than the baseline.
        """
        from pytest_trt.accuracy.comparison import Comparison

        limits = self.tolerance(case, tolerance, origin)
        session = self._judged_session(case, record)
        parts: list[Comparison] = []
        points: dict[str, Any] = {}
        corners = self.profile(case).corners()
        if self.settings.shapes == "opt":
            corners = {"opt": corners["opt"]}
        for point, shapes in corners.items():
            limit = self.settings.samples or (None if point == "opt" else _SAMPLES_AT_OTHER_CORNERS)
            samples, expected, source = self.expected(case, shapes, limit)
            found = self._compare(case, session, samples, expected, limits)
            points[point] = {
                "shapes": {k: list(v) for k, v in shapes.items()},
                "samples": len(samples),
                "reference": source,
                "ok": all(c.ok for c in found),
            }
            parts += found
        comparison = Comparison.merge(parts)
        record.accuracy = {**accuracy_section(comparison), "points": points}
        match = self.match(case, record)
        drift = accuracy_drift((match.entry or {})["accuracy"], record.accuracy["outputs"]) if match.gates else []
        record.accuracy["drift"] = drift
        if not comparison.ok:
            raise AccuracyFailure(f"{case}: {comparison.summary}", f"{comparison.detail}\n\n{self.reproduce(case)}")
        if drift:
            evidence = [*drift, f"baseline     {match.file}", "", self.reproduce(case)]
            raise AccuracyFailure(f"{case}: accuracy regressed against the baseline", "\n".join(evidence))
        return comparison

    def _compare(
        self,
        case: Case,
        session: Session,
        samples: Sequence[Sample],
        expected: Sequence[Mapping[str, Any]],
        limits: ToleranceSet,
    ) -> list[Comparison]:
        from pytest_trt.accuracy.comparison import compare

        allow = self.manifest(case).allow_nonfinite
        with self.device_lock(case.backend):  # somebody else may be measuring
            outputs = [s.cut(session.run(s.feeds)) for s in samples]
        return [
            compare(actual, s.cut(e), tolerance=limits, labels=_labelled(e, s), allow_nonfinite=allow)
            for actual, e, s in zip(outputs, expected, samples, strict=True)
        ]

    def measure(self, case: Case, record: Record, threshold: float | None = None) -> Verdict | None:
        """Measure the case at its opt shapes, judge it against its baseline, and fill *record*.

        Returns None where no baseline of the same clock is stored. The verdict on a stale baseline is returned and
        gates nothing. Raises LatencyFailure for a regression.
        """
        from pytest_trt.latency.gate import Outcome, decide
        from pytest_trt.latency.stats import Summary, summarize

        taken, transfers, note = self._sample(case, self._judged_session(case, record))
        summary = summarize(*(samples.values_ms for samples in taken))
        clock = taken[0].clock
        record.latency = latency_section(taken, summary, transfers, note)
        match = self.match(case, record)
        stored = (match.entry or {}).get("latency")
        if not stored or stored["clock"] != clock:
            return None
        verdict = decide(
            Summary.from_json(stored),
            summary,
            threshold=self.threshold(case, threshold),
            clock=clock,
            rebuilt=(match.entry or {}).get("plan") != (record.engine or {})["plan"],
        )
        record.verdict = {**verdict.to_json(), "gates": match.gates}
        if match.gates and verdict.outcome is Outcome.FAIL:
            evidence = [
                f"measured     {summary.median_ms:.4g} ms ({clock}, {summary.loads} loads)",
                f"baseline     {stored['median_ms']:.4g} ms, recorded {(match.entry or {})['recorded']}, {match.file}",
                f"noise        {verdict.level}",
                "",
                self.measure_again(case),
            ]
            raise LatencyFailure(f"{case}: {verdict.sentence}", "\n".join(evidence))
        return verdict

    def _sample(self, case: Case, session: Session) -> tuple[list[Samples], dict[str, float], str]:
        from pytest_trt.latency.timer import sample

        settings = self.settings
        feeds = self.samples(case, self.profile(case).at("opt"), 1)[0][0].feeds
        taken = []
        with self.device_lock(case.backend):
            for load in range(settings.loads):
                if load:
                    session = self.reload(case)
                session.stage(feeds)
                clock, seconds = session.clock(), settings.duration / settings.loads
                # The device is warm after the first load; the others only need their own first launches behind them.
                warmup = settings.warmup / (4 if load else 1)
                taken.append(sample(session.launch, clock, warmup_seconds=warmup, duration_seconds=seconds))
            return taken, session.transfers_ms(feeds), getattr(clock, "note", "")

    def match(self, case: Case, record: Record) -> Match:
        """Find the case's baseline and note its state in *record*."""
        match = self.baselines.match(case, self.environment(case.backend))
        record.baseline = match.to_json()
        return match

    def threshold(self, case: Case, marker: float | None = None) -> float:
        """Marker > command line > manifest > 5 %."""
        given = (marker, self.settings.threshold, self.manifest(case).threshold)
        return next((value for value in given if value is not None), DEFAULT_THRESHOLD)

    def reproduce(self, case: Case) -> str:
        """The command that compares *case* again."""
        return f"reproduce    pytest-trt compare {self._arguments(case, '--')}"

    def measure_again(self, case: Case) -> str:
        """The command that measures *case* again."""
        return f"reproduce    pytest {self._arguments(case, '--trt-')} -k latency"

    def _arguments(self, case: Case, prefix: str) -> str:
        manifest, settings = self.manifest(case), self.settings
        place = manifest.folder if manifest.file.name == MANIFEST_NAME else manifest.file
        if place.is_relative_to(self.root):
            place = place.relative_to(self.root)
        given = {"precision": case.precision, "profile": case.profile, "backend": case.backend}
        given["tactics"] = ",".join(case.tactics)
        given["variant"] = (manifest.variant or "") if settings.variant else ""
        given["seed"] = str(settings.seed or "")
        given["fake"] = settings.fake or ""
        words = [str(place), *(f"{prefix}{name}={value}" for name, value in given.items() if value)]
        return " ".join(shlex.quote(word) for word in words)

    def _judged_session(self, case: Case, record: Record) -> Session:
        stored, session = self.engine(case)
        record.engine = {
            "digest": stored.digest,
            "plan": stored.plan_digest,
            "fresh": stored.fresh,
            "model_fingerprint": self.model(case.model).fingerprint,
            **stored.facts,
        }
        record.precision = {**(record.precision or {}), "recipe": self.typed_model(case)[1].notes}
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
                f"{stored.facts['not_honoured']}\n\n{self.reproduce(case)}",
            )
        return session


def _labelled(expected: Mapping[str, Any], sample: Sample) -> Mapping[str, Any] | None:
    # Labels belong to a classifier's first output.
    return None if sample.labels is None else {next(iter(expected)): sample.labels}
