"""Q/DQ pairs as real values meet them: how much of these a pair holds, and how many it clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.diagnosis.numerics import Range
from pytest_trt.diagnosis.observe import observe
from pytest_trt.spec.precision.constants import constant_holders
from pytest_trt.spec.precision.graph import infer_types, node_label
from pytest_trt.spec.precision.scales import per_channel

if TYPE_CHECKING:
    import onnx

    from pytest_trt.backends import Feeds
    from pytest_trt.spec.model import Model

__all__ = ["Pair", "quantization"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Pair:
    """One QuantizeLinear and what goes through it. ``saturated`` counts values beyond the ends of its type; ``kept``
    are the least and the greatest real value that the scale holds, of several scales the widest; ``readers`` are the
    nodes that compute with the result."""

    node: str
    tensor: str
    values: Range
    saturated: int
    kept: tuple[float, float]
    readers: tuple[str, ...]
    is_weight: bool

    @property
    def saturated_share(self) -> float:
        return self.saturated / self.values.count if self.values.count else 0.0

    @property
    def used(self) -> float:
        """How much of what the scale holds the real values need: above 1 they are clipped, by so many times its larger
        end; far below 1 the scale is too coarse."""
        low, high = self.values.low or 0.0, self.values.high or 0.0
        beyond = max(high - self.kept[1], self.kept[0] - low)
        if beyond > 0:
            return 1 + beyond / max(-self.kept[0], self.kept[1])
        return max(value / end if end else 0.0 for value, end in zip((low, high), self.kept, strict=True))

    def to_json(self) -> dict[str, Any]:
        return {
            "node": self.node,
            "tensor": self.tensor,
            "readers": list(self.readers),
            "weight": self.is_weight,
            "low": self.values.low,
            "high": self.values.high,
            "kept": list(self.kept),
            "used": round(self.used, 4),
            "saturated": round(self.saturated_share, 6),
        }


@dataclass(frozen=True)
class _Grid:
    """The ends of a stored type, and how far beyond them a value still rounds to them."""

    low: float
    high: float
    reach: float = 0.5


# By onnx.TensorProto.DataType, which is part of the file format.
_GRIDS = {
    2: _Grid(0, 255),
    3: _Grid(-128, 127),
    4: _Grid(0, 65535),
    5: _Grid(-32768, 32767),
    17: _Grid(-448, 448, 16),
    18: _Grid(-240, 240, 8),
    19: _Grid(-57344, 57344, 4096),
    20: _Grid(-57344, 57344, 4096),
    21: _Grid(0, 15),
    22: _Grid(-8, 7),
    23: _Grid(-6, 6, 1),
    25: _Grid(0, 3),
    26: _Grid(-2, 1),
}


def quantization(typed: Model, feeds: Sequence[Feeds]) -> list[Pair]:
    """Return every QuantizeLinear of the main graph with a constant scale, in graph order, as real values meet it.

    One scale, one per channel, or one per block; any zero point. Weights that are stored as integers have no such node:
    their real values are not in the model.
    """
    graph = typed.proto.graph
    holders, types = constant_holders(graph), infer_types(typed.proto)
    pairs: dict[str, Pair] = {}
    takers: dict[str, list[Callable[[Array], None]]] = {}
    for node in graph.node:
        if node.op_type != "QuantizeLinear":
            continue
        step = _step_of(node, holders, types)
        if step is None:
            continue
        name, label = node.input[0], node_label(node)
        value = _stored(holders.get(name))
        pairs[label] = Pair(label, name, Range(), 0, step.kept, _readers(graph, node.output[0]), value is not None)
        take = _taker(pairs, label, step)
        if value is not None:
            take(value)
        else:
            takers.setdefault(name, []).append(take)
    observe(typed, {name: _all(several) for name, several in takers.items()}, feeds)
    return list(pairs.values())


@dataclass(frozen=True)
class _Step:
    """How one QuantizeLinear rounds: stored = real / scale + zero, of one of both for all, a channel, or a block."""

    scale: Array
    zero: Array
    axis: int
    block: int
    grid: _Grid

    @property
    def ends(self) -> tuple[Array, Array]:
        """The least and the greatest stored value, counted from each zero point."""
        return self.grid.low - self.zero, self.grid.high - self.zero

    @property
    def kept(self) -> tuple[float, float]:
        low, high = self.ends
        return float((low * self.scale).min(initial=0)), float((high * self.scale).max(initial=0))

    def beyond(self, array: Array) -> int:
        """How many elements of *array* are clipped: they lie further out than what rounds to the ends."""
        values = np.asarray(array, dtype=np.float32)
        scaled = values / self._spread(self.scale, values)
        low, high = (self._spread(np.asarray(end, dtype=np.float32), values) for end in self.ends)
        return int(np.count_nonzero((scaled > high + self.grid.reach) | (scaled < low - self.grid.reach)))

    def _spread(self, per: Array, values: Array) -> Array:
        """*per* in the shape of *values*, or in one that broadcasts to it."""
        if per.size == 1:
            return per.reshape(())
        axis = self.axis % values.ndim
        if per.ndim == 1:
            return per_channel(per, values.ndim, axis)
        block = self.block or -(-values.shape[axis] // per.shape[axis])
        return np.repeat(per, block, axis=axis).take(range(values.shape[axis]), axis=axis)


def _step_of(node: onnx.NodeProto, holders: dict[str, Any], types: dict[str, int]) -> _Step | None:
    """None where the scale is computed, or the type is none that saturates."""
    grid, scale = _GRIDS.get(types.get(node.output[0], 0)), _stored(holders.get(node.input[1]))
    if grid is None or scale is None or not scale.size:
        return None
    zero: Array | None = np.zeros_like(scale)
    if len(node.input) > 2 and node.input[2]:
        zero = _stored(holders.get(node.input[2]))
    if zero is None:
        return None
    numbers = {a.name: int(a.i) for a in node.attribute}
    return _Step(scale, zero, numbers.get("axis", 1), numbers.get("block_size", 0), grid)


def _stored(holder: onnx.TensorProto | onnx.NodeProto | None) -> Array | None:
    """The numbers of a constant as float32; None where there is none."""
    import onnx

    if holder is None:
        return None
    if isinstance(holder, onnx.TensorProto):
        return np.asarray(onnx.numpy_helper.to_array(holder)).astype(np.float32)
    (attribute,) = holder.attribute
    value = onnx.helper.get_attribute_value(attribute)
    return _stored(value) if isinstance(value, onnx.TensorProto) else np.asarray(value, dtype=np.float32)


def _taker(pairs: dict[str, Pair], label: str, step: _Step) -> Callable[[Array], None]:
    def take(array: Array) -> None:
        pair = pairs[label]
        pairs[label] = replace(pair, values=pair.values.including(array), saturated=pair.saturated + step.beyond(array))

    return take


def _all(takers: Sequence[Callable[[Array], None]]) -> Callable[[Array], None]:
    def take(array: Array) -> None:
        for taker in takers:
            taker(array)

    return take


def _readers(graph: onnx.GraphProto, quantized: str) -> tuple[str, ...]:
    made = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] == quantized}
    return tuple(node_label(node) for node in graph.node if not made.isdisjoint(node.input))
