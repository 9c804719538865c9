"""What a pass has found so far: counts, sums and extremes, to merge with those of other parts and make metrics of."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.accuracy.metrics import Extreme, Metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Totals"]


@dataclass
class Totals:
    """Running totals over consecutive elements; the names are those of Metrics.

    ``finite_expected`` and its sum of squares are for rms(expected): they hold what is finite in expected, whatever
    actual is there.
    """

    pairs: int = 0
    mismatched: int = 0
    rel_undefined: int = 0
    nonfinite_actual: int = 0
    nonfinite_expected: int = 0
    nonfinite_disagreements: int = 0
    sum_abs: float = 0.0
    sum_square: float = 0.0
    sum_actual_square: float = 0.0
    sum_expected_square: float = 0.0
    sum_product: float = 0.0
    finite_expected: int = 0
    finite_expected_square: float = 0.0
    low: float | None = None
    high: float | None = None
    best: dict[str, tuple[float, int]] = field(default_factory=dict)  # name of an extreme -> value, flat index
    floor: dict[str, float] = field(default_factory=dict)  # what extremes must exceed to be kept
    reach_abs: float = -1.0  # no difference is greater
    reach_rel: float = 0.0  # no relative difference is greater, as computed; infinite where one is undefined

    def greatest(self, name: str) -> float:
        """Return what a value of an extreme must exceed to be kept."""
        return self.best[name][0] if name in self.best else self.floor.get(name, -1.0)

    def following(self) -> Totals:
        """Return empty totals for later elements: what is not greater than here cannot be an extreme of both."""
        return Totals(floor={**self.floor, **{name: value for name, (value, _) in self.best.items()}})

    def offer(self, name: str, value: float, flat: int) -> None:
        """Keep *value* if it is greater than all before. Negative values are no candidates."""
        if value > self.greatest(name):
            self.best[name] = (value, flat)

    def offer_greatest(self, name: str, values: NDArray[Any], offset: int) -> float:
        """Offer the greatest of *values*, and return it."""
        # To find where takes longer than to find how much, and is seldom needed.
        value: float = np.maximum.reduce(values).item()
        if value > self.greatest(name):
            self.best[name] = (value, offset + int(values.argmax()))
        return value

    def offer_range(self, low: float, high: float) -> None:
        self.low = low if self.low is None else min(self.low, low)
        self.high = high if self.high is None else max(self.high, high)

    def merge(self, later: Totals) -> None:
        """Add the totals of the elements that follow."""
        for each in fields(self):
            if each.name not in ("low", "high", "best", "floor", "reach_abs", "reach_rel"):
                setattr(self, each.name, getattr(self, each.name) + getattr(later, each.name))
        if later.low is not None and later.high is not None:
            self.offer_range(later.low, later.high)
        self.reach_abs = max(self.reach_abs, later.reach_abs)
        self.reach_rel = max(self.reach_rel, later.reach_rel)
        for name, (value, flat) in later.best.items():
            self.offer(name, value, flat)

    def metrics(
        self,
        a: NDArray[Any],
        e: NDArray[Any],
        *,
        rtol: float | None,
        atol: float | None,
        allow_nonfinite: bool,
        exact: bool,
    ) -> Metrics:
        """Return the metrics of the arrays that these totals are of; *exact* ones have no tolerance."""
        if exact:
            rtol = atol = 0.0
        extremes = {name: self._extreme(name, a, e, rtol, atol, exact) for name in ("max_abs", "max_rel", "max_excess")}
        return Metrics(
            count=a.size,
            pairs=self.pairs,
            mismatched=self.mismatched,
            **extremes,
            rel_undefined=self.rel_undefined,
            sum_abs=self.sum_abs,
            sum_square=self.sum_square,
            sum_actual_square=self.sum_actual_square,
            sum_expected_square=self.sum_expected_square,
            sum_product=self.sum_product,
            expected_min=self.low,
            expected_max=self.high,
            nonfinite_actual=self.nonfinite_actual,
            nonfinite_expected=self.nonfinite_expected,
            nonfinite_disagreements=self.nonfinite_disagreements,
            rtol=rtol,
            atol=atol,
            allow_nonfinite=allow_nonfinite,
            exact=exact,
        )

    def _extreme(
        self, name: str, a: NDArray[Any], e: NDArray[Any], rtol: float | None, atol: float | None, exact: bool
    ) -> Extreme | None:
        if name not in self.best:
            return None
        value, flat = self.best[name]
        index = tuple(int(i) for i in np.unravel_index(flat, a.shape)) if a.ndim else ()
        number = int if exact else float
        actual, expected = number(a[index]), number(e[index])
        if name == "max_abs" and exact:
            value = abs(actual - expected)
        allowed: float | None = None
        if rtol is not None and atol is not None:
            scale = abs(float(expected))
            allowed = {
                "max_abs": atol + rtol * scale,
                "max_rel": (rtol + atol / scale if atol else rtol) if scale else 0.0,
                "max_excess": 1.0,
            }[name]
        return Extreme(value, index, actual, expected, allowed)
