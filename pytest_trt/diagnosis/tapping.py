"""Two ways to look at inner tensors of an engine: as outputs of another engine, or as debug tensors of it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from pytest_trt.spec.model import Model
from pytest_trt.spec.precision.graph import BFLOAT16, FLOAT, Names, copy_model, infer_types

if TYPE_CHECKING:
    from pytest_trt.diagnosis.deviation import Results

__all__ = ["Look", "by_outputs", "with_taps"]

# Names of tensors -> the outputs of an engine that shows them, and those of the tensors that it has, by their names.
Look = Callable[[list[str]], "Results"]


def by_outputs(model: Model, run: Callable[[Model], Results]) -> Look:
    """Look by marking tensors as outputs: *run* builds an engine of another model and returns its outputs."""
    outputs = [spec.name for spec in model.outputs]

    def look(tensors: list[str]) -> Results:
        tapped, names = with_taps(model, tensors)
        wanted = {**{name: name for name in outputs}, **names}
        return [{name: row[output] for name, output in wanted.items()} for row in run(tapped)]

    return look


def with_taps(model: Model, tensors: Collection[str]) -> tuple[Model, dict[str, str]]:
    """Return *model* with *tensors* among its outputs, and the outputs' names by tensor: bfloat16, which NumPy does not
    have, goes through a cast to float32."""
    import onnx

    proto, types = copy_model(model.proto), infer_types(model.proto)
    names, found = Names(proto.graph), {}
    for tensor in tensors:
        kind, output = types[tensor], tensor
        if kind == BFLOAT16:
            kind, output = FLOAT, names.fresh(f"{tensor}_tapped")
            cast = onnx.helper.make_node("Cast", [tensor], [output], name=names.fresh(f"{output}_cast"), to=FLOAT)
            proto.graph.node.append(cast)
        proto.graph.output.append(onnx.helper.make_tensor_value_info(output, kind, None))
        found[tensor] = output
    return Model.from_proto(proto, model.name), found
