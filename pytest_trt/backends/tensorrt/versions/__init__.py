"""What differs between TensorRT 8.6, 10 and 11. Every version guard is in this package: here those of
building, in ``requirements`` the table of build options, in ``runtime`` those of loading and running.

Features are found by the presence of a member, not by a number, wherever the bindings show them. Enum
members are known by name only: their integers moved twice (TF32 was 7 and is 6), so none is ever stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pytest_trt.backends import Support

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx

    from pytest_trt.spec.precision import Precision

__all__ = [
    "MINIMUM",
    "TYPE_FLAGS",
    "calibrator_base",
    "create_network",
    "device_memory_bytes",
    "flag",
    "flags_on",
    "has_builder",
    "has_pairs",
    "has_type",
    "lean_library",
    "members",
    "newest_opset",
    "node_of_error",
    "progress_monitor",
    "register_plugins",
    "set_precision_flags",
    "share_profiles",
    "strongly_typed",
    "support",
    "too_old",
    "typing",
    "version",
]

# Named I/O tensors came with 8.5, builder_optimization_level with 8.6.
MINIMUM = (8, 6)

# Builder flags that choose a data type -> the DataType that layers then show. Strongly typed networks take
# their types from the model and refuse these flags; TensorRT 11 no longer has them.
TYPE_FLAGS = {"FP16": "HALF", "BF16": "BF16", "INT8": "INT8", "FP8": "FP8", "INT4": "INT4", "FP4": "FP4"}

# Compute capability from which tensor cores or arithmetic of a type exist.
_NEEDS_CAPABILITY = {"TF32": (8, 0), "FP16": (5, 3), "BF16": (8, 0), "INT8": (6, 1), "FP8": (8, 9), "FP4": (10, 0)}

# Precision that not every version has -> the nearest one that every version has.
_INSTEAD = {"bf16": "fp16", "fp8": "int8", "int4": "int8"}

# The newest ONNX opset that a major version reads, where its documentation names one.
_NEWEST_OPSET = {8: 17, 11: 25}


def version(trt: Any) -> tuple[int, ...]:
    """``(10, 13, 3, 9)``; parts that are not numbers end it."""
    numbers = []
    for part in str(trt.__version__).split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def too_old(trt: Any) -> bool:
    """Whether this version is older than the oldest one that is used here."""
    return version(trt) < MINIMUM


def members(enum: Any) -> dict[str, Any]:
    """The members of one of TensorRT's enums by name."""
    return dict(enum.__members__)


def flag(trt: Any, name: str) -> Any | None:
    """The BuilderFlag called *name*, or None where this version has none."""
    return members(trt.BuilderFlag).get(name)


def has_type(trt: Any, name: str) -> bool:
    """Whether this version has the DataType called *name*."""
    return name in members(trt.DataType)


def has_builder(trt: Any) -> bool:
    """Whether *trt* can build; the lean runtime cannot."""
    return hasattr(trt, "Builder")


def calibrator_base(trt: Any, name: str) -> Any | None:
    """The calibrator class called *name*, or None: 11 has none."""
    return getattr(trt, name, None)


def strongly_typed(trt: Any) -> bool:
    """Whether networks can take their types from the model: opt-in from 10 on, the only way in 11."""
    return "STRONGLY_TYPED" in members(trt.NetworkDefinitionCreationFlag)


def typing(trt: Any, wanted: str | None = None) -> Literal["strong", "weak"]:
    """How a network gets its types: as *wanted*, else from the model wherever this version can do that."""
    if wanted is not None:
        return "weak" if wanted == "weak" else "strong"
    return "strong" if strongly_typed(trt) else "weak"


def create_network(trt: Any, builder: Any, typing: str) -> Any:
    """An empty network with an explicit batch dimension; *typing* is "strong" or "weak"."""
    known = members(trt.NetworkDefinitionCreationFlag)
    wanted = []
    if typing == "strong":
        wanted.append("STRONGLY_TYPED")
    # Before 10 the default is an implicit batch; 10 ignores the flag, and 11 has it no more.
    if version(trt) < (10,) and "EXPLICIT_BATCH" in known:
        wanted.append("EXPLICIT_BATCH")
    flags = 0
    for name in wanted:
        flags |= 1 << int(known[name])
    return builder.create_network(flags)


def has_pairs(trt: Any, network: Any) -> bool:
    """Whether *network* dequantizes anything."""
    wanted = members(trt.LayerType)["DEQUANTIZE"]
    return any(network.get_layer(index).type == wanted for index in range(network.num_layers))


def set_precision_flags(
    trt: Any, config: Any, precision: Precision, typing: str, without: Collection[str] = ()
) -> None:
    """Apply a precision's builder flags, but those in *without*.

    Flags that choose a type are left out of a strongly typed build: there they are an error. ``support``
    has refused before what this version lacks.
    """
    for name in precision.flags_on:
        member = flag(trt, name)
        if member is not None and name not in without and not (typing == "strong" and name in TYPE_FLAGS):
            config.set_flag(member)
    for name in precision.flags_off:
        member = flag(trt, name)
        if member is not None:
            config.clear_flag(member)


def flags_on(trt: Any, config: Any) -> list[str]:
    """The names of all builder flags that are on; of two names for one flag, the first."""
    on: dict[int, str] = {}
    for name, member in sorted(members(trt.BuilderFlag).items()):
        if config.get_flag(member):
            on.setdefault(int(member), name)
    return sorted(on.values())


def share_profiles(trt: Any, config: Any) -> None:
    """Let several execution contexts use one optimization profile. From 10 on they always may."""
    feature = members(trt.PreviewFeature).get("PROFILE_SHARING_0806")
    if feature is not None and version(trt) < (10,):
        config.set_preview_feature(feature, True)


def lean_library(trt: Any) -> str | None:
    """The file that a builder wants beside its own library to put the lean runtime into a plan; None where the
    builder has it inside."""
    return f"libnvinfer_lean.so.{trt.__version__}" if version(trt) < (10,) else None


def support(trt: Any, precision: Precision, capability: tuple[int, int]) -> Support:
    """Whether this version, on a GPU of this compute capability, runs *precision*."""
    from pytest_trt.backends.tensorrt.calibrators import calibrator_support  # which needs this module

    refusal = calibrator_support(trt, precision)
    if refusal is not None:
        return refusal
    known_types = members(trt.DataType)
    for name in precision.requires_types:
        if name not in known_types:
            return _lacks(trt, precision, f"there is no data type {name}")
    for name in precision.flags_on:
        if name == "FP8" and version(trt) < (9,):
            # The flag and the type are bound in 8.6, but its headers call their use undefined.
            return _lacks(trt, precision, "FP8 can be named, but not used yet")
        if name in TYPE_FLAGS and TYPE_FLAGS[name] not in known_types:
            return _lacks(trt, precision, f"there is no data type {TYPE_FLAGS[name]}")
        if flag(trt, name) is None and not (strongly_typed(trt) and name in TYPE_FLAGS):
            return _lacks(trt, precision, f"there is no builder flag {name}")
        if capability < _NEEDS_CAPABILITY.get(name, (0, 0)):
            needed = ".".join(map(str, _NEEDS_CAPABILITY[name]))
            found = ".".join(map(str, capability))
            return Support("unsupported", f"{precision.name} needs compute capability {needed}; this GPU has {found}")
    return Support("native")


def _lacks(trt: Any, precision: Precision, what: str) -> Support:
    instead = _INSTEAD.get(precision.name)
    hint = f"; any version runs {instead} (--trt-precision={instead})" if instead else ""
    return Support("unsupported", f"TensorRT {trt.__version__} cannot run {precision.name}: {what}{hint}")


def newest_opset(release: tuple[int, ...]) -> int | None:
    """The newest ONNX opset that the parser of *release* is documented to read; None where that is not known."""
    return _NEWEST_OPSET.get(release[0])


def node_of_error(error: Any, graph: onnx.GraphProto) -> tuple[str, str]:
    """Name and operator of the ONNX node that a ParserError is about; empty where it is about none."""
    if hasattr(error, "node_name"):
        return str(error.node_name()), str(error.node_operator())
    index = int(error.node())  # 8.6: the position in the graph, or nothing useful
    if not 0 <= index < len(graph.node):
        return "", ""
    node = graph.node[index]
    return node.name, node.op_type


def device_memory_bytes(engine: Any) -> int:
    """What one execution context needs for activations."""
    if hasattr(engine, "device_memory_size_v2"):  # 10.1 and later; 11 has only this one
        return int(engine.device_memory_size_v2)
    return int(engine.device_memory_size)


def progress_monitor(trt: Any) -> Any | None:
    """The base class of progress monitors; None in 8.6, where the log is all there is."""
    return getattr(trt, "IProgressMonitor", None)


def register_plugins(trt: Any, logger: Any) -> None:
    """Make TensorRT's own plugins known to the parser. The lean runtime has none."""
    register = getattr(trt, "init_libnvinfer_plugins", None)
    if register is not None:
        register(logger, "")
