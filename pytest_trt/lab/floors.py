"""Measuring precision floors, and proposing tolerances from what real inputs show."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_trt.counted import counted
from pytest_trt.errors import AccuracyFailure, InputsError, UnsupportedError
from pytest_trt.spec.case import Case
from pytest_trt.spec.precision import get_precision

if TYPE_CHECKING:
    from pytest_trt.accuracy.floors import Floor
    from pytest_trt.accuracy.metrics import Metrics
    from pytest_trt.accuracy.tolerance import Tolerance, ToleranceSet
    from pytest_trt.lab.workshop import Workshop
    from pytest_trt.spec.inputs import Sample

__all__ = ["Floors", "Proposal", "measure_floors", "propose", "with_floors"]

_ON = "onnxruntime-cpu"
# Raise it when the same outputs come to other floors.
_RULES = 1
# Evaluating in float64 is slow, and conditioning is the model's, not the data's.
_FLOAT64_SAMPLES = 8
_CONFIDENCE = 0.999


@dataclass(frozen=True)
class Floors:
    """By output: both floors, either None where an output is exact or nothing could be measured. ``notes`` say why."""

    conditioning: Mapping[str, Floor | None]
    precision: Mapping[str, Floor | None]
    notes: tuple[str, ...] = ()

    def in_force(self) -> dict[str, Floor | None]:
        """The greater of both, by output."""
        from pytest_trt.accuracy.floors import greater

        return {name: greater((self.conditioning.get(name), floor)) for name, floor in self.precision.items()}


def with_floors(lab: Workshop, case: Case, limits: ToleranceSet) -> ToleranceSet:
    """Return *limits*; where they are multiples of a floor, with that floor measured and put in."""
    if all(limit.floor is None for limit in (limits.default, *limits.outputs.values())):
        return limits
    from pytest_trt.accuracy.floors import resolve

    return resolve(limits, measure_floors(lab, case).in_force())


def measure_floors(lab: Workshop, case: Case) -> Floors:
    """Measure both floors of *case* at its opt shapes, or look them up. No engine of its backend takes part.

    Raises UnsupportedError where there is no ONNX graph, or ONNX Runtime has no form of the precision.
    """
    # What the backend, its tactics and its build options do is what a floor is not about.
    case = replace(case, backend=_ON, tactics=(), options=())
    if case not in lab.floors:
        lab.floors[case] = _obtain(lab, case)
    return lab.floors[case]


def _obtain(lab: Workshop, case: Case) -> Floors:
    from pytest_trt.accuracy.floors import Floor
    from pytest_trt.artifacts.key import Key
    from pytest_trt.environment import version_of

    if not lab.model(case.model).has_graph:
        raise UnsupportedError(f"{case.model} has no ONNX graph, so its precision floor cannot be measured")
    typed, _ = lab.typed_outline(case)
    shapes = lab.profile(case).at("opt")
    _, fingerprint = lab.samples(case, shapes, lab.settings.samples)
    ingredients = {
        "floors": _RULES,
        "model": lab.model(case.model).fingerprint,
        "typed": typed.fingerprint,
        "precision": case.precision,
        "inputs": fingerprint,
        "backend": dict(lab.backend(_ON).identity()),
        "onnx": version_of("onnx") or "missing",
    }

    def build() -> dict[str, bytes]:
        return {"floors.json": json.dumps(_measure(lab, case), sort_keys=True).encode()}

    entry = lab.store.get_or_build(Key.make("reference", ingredients), build, label=f"precision floor of {case.id}")
    stored = json.loads(entry.files["floors.json"])
    both = [
        {name: None if values is None else Floor(**values) for name, values in stored[side].items()}
        for side in ("conditioning", "precision")
    ]
    return Floors(both[0], both[1], tuple(stored["notes"]))


def _measure(lab: Workshop, case: Case) -> dict[str, Any]:
    from pytest_trt.accuracy.floors import floor_of
    from pytest_trt.artifacts.float64_reference import obtain_float64_reference
    from pytest_trt.artifacts.references import obtain_reference

    shapes, model = lab.profile(case).at("opt"), lab.model(case.model)
    samples, fingerprint = lab.samples(case, shapes, lab.settings.samples)
    lab.progress(f"precision floor of {case.id}: {counted(len(samples), 'sample')}")
    expected = obtain_reference(lab.store, model, samples, fingerprint, lab.progress).outputs
    session = _simulated_session(lab, case)
    typed = [session.run(sample.feeds) for sample in samples]
    session.close()
    found = {name: floor_of(parts, f"{case.precision} in ONNX Runtime") for name, parts in
             _metrics(samples, typed, expected).items()}  # fmt: skip
    few, notes = samples[:_FLOAT64_SAMPLES], []
    conditioning: dict[str, Floor | None] = dict.fromkeys(found)
    try:
        exact = obtain_float64_reference(lab.store, model, few, fingerprint, lab.progress).outputs
        conditioning = {name: floor_of(parts, "float32 against float64") for name, parts in
                        _metrics(few, expected[: len(few)], exact).items()}  # fmt: skip
    except (UnsupportedError, InputsError) as error:  # onnx.reference may be wrong about an operator, too
        notes.append(f"conditioning is unknown: {error.message}")
    sides = {"conditioning": conditioning, "precision": found}
    return {
        **{side: {n: f and f.to_json() for n, f in floors.items()} for side, floors in sides.items()},
        "notes": notes,
    }


def _simulated_session(lab: Workshop, case: Case) -> Any:
    backend, request = lab.backend(_ON), lab.request(case)
    return backend.load(backend.build(request, lab.progress).plan, request)


def _metrics(
    samples: Sequence[Sample], actual: Sequence[Mapping[str, Any]], expected: Sequence[Mapping[str, Any]]
) -> dict[str, list[Metrics]]:
    """The metrics of each output in each sample, without the rows that only fill a batch."""
    from pytest_trt.accuracy.measurement import measure

    found: dict[str, list[Metrics]] = {name: [] for name in expected[0]}
    for sample, left, right in zip(samples, actual, expected, strict=True):
        a, e = sample.cut(left), sample.cut(right)
        for name, parts in found.items():
            try:
                parts.append(measure(a[name], e[name], rtol=None, atol=None, allow_nonfinite=True))
            except InputsError as error:
                raise InputsError(f"output {name!r} of {sample.origin}: {error.message}", hint=error.hint) from error
    return found


@dataclass(frozen=True)
class Proposal:
    """``toml`` is ready to paste into a manifest, with what was seen as comments; ``lines`` are its evidence."""

    lines: tuple[str, ...]
    toml: str


def propose(lab: Workshop, cases: Sequence[Case]) -> Proposal:
    """Run the engines of *cases*, one model in one precision at its profiles, on all inputs, and propose tolerances
    from the spread. What is looser than the precision's default is said. Raises UnsupportedError, also when no output
    holds floats, BuildError, RunError; AccuracyFailure where shapes, NaN or infinities are not the reference's."""
    from pytest_trt.accuracy.floors import Evidence, Measured
    from pytest_trt.accuracy.tolerance import default_tolerance
    from pytest_trt.latency.student import t_quantile

    first = cases[0]
    # Single elements are judged where they are by default: quantization moves some of them far.
    default = default_tolerance(first.precision)
    elementwise = default.elementwise
    spread: dict[str, list[Measured]] = {}
    origins: dict[str, str] = {}
    apart: dict[str, int] = {}
    count, source = 0, ""
    for case in cases:
        shapes = lab.profile(case).at("opt")
        _, session = lab.engine(case)
        samples, expected, source = lab.expected(case, shapes, lab.settings.samples)
        inputs = lab.inputs(case, shapes)
        origins[inputs.origin] = "SYNTHETIC, no evidence about your data" if inputs.synthetic else "real"
        count += len(samples)
        for sample, stored in zip(samples, expected, strict=True):
            actual = sample.cut(session.run(sample.feeds))
            for name, right in sample.cut(stored).items():
                if actual[name].shape != right.shape:
                    shapes_apart = f"has shape {actual[name].shape}, the reference has {right.shape}"
                    raise AccuracyFailure(f'{case}: output "{name}" {shapes_apart}', "no tolerance allows that")
                measured = Measured.of(actual[name], right)
                spread.setdefault(name, []).extend([measured] if measured else [])
                apart[name] = apart.get(name, 0) + _apart(actual[name], right)
    if bad := [f'"{name}" in {samples} of {counted(count, "sample")}' for name, samples in apart.items() if samples]:
        told = f"{first}: NaN or infinite on one side only, or differently: {', '.join(bad)}"
        raise AccuracyFailure(told, "no tolerance allows that; pytest-trt bisect says where it comes from")
    floors, floor_lines = _floors_and_lines(lab, first)
    evidence = [Evidence(name, tuple(found), floors.get(name)) for name, found in spread.items() if found]
    if not evidence:
        raise UnsupportedError(
            "no output holds a finite float that is not 0: there is no tolerance to propose; integers, booleans and"
            " zeros must be equal, and so must NaN and infinity"
        )
    profiles = ", ".join(case.profile for case in cases)
    support = lab.backend(first.backend).support(get_precision(first.precision))
    remark = " (simulated)" if support.kind == "simulated" else ""
    title = f"{first.model} {first.precision} on {first.backend}{remark}"
    told = "; ".join(f"{origin} ({kind})" for origin, kind in origins.items())
    head = f"{title}: {counted(count, 'sample')} at {profiles}; inputs {told}; against {source}"
    lines = [head, *floor_lines]
    tables = []
    for one in evidence:
        quantile = t_quantile(_CONFIDENCE, max(len(one.samples) - 1, 1))
        limits, rows = one.limits(quantile, elementwise=elementwise), one.rows(quantile)
        lines += [f'output "{one.name}", {counted(len(one.samples), "sample")}', *rows]
        if looser := _looser(limits, default):
            lines += [
                f"  looser than the default of {first.precision}: {looser}",
                "  is that the model, or a fault? pytest-trt bisect says where the error comes from",
            ]
        where = f"tolerance.{first.precision}" + (f".outputs.{json.dumps(one.name)}" if len(evidence) > 1 else "")
        comments = {name: f"  # {seen}" for name in limits if (seen := one.seen(name))}
        rows = [f"{name} = {text}{comments.get(name, '')}" for name, text in limits.items()]
        tables.append("\n".join([f"[{where}]", *rows]))
    return Proposal(tuple(lines), "\n".join([f"# {head}", *tables]))


def _apart(actual: Any, expected: Any) -> bool:
    from pytest_trt.accuracy.measurement import measure

    return measure(actual, expected, rtol=None, atol=None, allow_nonfinite=True).nonfinite_disagreements > 0


def _looser(limits: Mapping[str, str], default: Tolerance) -> str:
    """Which of *limits* allow more than *default* does, with its values; those of single elements by rtol."""
    known = {"rtol": default.rtol, "cosine": default.cosine, "snr_db": default.snr_db}
    more = []
    for name, wanted in known.items():
        if wanted is None or name not in limits:
            continue
        given = float(limits[name])
        if given > wanted if name == "rtol" else given < wanted:
            more.append(f"{name} {limits[name]} ({wanted:g})")
    return ", ".join(more)


def _floors_and_lines(lab: Workshop, case: Case) -> tuple[Mapping[str, Floor | None], list[str]]:
    try:
        floors = measure_floors(lab, case)
    except UnsupportedError as error:
        return {}, [f"floor      unknown: {error.message}"]
    lines = [f'floor      "{n}": {f}' for side in (floors.conditioning, floors.precision) for n, f in side.items() if f]
    return floors.in_force(), [*lines, *(f"floor      {note}" for note in floors.notes)]
