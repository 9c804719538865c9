"""The light copy of a model: the same graph without its large tensors, for onnx's checker and shape inference.

A large tensor becomes a graph input of the same type and shape. Shape inference reads the values of small
tensors only (shapes, axes, repeats), so it finds the same; and what would take seconds, or not fit into one
protobuf message at all, takes milliseconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pytest_trt.spec.nodes import all_nodes, node_key, standard_domain
from pytest_trt.spec.payload import tensor_nbytes

if TYPE_CHECKING:
    import onnx

__all__ = ["fill_function_defaults", "light_copy"]

_HEAVY_BYTES = 64 * 1024


def light_copy(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of *proto*, whose tensors have been checked, with those above 64 KiB as graph inputs.

    A tensor stays where its place allows nothing else: in a function, or in a subgraph under a name that is in
    use elsewhere.
    """
    import onnx

    light = onnx.ModelProto(ir_version=proto.ir_version)
    light.opset_import.extend(proto.opset_import)
    light.functions.extend(proto.functions)
    light.metadata_props.extend(proto.metadata_props)
    copy = _Copy(proto.graph)
    light.graph.CopyFrom(copy.graph(proto.graph))
    declared = {value.name for value in light.graph.input}
    light.graph.input.extend(value for name, value in copy.hoisted.items() if name not in declared)
    return light


def fill_function_defaults(light: onnx.ModelProto) -> None:
    """Write out the attributes that nodes leave to the defaults of their operators, where these are functions.

    onnx infers the shapes of such an operator through its body, and does not hand the defaults in: a
    MeanVarianceNormalization without axes has a Constant without a value there, which strict inference refuses.
    """
    import onnx

    versions = {standard_domain(entry.domain): entry.version for entry in light.opset_import}
    local = {(standard_domain(f.domain), f.name, f.overload) for f in light.functions}
    for node in all_nodes(light.graph.node):
        domain, operator, _ = key = node_key(node)
        version = versions.get(domain)
        if version is None or key in local or not onnx.defs.has(operator, version, domain):
            continue
        schema = onnx.defs.get_schema(operator, version, domain)
        if schema.function_opset_versions or schema.context_dependent_function_opset_versions:  # type: ignore[attr-defined]  # not in onnx's stubs
            given = {attribute.name for attribute in node.attribute}
            defaults = (attribute.default_value for attribute in schema.attributes.values())
            node.attribute.extend(d for d in defaults if d.type and d.name not in given)


class _Copy:
    def __init__(self, main: onnx.GraphProto) -> None:
        self.main = main
        self.hoisted: dict[str, onnx.ValueInfoProto] = {}
        # Two branches may use one name for different tensors: such a name cannot move to the main graph.
        self.uses = Counter(_defined(main))

    def graph(self, graph: onnx.GraphProto) -> onnx.GraphProto:
        import onnx

        light = onnx.GraphProto(name=graph.name)
        light.input.extend(graph.input)
        light.output.extend(graph.output)
        light.value_info.extend(graph.value_info)
        light.sparse_initializer.extend(graph.sparse_initializer)
        light.initializer.extend(t for t in graph.initializer if not self.hoist(t, t.name, graph))
        for node in graph.node:
            value = next((a.t for a in node.attribute if node.op_type == "Constant" and a.HasField("t")), None)
            if value is not None and len(node.output) == 1 and self.hoist(value, node.output[0], graph):
                continue
            if any(a.HasField("g") or a.graphs for a in node.attribute):
                light.node.append(self.node(node))
            else:
                light.node.append(node)
        return light

    def node(self, node: onnx.NodeProto) -> onnx.NodeProto:
        import onnx

        light = onnx.NodeProto(name=node.name, op_type=node.op_type, domain=node.domain, overload=node.overload)
        light.input.extend(node.input)
        light.output.extend(node.output)
        for attribute in node.attribute:
            if not attribute.HasField("g") and not attribute.graphs:
                light.attribute.append(attribute)
                continue
            part = light.attribute.add(name=attribute.name, type=attribute.type)
            if attribute.HasField("g"):
                part.g.CopyFrom(self.graph(attribute.g))
            part.graphs.extend(self.graph(g) for g in attribute.graphs)
        return light

    def hoist(self, tensor: onnx.TensorProto, name: str, graph: onnx.GraphProto) -> bool:
        """Turn *tensor* into an input of the main graph if it is large and its name allows it."""
        import onnx

        if tensor.data_type == tensor.STRING or tensor_nbytes(tensor, name) <= _HEAVY_BYTES:
            return False
        value = onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))
        bound = self.uses[name] > 1 or any(name == output.name for output in graph.output)
        if graph is not self.main and bound:
            return False
        self.hoisted[name] = value
        return True


def _defined(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield each name as often as *graph* and its subgraphs define it."""
    filled = {tensor.name for tensor in graph.initializer}
    yield from filled
    yield from (value.name for value in graph.input if value.name not in filled)
    for node in graph.node:
        yield from node.output
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _defined(attribute.g)
            for inner in attribute.graphs:
                yield from _defined(inner)
