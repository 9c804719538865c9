"""What 16 bits do to real values: overflow and underflow, by node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.diagnosis.observe import observe
from pytest_trt.errors import PrecisionError
from pytest_trt.spec.precision.constants import constant_holders, round_to
from pytest_trt.spec.precision.graph import LOW_NAMES, node_label

if TYPE_CHECKING:
    import onnx

    from pytest_trt.backends import Feeds
    from pytest_trt.spec.model import Model

__all__ = ["Range", "Rounding", "makers_of", "range_of", "rounding", "rounding_casts"]

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
