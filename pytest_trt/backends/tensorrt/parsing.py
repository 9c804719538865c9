"""From an ONNX model to a TensorRT network, with errors that name the node."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trt.backends.tensorrt.interface import check_network
from pytest_trt.backends.tensorrt.opsets import opset_remark
from pytest_trt.backends.tensorrt.versions import create_network, node_of_error
from pytest_trt.errors import BuildError, TrtError
from pytest_trt.spec.precision.symmetry import asymmetry_remark

if TYPE_CHECKING:
    from pytest_trt.spec.model import Model

__all__ = ["define_network"]


def define_network(trt: Any, builder: Any, logger: Any, model: Model, typing: str, stack: ExitStack) -> Any:
    """Return the network of *model*, from its own function or from its ONNX; *typing* is "strong" or "weak".

    What the network still reads from lives as long as *stack*. Raises BuildError with the words of the parser or
    of the function.
    """
    network = create_network(trt, builder, typing)
    if model.network is not None:
        _fill(trt, network, model.name, model.network, stack)
        check_network(network, model)
    else:
        _parse(trt, network, logger, model, stack)
    return network


def _fill(trt: Any, network: Any, name: str, function: Callable[[Any, Any], object], stack: ExitStack) -> None:
    """Let the model's own function define the network. What it returns is kept: weights are only pointed to."""
    where = f"the network function of model {name!r}"
    try:
        kept = function(network, trt)
    except TrtError:
        raise
    except Exception as error:  # whatever the user's function raises is why there is no network
        at = traceback.extract_tb(error.__traceback__)[-1]
        raise BuildError(
            f"{where} failed: {type(error).__name__}: {error}",
            hint=f"raised in {at.name}, line {at.lineno} of {at.filename}",
        ) from error
    stack.callback(_keep, kept)
    if not network.num_outputs:
        raise BuildError(f"{where} marked no output", hint="call network.mark_output(tensor) for each one")


def _parse(trt: Any, network: Any, logger: Any, model: Model, stack: ExitStack) -> None:
    parser = trt.OnnxParser(network, logger)
    if model.fits_in_memory_message:
        content = model.serialized()
        parsed = parser.parse(content)
        stack.callback(_keep, parser, content)
    else:
        # One protobuf message cannot hold it: the weights go into a file beside the graph.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pytest-trt-"))
        parsed = parser.parse_from_file(str(model.save(Path(folder))))
        stack.callback(_keep, parser)
    if not parsed:
        raise _error(trt, parser, logger, model)


def _keep(*_: Any) -> None:
    """Weights of the network are pointers into these until the build is over."""


def _error(trt: Any, parser: Any, logger: Any, model: Model) -> BuildError:
    where = f"TensorRT {trt.__version__} cannot parse model {model.name!r}"
    lines = []
    hint = opset_remark(trt, model)
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        node, operator = node_of_error(error, model.proto.graph)
        description = " ".join(str(error.desc()).split())
        at = f"node {node!r} ({operator}): " if operator else f"node {node!r}: " if node else ""
        lines.append(at + description)
        if operator in ("QuantizeLinear", "DequantizeLinear"):
            hint = asymmetry_remark(model.proto) or hint
        hint = hint or _hint(trt, description, operator)
    if not lines:
        lines.append(logger.complaints() or "the parser gave no reason")
    return BuildError("\n  ".join([where, *dict.fromkeys(lines)]), hint=hint)


def _hint(trt: Any, description: str, operator: str) -> str | None:
    text = description.lower()
    if "plugin" in text or "no importer" in text:
        return (
            f"TensorRT {trt.__version__} has no operator {operator or 'of this name'} and found no plugin for it:"
            " load the library that registers one, or replace the node in the model"
        )
    if "unsupported" in text or "not supported" in text:
        return f"this form of {operator or 'the node'} is not supported; simplify the model or export it differently"
    return None
