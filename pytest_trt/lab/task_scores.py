"""Scoring one case: the metrics of its manifest on every sample at opt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from pytest_trt.errors import InputsError, MetricError, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_trt.lab.workshop import Workshop
    from pytest_trt.spec.case import Case
    from pytest_trt.spec.inputs import Sample
    from pytest_trt.spec.metrics import MetricSpec

    Outputs = Mapping[str, NDArray[Any]]
    Score = Callable[[Outputs, Outputs, Sample], NDArray[Any]]

__all__ = ["Scored", "score_samples"]

_USUAL_MASK = "attention_mask"
_NO_MASK = "off"


@dataclass(frozen=True)
class Scored:
    """The scores of one metric. ``definition`` says what they mean, the digest of a function's file included;
    ``samples`` is a fingerprint of what they were computed on."""

    spec: MetricSpec
    definition: Mapping[str, Any]
    scores: NDArray[Any]
    samples: str


def score_samples(
    lab: Workshop, case: Case, samples: Sequence[Sample], outputs: Sequence[Outputs], expected: Sequence[Outputs]
) -> list[Scored]:
    """Score *outputs*, without the rows that only fill a batch. Raises MetricError and ManifestError."""
    manifest = lab.manifest(case)
    if not manifest.metrics:
        return []
    import numpy as np

    from pytest_trt.accuracy.score_store import as_kept
    from pytest_trt.artifacts.metric_functions import MetricFunction

    shapes = lab.profile(case).at("opt")
    fingerprint = f"{lab.inputs(case, shapes).fingerprint}@{sorted(shapes.items())}[:{lab.settings.samples}]"
    found = []
    for spec in manifest.metrics.values():
        definition, score = spec.definition(), _built_in(spec, f"{manifest.file}: metrics.{spec.name}")
        if spec.source:
            function = MetricFunction(manifest, spec)
            definition, score = {**definition, "digest": function.digest}, function.scores
        parts = [
            score(actual, sample.cut(wanted), sample)
            for actual, wanted, sample in zip(outputs, expected, samples, strict=True)
        ]
        digest = sha256(fingerprint.encode()).hexdigest()[:16]
        found.append(Scored(spec, definition, as_kept(np.concatenate(parts)), digest))
    return found


def _built_in(spec: MetricSpec, where: str) -> Score:
    def score(actual: Outputs, expected: Outputs, sample: Sample) -> NDArray[Any]:
        name = _output(spec, expected, where)
        try:
            return _score(spec, actual[name], expected[name], sample)
        except InputsError as error:
            raise MetricError(f"{where}: output {name!r}: {error.message}", hint=error.hint) from error

    return score


def _output(spec: MetricSpec, expected: Outputs, where: str) -> str:
    if spec.output is None and len(expected) > 1:
        raise MetricError(f"{where}: which of {len(expected)} outputs?", hint=f"output = one of {', '.join(expected)}")
    name = spec.output or next(iter(expected))
    if name not in expected:
        raise MetricError(f"{where}: there is no output {name!r}", hint=nearest(name, expected))
    return name


def _score(spec: MetricSpec, actual: Any, expected: Any, sample: Sample) -> NDArray[Any]:
    from pytest_trt.accuracy.scores import cosines, masks_iou, tokens, topk

    axis = -1 if spec.axis is None else spec.axis
    if spec.metric == "cosine":
        return cosines(actual, expected, sample.rows)
    if spec.metric == "iou":
        return masks_iou(actual, expected, sample.rows, threshold=spec.threshold, axis=spec.axis)
    if spec.metric == "tokens":
        return tokens(actual, expected, sample.rows, axis=axis, mask=_mask(spec, expected, sample))
    if spec.against == "labels":
        if sample.labels is None:
            raise InputsError("there are no labels", hint='name them: labels = "…" in [inputs]')
        expected = sample.labels
    return topk(actual, expected, sample.rows, k=spec.k if spec.metric == "topk" else 1, axis=axis)


def _mask(spec: MetricSpec, expected: Any, sample: Sample) -> Any:
    """The input that says which positions are padding: the one that is named, else the usual one where it fits."""
    feeds = sample.cut(sample.feeds)
    if spec.mask == _NO_MASK:
        return None
    if spec.mask is not None:
        if spec.mask not in feeds:
            raise InputsError(f"there is no input {spec.mask!r} for a mask", hint=nearest(spec.mask, feeds))
        return feeds[spec.mask]
    usual = feeds.get(_USUAL_MASK)
    return usual if usual is not None and usual.shape == expected.shape[: usual.ndim] else None
