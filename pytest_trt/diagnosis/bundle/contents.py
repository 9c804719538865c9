"""What lies in a bundle, before it is written: of a whole case, or of the piece that it was reduced to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.counted import counted
from pytest_trt.diagnosis.bundle.running import how_to_run
from pytest_trt.diagnosis.bundle.toml import checks_of
from pytest_trt.diagnosis.bundle.verdict import problems_of
from pytest_trt.errors import PrecisionError
from pytest_trt.spec.shapes import Profile, ShapeRange

if TYPE_CHECKING:
    from pytest_trt.accuracy.tolerance import ToleranceSet
    from pytest_trt.backends import BuildOptions, BuildRequest
    from pytest_trt.diagnosis.reducing import Reduction
    from pytest_trt.diagnosis.stages import Subject
    from pytest_trt.diagnosis.workbench import Converter
    from pytest_trt.spec.case import Case
    from pytest_trt.spec.model import Model

    Rows = tuple[dict[str, np.ndarray[Any, Any]], ...]

# File systems take 255 bytes.
_LONGEST_NAME = 160

__all__ = ["Contents", "of_case", "of_piece", "reshaped", "shows"]


@dataclass(frozen=True)
class Contents:
    """One failing case at one point: models, arrays (one mapping for each sample), and all that decided the verdict.

    ``model`` is float32, ``typed`` is what the recipe made of it; None where there is no graph. ``run`` says how
    ``reproduce.py`` runs ``computed``, which is ``typed`` unless a simulation was computed.
    """

    name: str  # of the folder
    case: Case
    model: Model | None
    typed: Model | None
    computed: Model | None
    request: BuildRequest
    profile: Profile
    feeds: Rows
    expected: Rows
    actual: Rows
    limits: ToleranceSet
    allow_nonfinite: bool
    synthetic: bool
    reference: str
    summary: str
    run: Mapping[str, Any]
    recipe: Mapping[str, Any] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    timings: bytes | None = None
    engine: str = ""  # the digest of its key, versions and device among it, and what is injected
    notes: tuple[str, ...] = ()
    piece: str = ""  # "1 of 30 nodes", where it is no whole model

    @property
    def model_name(self) -> str:
        """What the model is called where commands go on from the folder; the original may be tested beside it."""
        return f"{self.case.model}-{self.digest[:8]}"

    @property
    def title(self) -> str:
        reduced = f" reduced to {self.piece}" if self.piece else ""
        return f"{self.case}{reduced}: {self.summary}"

    @property
    def build(self) -> BuildOptions:
        return self.request.options

    @property
    def is_uniform(self) -> bool:
        """Whether every array has one shape in all samples, so that these can be stored together."""
        return all(len({np.shape(row[n]) for row in rows}) == 1 for rows in self._rows for n in rows[0])

    @property
    def _rows(self) -> tuple[Rows, Rows, Rows]:
        return self.feeds, self.expected, self.actual

    def sample(self, number: int) -> Contents:
        """The same with one sample alone."""
        feeds, expected, actual = (rows[number : number + 1] for rows in self._rows)
        return replace(self, feeds=feeds, expected=expected, actual=actual)

    @property
    def digest(self) -> str:
        """Equal for equal failures: of the typed model, the inputs, what the engine was built with, by and held to."""
        decided = self.case, self.build.describe(), self.profile.describe(), self.limits, self.engine
        found = hashlib.sha256(repr(decided).encode())
        if self.typed is not None:
            found.update(self.typed.fingerprint.encode())
        for row in (*self.feeds, *self.expected):
            for name in sorted(row):
                array = np.ascontiguousarray(row[name])
                found.update(repr((name, str(array.dtype), array.shape)).encode())
                found.update(array.reshape(-1).view(np.uint8).data)
        return found.hexdigest()


def of_case(bench: Converter, subject: Subject, summary: str, *, synthetic: bool, allow_nonfinite: bool) -> Contents:
    """The whole case of *subject*, run once more on the samples that its explanation was made with.

    Samples are stored as they were fed, rows that only fill a batch among them. Raises what running the case raises.
    """
    case = subject.case
    stored, session = bench.engine(case)
    with bench.device_lock(case.backend):
        actual = tuple(dict(session.run(sample.feeds)) for sample in subject.samples)
    has_graph = bench.model(case.model).has_graph and not bench.is_prebuilt(case)
    shapes = {name: tuple(array.shape) for name, array in subject.samples[0].feeds.items()}
    profile = Profile.fixed(case.profile, shapes)
    request = replace(bench.request(case), profile=profile, profiles=())
    typed = request.model if has_graph else None
    run, computed = how_to_run(case, request, stored.facts)
    found = Contents(
        name="",
        case=case,
        model=bench.graph(case) if has_graph else None,
        typed=typed,
        computed=computed,
        request=request,
        profile=profile,
        feeds=tuple(dict(sample.feeds) for sample in subject.samples),
        expected=tuple(dict(row) for row in subject.uncut),
        actual=actual,
        limits=subject.limits or bench.tolerance(case),
        allow_nonfinite=allow_nonfinite,
        synthetic=synthetic,
        reference=subject.reference,
        summary=summary,
        run=run,
        facts=stored.facts,
        timings=bench.timings(case.backend) if case.backend == "tensorrt" else None,
        engine=f"{stored.digest} {bench.settings.fake or ''}",
    )
    return _named(_with_recipe(bench, found) if has_graph else found)


def shows(contents: Contents) -> bool:
    """Whether what is stored fails by what is stored, as ``reproduce.py`` judges it: batches as they were fed."""
    limits = {"": contents.limits.default, **contents.limits.outputs}
    checks = {name: checks_of(limit) for name, limit in limits.items()}
    return bool(problems_of(contents.actual, contents.expected, checks, contents.allow_nonfinite))


def reshaped(contents: Contents, ranges: Mapping[str, ShapeRange], note: str) -> Contents:
    """*contents* with other shapes around those of its samples, and why."""
    profile = Profile(contents.profile.name, ranges)
    request = replace(contents.request, profile=profile, profiles=())
    run, computed = how_to_run(contents.case, request, contents.facts)
    return _named(
        replace(contents, profile=profile, request=request, run=run, computed=computed, notes=(*contents.notes, note))
    )


def of_piece(whole: Contents, found: Reduction) -> Contents:
    """The bundle of a reduced model; the rest is that of the *whole*."""
    shapes = {name: tuple(array.shape) for name, array in found.cut.feeds[0].items()}
    profile = Profile.fixed(whole.case.profile, shapes)
    request = replace(found.request, model=found.typed, profile=profile)
    run, computed = how_to_run(whole.case, request, whole.facts)
    recipe = {**{n: v for n, v in whole.recipe.items() if n != "exclude_nodes"}, **found.options}
    return _named(
        replace(
            whole,
            model=found.cut.model,
            typed=found.typed,
            computed=computed,
            request=request,
            profile=profile,
            feeds=found.cut.feeds,
            expected=found.cut.expected,
            actual=found.actual,
            limits=found.limits,
            allow_nonfinite=True,
            reference="recorded activations of the float32 model, ONNX Runtime",
            summary=found.comparison.summary,
            run=run,
            recipe=recipe,
            ranges=None if whole.ranges is None else {n: r for n, r in whole.ranges.items() if n in found.tensors},
            notes=(),
            piece=f"{len(found.cut.nodes)} of {counted(found.total, 'node')}",
        )
    )


def _named(contents: Contents) -> Contents:
    return replace(contents, name=f"{contents.case.id[:_LONGEST_NAME]}-{contents.digest[:8]}")


def _with_recipe(bench: Converter, contents: Contents) -> Contents:
    try:
        conversion = bench.conversion(contents.case)
    except PrecisionError as error:
        return replace(contents, notes=(f"the recipe's options are not known: {error.message}",))
    options = dict(conversion.options)
    if conversion.excluded:
        options["exclude_nodes"] = list(conversion.excluded)
    return replace(contents, recipe=options, ranges=conversion.ranges)
