"""What runs references and calibration: a model as it is written, on the CPU."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_trt.backends.onnxruntime.low_types import Caller
from pytest_trt.backends.onnxruntime.opening import failures, message, open_session, open_source, session_options
from pytest_trt.backends.onnxruntime.weights import without_weights
from pytest_trt.errors import RunError
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision.graph import copy_model

if TYPE_CHECKING:
    import onnx
    import onnxruntime

    from pytest_trt.backends import Array, Outputs

__all__ = ["GraphRunner"]


class GraphRunner:
    """Runs a model as it is written, without graph optimizations: references and calibration.

    *outputs* may name any tensor of the graph, not only its outputs.
    """

    def __init__(self, model: Model, outputs: Sequence[str] | None = None) -> None:
        self.output_names = [spec.name for spec in model.outputs] if outputs is None else list(outputs)
        self._caller = Caller(self._open(model, marked=outputs is not None))

    def _open(self, model: Model, *, marked: bool) -> onnxruntime.InferenceSession:
        """Open *model*; with *marked*, its outputs are those of this runner."""
        import onnxruntime as ort

        options = session_options("none")
        graph, weights = without_weights(model.proto)
        if marked:
            _mark(graph, self.output_names)
        if Model.from_proto(graph, model.name).fits_in_memory_message:
            # Held as long as the session, which reads them where they lie. Whether it holds them itself is not said.
            self._weights = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in weights.items()}
            options.add_external_initializers(list(self._weights), list(self._weights.values()))
            return open_source(graph.SerializeToString(), options, model.name)
        if marked:
            whole = copy_model(model.proto)
            _mark(whole, self.output_names)
            model = Model.from_proto(whole, model.name)
        with tempfile.TemporaryDirectory(prefix="pytest-trt-") as folder:
            return open_session(model, options, Path(folder))

    def run(self, feeds: Mapping[str, Array]) -> Outputs:
        """Run once. Raises RunError."""
        try:
            arrays = self._caller.call(self.output_names, self._caller.stage(feeds))
        except failures() as error:
            raise RunError(f"onnxruntime failed while running the reference: {message(error)}") from error
        return dict(zip(self.output_names, arrays, strict=True))


def _mark(proto: onnx.ModelProto, names: Sequence[str]) -> None:
    import onnx

    del proto.graph.output[:]
    # A type is not needed: ONNX Runtime infers it.
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
