"""Graph variants: the same model after an optimizer or converter that users run before TensorRT.

==============  ===================================================================================================
as-is           the model
ort-basic       ONNX Runtime's basic passes (constant folding, eliminations): standard ONNX again
ort-extended    and its extended fusions, made for the CPU; they may write operators of the domain com.microsoft,
                which TensorRT cannot parse: such a case fails with the parser's error
simplified      onnxslim (``pip install pytest-trt[graph]``)
opset=N         onnx's version converter
==============  ===================================================================================================

A variant has the inputs and outputs of the model, by name, type and declared shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pytest_trt.artifacts.key import Key
from pytest_trt.artifacts.onnx_files import parse_entry
from pytest_trt.artifacts.store import Store
from pytest_trt.backends import Progress, silent
from pytest_trt.environment import version_of
from pytest_trt.errors import BuildError, ModelError, UsageError, nearest
from pytest_trt.spec.case import AS_IS
from pytest_trt.spec.model import Model

if TYPE_CHECKING:
    import onnx

__all__ = ["obtain_graph"]

_OPSET = "opset="


def obtain_graph(store: Store, model: Model, graph: str, progress: Progress = silent) -> Model:
    """Return *model* as the variant *graph* has it, made once and then kept.

    Raises UsageError (no such variant, or its tool is not installed) and ModelError (the tool cannot handle the model,
    or what it made is no valid model with the same inputs and outputs).
    """
    if graph == AS_IS:
        return model
    make, tools = _maker(graph)

    def build() -> dict[str, bytes]:
        if not model.fits_in_memory_message:
            raise ModelError(f"{model.name}: a model of 2 GiB or more has no variant {graph}", hint="run it as-is")
        progress(f"{model.name}: making the graph variant {graph}")
        return {"model.onnx": Model.from_proto(_checked(make(model), model, graph), model.name).serialized()}

    key = Key.make("model", {"graph": graph, "model": model.fingerprint, "tools": dict(tools)})
    entry = store.get_or_build(key, build, label=f"{model.name} {graph}")
    return parse_entry(store, entry, model.name)


def _maker(graph: str) -> tuple[Callable[[Model], onnx.ModelProto], Mapping[str, str]]:
    """The function that makes *graph*, and the versions that its result depends on."""
    onnx_version = version_of("onnx") or "missing"
    if graph in ("ort-basic", "ort-extended"):
        level = graph.removeprefix("ort-")
        return lambda model: _optimized(model, level), {
            "onnxruntime": version_of("onnxruntime", "onnxruntime-gpu") or "missing"
        }
    if graph == "simplified":
        version = version_of("onnxslim")
        if version is None:
            raise UsageError("graph simplified needs onnxslim", hint='pip install "pytest-trt[graph]"')
        return _simplified, {"onnxslim": version, "onnx": onnx_version}
    number = graph.removeprefix(_OPSET)
    if graph.startswith(_OPSET) and number.isdecimal():
        return lambda model: _converted(model, int(number)), {"onnx": onnx_version}
    known = (AS_IS, "ort-basic", "ort-extended", "simplified", "opset=17")
    raise UsageError(f"there is no graph variant {graph!r}", hint=nearest(graph, known))


def _optimized(model: Model, level: str) -> onnx.ModelProto:
    from pytest_trt.backends.onnxruntime.optimize import optimize

    try:
        return optimize(model, level)
    except BuildError as error:
        raise ModelError(f"{model.name}: ort-{level}: {error.message}", hint=error.hint) from error


def _simplified(model: Model) -> onnx.ModelProto:
    try:
        import onnxslim
    except ImportError as error:
        raise UsageError(
            f"graph simplified: onnxslim cannot be imported: {error}", hint='pip install "pytest-trt[graph]"'
        ) from error
    try:
        made: onnx.ModelProto | None = onnxslim.slim(_copy(model.proto))
    # onnxslim has no exceptions of its own: whatever it raises on this model is one failed variant, the cause chained.
    except Exception as error:
        raise ModelError(
            f"{model.name}: onnxslim failed: {type(error).__name__}: {error}", hint="run it as-is, or with ort-basic"
        ) from error
    if made is None:
        raise ModelError(f"{model.name}: onnxslim returned no model", hint="run it as-is, or with ort-basic")
    return made


def _converted(model: Model, opset: int) -> onnx.ModelProto:
    import onnx
    from onnx import version_converter

    newest = onnx.defs.onnx_opset_version()
    if not 1 <= opset <= newest:
        raise UsageError(f"graph opset={opset} does not exist", hint=f"onnx {onnx.__version__} has 1 to {newest}")
    try:
        made: onnx.ModelProto = version_converter.convert_version(_copy(model.proto), opset)
    except (
        version_converter.ConvertError,
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        RuntimeError,
        ValueError,
        IndexError,
    ) as error:
        said = " ".join(str(error).split())[:600] or type(error).__name__
        raise ModelError(
            f"{model.name}: onnx cannot convert it to opset {opset}: {said}",
            hint="export the model again with that opset, or leave this variant out",
        ) from error
    # An opset needs an IR version that knows its types.
    made.ir_version = max(made.ir_version, onnx.helper.find_min_ir_version_for(made.opset_import, ignore_unknown=True))
    return made


def _copy(proto: onnx.ModelProto) -> onnx.ModelProto:
    copy = type(proto)()
    copy.CopyFrom(proto)
    return copy


def _checked(made: onnx.ModelProto, model: Model, graph: str) -> onnx.ModelProto:
    """Return *made* with the declared shapes of *model*. Raises ModelError when it is not the same model outside."""
    from pytest_trt.spec.loading import check_proto

    where = f"{model.name}: what {graph} made of it"
    after = Model.from_proto(made, model.name)
    for side, old, new in (("inputs", model.inputs, after.inputs), ("outputs", model.outputs, after.outputs)):
        before_names, after_names = ([(spec.name, spec.dtype) for spec in specs] for specs in (old, new))
        if before_names != after_names:
            raise ModelError(
                f"{where} has other {side}: {_list(after_names)} instead of {_list(before_names)}",
                hint="leave this variant out: the reference would answer another question",
            )
    declared: dict[str, Any] = {
        value.name: value.type for value in (*model.proto.graph.input, *model.proto.graph.output)
    }
    for value in (*made.graph.input, *made.graph.output):
        if value.name in declared:
            value.type.CopyFrom(declared[value.name])
    check_proto(made, where)
    return made


def _list(specs: list[tuple[str, str]]) -> str:
    return ", ".join(f"{name} ({dtype})" for name, dtype in specs) or "none"
