"""Payload of ONNX tensors: do the data fit the declared type and shape?

Everything here is counted in Python integers before a byte is read or allocated, so a tensor that
declares 2**62 elements costs nothing but an error.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pytest_trt.errors import ModelError

if TYPE_CHECKING:
    import onnx

__all__ = [
    "TYPED_FIELDS",
    "check_payload",
    "iter_tensors",
    "memory_limit_bytes",
    "open_regular",
    "tensor_nbytes",
]

# ONNX element type -> bits of one element in raw_data. STRING has no raw form.
_BITS = {
    "FLOAT": 32, "UINT8": 8, "INT8": 8, "UINT16": 16, "INT16": 16, "INT32": 32, "INT64": 64, "BOOL": 8,
    "FLOAT16": 16, "DOUBLE": 64, "UINT32": 32, "UINT64": 64, "COMPLEX64": 64, "COMPLEX128": 128,
    "BFLOAT16": 16, "FLOAT8E4M3FN": 8, "FLOAT8E4M3FNUZ": 8, "FLOAT8E5M2": 8, "FLOAT8E5M2FNUZ": 8,
    "FLOAT8E8M0": 8, "UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2,
    "FLOAT6E2M3": 6, "FLOAT6E3M2": 6,
}  # fmt: skip
TYPED_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
_FIELD_OF = {
    "FLOAT": "float_data", "COMPLEX64": "float_data", "DOUBLE": "double_data", "COMPLEX128": "double_data",
    "INT64": "int64_data", "UINT32": "uint64_data", "UINT64": "uint64_data", "STRING": "string_data",
}  # fmt: skip
_MAX_RANK = 64


def tensor_nbytes(tensor: onnx.TensorProto, where: str) -> int:
    """Return the bytes of *tensor* in raw form, from its type and dimensions alone.

    Raises ModelError for an unknown type, a string tensor, a negative dimension or more than 64 of them.
    """
    name = _type_name(tensor, where)
    if name not in _BITS:
        raise ModelError(f"{where} is of type {name}, which has no raw form", hint="store it as typed data")
    return (_elements(tensor, where) * _BITS[name] + 7) // 8


def check_payload(tensor: onnx.TensorProto, where: str) -> None:
    """Raise ModelError unless *tensor* holds exactly the data that its type and dimensions declare.

    External tensors must have been resolved before.
    """
    name = _type_name(tensor, where)
    count = _elements(tensor, where)
    if tensor.HasField("segment"):
        raise ModelError(f"{where} is stored in segments", hint="save the model again with a current onnx")
    typed = [field for field in TYPED_FIELDS if len(getattr(tensor, field))]
    if len(typed) + tensor.HasField("raw_data") > 1:
        fields = [*typed, "raw_data"] if tensor.HasField("raw_data") else typed
        raise ModelError(f"{where} holds its data twice ({', '.join(fields)})", hint="keep one of them")
    declared = f"{'x'.join(map(str, tensor.dims)) or 'scalar'} {name.lower()}"
    if tensor.HasField("raw_data"):
        needed, got, unit = tensor_nbytes(tensor, where), len(tensor.raw_data), "bytes"
    else:
        field = _FIELD_OF.get(name, "int32_data")
        if typed and typed != [field]:
            raise ModelError(
                f"{where} is {name.lower()} but its data lie in {typed[0]}", hint=f"they belong in {field}"
            )
        needed, got, unit = _entries(name, count), len(getattr(tensor, field)), f"entries of {field}"
    if got != needed:
        raise ModelError(
            f"{where}: {declared} needs {needed} {unit}, but {got} are there",
            hint="the file is damaged or was written wrongly: export the model again",
        )


def _entries(name: str, count: int) -> int:
    if name in ("COMPLEX64", "COMPLEX128"):
        return 2 * count
    per_entry = {4: 2, 2: 4}.get(_BITS.get(name, 0), 1)
    return -(-count // per_entry)


def _type_name(tensor: onnx.TensorProto, where: str) -> str:
    import onnx

    names: dict[int, str] = {number: name for name, number in onnx.TensorProto.DataType.items()}
    if tensor.data_type not in names or not tensor.data_type:
        raise ModelError(
            f"{where} has data type {tensor.data_type}, which onnx {onnx.__version__} does not know",
            hint="upgrade onnx, or export the model again",
        )
    return names[tensor.data_type]


def _elements(tensor: onnx.TensorProto, where: str) -> int:
    dims = tuple(tensor.dims) if len(tensor.dims) <= _MAX_RANK else ()
    if len(tensor.dims) > _MAX_RANK or any(d < 0 for d in dims):
        text = "x".join(map(str, dims)) if dims else f"of {len(tensor.dims)} dimensions"
        raise ModelError(f"{where} has shape {text}", hint=f"sizes are ≥ 0, and at most {_MAX_RANK} of them")
    return prod(dims)


def iter_tensors(proto: onnx.ModelProto) -> Iterator[tuple[onnx.TensorProto, str]]:
    """Yield every tensor of a model with words that say where it is: initializers, sparse parts, attributes."""
    graphs = [proto.graph]
    for training in proto.training_info:
        graphs += [training.initialization, training.algorithm]
    for graph in graphs:
        yield from _graph_tensors(graph)
    for function in proto.functions:
        for node in function.node:
            yield from _node_tensors(node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[tuple[onnx.TensorProto, str]]:
    for tensor in graph.initializer:
        yield tensor, f"initializer {tensor.name!r}"
    for sparse in graph.sparse_initializer:
        yield sparse.values, f"sparse initializer {sparse.values.name!r} (values)"
        yield sparse.indices, f"sparse initializer {sparse.values.name!r} (indices)"
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: onnx.NodeProto) -> Iterator[tuple[onnx.TensorProto, str]]:
    for attribute in node.attribute:
        where = f"attribute {attribute.name!r} of node {node.name or node.op_type!r}"
        if attribute.HasField("t"):
            yield attribute.t, where
        for tensor in attribute.tensors:
            yield tensor, where
        for sparse in [
            *attribute.sparse_tensors,
            *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []),
        ]:
            yield sparse.values, f"{where} (values)"
            yield sparse.indices, f"{where} (indices)"
        for graph in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
            yield from _graph_tensors(graph)


def open_regular(path: Path) -> BinaryIO:
    """Open the regular file at *path*, a resolved path, for reading; never waits on a FIFO, follows no symlink.

    Raises OSError.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is no regular file")
    return os.fdopen(descriptor, "rb")


def memory_limit_bytes() -> int:
    """Return what this process can hold at most: RAM, or the control group's share of it."""
    try:
        limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        limit = 2**40
    try:
        group = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return limit
    return min(limit, int(group)) if group.isdecimal() else limit
