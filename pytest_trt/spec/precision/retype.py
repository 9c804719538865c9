"""Rewrites a graph so that selected nodes compute in a 16-bit float type, with casts where types meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trt.spec.precision.constants import constant_holders, constants, make_tensor, store
from pytest_trt.spec.precision.graph import FLOAT, LOW_NAMES, Names, captured_names, rename_captures, replace_nodes
from pytest_trt.spec.precision.operators import NEUTRAL_OPS
from pytest_trt.spec.precision.selection import Selection

if TYPE_CHECKING:
    import onnx

__all__ = ["retype"]


def retype(model: onnx.ModelProto, selection: Selection, low: int, *, keep_io: bool) -> int:
    """Give the nodes in *selection* type *low*, in place, and return the number of casts that were added.

    A tensor keeps its name in the type in which it is made; the other version has the type's name behind it.
    Graph outputs keep theirs in float32 (unless *keep_io* is False). There is one cast per tensor and type,
    right before its first use.
    """
    return _Retyping(model.graph, selection, low, keep_io=keep_io).run()


class _Retyping:
    def __init__(self, graph: onnx.GraphProto, selection: Selection, low: int, *, keep_io: bool) -> None:
        self.graph, self.selection, self.low, self.keep_io = graph, selection, low, keep_io
        self.names = Names(graph)
        self.outputs = {v.name for v in graph.output}
        self.versions: dict[tuple[str, int], str] = {}  # (original name, type) -> name
        self.home: dict[str, int] = {}  # original name -> type in which it is made; float32 tensors are not listed
        self.nodes: list[onnx.NodeProto] = []
        self.casts = 0

    def run(self) -> int:
        self._place_constants()
        if not self.keep_io:
            self._retype_inputs()
        for index, node in enumerate(list(self.graph.node)):
            operands = self.selection.low.get(index)
            if operands is not None:
                for position in operands.inputs:
                    node.input[position] = self._as(node.input[position], self.low)
            low_positions = operands.inputs if operands is not None else ()
            for position, name in enumerate(node.input):
                if position not in low_positions and name in self.home:
                    # Cast, Shape and Size read a tensor in the type it is made in.
                    node.input[position] = self._as(name, self.home[name] if node.op_type in NEUTRAL_OPS else FLOAT)
            captured = {name: self._as(name, FLOAT) for name in sorted(captured_names(node)) if name in self.home}
            rename_captures(node, captured)
            self.nodes.append(node)
            for position in operands.outputs if operands is not None else ():
                self._make_low(node, position)
        values = {v.name: v for v in (*self.graph.value_info, *(() if self.keep_io else self.graph.output))}
        for name, home in self.home.items():
            if self.versions.get((name, home)) == name and name in values:
                values[name].type.tensor_type.elem_type = home
        replace_nodes(self.graph, self.nodes)
        return self.casts

    def _as(self, name: str, data_type: int) -> str:
        """Return the name of tensor *name* in *data_type*, casting it when there is none yet."""
        if self.home.get(name, FLOAT) == data_type:
            return self.versions.get((name, data_type), name)
        if (name, data_type) not in self.versions:
            source = self.versions.get((name, self.home.get(name, FLOAT)), name)
            self.versions[name, data_type] = self._cast(source, data_type, f"{name}_{_SUFFIX[data_type]}")
        return self.versions[name, data_type]

    def _cast(self, source: str, data_type: int, target: str, *, exact_name: bool = False) -> str:
        import onnx

        target = target if exact_name else self.names.fresh(target)
        name = self.names.fresh(f"{target}_cast")
        self.nodes.append(onnx.helper.make_node("Cast", [source], [target], name=name, to=data_type))
        self.casts += 1
        return target

    def _make_low(self, node: onnx.NodeProto, position: int) -> None:
        name = node.output[position]
        self.home[name] = self.low
        self.versions[name, self.low] = name
        if name in self.outputs and self.keep_io:
            node.output[position] = self.versions[name, self.low] = self.names.fresh(f"{name}_{_SUFFIX[self.low]}")
            self.versions[name, FLOAT] = self._cast(node.output[position], FLOAT, name, exact_name=True)

    def _retype_inputs(self) -> None:
        wanted = {self.graph.node[i].input[p] for i, found in self.selection.low.items() for p in found.inputs}
        for value in self.graph.input:
            if value.name in wanted and value.name not in self.outputs:
                value.type.tensor_type.elem_type = self.low
                self.home[value.name] = self.low
                self.versions[value.name, self.low] = value.name

    def _place_constants(self) -> None:
        """Store float32 constants in the type their readers want; twice when some want the one and some the other."""
        values = constants(self.graph)
        holders = constant_holders(self.graph)
        low_readers, other_readers = set[str](), set(self.outputs)
        for index, node in enumerate(self.graph.node):
            low_positions = found.inputs if (found := self.selection.low.get(index)) else ()
            for position, name in enumerate(node.input):
                (low_readers if position in low_positions else other_readers).add(name)
            other_readers |= captured_names(node)
        for name in sorted(low_readers & values.keys()):
            if name in other_readers:
                copy = self.names.fresh(f"{name}_{_SUFFIX[self.low]}")
                self.graph.initializer.append(make_tensor(copy, values[name], self.low))
                self.versions[name, self.low] = copy
            else:
                store(holders[name], values[name], self.low)
                self.home[name] = self.low
                self.versions[name, self.low] = name


_SUFFIX = {FLOAT: "float32", **LOW_NAMES}
