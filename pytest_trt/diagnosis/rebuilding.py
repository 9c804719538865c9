"""Engines of other models in place of a case's own: some nodes in float32, some tensors shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_trt.backends import BuildOptions, get_backend
from pytest_trt.errors import UnsupportedError
from pytest_trt.spec.precision import get_precision

if TYPE_CHECKING:
    from pytest_trt.backends import BuildRequest
    from pytest_trt.diagnosis.stages import Subject
    from pytest_trt.spec.model import Model

__all__ = ["TYPED_BACKEND", "runner", "typed_request"]

TYPED_BACKEND = "onnxruntime-cpu"


def typed_request(subject: Subject) -> BuildRequest:
    """The request of *subject* as the backend of typed models can build it. Raises UnsupportedError."""
    support = get_backend(TYPED_BACKEND).support(get_precision(subject.case.precision))
    if support.kind == "unsupported":
        raise UnsupportedError(support.reason)
    request = subject.bench.request(subject.case)
    return replace(request, options=BuildOptions(), profiles=(), calibration=None, tactic_lock={})


def runner(
    subject: Subject, request: BuildRequest, backend_name: str, *, times: int = 1
) -> Callable[..., list[dict[str, Any]]]:
    """Return a function that builds an engine of a model as *request* asks, perhaps with debug tensors, and runs it on
    the samples of *subject*; on all of them *times* times, one run after the other."""
    from pytest_trt.backends.isolation import build

    bench = subject.bench
    own = subject.case.backend == backend_name
    backend = bench.backend(backend_name) if own else get_backend(backend_name)

    def run(model: Model, debug_tensors: Sequence[str] = ()) -> list[dict[str, Any]]:
        wanted, settings = replace(request, model=model, debug_tensors=tuple(debug_tensors)), bench.settings
        if model.proto is bench.graph(subject.case).proto:
            wanted = replace(wanted, precision=get_precision("fp32"))  # everything excluded
        rows: list[dict[str, Any]] = []
        with bench.device_lock(backend_name):
            built = build(backend, wanted, isolate=settings.isolate, timeout_s=settings.build_timeout)
            with closing(backend.load(built.plan, wanted)) as session:
                for _ in range(times):
                    rows += subject.cut([session.run(sample.feeds) for sample in subject.samples])
        return rows

    return run
