"""The double's network: parsed from ONNX or defined by hand, and what it is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from double_base import FROM_ONNX, dims_of, make, process_logger_of, tensor_dtype


class Dims(tuple):
    pass


class IOptimizationProfile:
    def set_shape(self, name: str, low: Any, opt: Any, high: Any) -> None:
        if not len(low) == len(opt) == len(high):
            raise ValueError("shapes have different ranks")
        self._shapes[name] = [list(low), list(opt), list(high)]

    def __bool__(self) -> bool:
        return all(a <= b <= c for shapes in self._shapes.values() for a, b, c in zip(*shapes, strict=True))


class ITensor:
    name = property(lambda self: self._name)
    shape = property(lambda self: dims_of(self._trt, self._shape))
    dtype = property(lambda self: self._dtype)
    allowed_formats = 1
    is_shape_tensor = property(lambda self: self._is_shape_tensor)
    is_network_input = True


def _tensor(trt: Any, value: onnx.ValueInfoProto, shapes: bool = False) -> Any:
    shape = [d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim]
    dtype = tensor_dtype(trt, value.type.tensor_type.elem_type)
    return make(trt, "ITensor", _name=value.name, _shape=shape, _dtype=dtype, _is_shape_tensor=shapes)


class ILayer:
    num_outputs = property(lambda self: len(self._outputs))
    type = property(lambda self: self._type)

    def get_output(self, index: int) -> Any:
        return self._outputs[index]


class INetworkDefinition:
    num_inputs = property(lambda self: len(self._inputs))
    num_outputs = property(lambda self: len(self._outputs))

    def get_input(self, index: int) -> Any:
        return self._inputs[index]

    def get_output(self, index: int) -> Any:
        return self._outputs[index]

    def add_input(self, name: str, dtype: Any, shape: Any) -> Any:
        if self._proto is None:
            graph = onnx.helper.make_graph([], "by hand", [], [])
            opset = onnx.helper.make_opsetid("", 17)
            self._proto = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
        elem_type = next(number for number, known in FROM_ONNX.items() if known == dtype.name)
        sizes = [size if size >= 0 else None for size in shape]
        self._proto.graph.input.append(onnx.helper.make_tensor_value_info(name, elem_type, sizes))
        self._inputs.append(_tensor(self._trt, self._proto.graph.input[-1]))
        return self._inputs[-1]

    def add_activation(self, tensor: Any, kind: Any) -> Any:
        nodes = self._proto.graph.node
        name = f"(Unnamed Layer* {len(nodes)}) [Activation]_output"
        nodes.append(onnx.helper.make_node(kind.name.capitalize(), [tensor.name], [name], f"layer {len(nodes)}"))
        state = {"_shape": list(tensor.shape), "_dtype": tensor.dtype, "_is_shape_tensor": False}
        return make(self._trt, "ILayer", _outputs=[make(self._trt, "ITensor", _name=name, **state)])

    def mark_output(self, tensor: Any) -> None:
        for node in self._proto.graph.node:  # a tensor may have got another name since
            node.output[:] = [tensor.name if name == tensor._name else name for name in node.output]
        elem_type = next(number for number, known in FROM_ONNX.items() if known == tensor.dtype.name)
        sizes = [size if size >= 0 else None for size in tensor.shape]
        self._proto.graph.output.append(onnx.helper.make_tensor_value_info(tensor.name, elem_type, sizes))
        self._outputs.append(tensor)

    num_layers = property(lambda self: len(self._proto.graph.node))

    def get_layer(self, index: int) -> Any:
        """One layer for each node; what an Identity makes has another name in the network, as in the real one."""
        node = self._proto.graph.node[index]
        hidden = "(hidden) " if node.op_type == "Identity" else ""
        names = [hidden + name for name in node.output if name]
        kind = self._trt.LayerType.DEQUANTIZE if node.op_type == "DequantizeLinear" else self._trt.LayerType.ELEMENTWISE
        outputs = [make(self._trt, "ITensor", _name=name) for name in names]
        return make(self._trt, "ILayer", _outputs=outputs, _type=kind)

    def mark_debug(self, tensor: Any) -> bool:
        if "no-debug" in self._trt.misbehave:
            return False
        self.__dict__.setdefault("_debug", set()).add(tensor.name)
        return True

    def mark_weights_refittable(self, name: str) -> bool:
        known = name in {tensor.name for tensor in self._proto.graph.initializer}
        if known:
            self._refittable.add(name)
        return known


class ParserError:
    def desc(self) -> str:
        return self._desc

    def node(self) -> int:
        return self._node

    def node_name(self) -> str:
        return self._proto.graph.node[self._node].name

    def node_operator(self) -> str:
        return self._proto.graph.node[self._node].op_type


class OnnxParser:
    num_errors = property(lambda self: len(self._errors))

    def __init__(self, network: Any, logger: Any) -> None:
        self._network, self._logger, self._errors = network, logger, []

    def get_error(self, index: int) -> Any:
        return self._errors[index]

    def parse_from_file(self, path: str) -> bool:
        return self._read(onnx.load(path))

    def parse(self, model: bytes, path: str | None = None) -> bool:
        return self._read(onnx.load_from_string(bytes(model)))

    def _read(self, proto: onnx.ModelProto) -> bool:
        trt = self._trt
        if "no-errors" in trt.misbehave:
            self._logger.log(trt.ILogger.ERROR, "ModelImporter: something broke")
            return False
        if trt.__version__.startswith("8") and not self._network._names & {"EXPLICIT_BATCH"}:
            raise AssertionError("an ONNX network needs an explicit batch dimension before TensorRT 10")
        for index, node in enumerate(proto.graph.node):
            if node.op_type == "NoSuchOp" and not trt._plugins:
                text = "In function importFallbackPluginImporter:\n[8] Assertion failed: plugin not found"
                self._errors.append(make(trt, "ParserError", _desc=text, _node=index, _proto=proto))
            if node.op_type == "QuantizeLinear" and "asymmetric" in trt.misbehave:
                text = "[6] Assertion failed: shiftIsAllZeros(zeroPoint) && symmetric quantization only"
                self._errors.append(make(trt, "ParserError", _desc=text, _node=index, _proto=proto))
        if self._errors:
            return False
        filled = {tensor.name for tensor in proto.graph.initializer}
        reshapers = {node.input[1] for node in proto.graph.node if node.op_type == "Reshape"}
        self._network._proto = proto
        for value in proto.graph.input:
            if value.name in filled:
                continue
            self._network._inputs.append(_tensor(trt, value, value.name in reshapers))
        self._network._outputs += [_tensor(trt, value) for value in proto.graph.output]
        return True


class IPluginRegistry:
    def load_library(self, path: str) -> Any:
        # What the registry takes are libraries that export their creators; others only register as they are loaded.
        if not Path(path).read_bytes().startswith(b"CREATORS"):
            process_logger_of(self._trt).log(self._trt.ILogger.ERROR, f"{path}: getCreators is not exported")
            return None
        self._trt._plugins.append(path)
        return object()
