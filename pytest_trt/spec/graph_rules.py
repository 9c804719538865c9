"""Rules of an ONNX graph, checked in Python with names in every message.

onnx's own checker knows most of them too, but says less, and some versions of it crash or never return on
what is refused here, such as a stride of zero or an endless Einsum equation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pytest_trt.errors import ModelError, nearest
from pytest_trt.spec.function_calls import check_calls
from pytest_trt.spec.nodes import NodeKey, node_key, standard_domain, subgraphs, title

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import onnx

__all__ = ["check_graphs"]

# Attributes that shape inference divides by, or multiplies with.
_POSITIVE = ("strides", "dilations", "kernel_shape", "group", "blocksize", "num_groups", "q_num_heads", "kv_num_heads")
_MAX_SIZE = 2**31 - 1
_MAX_EQUATION = 256
# onnx never returns from some equations outside this grammar.
_TERM = rb"[A-Za-z ]*(\.\.\.[A-Za-z ]*)?"
_EQUATION = re.compile(rb"%b(,%b)*(->%b)?" % (_TERM, _TERM, _TERM))


def check_graphs(proto: onnx.ModelProto, source: str) -> None:
    """Raise ModelError for the first broken rule in the main graph, its subgraphs and the local functions."""
    rules = _Rules(proto, source)
    check_calls(proto, source)
    rules.check_graph(proto.graph, rules.imports(proto.opset_import), outer=())
    for function in proto.functions:
        rules.check_function(function)


class _Rules:
    def __init__(self, proto: onnx.ModelProto, source: str) -> None:
        import onnx

        self.proto = proto
        self.source = source
        self.functions = {(standard_domain(f.domain), f.name, f.overload) for f in proto.functions}
        self.history: dict[str, dict[str, list[int]]] = {}  # domain -> operator -> opsets it changed in
        for schema in onnx.defs.get_all_schemas_with_history():
            self.history.setdefault(schema.domain, {}).setdefault(schema.name, []).append(schema.since_version)
        self.known: set[tuple[NodeKey, int]] = set()
        self.ranks = {
            v.name: len(v.type.tensor_type.shape.dim) for v in proto.graph.input if v.type.tensor_type.HasField("shape")
        }
        self.ranks.update((t.name, len(t.dims)) for t in proto.graph.initializer)

    def error(self, message: str, hint: str) -> ModelError:
        return ModelError(f"{self.source}: {message}", hint=hint)

    def imports(self, entries: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
        """Return domain -> version. Raises ModelError for versions that onnx does not know."""
        import onnx

        newest = {"": onnx.defs.onnx_opset_version(), "ai.onnx.ml": onnx.defs.onnx_ml_opset_version()}
        result: dict[str, int] = {}
        for entry in entries:
            domain = standard_domain(self.text(entry.domain, "an opset_import"))
            if result.setdefault(domain, entry.version) != entry.version:
                raise self.error(f"two versions of domain {domain or 'ai.onnx'!r} are imported", "import one of them")
            if not 1 <= entry.version <= newest.get(domain, _MAX_SIZE):
                raise self.error(
                    f"opset {entry.version} of {domain or 'ai.onnx'!r} is not one that onnx {onnx.__version__} knows"
                    + (f" (1 to {newest[domain]})" if domain in newest else ""),
                    "upgrade onnx, or export the model with an older opset",
                )
        return result

    def text(self, value: str, what: str) -> str:
        # protobuf hands bytes out where a name is not UTF-8.
        if not isinstance(value, str):
            raise self.error(f"{what} has a name that is not UTF-8: {value!r}", "the file is damaged: export it again")
        return value

    def check_function(self, function: onnx.FunctionProto) -> None:
        for text in (function.name, function.domain, *function.output):
            self.text(text, "a function")
        known = {self.text(name, "a function input") for name in function.input}
        self.check_nodes(function.node, self.imports(function.opset_import), known, outer=())
        for name in function.output:
            if name not in known:
                raise self.error(
                    f"function {function.name!r}: nothing produces its output {name!r}", nearest(name, known)
                )

    def check_graph(self, graph: onnx.GraphProto, imports: Mapping[str, int], outer: tuple[set[str], ...]) -> None:
        known: set[str] = set()
        for text in (graph.name, *(value.name for value in graph.value_info)):
            self.text(text, "a graph or a value")
        for value in graph.input:
            self.check_value(value, "input")
            if value.name in known:
                raise self.error(f"two inputs are named {value.name!r}", "rename one of them")
            known.add(value.name)
        weights: set[str] = set()
        for name in [*(t.name for t in graph.initializer), *(s.values.name for s in graph.sparse_initializer)]:
            if not self.text(name, "an initializer"):
                raise self.error("an initializer has no name", "name it, or drop it")
            if name in weights:
                raise self.error(f"two initializers are named {name!r}", "rename one of them")
            weights.add(name)
        known |= weights
        self.check_nodes(graph.node, imports, known, outer)
        outputs: set[str] = set()
        for value in graph.output:
            self.check_value(value, "output")
            if value.name not in known and not any(value.name in names for names in outer):
                raise self.error(f"nothing produces the output {value.name!r}", nearest(value.name, known))
            if value.name in outputs:
                raise self.error(f"two outputs are named {value.name!r}", "rename one of them")
            outputs.add(value.name)

    def check_value(self, value: onnx.ValueInfoProto, kind: str) -> None:
        import onnx

        if not self.text(value.name, f"an {kind}"):
            raise self.error(f"an {kind} has no name", "name it")
        if value.type.WhichOneof("value") != "tensor_type":
            return  # sequences and the like: Model.inputs refuses them where they would have to be fed
        tensor = value.type.tensor_type
        if tensor.elem_type not in onnx.TensorProto.DataType.values() or not (tensor.elem_type or kind == "output"):
            raise self.error(
                f"{kind} {value.name!r} has element type {tensor.elem_type}, which onnx does not know",
                "upgrade onnx, or export again",
            )
        for dim in tensor.shape.dim:
            self.text(dim.dim_param, f"a dimension of {kind} {value.name!r}")
            if dim.dim_value < 0:
                raise self.error(
                    f"{kind} {value.name!r} has a dimension of {dim.dim_value}",
                    "a dynamic dimension needs a name (dim_param), as torch.onnx.export's dynamic_shapes writes it",
                )

    def check_nodes(
        self, nodes: Sequence[onnx.NodeProto], imports: Mapping[str, int], known: set[str], outer: tuple[set[str], ...]
    ) -> None:
        """Check operators, names and order; add what the nodes produce to *known*."""
        producers: dict[str, int] = {}
        for index, node in enumerate(nodes):
            for text in (node.name, node.op_type, node.domain, node.overload, *node.input, *node.output):
                self.text(text, "a node")
            for name in filter(None, node.output):
                if name in producers or name in known:
                    raise self.error(
                        f"{title(node)} produces {name!r}, which exists already",
                        "names are assigned once: rename one of them",
                    )
                producers[name] = index
        for index, node in enumerate(nodes):
            self.check_operator(node, imports)
            self.check_attributes(node)
            for name in filter(None, node.input):
                if name not in known and not any(name in names for names in outer):
                    raise self.missing(name, index, nodes, producers, known)
            for graph in subgraphs(node):
                self.check_graph(graph, imports, (known, *outer))
            known.update(filter(None, node.output))

    def missing(
        self, name: str, index: int, nodes: Sequence[onnx.NodeProto], producers: Mapping[str, int], known: set[str]
    ) -> ModelError:
        user = title(nodes[index])
        if name not in producers:
            return self.error(f"{user} uses {name!r}, which nothing produces", nearest(name, known | set(producers)))
        later = title(nodes[producers[name]])
        if _depends(producers[name], index, nodes, producers):
            return self.error(
                f"{user} is part of a cycle: it uses {name!r} from {later}, which depends on it",
                "a graph has no cycles",
            )
        return self.error(
            f"the nodes are not sorted: {user} uses {name!r} before {later} produces it",
            "save the model in topological order (onnx_graphsurgeon's toposort, or onnx_ir's TopologicalSortPass)",
        )

    def check_operator(self, node: onnx.NodeProto, imports: Mapping[str, int]) -> None:
        import onnx

        key = domain, operator, _ = node_key(node)
        if key in self.functions:
            return
        if domain not in imports:
            raise self.error(
                f"{title(node)}: the model imports no opset of domain {domain or 'ai.onnx'!r}",
                f"add it to opset_import, or correct the domain; {nearest(domain, [d or 'ai.onnx' for d in imports])}"
                if imports
                else "the model has no opset_import for it: export it again",
            )
        if domain not in self.history or (key, imports[domain]) in self.known:
            return  # contrib operators and plugins: the backend knows them or refuses them
        if not onnx.defs.has(operator, imports[domain], domain):
            raise self.unknown(node, imports[domain])
        self.known.add((key, imports[domain]))

    def unknown(self, node: onnx.NodeProto, version: int) -> ModelError:
        domain, operator, _ = node_key(node)
        since = self.history[domain].get(operator)
        if since and min(since) > version:
            return self.error(
                f"{title(node)} exists since opset {min(since)}, but the model imports opset {version}",
                f"export the model with opset {min(since)} or newer",
            )
        return self.error(
            f"{title(node)} is no operator of {domain or 'ai.onnx'!r} in opset {version}",
            f"{nearest(operator, self.history[domain])} A plugin or custom operator needs a domain of its own",
        )

    def check_attributes(self, node: onnx.NodeProto) -> None:
        if node_key(node)[:2] in (("", "Conv"), ("", "ConvTranspose")):
            for name in node.input[:2]:
                if self.ranks.get(name, 3) < 3:
                    raise self.error(
                        f"{title(node)}: {name!r} has {self.ranks[name]} dimensions", "a convolution needs 3 or more"
                    )
        for attribute in node.attribute:
            name = self.text(attribute.name, f"an attribute of {title(node)}")
            if standard_domain(node.domain):
                continue
            if name in _POSITIVE and not attribute.ref_attr_name:
                values = list(attribute.ints) if attribute.type == attribute.INTS else [attribute.i]
                bad = [v for v in values if not 1 <= v <= _MAX_SIZE]
                if bad:
                    raise self.error(f"{title(node)}: {name} is {bad[0]}", f"it must be 1 to {_MAX_SIZE}")
            if name == "equation" and not (len(attribute.s) <= _MAX_EQUATION and _EQUATION.fullmatch(attribute.s)):
                raise self.error(
                    f"{title(node)}: its equation {attribute.s[:50]!r} of {len(attribute.s)} characters is not valid",
                    f"write terms of letters with at most one ... each, in {_MAX_EQUATION} characters: bij,bjk->bik",
                )


def _depends(start: int, on: int, nodes: Sequence[onnx.NodeProto], producers: Mapping[str, int]) -> bool:
    """Whether node *start* needs a result of node *on*, directly or through others."""
    seen: set[int] = set()
    queue = [start]
    while queue:
        current = queue.pop()
        if current == on:
            return True
        if current not in seen:
            seen.add(current)
            queue += [producers[name] for name in nodes[current].input if name in producers]
    return False
