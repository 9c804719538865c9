"""Nodes of an ONNX graph: what identifies their operator, and which graphs hang below them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["NodeKey", "all_nodes", "node_key", "standard_domain", "subgraphs", "title"]

NodeKey = tuple[str, str, str]  # domain, operator, overload


def standard_domain(domain: str) -> str:
    """Return *domain*, with the standard one always in its short form, the empty string."""
    return "" if domain == "ai.onnx" else domain


def node_key(node: onnx.NodeProto) -> NodeKey:
    """Return what decides which operator or local function *node* calls."""
    return standard_domain(node.domain), node.op_type, node.overload


def title(node: onnx.NodeProto) -> str:
    """Return *node* in words for a message: its name, or its first output's, and its operator."""
    operator = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    name = node.name or next((o for o in node.output if o), "")
    return f"node {name!r} ({operator})"


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs in the attributes of *node*."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield *nodes* and those of their subgraphs, at every depth (protobuf bounds it)."""
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from all_nodes(graph.node)
