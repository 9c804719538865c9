"""What was measured between an actual and an expected array: plain values that can be merged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

__all__ = ["Extreme", "Metrics", "plain"]


def plain(value: float | None) -> float | int | str | None:
    """Return *value* as JSON can hold it: NaN and infinities become ``"nan"``, ``"inf"`` and ``"-inf"``."""
    if value is None or isinstance(value, int) or math.isfinite(value):
        return value
    return str(float(value))


@dataclass(frozen=True)
class Extreme:
    """The element at which something was greatest; the first one in C order when several are equal.

    ``allowed`` is the limit of ``value`` at this very element, ``None`` when elements were not judged.
    ``sample`` is the number of the merged sample that it lies in, from 0; ``None`` before merging.
    """

    value: float
    index: tuple[int, ...]
    actual: float
    expected: float
    allowed: float | None = None
    sample: int | None = None

    def to_json(self) -> dict[str, Any]:
        numbers = {k: plain(getattr(self, k)) for k in ("value", "actual", "expected", "allowed")}
        return {**numbers, "index": list(self.index), "sample": self.sample}


@dataclass(frozen=True)
class Metrics:
    """Differences between two arrays of equal shape.

    Sums are kept instead of means, so that merging the metrics of several samples gives what one
    measurement of all of them would give (up to float64 rounding of the sums). They run over *pairs*:
    the positions at which both sides are finite. They hold squares in float64, so they are meant for magnitudes
    between 1e-150 and 1e150: all of float32, and any sane float64.
    """

    count: int  # elements
    pairs: int  # elements that are finite on both sides
    mismatched: int  # elements outside their allowance, disagreeing or not allowed non-finite ones included
    max_abs: Extreme | None  # |actual - expected|; None without pairs
    max_rel: Extreme | None  # |actual - expected| / |expected|, 0 where both are 0; see rel_undefined
    max_excess: Extreme | None  # |actual - expected| / allowance, of the mismatched pairs; None without any
    rel_undefined: int  # pairs with expected == 0 and actual != 0: they have no relative difference
    sum_abs: float
    sum_square: float
    sum_actual_square: float
    sum_expected_square: float
    sum_product: float
    expected_min: float | None  # of the finite expected values; None without any
    expected_max: float | None
    nonfinite_actual: int
    nonfinite_expected: int
    nonfinite_disagreements: int  # neither both NaN nor the same infinity
    rtol: float | None  # as judged; None: elements were not judged, or samples differ
    atol: float | None
    allow_nonfinite: bool
    exact: bool  # integers or booleans: judged by equality, whatever rtol and atol say

    @property
    def mismatched_share(self) -> float:
        """Mismatched share of all elements, 0 for an empty array."""
        return self.mismatched / self.count if self.count else 0.0

    @property
    def mismatched_pairs(self) -> int:
        """Mismatched elements that are finite on both sides."""
        nonfinite = self.nonfinite_disagreements if self.allow_nonfinite else self.count - self.pairs
        return self.mismatched - nonfinite

    @property
    def mean_abs(self) -> float:
        """Mean absolute difference; NaN without pairs."""
        return self.sum_abs / self.pairs if self.pairs else math.nan

    @property
    def rmse(self) -> float:
        """Root of the mean squared difference; NaN without pairs."""
        return math.sqrt(self.sum_square / self.pairs) if self.pairs else math.nan

    @property
    def expected_rms(self) -> float:
        """Root mean square of expected over the pairs: the scale of the output; NaN without pairs."""
        return math.sqrt(self.sum_expected_square / self.pairs) if self.pairs else math.nan

    @property
    def cosine(self) -> float:
        """Cosine of the angle between both sides as vectors, in -1 … 1.

        1 when both are all zeros, 0 when only one is; NaN without pairs or when a sum of squares overflowed.
        """
        if not self.pairs or not math.isfinite(self.sum_actual_square + self.sum_expected_square):
            return math.nan
        if self.sum_actual_square == 0 or self.sum_expected_square == 0:
            return 1.0 if self.sum_square == 0 else 0.0
        norm = math.sqrt(self.sum_actual_square) * math.sqrt(self.sum_expected_square)
        return max(-1.0, min(1.0, self.sum_product / norm))

    @property
    def snr_db(self) -> float:
        """Signal to noise in dB: 10·log10(Σ expected² / Σ (actual - expected)²).

        +inf without noise, -inf when expected is all zeros and actual is not; NaN without pairs or on overflow.
        """
        if not self.pairs or not math.isfinite(self.sum_expected_square + self.sum_square):
            return math.nan
        if self.sum_square == 0:
            return math.inf
        if self.sum_expected_square == 0:
            return -math.inf
        return 10 * (math.log10(self.sum_expected_square) - math.log10(self.sum_square))

    @classmethod
    def merged(cls, parts: Sequence[Metrics], samples: Sequence[int] | None = None) -> Metrics:
        """Return the metrics of all *parts* taken together; *samples* numbers the parts, 0, 1, … unless given.

        Extremes that already carry a sample number are counted on from the number of their part.
        """
        numbers = range(len(parts)) if samples is None else samples

        def total(field: str) -> Any:
            return sum(getattr(p, field) for p in parts)

        def worst(field: str) -> Extreme | None:
            found = [
                replace(x, sample=n + (x.sample or 0))
                for n, p in zip(numbers, parts, strict=True)
                if (x := getattr(p, field)) is not None
            ]
            return max(found, key=lambda x: x.value, default=None)  # max keeps the first of equals

        def common(field: str) -> Any:
            values = {getattr(p, field) for p in parts}
            return values.pop() if len(values) == 1 else None

        lows = [p.expected_min for p in parts if p.expected_min is not None]
        highs = [p.expected_max for p in parts if p.expected_max is not None]
        summed = (
            "count pairs mismatched rel_undefined sum_abs sum_square sum_actual_square sum_expected_square "
            "sum_product nonfinite_actual nonfinite_expected nonfinite_disagreements"
        )
        return cls(
            **{field: total(field) for field in summed.split()},
            max_abs=worst("max_abs"),
            max_rel=worst("max_rel"),
            max_excess=worst("max_excess"),
            expected_min=min(lows, default=None),
            expected_max=max(highs, default=None),
            rtol=common("rtol"),
            atol=common("atol"),
            allow_nonfinite=all(p.allow_nonfinite for p in parts),
            exact=all(p.exact for p in parts),
        )

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict: every field and every derived number."""
        derived = ("mismatched_share", "mean_abs", "rmse", "expected_rms", "cosine", "snr_db")
        row: dict[str, Any] = {k: v if isinstance(v, dict) else plain(v) for k, v in asdict(self).items()}
        row |= {k: plain(getattr(self, k)) for k in derived}
        row |= {k: x.to_json() for k in ("max_abs", "max_rel", "max_excess") if (x := getattr(self, k)) is not None}
        return row
