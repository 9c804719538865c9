"""The float32 model evaluated in float64: how far is the reference itself from exact arithmetic?

The evaluator is onnx.reference, in NumPy: it takes any model whose types were changed throughout, while ONNX Runtime
has no float64 kernels for convolutions and more. Weights keep their float32 values, which float64 holds exactly, so
what differs from the float32 reference is rounding alone. Limits: it takes seconds where ONNX Runtime takes
milliseconds (6 s for ResNet-50 on one image, two processors); an operator that onnx.reference lacks, or whose result is
float32 whatever goes in, is refused by its name. Inside of functions and subgraphs nobody looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.artifacts.key import Key
from pytest_trt.artifacts.references import Reference
from pytest_trt.artifacts.store import Store
from pytest_trt.artifacts.stored_outputs import pack, unpack
from pytest_trt.backends import Progress, silent
from pytest_trt.counted import counted
from pytest_trt.environment import version_of
from pytest_trt.errors import UnsupportedError
from pytest_trt.spec.nodes import title
from pytest_trt.spec.precision.already import quantized_precisions
from pytest_trt.spec.precision.graph import all_graphs, copy_model, low_types_in

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from pytest_trt.spec.inputs import Sample
    from pytest_trt.spec.model import Model

__all__ = ["float64_model", "obtain_float64_reference"]

# Raise it when the evaluation comes to other numbers.
_RULES = 1
# onnx.TensorProto.DataType and onnx.AttributeProto.AttributeType, which are part of the file format.
_FLOAT, _DOUBLE, _INT = 1, 11, 2
# Attributes that name the type of a result.
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "output_datatype", "softmax_precision", "stash_type")
_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")
# NumPy's and Python's, of operators that are written for other types or not at all.
_FAILURES = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError, ArithmeticError)


def obtain_float64_reference(
    store: Store, model: Model, samples: Sequence[Sample], samples_fingerprint: str, progress: Progress = silent
) -> Reference:
    """Evaluate *samples* in float64, or look the outputs up; floating-point outputs are float64.

    Raises UnsupportedError when the model cannot be evaluated in float64 all the way.
    """
    key = Key.make(
        "reference",
        {
            "model": model.fingerprint,
            "inputs": samples_fingerprint,
            "count": len(samples),
            "evaluator": f"onnx.reference {version_of('onnx')}",
            "float64": _RULES,
        },
    )

    def build() -> dict[str, bytes]:
        progress(f"reference: evaluating {model.name} in float64 (onnx.reference), {counted(len(samples), 'sample')}")
        evaluate = _Evaluation(model)
        return pack(evaluate(sample.feeds) for sample in samples)

    entry = store.get_or_build(key, build, label=f"float64 reference of {model.name}")
    return Reference(unpack(entry.files, len(samples), model), "onnx.reference float64", entry.fresh)


def float64_model(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return *proto* with every float32 tensor, constant and cast in float64, subgraphs and functions included.

    Raises UnsupportedError for a model that is typed or quantized: its rounding is part of what it says.
    """
    if typed := low_types_in(proto) | set(quantized_precisions(proto)):
        raise UnsupportedError(f"the model has {' and '.join(sorted(typed))} already: rounding is part of what it says")
    model = copy_model(proto)
    for graph in all_graphs(model.graph):
        for tensor in graph.initializer:
            _widen(tensor)
        for sparse in graph.sparse_initializer:
            _widen(sparse.values)
        del graph.value_info[:]
        for value in (*graph.input, *graph.output):
            _widen_value(value)
    for node in _nodes(model):
        _widen_node(node)
    return model


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for graph in all_graphs(model.graph):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def _widen(tensor: onnx.TensorProto) -> None:
    import onnx

    if tensor.data_type == _FLOAT:
        array = onnx.numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def _widen_value(value: onnx.ValueInfoProto) -> None:
    kind = value.type.WhichOneof("value")
    tensor = value.type.sequence_type.elem_type.tensor_type if kind == "sequence_type" else value.type.tensor_type
    if kind in ("tensor_type", "sequence_type") and tensor.elem_type == _FLOAT:
        tensor.elem_type = _DOUBLE


def _widen_node(node: onnx.NodeProto) -> None:
    import onnx

    if node.op_type in _RANDOM:
        raise UnsupportedError(f"{node.op_type} draws at random: there is no float64 form of what was drawn")
    for attribute in node.attribute:
        if attribute.HasField("t"):
            _widen(attribute.t)
        for tensor in attribute.tensors:
            _widen(tensor)
        if attribute.name in _TYPE_ATTRIBUTES and attribute.type == _INT and attribute.i == _FLOAT:
            attribute.i = _DOUBLE
    given = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "Constant" and (found := given.get("value_float") or given.get("value_floats")):
        values = found.f if found.name == "value_float" else list(found.floats)
        constant = onnx.numpy_helper.from_array(np.asarray(values, np.float64))
        node.attribute[0].CopyFrom(onnx.helper.make_attribute("value", constant))
    elif node.op_type == "ConstantOfShape" and "value" not in given:
        node.attribute.append(onnx.helper.make_attribute("value", onnx.numpy_helper.from_array(np.zeros(1))))


class _Evaluation:
    """Evaluates one model. In its first run every tensor of the main graph is looked at: is it float64?"""

    def __init__(self, model: Model) -> None:
        from onnx.reference import ReferenceEvaluator

        self._name, self._outputs = model.name, [spec.name for spec in model.outputs]
        self._model = float64_model(model.proto)
        try:
            self._evaluator = ReferenceEvaluator(self._model)
        except _FAILURES as error:
            raise self._refusal(error) from error
        self._looked = False

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        wide = {name: a.astype(np.float64) if a.dtype == np.float32 else a for name, a in feeds.items()}
        try:
            with np.errstate(all="ignore"):  # NaN and infinities are the model's own
                if self._looked:
                    found: Any = dict(zip(self._outputs, self._evaluator.run(self._outputs, wide), strict=True))
                else:
                    found = self._evaluator.run(self._outputs, wide, intermediate=True)
        except _FAILURES as error:
            raise self._refusal(error) from error
        if not self._looked:
            self._look(found)
        return {name: np.asarray(found[name]) for name in self._outputs}

    def _look(self, found: Mapping[str, Any]) -> None:
        for node in self._model.graph.node:
            for name in node.output:
                if getattr(found.get(name), "dtype", None) == np.float32:
                    raise UnsupportedError(
                        f"{self._name} cannot be evaluated in float64: onnx.reference computes {title(node)} in float32"
                    )
        self._looked = True

    def _refusal(self, error: Exception) -> UnsupportedError:
        text = " ".join(str(error).split())[:300] or type(error).__name__
        return UnsupportedError(f"{self._name} cannot be evaluated in float64: onnx.reference says: {text}")
