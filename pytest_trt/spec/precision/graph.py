"""What every recipe needs from an ONNX graph: copies, element types, opsets and names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

from pytest_trt.errors import PrecisionError

if TYPE_CHECKING:
    import onnx

__all__ = [
    "BFLOAT16",
    "FLOAT",
    "FLOAT16",
    "LOW_NAMES",
    "Names",
    "all_graphs",
    "captured_names",
    "convert_opset",
    "copy_model",
    "fits_one_message",
    "has_quantize_nodes",
    "infer_types",
    "low_types_in",
    "node_label",
    "opset_of",
    "real_inputs",
    "remove_unread",
    "rename_captures",
    "replace_nodes",
]

# onnx.TensorProto.DataType. They are part of the file format, so they cannot move.
FLOAT, FLOAT16, BFLOAT16 = 1, 10, 16
LOW_NAMES = {FLOAT16: "float16", BFLOAT16: "bfloat16"}
_FLOAT8 = range(17, 21)

# Shape inference reads constants only where they carry shapes; those are far smaller than this.
_BULK_BYTES = 4096
_MAX_MESSAGE_BYTES = 2**31 - 2**20


def copy_model(proto: onnx.ModelProto, *, bulk: bool = True) -> onnx.ModelProto:
    """Return a deep copy, made weight by weight so that models above 2 GiB pass as well.

    Initializers that are also listed as graph inputs lose that entry: they are constants for TensorRT, and
    IR version 4 (which the copy has at least) no longer wants it. With ``bulk=False`` large weights keep
    their name, type and dims but lose their data, which is all that shape inference needs.
    """
    import onnx

    copy = onnx.ModelProto()
    _copy_fields(proto, copy, skip="graph")
    _copy_fields(proto.graph, copy.graph, skip="initializer")
    for tensor in proto.graph.initializer:
        if bulk or len(tensor.raw_data) <= _BULK_BYTES:
            copy.graph.initializer.add().CopyFrom(tensor)
        else:
            copy.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    filled = {tensor.name for tensor in copy.graph.initializer}
    for value in [v for v in copy.graph.input if v.name in filled]:
        copy.graph.input.remove(value)
    copy.ir_version = max(copy.ir_version, 4)
    return copy


def _copy_fields(source: Any, target: Any, *, skip: str) -> None:
    for descriptor, value in source.ListFields():
        if descriptor.name == skip:
            continue
        if hasattr(value, "append"):
            getattr(target, descriptor.name).extend(value)
        elif hasattr(value, "CopyFrom"):
            getattr(target, descriptor.name).CopyFrom(value)
        else:
            setattr(target, descriptor.name, value)


def fits_one_message(proto: onnx.ModelProto) -> bool:
    from google.protobuf.message import EncodeError

    try:
        return int(proto.ByteSize()) < _MAX_MESSAGE_BYTES
    except EncodeError:  # counting serializes, which fails from 2 GiB on
        return False


def infer_types(proto: onnx.ModelProto) -> dict[str, int]:
    """Return the element type of every tensor of the main graph that shape inference can name."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(copy_model(proto, bulk=False)).graph
    types = {t.name: t.data_type for t in inferred.initializer}
    types.update((t.values.name, t.values.data_type) for t in inferred.sparse_initializer)
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        if value.type.WhichOneof("value") == "tensor_type" and value.type.tensor_type.elem_type:
            types[value.name] = value.type.tensor_type.elem_type
    return types


def low_types_in(proto: onnx.ModelProto) -> set[str]:
    """Return the names of the 16- and 8-bit float types that *proto* carries, subgraphs' constants included."""
    import onnx

    found = set(infer_types(proto).values())
    for graph in all_graphs(proto.graph):
        found.update(t.data_type for t in graph.initializer)
        found.update(int(v.type.tensor_type.elem_type) for v in (*graph.value_info, *graph.output))
    low = (t for t in found if t in LOW_NAMES or t in _FLOAT8)
    return {onnx.TensorProto.DataType.Name(t).lower() for t in low}


def has_quantize_nodes(proto: onnx.ModelProto) -> bool:
    kinds = {"QuantizeLinear", "DequantizeLinear"}
    return any(node.op_type in kinds for graph in all_graphs(proto.graph) for node in graph.node)


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield *graph* and then the subgraphs of its nodes, at any depth."""
    yield graph
    for node in graph.node:
        for inner in _subgraphs(node):
            yield from all_graphs(inner)


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def opset_of(proto: onnx.ModelProto, domain: str = "") -> int | None:
    """Return the opset version that *proto* imports for *domain*, or None."""
    versions = {("" if o.domain == "ai.onnx" else o.domain): int(o.version) for o in proto.opset_import}
    return versions.get("" if domain == "ai.onnx" else domain)


def convert_opset(proto: onnx.ModelProto, target: int) -> onnx.ModelProto:
    """Return *proto* converted to opset *target*. Raises PrecisionError with the converter's reason."""
    import onnx
    from onnx import version_converter

    reason = None
    if proto.functions or proto.graph.sparse_initializer:
        # ONNX's converter drops them without a word.
        reason = "it has local functions" if proto.functions else "it has sparse initializers"
    else:
        try:
            converted = version_converter.convert_version(copy_model(proto, bulk=False), target)
        except (version_converter.ConvertError, RuntimeError) as error:
            # The text behind "failed:" is the converter's own; before it stand its source file and an assertion.
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rpartition(" failed: ")[2]
    if reason is not None:
        raise PrecisionError(
            f"the model cannot be converted from opset {opset_of(proto)} to {target}: {reason}",
            hint=f"export it again with opset {target} or newer",
        )
    bulk = {t.name: t for t in proto.graph.initializer}
    for tensor in converted.graph.initializer:
        if tensor.name in bulk:
            tensor.CopyFrom(bulk[tensor.name])
    # The converter's shape inference fills in sizes that the model leaves open.
    del converted.graph.output[:]
    converted.graph.output.extend(proto.graph.output)
    needed = onnx.helper.find_min_ir_version_for(converted.opset_import, ignore_unknown=True)
    converted.ir_version = max(converted.ir_version, needed)
    return converted


def node_label(node: onnx.NodeProto) -> str:
    """Return the node's name, or ``Op:output`` where it has none."""
    return str(node.name) or f"{node.op_type}:{next((o for o in node.output if o), '')}"


def real_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Return the graph inputs that no initializer fills."""
    filled = {t.name for t in graph.initializer}
    return [v for v in graph.input if v.name not in filled]


def captured_names(node: onnx.NodeProto) -> set[str]:
    """Return the outer tensors that the subgraphs of *node* read."""
    found: set[str] = set()
    for graph in _subgraphs(node):
        own = _own_names(graph)
        for inner in graph.node:
            found |= ({i for i in inner.input if i} | captured_names(inner)) - own
        found |= {v.name for v in graph.output} - own
    return found


def rename_captures(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Make the subgraphs of *node* read ``names[x]`` where they read the outer tensor ``x``."""
    for graph in _subgraphs(node):
        own = _own_names(graph)
        outer = {old: new for old, new in names.items() if old not in own}
        for inner in graph.node:
            inner.input[:] = [outer.get(i, i) for i in inner.input]
            rename_captures(inner, outer)
        for value in graph.output:
            value.name = outer.get(value.name, value.name)


def remove_unread(graph: onnx.GraphProto, names: Set[str]) -> None:
    """Remove what makes those constants among *names* that nothing in *graph* reads any more."""
    read = {v.name for v in graph.output}
    for node in graph.node:
        read.update(node.input, captured_names(node))
    unread = names - read
    for tensor in [t for t in graph.initializer if t.name in unread]:
        graph.initializer.remove(tensor)
    for node in [n for n in graph.node if n.output[0] in unread]:
        graph.node.remove(node)


def replace_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Make *nodes*, which may be the graph's own, the nodes of *graph*."""
    import onnx

    # The graph's own messages must be copied before the list that holds them is cleared.
    copies = [onnx.NodeProto() for _ in nodes]
    for copy, node in zip(copies, nodes, strict=True):
        copy.CopyFrom(node)
    del graph.node[:]
    graph.node.extend(copies)


def _own_names(graph: onnx.GraphProto) -> set[str]:
    made = {o for node in graph.node for o in node.output}
    return made | {v.name for v in graph.input} | {t.name for t in graph.initializer}


class Names:
    """Hands out tensor and node names that the graph does not have yet."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._taken = {node.name for g in all_graphs(graph) for node in g.node}
        self._taken.update(*(_own_names(g) for g in all_graphs(graph)))

    def fresh(self, wanted: str) -> str:
        name, count = wanted, 1
        while name in self._taken:
            count += 1
            name = f"{wanted}_{count}"
        self._taken.add(name)
        return name
