"""The search for the worst input: Hypothesis walks towards the greatest error, then shrinks what fails."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_trt import strategies
from pytest_trt.accuracy.comparison import Comparison, compare
from pytest_trt.accuracy.usage import used_tolerance
from pytest_trt.errors import RunError, UsageError
from pytest_trt.spec.inputs import InputSet
from pytest_trt.spec.shapes import format_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_trt.accuracy.tolerance import Tolerance, ToleranceSet
    from pytest_trt.spec.model import Model
    from pytest_trt.spec.shapes import Profile

    Runner = Callable[[dict[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]

__all__ = ["RUNS_PER_EXAMPLE", "Worst", "search_worst"]

# Shrinking takes what it can get: with this, a search runs at most so many times as often as examples are asked for.
RUNS_PER_EXAMPLE = 6
_SHOWN_VALUES = 6


@dataclass(frozen=True)
class Worst:
    """The input that a search ended with: the smallest one that fails, else the one with the greatest error.

    ``error`` is the share of the tolerance that was used, 1 at its limit; infinite where the engine did not run.
    ``repeats``: a failing input was run once more at the end, and failed again; False means that the engine, or the
    reference, does not give the same twice.
    """

    feeds: dict[str, NDArray[Any]]
    error: float
    ok: bool
    reason: str
    comparison: Comparison | None
    runs: int
    repeats: bool = True

    def lines(self) -> list[str]:
        """The input in a few words: shapes, and the values that are not the commonest one."""
        return [f"{name!r} {format_shape(a.shape)} {a.dtype}: {_values(a)}" for name, a in self.feeds.items()]

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "error": self.error if math.isfinite(self.error) else str(self.error),
            "reason": self.reason,
            "runs": self.runs,
            "repeats": self.repeats,
            "shapes": {name: list(array.shape) for name, array in self.feeds.items()},
        }


class _Fails(Exception):  # noqa: N818 - an outcome, for Hypothesis to shrink
    """The outputs are not close."""


class _Refuses(Exception):  # noqa: N818 - as _Fails
    """The engine does not run. Apart from _Fails, so that shrinking does not turn the one into the other."""


def search_worst(
    run: Runner,
    reference: Runner,
    model: Model,
    profile: Profile,
    *,
    tolerance: Tolerance | ToleranceSet | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    special_values: bool | str = False,
    examples: int = 100,
    seed: int = 0,
) -> Worst:
    """Search the inputs of *model* within *profile* for the one on which *run* is farthest from *reference*.

    Both take the feeds and return the outputs by name. NaN and infinities are right where both have the same. A
    RunError of *run* counts as a failure; one of *reference* leaves that input out.

    *examples* inputs are tried (see ``strategies.inputs`` for *ranges* and *special_values*), of which the better part
    climbs towards a greater error; the first that fails is shrunk. All together *run* is called at most
    ``RUNS_PER_EXAMPLE`` times *examples*, plus once. The same *seed* searches the same way.

    Raises UsageError without hypothesis, and as ``strategies.inputs`` does.
    """
    hypothesis: Any = strategies.required()
    if examples < 1:
        raise UsageError(f"a search needs at least one example, not {examples}")
    drawn = strategies.inputs(model, profile, ranges=ranges, special_values=special_values)
    search = _Search(run, reference, tolerance, RUNS_PER_EXAMPLE * examples)

    def probe(feeds: dict[str, NDArray[Any]]) -> None:
        worst = search.look(feeds)
        if worst is None:
            return
        if worst.comparison is None:
            raise _Refuses
        if not worst.ok:
            raise _Fails
        strategies.target(worst.comparison)

    settings = hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        derandomize=False,
        phases=(hypothesis.Phase.generate, hypothesis.Phase.target, hypothesis.Phase.shrink),
        suppress_health_check=list(hypothesis.HealthCheck),
        report_multiple_bugs=False,
        verbosity=hypothesis.Verbosity.quiet,
        print_blob=False,
    )
    with suppress(_Fails, _Refuses, hypothesis.errors.Flaky):
        hypothesis.seed(seed)(settings(hypothesis.given(feeds=drawn)(probe)))()
    return search.result()


class _Search:
    """Runs what Hypothesis draws, and remembers the worst that passed and the last that failed."""

    def __init__(
        self, run: Runner, reference: Runner, tolerance: Tolerance | ToleranceSet | None, most_runs: int
    ) -> None:
        self._run, self._reference, self._tolerance, self._most_runs = run, reference, tolerance, most_runs
        self._runs = 0
        self._failed: dict[str, Worst] = {}
        self._smallest: Worst | None = None
        self._greatest: Worst | None = None

    def look(self, feeds: dict[str, NDArray[Any]]) -> Worst | None:
        """What comes of *feeds*; None where the reference does not run, or the runs are spent."""
        key = InputSet((feeds,), "").fingerprint
        known = self._failed.get(key)
        if known is not None:
            # Hypothesis replays what it found; it is the one to keep.
            self._smallest = known
            return known
        if self._runs >= self._most_runs:
            return None
        found = self._judge(feeds)
        if found is None:
            return None
        if not found.ok:
            self._smallest = self._failed[key] = found
        elif self._greatest is None or found.error > self._greatest.error:
            self._greatest = found
        return found

    def result(self) -> Worst:
        smallest, greatest = self._smallest, self._greatest
        if smallest is None:
            if greatest is None:
                raise UsageError("the reference did not run on a single input of the search")
            return Worst(greatest.feeds, greatest.error, True, greatest.reason, greatest.comparison, self._runs)
        again = self._judge(smallest.feeds)
        repeats = again is not None and not again.ok
        return Worst(smallest.feeds, smallest.error, False, smallest.reason, smallest.comparison, self._runs, repeats)

    def _judge(self, feeds: dict[str, NDArray[Any]]) -> Worst | None:
        try:
            expected = self._reference({name: array.copy() for name, array in feeds.items()})
        except RunError:
            return None
        self._runs += 1
        try:
            actual = self._run({name: array.copy() for name, array in feeds.items()})
        except RunError as error:
            return Worst(feeds, math.inf, False, error.message, None, self._runs)
        comparison = compare(actual, expected, tolerance=self._tolerance, allow_nonfinite=True)
        return Worst(feeds, used_tolerance(comparison), comparison.ok, comparison.summary, comparison, self._runs)


def _values(array: NDArray[Any]) -> str:
    import numpy as np

    flat = array.reshape(-1)
    if not flat.size:
        return "empty"
    # Bits, not values: NaN is equal to itself, and -0 is not 0.
    bits = flat.view(np.dtype(f"V{array.dtype.itemsize}")) if array.dtype.itemsize else flat
    common = bits[0] if len(bits) < 3 else max((bits[0], bits[len(bits) // 2], bits[-1]), key=lambda b: _count(bits, b))
    others = [int(i) for i in np.flatnonzero(bits != common)[: _SHOWN_VALUES + 1]]
    at = int(np.flatnonzero(bits == common)[0])
    if len(others) > _SHOWN_VALUES:
        return f"values from {flat.min()} to {flat.max()}"
    told = [f"{flat[i]} at {list(map(int, np.unravel_index(i, array.shape)))}" for i in others]
    return f"all {flat[at]}" + (f" but {', '.join(told)}" if told else "")


def _count(bits: Any, value: Any) -> int:
    return int((bits == value).sum())
