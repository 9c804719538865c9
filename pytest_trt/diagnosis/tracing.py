"""The tensor that an engine's error comes from: what a case's search builds, and what it compares with what."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from pytest_trt.backends import DebuggingBackend
from pytest_trt.diagnosis.conversion import as_computed
from pytest_trt.diagnosis.deviation import squared_error
from pytest_trt.diagnosis.observe import values
from pytest_trt.diagnosis.rebuilding import runner
from pytest_trt.diagnosis.tapping import by_outputs
from pytest_trt.diagnosis.taps import Divergence, first_divergence
from pytest_trt.errors import UnsupportedError

if TYPE_CHECKING:
    from pytest_trt.backends import Backend
    from pytest_trt.diagnosis.deviation import Results
    from pytest_trt.diagnosis.stages import Subject

__all__ = ["Taps", "check_taps", "trace_error", "trace_noise"]

Taps = Literal["outputs", "debug"]

# Relative rms errors that rounding alone explains; an engine may round elsewhere than the typed model does.
_NOISE = {"fp32": 1e-6, "tf32": 1e-3, "fp16": 1e-3, "bf16": 1e-2}
_NOISE_OF_OTHERS = 3e-2
_NOISE_OF_RUNS = 1e-7  # of additions in another order
_RUNS = 4


def trace_error(subject: Subject, taps: Taps, *, group: int, limit: int, late: Callable[[], bool]) -> Divergence:
    """Search the engine of *subject* for the first tensor that is not as in its typed model. Raises TrtError."""
    typed = subject.bench.typed_model(subject.case)[0]
    shown, outputs = as_computed(typed, subject.case.precision), {spec.name for spec in typed.outputs}
    found = subject.run_graph(shown)
    feeds = [sample.feeds for sample in subject.samples]

    def wanted(tensors: list[str], _rows: Results) -> Results:
        return found if set(tensors) <= outputs else subject.cut(values(shown, tensors, feeds))

    original = subject.run(subject.bench.engine(subject.case)[1])
    noise = _NOISE.get(subject.case.precision, _NOISE_OF_OTHERS)
    return _search(subject, original, _actual, wanted, noise, taps, group=group, limit=limit, late=late)


def trace_noise(subject: Subject, taps: Taps, *, group: int, limit: int, late: Callable[[], bool]) -> Divergence:
    """Search the engine of *subject* for the first tensor that is not the same in each of a few runs. Raises
    TrtError."""
    session = subject.bench.engine(subject.case)[1]
    original = [row for _ in range(_RUNS) for row in subject.run(session)]
    count = len(subject.samples)

    def later(_tensors: list[str], rows: Results) -> Results:
        return rows[count:]

    def first(_tensors: list[str], rows: Results) -> Results:
        return [*rows[:count]] * (_RUNS - 1)

    found = _search(
        subject, original, later, first, _NOISE_OF_RUNS, taps, group=group, limit=limit, late=late, times=_RUNS
    )
    return replace(found, between="runs")


# Which rows of an engine are looked at, and what they should be.
_Rows = Callable[[list[str], "Results"], "Results"]


def _actual(_tensors: list[str], rows: Results) -> Results:
    return rows


def _search(
    subject: Subject,
    original: Results,
    actual: _Rows,
    wanted: _Rows,
    noise: float,
    taps: Taps,
    *,
    group: int,
    limit: int,
    late: Callable[[], bool],
    times: int = 1,
) -> Divergence:
    bench, case = subject.bench, subject.case
    typed = bench.typed_model(case)[0]
    outputs = [spec.name for spec in typed.outputs]

    def errors(tensors: Sequence[str], rows: Results) -> dict[str, float]:
        sides = actual([*tensors], rows), wanted([*tensors], rows)
        found = {}
        for tensor in tensors:
            left, right = ([{tensor: row[tensor]} for row in several] for several in sides)
            found[tensor] = math.sqrt(squared_error(left, right, right))
        return found

    def of_outputs(rows: Results) -> float:
        return math.sqrt(sum(error**2 for error in errors(outputs, rows).values()) / len(outputs))

    worst = of_outputs(original)
    # Between what rounding explains and what the outputs show, on a scale of factors; in any case the outputs diverge.
    threshold = min(math.sqrt(noise * worst), worst / 2) if math.isfinite(worst) else math.sqrt(noise)

    def deviations(tensors: list[str], rows: Results) -> dict[str, tuple[float, bool]]:
        return {tensor: (error, error > threshold) for tensor, error in errors(tensors, rows).items()}

    def fails(rows: Results) -> bool:
        """Not by the tolerance: where the conversion is far off as well, that says nothing of the engine."""
        return of_outputs(rows) > threshold

    # The tactics of the engine itself: another build could be right by chance.
    request = replace(bench.request(case), timing_cache=bench.timings(case.backend))
    run = runner(subject, request, case.backend, times=times)
    look = partial(run, typed) if taps == "debug" else by_outputs(typed, run)
    return first_divergence(typed, original, look, deviations, fails, group=group, limit=limit, late=late)


def check_taps(backend: Backend, taps: Taps) -> None:
    """Raise UnsupportedError where debug tensors are wanted and *backend* has none."""
    if taps == "debug" and not (isinstance(backend, DebuggingBackend) and backend.can_debug()):
        raise UnsupportedError(
            f"{backend.name} has no debug tensors here", hint="--taps=outputs works with every backend and version"
        )
