"""What rounding does to real values: saturation in Q/DQ pairs, overflow and underflow in 16 bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.diagnosis.observe import observe
from pytest_trt.errors import PrecisionError
from pytest_trt.spec.precision.constants import constant_holders, constants, round_to
from pytest_trt.spec.precision.graph import LOW_NAMES, infer_types, node_label
from pytest_trt.spec.precision.scales import per_channel

if TYPE_CHECKING:
    import onnx

    from pytest_trt.backends import Feeds
    from pytest_trt.spec.model import Model

__all__ = ["Pair", "Range", "Rounding", "makers_of", "quantization", "range_of", "rounding", "rounding_casts"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Range:
    """The finite values of a tensor: ``low`` … ``high``, None without any. ``nonfinite`` of ``count`` are none."""

    low: float | None = None
    high: float | None = None
    nonfinite: int = 0
    count: int = 0

    def including(self, array: Array) -> Range:
        """Return the range of these values and *array*'s."""
        finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array.ravel()
        lows = [x for x in (self.low, float(finite.min()) if finite.size else None) if x is not None]
        highs = [x for x in (self.high, float(finite.max()) if finite.size else None) if x is not None]
        return Range(
            min(lows, default=None),
            max(highs, default=None),
            self.nonfinite + array.size - finite.size,
            self.count + array.size,
        )


@dataclass(frozen=True)
class Pair:
    """One QuantizeLinear and what goes through it. ``saturated`` counts values beyond the largest integer; ``kept`` is
    the largest magnitude that the scale holds; ``readers`` are the nodes that compute with the result."""

    node: str
    tensor: str
    values: Range
    saturated: int
    kept: float
    readers: tuple[str, ...]
    is_weight: bool

    @property
    def saturated_share(self) -> float:
        return self.saturated / self.values.count if self.values.count else 0.0

    @property
    def used(self) -> float:
        """The largest real magnitude in units of what the scale holds: above 1 it is clipped, far below 1 the scale is
        too coarse."""
        return max(abs(self.values.low or 0.0), abs(self.values.high or 0.0)) / self.kept

    def to_json(self) -> dict[str, Any]:
        return {
            "node": self.node,
            "tensor": self.tensor,
            "readers": list(self.readers),
            "weight": self.is_weight,
            "low": self.values.low,
            "high": self.values.high,
            "kept": self.kept,
            "used": round(self.used, 4),
            "saturated": round(self.saturated_share, 6),
        }


@dataclass(frozen=True)
class Rounding:
    """A tensor that is stored in 16 bits: values of ``count`` that become infinite, or 0 without being it."""

    node: str
    op_type: str
    tensor: str
    count: int = 0
    overflowed: int = 0
    vanished: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "node": self.node,
            "operator": self.op_type,
            "tensor": self.tensor,
            "count": self.count,
            "overflowed": self.overflowed,
            "vanished": self.vanished,
        }


def quantization(typed: Model, feeds: Sequence[Feeds]) -> list[Pair]:
    """Return every QuantizeLinear of the main graph with a constant scale, in graph order, as real values meet it."""
    graph = typed.proto.graph
    stored, types = constants(graph), infer_types(typed.proto)
    pairs: dict[str, Pair] = {}
    takers: dict[str, list[Callable[[Array], None]]] = {}
    for node in graph.node:
        if node.op_type != "QuantizeLinear" or node.input[1] not in stored:
            continue
        name, label = node.input[0], node_label(node)
        scale, largest = stored[node.input[1]], _LARGEST.get(types.get(node.output[0], 0))
        if largest is None:
            continue
        axis = next((int(a.i) for a in node.attribute if a.name == "axis"), 1) if scale.size > 1 else None
        weight = name in stored
        kept = float(scale.max()) * largest
        pairs[label] = Pair(label, name, Range(), 0, kept, _readers(graph, node.output[0]), weight)
        take = _taker(pairs, label, scale, axis, largest)
        if weight:
            take(stored[name])
        else:
            takers.setdefault(name, []).append(take)
    observe(typed, {name: _all(several) for name, several in takers.items()}, feeds)
    return list(pairs.values())


# int8 and float8e4m3fn; what int8 takes below -127 is no loss of a symmetric scale's.
_LARGEST = {3: 127.0, 17: 448.0}


def _taker(
    pairs: dict[str, Pair], label: str, scale: Array, axis: int | None, largest: float
) -> Callable[[Array], None]:
    def take(array: Array) -> None:
        spread = scale.reshape(()) if axis is None else per_channel(scale, array.ndim, axis % array.ndim)
        scaled = np.abs(np.asarray(array, dtype=np.float32) / spread)
        # Half a step further still rounds to the largest integer.
        beyond = int(np.count_nonzero(scaled > largest * (1 + 0.5 / largest)))
        pair = pairs[label]
        pairs[label] = replace(pair, values=pair.values.including(array), saturated=pair.saturated + beyond)

    return take


def _all(takers: Sequence[Callable[[Array], None]]) -> Callable[[Array], None]:
    def take(array: Array) -> None:
        for taker in takers:
            taker(array)

    return take


def rounding(typed: Model, feeds: Sequence[Feeds]) -> list[Rounding]:
    """Return every tensor that *typed* (as computed) rounds to 16 bits and that loses values there, in graph order.

    Raises PrecisionError for a model that rounds nothing to 16 bits.
    """
    makers = makers_of(typed)
    casts = rounding_casts(typed)
    if not casts:
        raise PrecisionError(f"{typed.name}: no tensor is rounded to 16 bits")
    widened = {node.input[0]: node.output[0] for node in typed.proto.graph.node if node.op_type == "Cast"}
    stored = constant_holders(typed.proto.graph).keys()
    found: dict[str, Rounding] = {}

    def taker(name: str, low: int) -> Callable[[Array], None]:
        def take(array: Array) -> None:
            rounded = round_to(array, low)
            row = found[name]
            found[name] = replace(
                row,
                count=row.count + array.size,
                overflowed=row.overflowed + int(np.count_nonzero(np.isinf(rounded) & np.isfinite(array))),
                vanished=row.vanished + int(np.count_nonzero((rounded == 0) & (array != 0))),
            )

        return take

    takers = {}
    for name, (cast, low) in casts.items():
        if name in stored:
            continue
        maker = makers.get(name, cast)
        found[name] = Rounding(node_label(maker), maker.op_type, widened.get(cast.output[0], name))
        takers[name] = taker(name, low)
    observe(typed, takers, feeds)
    return [row for row in found.values() if row.overflowed or row.vanished]


def makers_of(model: Model) -> dict[str, onnx.NodeProto]:
    """The node that makes each tensor of *model*'s main graph."""
    return {name: node for node in model.proto.graph.node for name in node.output if name}


def rounding_casts(model: Model) -> dict[str, tuple[onnx.NodeProto, int]]:
    """Tensors that are cast to a 16-bit type -> the cast, and the type."""
    casts = [node for node in model.proto.graph.node if node.op_type == "Cast"]
    types = {id(node): next(int(a.i) for a in node.attribute if a.name == "to") for node in casts}
    return {node.input[0]: (node, types[id(node)]) for node in casts if types[id(node)] in LOW_NAMES}


def range_of(arrays: Sequence[Array]) -> Range:
    """The range of several arrays together."""
    found = Range()
    for array in arrays:
        found = found.including(np.asarray(array))
    return found


def _readers(graph: onnx.GraphProto, quantized: str) -> tuple[str, ...]:
    made = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] == quantized}
    return tuple(node_label(node) for node in graph.node if not made.isdisjoint(node.input))
