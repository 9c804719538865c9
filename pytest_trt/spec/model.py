"""Model: an ONNX graph, checked, with its inputs, outputs and content fingerprint; or only what is known of one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trt.errors import ModelError, UnsupportedModelError

if TYPE_CHECKING:
    import onnx

    from pytest_trt.spec.interface import Interface
    from pytest_trt.spec.shapes import Profile

__all__ = ["Model", "TensorSpec", "dtype_name"]

# protobuf cannot hold more in one message; stay clear of the limit itself.
_MAX_MESSAGE_BYTES = 2**31 - 2**20


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. ``dtype`` is NumPy's name (``float32``, ``int64``) or ONNX's lowercase name where
    NumPy has none (``bfloat16``, ``float8e4m3fn``); a dimension is a size, a symbol, or None (unknown)."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class Model:
    """An ONNX model in memory, weights included.

    Made by ``load`` (checked: see there) or ``from_proto`` (trusted: made by our own passes). A model of
    ``from_interface`` has no graph: its ``proto`` holds inputs and outputs only, ``identity`` is the digest of what
    stands behind them, and that is either ``network``, which fills a TensorRT network, or a finished plan, which was
    built for ``profiles``.
    """

    name: str
    proto: onnx.ModelProto = field(repr=False, compare=False)
    path: Path | None = None
    identity: str | None = None
    network: Callable[[Any, Any], Any] | None = field(default=None, repr=False, compare=False)  # (network, tensorrt)
    profiles: tuple[Profile, ...] = ()

    @classmethod
    def load(cls, path: Path | str, *, name: str | None = None, external: list[str] | None = None) -> Model:
        """Read, check and return the model at *path*, with its external data, whose locations are added to *external*.

        Raises ModelError (unreadable, truncated, invalid graph, opset or IR newer than the installed onnx
        knows) or UnsafeModelError (external data or a symlink that leaves the model's folder).
        """
        from pytest_trt.spec.loading import load_proto

        path = Path(path)
        return cls(name or path.stem, load_proto(path, external), path)

    @classmethod
    def from_proto(cls, proto: onnx.ModelProto, name: str, path: Path | None = None) -> Model:
        return cls(name, proto, path)

    @classmethod
    def from_interface(
        cls, interface: Interface, name: str, *, identity: str, network: Callable[[Any, Any], Any] | None = None
    ) -> Model:
        """A model of which only the outside is known; *identity* must change whenever the inside does."""
        return cls(name, interface.proto(name), None, identity, network, interface.profiles)

    @property
    def has_graph(self) -> bool:
        """Whether there are nodes to run, type and bisect."""
        return self.identity is None

    @cached_property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs a caller must feed: graph inputs that no initializer fills."""
        filled = {t.name for t in self.proto.graph.initializer} | {
            t.values.name for t in self.proto.graph.sparse_initializer
        }
        return tuple(_spec(v) for v in self.proto.graph.input if v.name not in filled)

    @cached_property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return tuple(_spec(v) for v in self.proto.graph.output)

    @cached_property
    def nbytes(self) -> int:
        """Size as one ONNX message; where that is more than protobuf can count, the weights' sizes."""
        from google.protobuf.message import EncodeError

        try:
            return int(self.proto.ByteSize())
        except EncodeError:
            # Counting serializes, which fails from 2 GiB on: never answer with less than that.
            return max(2**31, sum(int(tensor.ByteSize()) for tensor in self.proto.graph.initializer))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the content, weights included; the file's name and place do not count. Without a graph: of inputs,
        outputs and ``identity``."""
        digest = hashlib.sha256(b"onnx-model-1" if self.has_graph else f"interface-1 {self.identity} ".encode())
        if self.nbytes < _MAX_MESSAGE_BYTES:
            digest.update(self.proto.SerializeToString(deterministic=True))
        else:
            self._hash_in_parts(digest)
        return digest.hexdigest()

    def _hash_in_parts(self, digest: hashlib._Hash) -> None:
        # One message cannot hold it: hash the weights one by one, then the graph without them.
        from pytest_trt.spec.precision.graph import copy_model

        for tensor in self.proto.graph.initializer:
            body = tensor.SerializeToString(deterministic=True)
            digest.update(len(body).to_bytes(8, "little"))
            digest.update(body)
        skeleton = copy_model(self.proto, bulk=False)
        digest.update(skeleton.SerializeToString(deterministic=True))

    @property
    def fits_in_memory_message(self) -> bool:
        """Whether ``serialized`` can work (protobuf's limit is 2 GiB)."""
        return self.nbytes < _MAX_MESSAGE_BYTES

    def serialized(self) -> bytes:
        """Return the model as one ONNX message. Raises ModelError above 2 GiB (use ``save`` there) and without a
        graph."""
        self._require_graph()
        if not self.fits_in_memory_message:
            raise ModelError(f"model {self.name!r} has {self.nbytes} bytes, more than one ONNX message holds")
        return bytes(self.proto.SerializeToString())

    def save(self, folder: Path, stem: str = "model") -> Path:
        """Write the model into *folder* and return its path; above 2 GiB the weights go beside it."""
        import onnx

        self._require_graph()
        path = folder / f"{stem}.onnx"
        if self.fits_in_memory_message:
            path.write_bytes(self.serialized())
        else:
            copy = onnx.ModelProto()
            copy.CopyFrom(self.proto)
            onnx.save_model(
                copy, str(path), save_as_external_data=True, location=f"{path.name}.data", size_threshold=1024
            )
        return path

    def _require_graph(self) -> None:
        if not self.has_graph:
            what = "a TensorRT network builder" if self.network else "a finished plan"
            raise ModelError(
                f"model {self.name!r} is {what}: it has no ONNX graph", hint="only the tensorrt backend can run it"
            )


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise UnsupportedModelError(
            f"{value.name!r} is a {kind or 'value without a type'}; only tensors can be fed and compared"
        )
    tensor = value.type.tensor_type
    if dtype_name(tensor.elem_type) == "string":
        raise UnsupportedModelError(
            f"{value.name!r} holds strings, which no engine takes", hint="move the string part out of the model"
        )
    dims: list[int | str | None] = []
    for dim in tensor.shape.dim:
        which = dim.WhichOneof("value")
        dims.append(int(dim.dim_value) if which == "dim_value" else dim.dim_param or None)
    return TensorSpec(value.name, dtype_name(tensor.elem_type), tuple(dims))


def dtype_name(elem_type: int) -> str:
    """Return NumPy's name of an ONNX element type, or ONNX's own in lowercase where NumPy has none."""
    import onnx

    name: str = onnx.TensorProto.DataType.Name(elem_type).lower()
    return {"float": "float32", "double": "float64", "bool": "bool"}.get(name, name)
