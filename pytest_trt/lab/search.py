"""Searching one case for its worst input, and keeping what fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pytest_trt.errors import AccuracyFailure, EngineFailure, InputsError, UnsupportedError
from pytest_trt.record import Record
from pytest_trt.spec.case import Case

if TYPE_CHECKING:
    from pytest_trt.accuracy.tolerance import ToleranceSet
    from pytest_trt.backends import Session
    from pytest_trt.lab.workshop import Workshop
    from pytest_trt.search import Worst

__all__ = ["search"]


def search(
    lab: Workshop,
    case: Case,
    record: Record,
    session: Session,
    limits: ToleranceSet,
    reproduce: str,
    *,
    examples: int,
    special_values: bool | str,
    save: bool,
) -> Worst:
    """Search the case's profile for its worst input, fill ``record.search``, and save an input that fails.

    Values lie within the manifest's ranges, else within those of the case's samples. Raises AccuracyFailure where
    outputs are not close, EngineFailure where the engine does not run, UsageError without hypothesis.
    """
    from pytest_trt.search import search_worst
    from pytest_trt.strategies import value_ranges

    profile, manifest = lab.profile(case), lab.manifest(case)

    def run(feeds: dict[str, Any]) -> Mapping[str, Any]:
        with lab.device_lock(case.backend):
            return session.run(feeds)

    worst = search_worst(
        run,
        _reference(lab, case),
        lab.model(case.model),
        profile,
        tolerance=limits,
        ranges={**value_ranges(lab.inputs(case, profile.at("opt")).sets), **manifest.ranges},
        special_values=special_values,
        examples=examples,
        seed=lab.settings.seed,
    )
    record.search = {**worst.to_json(), "examples": examples, "seed": lab.settings.seed, "saved": None}
    if worst.ok:
        return worst
    lines = [
        "smallest input that fails:",
        *(f"  {line}" for line in worst.lines()),
        *_save(case, lab, record, worst, save),
    ]
    # Only what was saved is among the inputs that the command runs.
    again = ["", reproduce] if record.search["saved"] else []
    detail = "\n".join([*([worst.comparison.detail, ""] if worst.comparison else []), *lines, *again])
    if worst.comparison is None:
        raise EngineFailure(f"{case}: the engine does not run an input within its profile: {worst.reason}", detail)
    raise AccuracyFailure(f"{case}: {worst.reason}", detail)


def _save(case: Case, lab: Workshop, record: Record, worst: Worst, save: bool) -> list[str]:
    from pytest_trt.spec.regressions import regressions_folder, save_regression

    if not worst.repeats:
        return ["not saved    it did not fail again: the engine does not give the same twice"]
    if not save:
        return ["not saved    save=False: no other command runs this input"]
    try:
        path = save_regression(regressions_folder(lab.manifest(case).file), worst.feeds, case.variant_id)
    except InputsError as error:
        return [f"not saved    {error.message}"]
    if path.is_relative_to(lab.root):
        path = path.relative_to(lab.root)
    if record.search is not None:
        record.search["saved"] = path.as_posix()
    return [f"saved        {path}: judged with every run from now on"]


def _reference(lab: Workshop, case: Case) -> Callable[[dict[str, Any]], Mapping[str, Any]]:
    """What the drawn inputs are compared with. Not cached: nobody asks for them again."""
    from pytest_trt.artifacts.sources import call_reference
    from pytest_trt.spec.inputs import Sample

    manifest, model = lab.manifest(case), lab.model(case.model)
    if manifest.reference:
        return lambda feeds: call_reference(manifest, [Sample(feeds, 1, 1, "search")])[0]
    if not model.has_graph:
        raise UnsupportedError(
            f"{case.model} has no ONNX graph and no reference: drawn inputs have nothing to be compared with"
        )
    from pytest_trt.backends.onnxruntime import GraphRunner

    return GraphRunner(model).run
