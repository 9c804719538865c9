"""Giving weights to an engine whose plan left them out."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trt.errors import RunError

if TYPE_CHECKING:
    from pytest_trt.spec.model import Model

__all__ = ["mark_refittable", "refit_from_model"]


def mark_refittable(network: Any, model: Model) -> None:
    """Mark the model's own weights: with REFIT_INDIVIDUAL none is refittable that is not marked.

    The parser names them as the model does. Those that it folded away are not in the network, and are left out.
    """
    for tensor in model.proto.graph.initializer:
        network.mark_weights_refittable(tensor.name)


def refit_from_model(trt: Any, engine: Any, logger: Any, model: Model) -> None:
    """Fill *engine*, built from *model* without its weights, with the weights of *model*.

    Raises RunError with TensorRT's words when they do not fit, or when some are still missing.
    """
    logger.complaints()
    refitter = trt.Refitter(engine, logger)
    parser = trt.OnnxParserRefitter(refitter, logger)
    with tempfile.TemporaryDirectory(prefix="pytest-trt-") as folder:
        # The weights are read through pointers into either of these until the refit is done.
        if model.fits_in_memory_message:
            content = model.serialized()
            read = parser.refit_from_bytes(content)
        else:
            read = parser.refit_from_file(str(model.save(Path(folder))))
        if not read:
            said = [" ".join(str(parser.get_error(i).desc()).split()) for i in range(parser.num_errors)]
            raise _error(trt, model, said or [logger.complaints()])
        if not refitter.refit_cuda_engine():
            missing = list(refitter.get_missing_weights())
            said = [f"without weights: {', '.join(missing[:5])}"] if missing else []
            raise _error(trt, model, [*said, logger.complaints()])


def _error(trt: Any, model: Model, said: list[str]) -> RunError:
    words = "\n  ".join(line for line in said if line) or "it gave no reason"
    return RunError(
        f"TensorRT {trt.__version__} cannot give model {model.name!r}'s weights to its stripped engine:\n  {words}",
        hint="leave out --trt-strip-plan: the plan then carries its weights",
    )
