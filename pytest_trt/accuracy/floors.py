"""Precision floors: how large an error is that no engine is to blame for; tolerances as multiples of it. Pure.

Two things are measured without any engine: the float32 reference against float64 (*conditioning*: what the model makes
of rounding as such), and the typed model in ONNX Runtime against the float32 reference (*precision*: what the types
cost by themselves). Both are in units of rms(expected) of their sample, so that samples and shapes compare.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.accuracy.measurement import dtype_class, measure
from pytest_trt.accuracy.metrics import Metrics
from pytest_trt.accuracy.tolerance import Tolerance, ToleranceSet

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["Evidence", "Floor", "Measured", "floor_of", "greater", "resolve"]

# Half a unit in the last place of float32: a floor below that was luck.
RESOLUTION = 2.0**-24
# As in the defaults: for outputs that are all (nearly) zero.
_ATOL = 1e-7
# A cosine closer to 1 than this says nothing that snr_db does not say.
_SEEN_BY_COSINE = 1e-9
# How far beyond the worst value seen a limit lies at least, and where there are too few samples to tell their spread.
_MARGIN, _MARGIN_OF_FEW, _FEW = 1.5, 3.0, 8

# What is measured of a sample, and which limit rests on it.
_LABELS = {
    "element": "|difference| / (rms + |expected|)",
    "turn": "1 - cosine",
    "noise": "rms of difference / rms",
}
_LIMITS = {"rtol": "element", "cosine": "turn", "snr_db": "noise"}


@dataclass(frozen=True)
class Floor:
    """The floor of one output. ``peak`` is the greatest |difference|, ``noise`` the root mean squared one, both as
    multiples of rms(expected); ``source`` says what was measured, on ``samples`` samples."""

    peak: float
    noise: float
    source: str
    samples: int

    @property
    def snr_db(self) -> float:
        return -20 * math.log10(self.noise)

    def __str__(self) -> str:
        return f"peak {self.peak:.3g} × rms, {self.snr_db:.3g} dB: {self.source}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def floor_of(parts: Sequence[Metrics], source: str) -> Floor | None:
    """The floor that *parts*, the metrics of one output in each sample, show; None for an output that is exact by
    nature (integers, booleans) or has no finite value."""
    measured = [part for part in parts if part.pairs and not part.exact]
    if not measured:
        return None
    peaks, error, signal = [], 0.0, 0.0
    for part in measured:
        error, signal = error + part.sum_square, signal + part.sum_expected_square
        reach = max(abs(part.expected_min or 0.0), abs(part.expected_max or 0.0))
        greatest = part.max_abs.value if part.max_abs is not None else 0.0
        if part.expected_rms:
            peaks.append(max(greatest, RESOLUTION * reach) / part.expected_rms)
    if not peaks or not signal or not math.isfinite(error + signal):
        return None
    return Floor(max(peaks), max(math.sqrt(error / signal), RESOLUTION), source, len(measured))


def greater(floors: Sequence[Floor | None]) -> Floor | None:
    """The floor that counts: of each quantity the greatest; None where none was measured."""
    known = [floor for floor in floors if floor is not None]
    if not known:
        return None
    leading = max(known, key=lambda floor: floor.noise)
    return replace(leading, peak=max(floor.peak for floor in known))


def resolve(tolerances: ToleranceSet, floors: Mapping[str, Floor | None]) -> ToleranceSet:
    """Return *tolerances* with every ``floor = k`` replaced by what it means for the output of each name in *floors*.

    ``k`` times the floor's peak is what one element may be off, ``k`` times its noise what the output as a whole may
    be. An output that has no floor must agree exactly, as far as floats go to 1e-7.
    """
    outputs = {name: _resolved(tolerances.of(name), floor) for name, floor in floors.items()}
    known = {name: limit for name, limit in tolerances.outputs.items() if name not in outputs}
    default = tolerances.default
    if default.floor is not None:  # for outputs that the model does not have: nothing is ever held to it
        default = _resolved(default, None)
    return ToleranceSet(default, {**known, **outputs})


def _resolved(limit: Tolerance, floor: Floor | None) -> Tolerance:
    if limit.floor is None:
        return limit
    times, asked = limit.floor, limit.origin.get("floor", "")
    origin = f"{times:g} × floor ({floor or 'exact'})" + (f", {asked}" if asked else "")
    values: dict[str, float] = {"rtol": 0.0, "atol": _ATOL}
    if floor is not None:
        values["atol_scale"] = times * floor.peak
        if limit.snr_db is None:
            values["snr_db"] = floor.snr_db - 20 * math.log10(times)
    kept = {name: text for name, text in limit.origin.items() if name != "floor"}
    return replace(limit, floor=None, **values, origin={**kept, **dict.fromkeys(values, origin)})  # type: ignore[arg-type]  # k is none of values


@dataclass(frozen=True)
class Measured:
    """One output of one sample against its reference: ``element`` is the greatest |difference| / (rms + |expected|),
    which a limit of equal rtol and atol_scale allows; ``turn`` is 1 - cosine; ``noise`` as in Floor. ``resolution`` is
    half a unit in the last place of the coarser of both types: what is below that was luck."""

    element: float
    turn: float
    noise: float
    resolution: float = RESOLUTION

    @classmethod
    def of(cls, actual: ArrayLike, expected: ArrayLike) -> Measured | None:
        """Measure arrays of one shape; None for integers, and where nothing finite or nothing but zeros is expected."""
        left, right = np.asarray(actual), np.asarray(expected)
        if dtype_class(right.dtype) != "float":
            return None
        metrics = measure(left, right, rtol=None, atol=None, allow_nonfinite=True)
        if not metrics.pairs or not metrics.expected_rms:
            return None
        a, e = left.astype(np.float64), right.astype(np.float64)
        finite = np.isfinite(a) & np.isfinite(e)
        element = np.max(np.abs(a - e)[finite] / (metrics.expected_rms + np.abs(e)[finite]))
        noise = math.sqrt(metrics.sum_square / metrics.sum_expected_square)
        return cls(float(element), 1 - metrics.cosine, noise, max(map(_resolution, (left, right))))


@dataclass(frozen=True)
class Evidence:
    """The spread of one output over samples, and the limits that it earns.

    A limit lies where the next sample's value stays with the probability of the *quantile* (Student's t, one degree of
    freedom less than samples), if the logarithms of the values are normal; at 3 times the worst one seen where they
    cannot be told to be: there are fewer than 8, or half of them are nothing. Never below 1.5 times the worst one, or
    1.5 times the *floor*, where no engine could keep to it.
    """

    name: str
    samples: tuple[Measured, ...]
    floor: Floor | None = None

    def values(self, quantity: str) -> list[float]:
        """The values of ``element``, ``turn`` or ``noise``, none below what its type resolves."""
        power = 2 if quantity == "turn" else 1
        return [max(getattr(sample, quantity), sample.resolution**power) for sample in self.samples]

    def bound(self, quantity: str, quantile: float) -> float:
        values = self.values(quantity)
        least = max(_MARGIN * max(values), _MARGIN * self._floor_of(quantity))
        if len(values) < _FEW or median(values) == min(values):
            return max(_MARGIN_OF_FEW * max(values), least)
        logs = [math.log(value) for value in values]
        mean = math.fsum(logs) / len(logs)
        deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in logs) / (len(logs) - 1))
        return max(math.exp(mean + quantile * deviation * math.sqrt(1 + 1 / len(logs))), least)

    def _floor_of(self, quantity: str) -> float:
        if self.floor is None:
            return 0.0
        # Noise at right angles to the signal turns it by this much.
        return {"element": self.floor.noise, "noise": self.floor.noise, "turn": self.floor.noise**2 / 2}[quantity]

    def limits(self, quantile: float, *, elementwise: bool) -> dict[str, str]:
        """The limits by the names of a tolerance, written for TOML; without *elementwise* none for single elements."""
        found = {}
        if elementwise:
            element = f"{_rounded_up(self.bound('element', quantile)):g}"
            found = {"rtol": element, "atol": f"{_ATOL:g}", "atol_scale": element}
        turn = _rounded_up(self.bound("turn", quantile))
        if _SEEN_BY_COSINE < turn < 1:
            found["cosine"] = f"{1 - turn:.{max(1, 1 - math.floor(math.log10(turn)))}f}"
        found["snr_db"] = f"{math.floor(-40 * math.log10(self.bound('noise', quantile))) / 2:g}"
        return found

    def seen(self, name: str) -> str:
        """What the limit *name* rests on, for a comment beside it; nothing for one that rests on no sample."""
        quantity = _LIMITS.get(name)
        if quantity is None:
            return ""
        values = self.values(quantity)
        return f"{_LABELS[quantity]}: median {median(values):.3g}, worst {max(values):.3g}"

    def rows(self, quantile: float) -> list[str]:
        """The spread as lines of a table."""
        lines = [f"  {'':34}{'median':>12}{'worst':>12}{'earned':>12}"]
        for quantity, label in _LABELS.items():
            values = self.values(quantity)
            columns = (median(values), max(values), self.bound(quantity, quantile))
            lines.append(f"  {label:34}" + "".join(f"{value:12.3g}" for value in columns))
        return lines


def _resolution(array: np.ndarray[Any, Any]) -> float:
    """Half a unit in the last place of *array*'s type, at least that of float32."""
    one = array.dtype.type(1)
    return max((float(np.nextafter(one, array.dtype.type(2))) - 1) / 2, RESOLUTION)


def _rounded_up(value: float) -> float:
    """*value* with two digits, not smaller."""
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / step - 1e-9) * step:.2g}")
