"""ONNX Runtime's offline graph optimization: a model in, the optimized model out."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_trt.backends.onnxruntime.opening import open_session, session_options, without_defaults
from pytest_trt.spec.nodes import all_nodes

if TYPE_CHECKING:
    import onnx

    from pytest_trt.spec.model import Model

__all__ = ["optimize"]


def optimize(model: Model, level: str) -> onnx.ModelProto:
    """Return *model* as ONNX Runtime saves it after its passes up to *level*, ``basic`` or ``extended``.

    Basic passes write standard ONNX. Extended ones are those of the CPU provider and may write operators of the
    domain com.microsoft, which other libraries cannot parse. Raises BuildError.
    """
    import onnx

    with tempfile.TemporaryDirectory(prefix="pytest-trt-") as folder:
        target = Path(folder, "optimized.onnx")
        options = session_options(level)
        options.optimized_model_filepath = str(target)
        open_session(without_defaults(model), options, Path(folder))
        made = onnx.load_model(str(target))
    # ONNX Runtime imports every domain that it knows; one that no node is of would look like a need.
    needed = {
        *(node.domain for nodes in (made.graph.node, *(f.node for f in made.functions)) for node in all_nodes(nodes)),
        *(function.domain for function in made.functions),
        *(entry.domain for entry in model.proto.opset_import),
    }
    imports = [entry for entry in made.opset_import if entry.domain in needed]
    del made.opset_import[:]
    made.opset_import.extend(imports)
    return made
