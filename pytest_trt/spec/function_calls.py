"""Calls between a model's local functions: no recursion, and nothing that explodes when it is inlined.

onnx inlines functions for shape inference: older versions crash on recursion, and all of them run for ever on
functions that call the next one twice, thirty levels deep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trt.errors import ModelError
from pytest_trt.spec.nodes import NodeKey, all_nodes, node_key, standard_domain

if TYPE_CHECKING:
    import onnx

__all__ = ["check_calls"]

_MAX_DEPTH = 64
_MAX_NODES = 1_000_000


def check_calls(proto: onnx.ModelProto, source: str) -> None:
    """Raise ModelError when local functions share a name, call each other in a cycle, or expand without measure."""
    calls = {
        (standard_domain(f.domain), f.name, f.overload): [node_key(n) for n in all_nodes(f.node)]
        for f in proto.functions
    }
    if len(calls) != len(proto.functions):
        raise ModelError(f"{source}: two local functions have the same name", hint="rename one of them")
    sizes: dict[NodeKey, int] = {}
    for root in calls:
        _measure(root, calls, sizes, source)
    total = sum(sizes.get(node_key(n), 1) for n in all_nodes(proto.graph.node))
    expanded = max([total, *sizes.values()])
    if expanded > _MAX_NODES:
        raise ModelError(
            f"{source}: its local functions expand to {expanded} nodes", hint=f"at most {_MAX_NODES} are accepted"
        )


def _measure(root: NodeKey, calls: dict[NodeKey, list[NodeKey]], sizes: dict[NodeKey, int], source: str) -> None:
    """Add to *sizes* how many nodes *root* and what it calls expand to; walks without Python recursion."""
    path = [] if root in sizes else [root]
    pending = {root: iter(calls[root])}
    while path:
        callee = next((c for c in pending[path[-1]] if c in calls and c not in sizes), None)
        if callee is None:
            done = path.pop()
            sizes[done] = len(calls[done]) + sum(sizes[c] for c in calls[done] if c in calls)
            continue
        if callee in path:
            loop = " → ".join(name for _, name, _ in [*path[path.index(callee) :], callee])
            raise ModelError(
                f"{source}: local functions call each other in a cycle: {loop}", hint="ONNX has no recursion"
            )
        if len(path) >= _MAX_DEPTH:
            raise ModelError(
                f"{source}: its local functions call each other more than {_MAX_DEPTH} levels deep", hint="inline them"
            )
        path.append(callee)
        pending[callee] = iter(calls[callee])
