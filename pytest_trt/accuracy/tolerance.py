"""How far outputs may be from the reference: one table per precision, and how overrides combine with it.

An element is close when::

    |actual - expected| ≤ atol + atol_scale · rms(expected) + rtol · |expected|

``rms(expected)`` is the root mean square of the whole reference output (its finite values). Rounding errors of
a network scale with its values, not with 1: a fixed ``atol`` is generous for probabilities and hopeless for
logits in the hundreds. A multiple of the output's own scale means the same for both.

It needs an output of one scale. Where one array holds pixels next to probabilities, the pixels set the scale and
hide the probabilities: give such an output its own ``rtol`` and ``atol``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from pytest_trt.errors import UsageError, nearest

__all__ = ["DEFAULTS", "Overrides", "Tolerance", "ToleranceSet", "default_tolerance", "parse_tolerance"]

# A value of an override: a number, or None, False or "off" to turn a check off.
Value = float | int | str | bool | None

_ELEMENTWISE = ("rtol", "atol", "atol_scale")
_SHARES = ("max_mismatched", "top1", "topk")
_REQUIRED = ("cosine", "snr_db", "top1", "topk")  # None turns them off


@dataclass(frozen=True)
class Tolerance:
    """What one output must satisfy. ``None`` turns a check off; a tolerance that checks nothing is refused.

    :param rtol, atol, atol_scale: the limit of one element, see the module's formula. ``rtol=None, atol=None``
        judges no element, only the output as a whole.
    :param max_mismatched: share of elements, 0 … 1, that may exceed their limit.
    :param cosine: smallest cosine between both outputs as vectors.
    :param snr_db: smallest signal-to-noise ratio in dB.
    :param top1: smallest share of rows whose argmax agrees; rows run along the last axis.
    :param topk: smallest share of rows whose expected argmax is among the *k* greatest actual values.
    :param floor: a multiple of the model's precision floor (``pytest_trt.accuracy.floors``), in the place of the
        limit of one element. cosine and snr_db go with it unless they are given too: snr_db comes from the floor.
        Nothing can be compared before it is measured.
    :param origin: where each value came from, by field; shown in messages, ignored by ``==``.

    Integer and boolean outputs are compared exactly: of the above only max_mismatched, top1 and topk apply.

    Raises UsageError for a value out of range, or when only one of rtol and atol is given.
    """

    rtol: float | None = None
    atol: float | None = None
    atol_scale: float = 0.0
    max_mismatched: float = 0.0
    cosine: float | None = None
    snr_db: float | None = None
    top1: float | None = None
    topk: float | None = None
    k: int = 5
    floor: float | None = None
    origin: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        for name in FIELDS:
            self._check(name, getattr(self, name))
        if (self.rtol is None) != (self.atol is None):
            raise UsageError("a tolerance needs both rtol and atol, or neither")
        if self.rtol is None and self.atol_scale:
            raise UsageError("atol_scale has no effect without rtol and atol")
        if self.floor is not None and self.elementwise:
            raise UsageError("floor takes the place of rtol, atol and atol_scale: give one or the other")
        if self.floor is None and not self.elementwise and all(getattr(self, name) is None for name in _REQUIRED):
            raise UsageError(
                "this tolerance checks nothing", hint="give rtol and atol, or one of " + ", ".join(_REQUIRED)
            )

    @staticmethod
    def _check(name: str, value: Any) -> None:
        optional = name in ("rtol", "atol", "floor", *_REQUIRED)
        if value is None and optional:
            return
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if name == "k":
            if not isinstance(value, int) or not number or value < 1:
                raise UsageError(f"k must be a whole number from 1, not {value!r}")
        elif not number:
            raise UsageError(f"{name} must be a finite number, not {value!r}")
        elif name == "floor" and value <= 0:
            raise UsageError(f"floor must be a multiple above 0, not {value!r}")
        elif name in _SHARES and not 0 <= value <= 1:
            raise UsageError(f"{name} is a share and must lie in 0 … 1, not {value!r}")
        elif name in _ELEMENTWISE and value < 0:
            raise UsageError(f"{name} must not be negative, not {value!r}")
        elif name == "cosine" and not -1 <= value <= 1:
            raise UsageError(f"cosine must lie in -1 … 1, not {value!r}")

    @property
    def elementwise(self) -> bool:
        """Whether single elements are judged."""
        return self.rtol is not None

    def atol_at(self, scale: float) -> float | None:
        """Return ``atol + atol_scale · scale``, where *scale* is rms(expected)."""
        return None if self.atol is None else self.atol + self.atol_scale * scale

    def merged(self, overrides: Mapping[str, Value], origin: str) -> Tolerance:
        """Return this tolerance with *overrides* applied; their fields get *origin*.

        The limit of one element is replaced as a whole: rtol comes together with atol or atol_scale, and the
        one of the two that is left out becomes 0. A single one of the three is an error, because the rest
        would come from the precision's table and change its meaning from one precision to the next.
        ``None``, ``False`` or ``"off"`` turns a check off.

        Raises UsageError, which names *origin*, for an unknown name, a value out of range, or half a limit.
        """
        given: dict[str, Any] = {}
        for name, value in overrides.items():
            if name not in FIELDS:
                raise UsageError(f"{origin}: unknown tolerance {name!r}", hint=nearest(name, FIELDS))
            given[name] = None if value is False or value == "off" else value
        limit = {name: given[name] for name in _ELEMENTWISE if name in given}
        if given.get("floor") is not None:
            # What a wider layer says of the same error goes: the floor says it for this model.
            given = {"rtol": None, "atol": None, "atol_scale": 0.0, "snr_db": None, "cosine": None, **given}
        elif limit:
            given |= {"floor": None, **_whole_limit(limit, origin)}
        try:
            merged = replace(self, **given, origin={**self.origin, **dict.fromkeys(given, origin)})
        except UsageError as error:
            raise UsageError(f"{origin}: {error.message}", hint=error.hint) from error
        return merged

    def describe_origin(self, exact: bool = False) -> str:
        """Say where the values in force came from: ``fp16 default; rtol, atol from --trt-tolerance``.

        *exact* leaves out what integers and booleans are not held to. Empty when nothing was set.
        """
        defaults = {f.name: f.default for f in fields(Tolerance)}
        groups: dict[str, list[str]] = {}
        for name in (*_SHARES, "k") if exact else FIELDS:
            origin = self.origin.get(name, "")
            off = getattr(self, name) is None or (name == "k" and self.topk is None)
            off = off or (name == "atol_scale" and not self.atol_scale)
            if not off and (origin or getattr(self, name) != defaults[name]):
                groups.setdefault(origin, []).append(name)
        # Without its names a default reads best, and first.
        parts = [o for o in groups if o.endswith(" default")]
        for origin, names in groups.items():
            if not origin.endswith(" default"):
                parts.append(f"{', '.join(names)} from {origin}" if origin else f"{', '.join(names)} as given")
        return "; ".join(parts)

    def to_json(self) -> dict[str, Any]:
        return {**{name: getattr(self, name) for name in FIELDS}, "origin": dict(self.origin)}


FIELDS = tuple(f.name for f in fields(Tolerance) if f.name != "origin")


def _whole_limit(limit: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Return rtol, atol and atol_scale for an override that gave some of them. Raises UsageError for half a limit."""
    if "rtol" not in limit or len(limit) == 1:
        missing = "atol (or atol_scale)" if "rtol" in limit else "rtol"
        raise UsageError(
            f"{origin}: {', '.join(limit)} given without {missing}",
            hint="the limit of an element is replaced as a whole: give rtol together with atol or atol_scale, for one"
            " output as y:rtol=1e-2,y:atol=1e-3",
        )
    return {"atol": 0.0 if limit["rtol"] is not None else None, "atol_scale": 0.0, **limit}


def _default(name: str, **values: float) -> Tolerance:
    return Tolerance(**values, origin=dict.fromkeys(values, f"{name} default"))  # type: ignore[arg-type]  # k is no default of any


# int8 with scales that TensorRT found by itself.
_CALIBRATED = ("int8-entropy", "int8-entropy2", "int8-minmax", "int8-legacy")

# Against the fp32 reference of the *original* model, for outputs of whole networks. How wide: rounding was simulated
# in matrix-product networks of 16 to 48 layers, plain and residual, 16000 logits each; "error" below is the greatest
# one found, in units of rms(expected), and cosine and SNR are the smallest. atol 1e-7 is a floor for outputs that
# are all (nearly) zero.
DEFAULTS: dict[str, Tolerance] = {
    # Another order of summation: error 1e-5. TF32 that nobody asked for: error 1e-3 at its best. The limit lies in
    # between, so that it is noticed. rtol is the one of ONNX's own backend tests.
    "fp32": _default("fp32", rtol=1e-3, atol=1e-7, atol_scale=1e-4),
    # 10 bits of mantissa in the products: error 1.1e-2, cosine 0.999997.
    "tf32": _default("tf32", rtol=1e-2, atol=1e-7, atol_scale=2e-2, cosine=0.999),
    # The same 10 bits, stored as well: error 1.2e-2, cosine 0.999997. A cosine below 0.999 is no longer rounding.
    "fp16": _default("fp16", rtol=1e-2, atol=1e-7, atol_scale=2e-2, cosine=0.999),
    # 7 bits of mantissa, 8 times coarser: error 0.11, cosine 0.9998.
    "bf16": _default("bf16", rtol=5e-2, atol=1e-7, atol_scale=0.15, cosine=0.995),
    # Quantization moves single elements by a third of the rms (0.34) and leaves the whole intact: cosine 0.997, 22 dB.
    # So the whole is judged, twice: the cosine is blind to a wrong scale, the SNR is not.
    "int8": _default("int8", cosine=0.99, snr_db=15.0),
    # 3 bits of mantissa (e4m3), one scale per tensor: cosine 0.982, 14 dB.
    "fp8": _default("fp8", cosine=0.98, snr_db=13.0),
    # Weights only, in blocks of 128: cosine 0.996, 15 dB with residual connections, 0.93, 2 dB without (512 wide here).
    # Models that ship in int4 have them.
    "int4": _default("int4", cosine=0.95, snr_db=10.0),
    # The rounding of int8 and nothing else: where TensorRT leaves a layer in float, the error is smaller.
    **{name: _default(name, cosine=0.99, snr_db=15.0) for name in _CALIBRATED},
}


def default_tolerance(precision: str) -> Tolerance:
    """Return the default of a precision. Raises UsageError with the nearest name that has one."""
    if precision not in DEFAULTS:
        raise UsageError(f"no default tolerance for precision {precision!r}", hint=nearest(precision, DEFAULTS))
    return DEFAULTS[precision]


@dataclass(frozen=True)
class Overrides:
    """One layer of overrides: for all outputs, and for single ones by name."""

    general: Mapping[str, Value] = field(default_factory=dict)
    outputs: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Overrides:
        """Take a table of a manifest: tolerances, and ``outputs`` with a table of tolerances per output.

        Raises UsageError when ``outputs`` is not a table of tables.
        """
        outputs = mapping.get("outputs", {})
        if not isinstance(outputs, Mapping) or not all(isinstance(v, Mapping) for v in outputs.values()):
            raise UsageError(
                '"outputs" of a tolerance must hold one table per output, like outputs.logits = {cosine = 0.99}'
            )
        return cls({k: v for k, v in mapping.items() if k != "outputs"}, outputs)


def parse_tolerance(text: str) -> Overrides:
    """Parse ``rtol=1e-2,atol=1e-3,logits:rtol=1e-2,logits:atol=0.5``; ``off`` turns a check off.

    An output may give one of rtol and atol alone when the part for all outputs gives the other. The output's
    name ends at the last colon, so ``scores:0:cosine=0.99`` means the output ``scores:0``. Raises UsageError
    that names the part it cannot read.
    """
    general: dict[str, Value] = {}
    outputs: dict[str, dict[str, Value]] = {}
    for part in text.split(","):
        key, equals, number = (x.strip() for x in part.rpartition("="))
        output, colon, name = key.rpartition(":")
        if not equals or not name or not number or (colon and not output):
            raise UsageError(
                f"cannot read {part.strip()!r} in tolerance {text!r}", hint="write name=value or output:name=value"
            )
        if name not in FIELDS:
            raise UsageError(f"unknown tolerance {name!r} in {text!r}", hint=nearest(name, FIELDS))
        target = outputs.setdefault(output, {}) if colon else general
        if name in target:
            raise UsageError(f"{key!r} is given twice in tolerance {text!r}")
        try:
            target[name] = number if number == "off" else int(number) if name == "k" else float(number)
        except ValueError:
            raise UsageError(f"{number!r} is not a number, for {key!r} in tolerance {text!r}") from None
    return Overrides(general, outputs)


@dataclass(frozen=True)
class ToleranceSet:
    """A tolerance for every output, and others for the outputs that are named."""

    default: Tolerance
    outputs: Mapping[str, Tolerance] = field(default_factory=dict)

    def of(self, output: str) -> Tolerance:
        """Return the tolerance of one output."""
        return self.outputs.get(output, self.default)

    def merged(self, overrides: Overrides | Mapping[str, Any], origin: str) -> ToleranceSet:
        """Return this set with one more layer on top.

        A later layer wins over an earlier one, also where the earlier one named the output; within a layer
        the part that names the output wins. There it may give one of rtol and atol alone if the layer's
        general part gives the rest. Raises UsageError as ``Tolerance.merged`` does.
        """
        layer = overrides if isinstance(overrides, Overrides) else Overrides.from_mapping(overrides)
        default = self.default.merged(layer.general, origin)
        outputs = {name: tolerance.merged(layer.general, origin) for name, tolerance in self.outputs.items()}
        shared = {name: layer.general[name] for name in _ELEMENTWISE if name in layer.general}
        for name, own in layer.outputs.items():
            limit = shared if any(field in own for field in _ELEMENTWISE) else {}
            outputs[name] = outputs.get(name, default).merged({**limit, **own}, f"{origin} ({name})")
        return ToleranceSet(default, outputs)
