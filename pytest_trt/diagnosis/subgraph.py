"""A piece of a model as a model of its own: what it reads from outside is recorded from a run of the whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.diagnosis.observe import values
from pytest_trt.diagnosis.reduction import Links
from pytest_trt.errors import PrecisionError
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision.graph import captured_names, node_label

if TYPE_CHECKING:
    import onnx

    from pytest_trt.backends import Feeds

    Array = np.ndarray[Any, Any]

__all__ = ["Cut", "Whole"]

# What a node with no input makes is the same each time it is run: it goes along with its readers.
_CONSTANT = "Constant"


@dataclass(frozen=True)
class Cut:
    """A piece: its float32 model, recorded inputs and float32 outputs, one mapping for each sample. ``inner`` are the
    outputs that are none of the whole model's; ``nodes`` are labels, in graph order."""

    model: Model
    feeds: tuple[dict[str, Array], ...]
    expected: tuple[dict[str, Array], ...]
    inner: frozenset[str]
    nodes: tuple[str, ...]


class Whole:
    """A float32 model and samples of its inputs, ready to be cut. ``links`` number its nodes without constants."""

    def __init__(self, model: Model, feeds: Sequence[Feeds]) -> None:
        self.model, self.feeds = model, list(feeds)
        graph = model.proto.graph
        self.nodes = [node for node in graph.node if node.op_type != _CONSTANT]
        self.constants = {name: node for node in graph.node if node.op_type == _CONSTANT for name in node.output}
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.makers = {name: index for index, node in enumerate(self.nodes) for name in node.output if name}
        self.fed = {spec.name for spec in model.inputs}
        self.outputs = [spec.name for spec in model.outputs]
        self._recorded: dict[str, list[Array]] = {}

    @cached_property
    def links(self) -> Links:
        """Who reads whom."""
        readers: list[set[int]] = [set() for _ in self.nodes]
        for index, node in enumerate(self.nodes):
            for name in _reads(node):
                if name in self.makers:
                    readers[self.makers[name]].add(index)
        ends = frozenset(self.makers[name] for name in self.outputs if name in self.makers)
        return Links(tuple(map(frozenset, readers)), ends)

    def number(self, label: str) -> int | None:
        """The number of the node of this name, label or output; None where there is none."""
        for index, node in enumerate(self.nodes):
            if label in (node.name, node_label(node), *node.output):
                return index
        return None

    def cut(self, piece: frozenset[int], suspect: int | None) -> Cut:
        """The model of *piece*; judged are its tensors that the rest of the model reads, see ``Links.outlets``.

        Integers that are the same in all samples (sizes, axes) become constants of it. Raises PrecisionError where the
        piece is no model: it reads nothing, or is judged by nothing that is a floating-point number; RunError.
        """
        import onnx

        nodes = [self.nodes[index] for index in sorted(piece)]
        made = {name for node in nodes for name in node.output if name}
        read = list(dict.fromkeys(name for node in nodes for name in _reads(node) if name not in made))
        outputs = self._outputs(piece, suspect)
        outside = [n for n in read if n not in self.initializers and n not in self.constants]
        self._record([*outside, *outputs])
        fixed = [name for name in outside if name not in self.fed and self._is_fixed(name)]
        inputs = [name for name in outside if name not in fixed]
        inner = [name for name in outputs if name not in self.outputs]
        judged = [n for n in outputs if n not in inner or _is_float(self._recorded[n][0])]
        if not inputs or not judged:
            raise PrecisionError("this piece of the graph is no model: it has no inputs or no outputs")
        constants = {name: self.constants[name] for name in read if name in self.constants}
        graph = onnx.helper.make_graph(
            [*constants.values(), *nodes],
            self.model.proto.graph.name or "piece",
            [self._info(name) for name in inputs],
            [self._info(name) for name in judged],
            [
                *(self.initializers[name] for name in read if name in self.initializers),
                *(onnx.numpy_helper.from_array(self._recorded[name][0], name) for name in fixed),
            ],
        )
        whole = self.model.proto
        proto = onnx.helper.make_model(graph, opset_imports=list(whole.opset_import), functions=list(whole.functions))
        proto.ir_version = max(whole.ir_version, 4)
        return Cut(
            Model.from_proto(proto, f"{self.model.name}-reduced"),
            self._rows(inputs),
            self._rows(judged),
            frozenset(inner),
            tuple(node_label(node) for node in nodes),
        )

    def _outputs(self, piece: frozenset[int], suspect: int | None) -> list[str]:
        if suspect is None:
            return [name for name in self.outputs if self.makers.get(name) in piece]
        found = []
        for index in sorted(self.links.outlets(piece, suspect)):
            outside = {name for reader in self.links.readers[index] - piece for name in _reads(self.nodes[reader])}
            found += [n for n in self.nodes[index].output if n and (n in outside or n in self.outputs)]
        return found

    def _record(self, names: Iterable[str]) -> None:
        missing = [name for name in dict.fromkeys(names) if name not in self._recorded]
        if missing:
            rows = values(self.model, missing, self.feeds)
            self._recorded.update({name: [np.asarray(row[name]) for row in rows] for name in missing})

    def _is_fixed(self, name: str) -> bool:
        first, *others = self._recorded[name]
        return not _is_float(first) and all(np.array_equal(first, other) for other in others)

    def _info(self, name: str) -> onnx.ValueInfoProto:
        import onnx

        arrays = self._recorded[name]
        if len({array.shape for array in arrays}) > 1:
            raise PrecisionError(f"the shape of {name!r} depends on the values: samples of it cannot be stored as one")
        kind = onnx.helper.np_dtype_to_tensor_dtype(arrays[0].dtype)
        return onnx.helper.make_tensor_value_info(name, kind, arrays[0].shape)

    def _rows(self, names: Sequence[str]) -> tuple[dict[str, Array], ...]:
        return tuple({name: self._recorded[name][i] for name in names} for i in range(len(self.feeds)))


def _reads(node: onnx.NodeProto) -> list[str]:
    return [name for name in (*node.input, *sorted(captured_names(node))) if name]


def _is_float(array: Array) -> bool:
    return array.dtype.kind not in "iubSUO"
