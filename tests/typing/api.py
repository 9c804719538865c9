"""The public names as a user's type checker sees them. Checked by mypy, never run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typing_extensions import assert_type

import pytest_trt
from pytest_trt import Case, Comparison, Environment, Lab, Model, Profile, Record, Settings, Verdict, compare
from pytest_trt.accuracy import DEFAULTS, OutputComparison, Tolerance, ToleranceSet
from pytest_trt.backends import Backend, Built, Clock, Session, get_backend
from pytest_trt.baselines.store import BaselineStore, Match
from pytest_trt.errors import AccuracyFailure, Failure, LatencyFailure, TrtError, UsageError
from pytest_trt.latency.gate import Outcome, decide
from pytest_trt.latency.stats import Summary, summarize
from pytest_trt.report.export import read_report
from pytest_trt.settings import Option, options
from pytest_trt.spec.case import Axes
from pytest_trt.spec.inputs import Sample
from pytest_trt.spec.manifest import Manifest
from pytest_trt.spec.model import TensorSpec

assert_type(pytest_trt.__version__, str)


def comparing(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    comparison = compare({"y": actual}, {"y": expected}, tolerance=DEFAULTS["fp16"])
    assert_type(comparison, Comparison)
    assert_type(comparison.ok, bool)
    assert_type(comparison.summary, str)
    for output in comparison.outputs:
        assert_type(output, OutputComparison)
    compare({"y": actual}, {"y": expected}, tolerance=ToleranceSet(Tolerance(rtol=1e-2, atol=1e-3)))
    compare({"y": actual}, {"y": expected}, tolerance=0.1)  # type: ignore[arg-type]


def with_a_lab() -> None:
    with Lab(Settings(precision=("fp16",), warmup=0.0), Path()) as lab:
        assert_type(lab, Lab)
        manifest = lab.add("models/resnet50")
        assert_type(manifest, Manifest)
        for case in lab.cases(manifest, Axes(precisions=("fp32",))):
            assert_type(case, Case)
            assert_type(case.id, str)
            assert_type(case.tactics, tuple[str, ...])
            record = lab.record(case)
            assert_type(record, Record)
            assert_type(lab.check(case, record, {"rtol": 1e-2, "atol": 1e-3}, "my script"), Comparison)
            assert_type(lab.measure(case, record, threshold=0.03), Verdict | None)
            assert_type(lab.model(case.model), Model)
            assert_type(lab.profile(case), Profile)
            assert_type(lab.environment(case.backend), Environment)
            assert_type(lab.match(case, record), Match)
            assert_type(lab.engine(case)[1], Session)
        assert_type(lab.baselines, BaselineStore)
        lab.check(manifest)  # type: ignore[call-arg, arg-type]


def settings() -> None:
    resolved = Settings.resolve({"precision": "fp16"}, {}, {})
    assert_type(resolved, Settings)
    assert_type(resolved.precision, tuple[str, ...] | None)
    assert_type(resolved.tactics, tuple[tuple[str, ...], ...])
    assert_type(resolved.threshold, float | None)
    assert_type(resolved.cache_dir, Path | None)
    assert_type(resolved.evolve(seed=1), Settings)
    for option in options():
        assert_type(option, Option)
    resolved.seed = 1  # type: ignore[misc]
    Settings(precison=("fp16",))  # type: ignore[call-arg]


def models() -> None:
    model = Model.load("model.onnx")
    assert_type(model, Model)
    assert_type(model.inputs, tuple[TensorSpec, ...])
    assert_type(model.inputs[0].shape, tuple[int | str | None, ...])
    assert_type(model.fingerprint, str)
    profile = Profile.parse("b8", "x=1x3:8x3:32x3")
    assert_type(profile, Profile)
    profile.validate(model.inputs)
    assert_type(profile.corners(), dict[str, dict[str, tuple[int, ...]]])


def verdicts(samples: list[float]) -> None:
    summary = summarize(samples)
    assert_type(summary, Summary)
    verdict = decide(summary, summary, threshold=0.05, clock="graph")
    assert_type(verdict, Verdict)
    assert_type(verdict.outcome, Outcome)
    assert_type(verdict.sentence, str)
    assert_type(verdict.detectable, float)


def records(path: Path) -> None:
    for record in read_report(path):
        assert_type(record.outcome, str)
        assert_type(record.simulated, str | None)
        assert_type(record.accuracy, dict[str, Any] | None)
        assert_type(Record.from_json(record.to_json()), Record)


def backends(backend: Backend, session: Session, clock: Clock) -> None:
    assert_type(get_backend("tensorrt"), Backend)
    assert_type(backend.probe().ok, bool)
    assert_type(session.run({"x": np.zeros(1)}), dict[str, NDArray[Any]])
    assert_type(session.clock(), Clock)
    assert_type(clock.time(session.launch, 10), NDArray[np.float64])
    assert_type(Built(b"", ".plan").facts, dict[str, Any])


def failures() -> None:
    red: AssertionError = AccuracyFailure("not close", "evidence")
    if isinstance(red, Failure):
        assert_type(red.summary, str)
    error: TrtError = UsageError("wrong", hint="right")
    assert_type(error.hint, str | None)
    assert_type(LatencyFailure("slower").detail, str)


# What a user's test gets, annotated as the fixtures' docstrings say.
@pytest.mark.trt("models/resnet50", profiles=["b8"], rtol=1e-2, atol=1e-3)
def test_resnet(
    trt_engine: Session,
    trt_case: Case,
    trt_inputs: list[Sample],
    trt_reference: list[dict[str, NDArray[Any]]],
    trt_check: Callable[..., Comparison],
    trt_latency: Callable[..., Verdict | None],
    trt_lab: Lab,
) -> None:
    outputs = trt_engine.run(trt_inputs[0].feeds)
    assert_type(outputs, dict[str, NDArray[Any]])
    assert trt_check(rtol=1e-3, atol=1e-4).ok
    verdict = trt_latency(threshold=0.03)
    assert verdict is None or verdict.outcome is not Outcome.FAIL
    assert trt_case in trt_lab.cases(trt_lab.manifest(trt_case))
    assert trt_reference
