"""Sessions of ONNX Runtime: their options, their opening, and the words for what went wrong."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_trt.errors import BuildError

if TYPE_CHECKING:
    import onnxruntime

    from pytest_trt.spec.model import Model

__all__ = ["failures", "hint_for", "message", "open_session", "open_source", "session_options", "without_defaults"]


# The IR version from which on an initializer need not be an input as well.
_CONSTANT_INITIALIZERS = 4


def session_options(optimization: str) -> onnxruntime.SessionOptions:
    """Options that all sessions share; *optimization* is ``none``, ``basic``, ``extended`` or ``all``."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4  # failures come as exceptions; the log would only repeat them
    options.intra_op_num_threads = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    )
    options.inter_op_num_threads = 1
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = {
        "none": levels.ORT_DISABLE_ALL,
        "basic": levels.ORT_ENABLE_BASIC,
        "extended": levels.ORT_ENABLE_EXTENDED,
        "all": levels.ORT_ENABLE_ALL,
    }[optimization]
    return options


def open_session(model: Model, options: onnxruntime.SessionOptions, folder: Path) -> onnxruntime.InferenceSession:
    """Open *model* on the CPU; above 2 GiB it goes through a file in *folder*. Raises BuildError."""
    return open_source(
        model.serialized() if model.fits_in_memory_message else str(model.save(folder)), options, model.name
    )


def open_source(source: bytes | str, options: onnxruntime.SessionOptions, name: str) -> onnxruntime.InferenceSession:
    """Open the ONNX message or file *source*, the model *name*, on the CPU. Raises BuildError."""
    import onnxruntime as ort

    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except failures() as error:
        raise BuildError(f"onnxruntime cannot build {name!r}: {message(error)}", hint=hint_for(str(error))) from error


def without_defaults(model: Model) -> Model:
    """*model* without graph inputs that an initializer fills; as it is where there are none.

    ONNX Runtime folds such initializers and leaves the inputs behind: the model that it saves could not be run
    without values for them.
    """
    from pytest_trt.spec.model import Model
    from pytest_trt.spec.precision.graph import copy_model

    fed = {spec.name for spec in model.inputs}
    if all(value.name in fed for value in model.proto.graph.input):
        return model
    proto = copy_model(model.proto)
    kept = [value for value in proto.graph.input if value.name in fed]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    proto.ir_version = max(proto.ir_version, _CONSTANT_INITIALIZERS)
    return Model.from_proto(proto, model.name)


def failures() -> tuple[type[Exception], ...]:
    """The exceptions of ONNX Runtime."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    # ONNX Runtime's own exceptions have no common base below Exception; RuntimeError covers the unnamed ones.
    named = (
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NotImplemented",
        "NoSuchFile",
        "NoModel",
        "RuntimeException",
        "EPFail",
    )
    return (*(getattr(state, n) for n in named if hasattr(state, n)), RuntimeError, ValueError)


def message(error: Exception) -> str:
    """What *error* says, in one line and without its codes."""
    text = " ".join(str(error).split())
    # Deep in C++ signatures: "… CUDA failure 35: CUDA driver version is insufficient … ; GPU=0 ; hostname=…"
    if failure := re.search(r"(?:CUDA|CUDNN|CUBLAS|CUFFT) failure \S+: .*?(?= ;|$)", text):
        return failure[0][:600]
    # "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for Foo(1) node with name 'x'"
    return text.split(" : ", 2)[-1][:600]


def hint_for(text: str, provider: str = "CPU") -> str | None:
    """What to do about an error of ONNX Runtime while a session is opened, where that is known."""
    if (
        "is not a registered function/op" in text
        or "Could not find an implementation" in text
        or "NOT_IMPLEMENTED" in text
    ):
        return (
            f"ONNX Runtime's {provider} provider has no kernel for this operator and type;"
            " exclude the node from the recipe, or use another backend"
        )
    if "opset" in text.lower() or "ir_version" in text.lower() or "IR version" in text:
        return "the installed onnxruntime is older than the model; export with a lower opset, or upgrade onnxruntime"
    return None
