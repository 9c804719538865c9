"""Interface: inputs and outputs without a graph between them. What is known of a network builder or of a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_trt.errors import ManifestError, ProfileError, nearest
from pytest_trt.spec.shapes import format_shape

if TYPE_CHECKING:
    import onnx

    from pytest_trt.spec.model import Model, TensorSpec
    from pytest_trt.spec.shapes import Profile, ShapeRange

__all__ = ["DTYPES", "Interface", "hold"]

# What an engine can take or give, by TensorSpec's names -> ONNX's.
DTYPES = {
    "float32": "FLOAT",
    "float16": "FLOAT16",
    "bfloat16": "BFLOAT16",
    "float8e4m3fn": "FLOAT8E4M3FN",
    "int8": "INT8",
    "uint8": "UINT8",
    "int32": "INT32",
    "int64": "INT64",
    "bool": "BOOL",
}


@dataclass(frozen=True)
class Interface:
    """Inputs and outputs in their order. ``profiles``: what a finished plan was built for, in its order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...] = ()
    profiles: tuple[Profile, ...] = ()

    @classmethod
    def parse(cls, table: Mapping[str, Any]) -> Interface:
        """Read the manifest's ``[interface]``: ``inputs`` and ``outputs``, each a table of
        ``name = [sizes]`` or ``name = { dtype = "float32", shape = [sizes] }``. A size is a number, a symbol, or -1.

        Raises ManifestError that names the key.
        """
        inputs, outputs = (_specs(side, table.get(side, {})) for side in ("inputs", "outputs"))
        if not inputs:
            raise ManifestError("[interface.inputs] is missing or empty", hint='name = ["N", 3, 224, 224]')
        return cls(inputs, outputs)

    @classmethod
    def of(cls, model: Model) -> Interface:
        return cls(model.inputs, model.outputs)

    def proto(self, name: str) -> onnx.ModelProto:
        """An ONNX model with these inputs and outputs, and no node."""
        import onnx

        graph = onnx.GraphProto(name=name)
        for values, specs in ((graph.input, self.inputs), (graph.output, self.outputs)):
            for spec in specs:
                elem_type = onnx.TensorProto.DataType.Value(DTYPES[spec.dtype])
                values.append(onnx.helper.make_tensor_value_info(spec.name, elem_type, spec.shape))
        return onnx.ModelProto(ir_version=8, graph=graph, opset_import=[onnx.OperatorSetIdProto(domain="", version=17)])

    def mismatch(self, found: Interface) -> str | None:
        """The first thing that *found* has otherwise than this interface declares; None when it keeps to it.

        Outputs are compared where some are declared. A declared size may stand where *found* leaves it open.
        """
        for kind, declared, there in (("input", self.inputs, found.inputs), ("output", self.outputs, found.outputs)):
            if not declared:
                continue
            known = {spec.name: spec for spec in there}
            for spec in declared:
                if spec.name not in known:
                    return f"there is no {kind} {spec.name!r} ({nearest(spec.name, known) if known else 'nor any'})"
                difference = _difference(spec, known.pop(spec.name))
                if difference:
                    return f"{kind} {spec.name!r} {difference}"
            if known:
                return f"{kind} {next(iter(known))!r} is not declared"
        return None


def hold(profile: Profile, held: Sequence[Profile]) -> tuple[Profile, ...]:
    """*held*, the profiles of a plan, with *profile* in the place of the first that accepts all its shapes.

    So *profile* has the index under which the plan runs it. Raises ProfileError when none accepts it.
    """
    for index, wide in enumerate(held):
        if all(name in wide.ranges and _inside(r, wide.ranges[name]) for name, r in profile.ranges.items()):
            # Sessions find their profile by its name.
            kept = [replace(p, name=f"{p.name} ({i})") if p.name == profile.name else p for i, p in enumerate(held)]
            return (*kept[:index], profile, *kept[index + 1 :])
    raise ProfileError(
        f"profile {profile.name!r} lies in none of the plan's {len(held)}",
        hint="the plan accepts " + "; or ".join(_written(wide) for wide in held),
    )


def _inside(narrow: ShapeRange, wide: ShapeRange) -> bool:
    return len(narrow.min) == len(wide.min) and all(
        low <= a and b <= high for low, a, b, high in zip(wide.min, narrow.min, narrow.max, wide.max, strict=True)
    )


def _written(profile: Profile) -> str:
    return ", ".join(f"{name} {format_shape(r.min)} to {format_shape(r.max)}" for name, r in profile.ranges.items())


def _difference(declared: TensorSpec, found: TensorSpec) -> str | None:
    # TensorRT 8.6 has no 64-bit integers: the engine of an int64 input takes int32.
    if declared.dtype != found.dtype and (declared.dtype, found.dtype) != ("int64", "int32"):
        return f"is {found.dtype}, declared {declared.dtype}"
    same = len(declared.shape) == len(found.shape) and all(
        size == wanted if isinstance(size, int) else True
        for size, wanted in zip(found.shape, declared.shape, strict=True)
    )
    return None if same else f"is {format_shape(found.shape)}, declared {format_shape(declared.shape)}"


def _specs(side: str, table: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    return tuple(_spec(f"interface.{side}.{name}", name, value) for name, value in table.items())


def _spec(where: str, name: str, value: Any) -> TensorSpec:
    from pytest_trt.spec.model import TensorSpec

    table = {"shape": value} if isinstance(value, list) else value
    if not isinstance(table, dict) or "shape" not in table or not set(table) <= {"dtype", "shape"}:
        raise ManifestError(f'{where} must be a shape, or {{ dtype = "float32", shape = […] }}')
    dtype = table.get("dtype", "float32")
    if dtype not in DTYPES:
        raise ManifestError(f"{where}.dtype is {dtype!r}", hint=nearest(str(dtype), DTYPES))
    return TensorSpec(name, dtype, tuple(_size(where, size) for size in _list(where, table["shape"])))


def _list(where: str, shape: Any) -> list[Any]:
    if not isinstance(shape, list):
        raise ManifestError(f"{where}.shape must be a list of sizes and symbols")
    return shape


def _size(where: str, size: Any) -> int | str | None:
    if isinstance(size, str) and size.isidentifier():
        return size
    if isinstance(size, int) and not isinstance(size, bool) and size >= -1:
        return None if size == -1 else size
    raise ManifestError(f"{where}: {size!r} is no size", hint='a number, a symbol such as "N", or -1 for an open one')
