"""The part of a model that the user wants left alone."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from pytest_trt.errors import PrecisionError, nearest
from pytest_trt.spec.precision.graph import node_label

if TYPE_CHECKING:
    import onnx

__all__ = ["Exclusions"]


class Exclusions:
    """Nodes and op types that the user wants kept in float32.

    A node is meant by its name, by the name of one of its outputs, or by a glob over either.
    """

    def __init__(self, nodes: Sequence[str], ops: Sequence[str]) -> None:
        self.nodes, self.ops = tuple(nodes), tuple(ops)

    def check(self, graph: onnx.GraphProto) -> None:
        """Raise PrecisionError for an entry that can mean nothing: a typing error would pass unnoticed."""
        import onnx

        names = {name for node in graph.node for name in (node.name, node_label(node), *node.output) if name}
        for pattern in self.nodes:
            if pattern not in names and not any(fnmatchcase(name, pattern) for name in names):
                raise PrecisionError(f"exclude_nodes: the model has no node {pattern!r}", hint=nearest(pattern, names))
        present = {node.op_type for node in graph.node}
        for op in self.ops:
            if op not in present and not onnx.defs.has(op):
                raise PrecisionError(f"exclude_ops: {op!r} is no ONNX operator", hint=nearest(op, present))

    def reason(self, node: onnx.NodeProto) -> str | None:
        if node.op_type in self.ops:
            return f"op type {node.op_type} is excluded"
        names = {node.name, node_label(node), *node.output} - {""}
        if any(p in names or any(fnmatchcase(n, p) for n in names) for p in self.nodes):
            return "excluded by name"
        return None
