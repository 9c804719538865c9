"""What runs references and calibration: a model as it is written, on the CPU."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_trt.backends.onnxruntime.low_types import Caller
from pytest_trt.backends.onnxruntime.opening import failures, message, open_session, session_options
from pytest_trt.errors import RunError
from pytest_trt.spec.model import Model

if TYPE_CHECKING:
    from pytest_trt.backends import Array, Outputs

__all__ = ["GraphRunner"]


class GraphRunner:
    """Runs a model as it is written, without graph optimizations: references and calibration.

    *outputs* may name any tensor of the graph, not only its outputs.
    """

    def __init__(self, model: Model, outputs: Sequence[str] | None = None) -> None:
        if outputs is not None:
            model = _with_outputs(model, outputs)
        self.output_names = [spec.name for spec in model.outputs] if outputs is None else list(outputs)
        with tempfile.TemporaryDirectory(prefix="pytest-trt-") as folder:
            self._caller = Caller(open_session(model, session_options("none"), Path(folder)))

    def run(self, feeds: Mapping[str, Array]) -> Outputs:
        """Run once. Raises RunError."""
        try:
            arrays = self._caller.call(self.output_names, self._caller.stage(feeds))
        except failures() as error:
            raise RunError(f"onnxruntime failed while running the reference: {message(error)}") from error
        return dict(zip(self.output_names, arrays, strict=True))


def _with_outputs(model: Model, names: Sequence[str]) -> Model:
    import onnx

    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    del proto.graph.output[:]
    # A type is not needed: ONNX Runtime infers it.
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return Model.from_proto(proto, model.name)
