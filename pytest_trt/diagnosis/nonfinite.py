"""Where NaN or infinity begins: the first node that makes it, and what it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_trt.diagnosis.numerics import Range, makers_of, range_of, rounding_casts
from pytest_trt.diagnosis.observe import GROUP, groups, values
from pytest_trt.spec.precision.constants import constants
from pytest_trt.spec.precision.graph import FLOAT, infer_types, node_label

if TYPE_CHECKING:
    import onnx

    from pytest_trt.backends import Feeds
    from pytest_trt.spec.model import Model

__all__ = ["NonFinite", "first_nonfinite"]


@dataclass(frozen=True)
class NonFinite:
    """The first node, in graph order, that makes NaN or infinity where the float32 model has none; or the first one of
    the float32 model itself, where its outputs are to blame."""

    node: str
    op_type: str
    tensor: str
    found: Range
    float32: Range | None  # the tensor in the float32 model; None where that does not have it
    inputs: dict[str, Range]

    def to_json(self) -> dict[str, Any]:
        return {
            "node": self.node,
            "operator": self.op_type,
            "tensor": self.tensor,
            "count": self.found.count,
            "nonfinite": self.found.nonfinite,
            "inputs": {name: [found.low, found.high] for name, found in self.inputs.items()},
        }


def first_nonfinite(
    typed: Model, untyped: Model | None, feeds: Sequence[Feeds], *, group: int = GROUP
) -> NonFinite | None:
    """Return where NaN or infinity begins in *typed* (as computed); tensors that *untyped* has so too are its own. With
    None nothing is: *typed* is then a model that no recipe has changed."""
    makers, types = makers_of(typed), infer_types(typed.proto)
    # What is rounded next is looked at after that: only then has it a counterpart in the float32 model.
    rounded = rounding_casts(typed)
    names = [name for name in makers if types.get(name) == FLOAT and name not in rounded]
    own = makers_of(untyped) if untyped is not None else {}
    for some in groups(names, group):
        rows = values(typed, some, feeds)
        before = values(untyped, [n for n in some if n in own], feeds) if untyped is not None else []
        for name in some:
            found = range_of([row[name] for row in rows])
            expected = range_of([row[name] for row in before]) if name in own else None
            if not found.nonfinite or (expected is not None and expected.nonfinite):
                continue
            node = _computing(makers, name)
            return NonFinite(node_label(node), node.op_type, name, found, expected, _read(typed, node, makers, feeds))
    return None


def _read(
    typed: Model, node: onnx.NodeProto, makers: dict[str, onnx.NodeProto], feeds: Sequence[Feeds]
) -> dict[str, Range]:
    """The ranges of what *node* reads, its constants among them."""
    stored, names = constants(typed.proto.graph), [name for name in dict.fromkeys(node.input) if name]
    computed = [n for n in names if n not in stored and (n in makers or _is_fed(typed, n))]
    rows = values(typed, computed, feeds) if computed else []
    fixed = {name: range_of([stored[name]]) for name in names if name in stored}
    moving = {name: range_of([row[name] for row in rows]) for name in computed}
    return {name: {**fixed, **moving}[name] for name in names if name in fixed or name in moving}


def _computing(makers: dict[str, onnx.NodeProto], name: str) -> onnx.NodeProto:
    """The node that makes *name*, or what it rounds: a pair of casts only shows what the node before has done."""
    node = makers[name]
    while node.op_type == "Cast" and node.input[0] in makers:
        node = makers[node.input[0]]
    return node


def _is_fed(model: Model, name: str) -> bool:
    return any(spec.name == name for spec in model.inputs)
