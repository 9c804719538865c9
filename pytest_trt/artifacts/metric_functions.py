"""Metrics of the user: calling ``FILE.py:CALLABLE`` of a model's folder, and saying where in it an error is."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.artifacts.sources import digest_of, install_hint, no_bytecode, obtain_source
from pytest_trt.errors import MetricError, ModelError, TrtError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_trt.spec.inputs import Sample
    from pytest_trt.spec.manifest import Manifest
    from pytest_trt.spec.metrics import MetricSpec

__all__ = ["MetricFunction"]


_GIVEN = ("outputs", "expected", "inputs", "labels")
_CALLED = "its parameters may be outputs, expected, inputs, labels, and the names in the table's args"


class MetricFunction:
    """The function of one metric. Its file is run once, when this is made.

    Raises ManifestError for a file or callable that is not there, MetricError where running the file fails or an
    argument has the name of what is given anyway.
    """

    def __init__(self, manifest: Manifest, spec: MetricSpec) -> None:
        self.source = spec.source or ""
        self.path = manifest.folder / self.source.partition(":")[0]
        self.where = f"{manifest.file}: metrics.{spec.name}"
        self.args = spec.args
        if taken := [name for name in _GIVEN if name in spec.args]:
            raise MetricError(
                f"{self.where}: args names {taken[0]!r}, which is what every function is given",
                hint="give the parameter another name",
            )
        try:
            self.function: Callable[..., Any] = obtain_source(manifest, self.source)
        except ModelError as error:
            cause = error.__cause__ or error
            place = _place(cause, self.path)
            raise MetricError(
                f"{self.where}: importing it failed at {place}: {type(cause).__name__}: {cause}", hint=error.hint
            ) from error
        self.digest = digest_of(self.path)

    def taken(self, outputs: Mapping[str, Any], expected: Mapping[str, Any], sample: Sample) -> dict[str, Any]:
        """Of what there is, the arguments that the function has parameters for."""
        values = (dict(outputs), dict(expected), sample.cut(sample.feeds), sample.labels)
        given: dict[str, Any] = dict(zip(_GIVEN, values, strict=True))
        try:
            parameters = inspect.signature(self.function).parameters
        except (TypeError, ValueError):  # not every callable of C has one
            return given
        if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
            return given
        return {name: value for name, value in given.items() if name in parameters}

    def scores(
        self, outputs: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]], sample: Sample
    ) -> NDArray[np.float64]:
        """The scores of one run: as many as it has real rows, or one for all of them. Raises MetricError."""
        what = f"{self.where}: {self.source}"
        try:
            with no_bytecode():
                found = self.function(**self.taken(outputs, expected, sample), **self.args)
        except TrtError:
            raise
        # The function is the user's: whatever it raises is an error of this metric with its own words.
        except (Exception, SystemExit) as error:
            raise MetricError(
                f"{what} failed at {_place(error, self.path)} on {sample.origin}: {type(error).__name__}: {error}",
                hint=_CALLED if isinstance(error, TypeError) else install_hint(error),
            ) from error
        if found is None:
            raise MetricError(f"{what} returned nothing", hint="return a float, or one per row")
        try:
            scores = np.asarray(found, dtype=np.float64)
        except (TypeError, ValueError):
            raise MetricError(
                f"{what} returned {type(found).__name__}, which is no number", hint="return a float, or one per row"
            ) from None
        if scores.shape not in ((), (sample.rows,), (1,)):
            raise MetricError(
                f"{what} returned scores of shape {scores.shape} for {sample.rows} rows",
                hint="return one float for all of them, or one per row",
            )
        if not np.isfinite(scores).all():
            raise MetricError(f"{what} returned NaN or infinity on {sample.origin}", hint="scores must be finite")
        return scores.reshape(-1)


def _place(error: BaseException, path: Path) -> str:
    """``eval.py:12``: the innermost line of the user's file that *error* went through."""
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).name == path.name:
        return f"{path.name}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).name == path.name]
    return f"{path.name}:{lines[-1]}" if lines else path.name
