"""What the engine inspector writes, version by version: texts of its shape, put together from made-up layers."""

from __future__ import annotations

import json
from typing import Any

SPELLED = {
    "FLOAT": "Row major linear FP32",
    "HALF": "Channel major FP16 format where channel % 8 == 0",
    "BF16": "Row major linear BFloat16",
    "INT8": "Thirty-two wide channel vectorized row major Int8 format",
    "INT32": "Row major Int32 format",
    "": "N/A due to dynamic shapes",
}
# The graph compiler of 10, and 11, write the bare name.
BARE = {
    "FLOAT": "Float",
    "HALF": "Half",
    "BF16": "BFloat16",
    "INT8": "Int8",
    "INT32": "Int32",
    "INT64": "Int64",
    "INT4": "Int4",
    "FP8": "FP8",
}


def border(dtype: str, name: str = "t", dims: tuple[int, ...] = (1, 64, 56, 56)) -> dict[str, Any]:
    """One tensor, as 8.6 and 10 write it."""
    return {"Name": name, "Location": "Device", "Dimensions": list(dims), "Format/Datatype": SPELLED[dtype]}


def border_11(dtype: str, name: str = "t", dims: tuple[int, ...] = (1, 64, 56, 56)) -> dict[str, Any]:
    """One tensor, as 11 writes it: type and format apart."""
    layout = "Row major linear FP32 format (kLINEAR)" if dtype == "FLOAT" else "Channels last (kHWC8)"
    return {"Name": name, "Location": "Device", "Dimensions": list(dims), "DataType": BARE[dtype], "Format": layout}


def layer(name: str, kind: str, inputs: list[Any], outputs: list[Any], **more: Any) -> dict[str, Any]:
    return {"Name": name, "LayerType": kind, "Inputs": inputs, "Outputs": outputs, **more}


def conv(name: str, dtype: str, count: int, *, tactic: str = "0x11bde0e1d9f2f35d", **more: Any) -> dict[str, Any]:
    written = more.pop("border", border)
    return layer(
        name,
        "CaskConvolution",
        [written(more.pop("reads", dtype))],
        [written(more.pop("writes", dtype))],
        ParameterType="Convolution",
        Kernel=[3, 3],
        Weights={"Type": BARE[dtype], "Count": count},
        Bias={"Type": "Float", "Count": 64},
        Activation="RELU",
        TacticName=f"sm90_xmma_fprop_implicit_gemm_{dtype.lower()}_tilesize64x64x64_stage3",
        TacticValue=tactic,
        **more,
    )


def reformat(of: str, before: str, after: str, origin: str = "REFORMAT", **more: Any) -> dict[str, Any]:
    name = f"Reformatting CopyNode for Input Tensor 0 to {of}" if origin == "REFORMAT" else of
    written = more.pop("border", border)
    return layer(
        name,
        "Reformat",
        [written(before)],
        [written(after)],
        ParameterType="Reformat",
        Origin=origin,
        TacticValue="0x00000000000003e8",
    )


def write(*layers: dict[str, Any] | str, io: Any = None) -> str:
    """The text. The real one does not escape the control characters between the ONNX nodes of a layer."""
    ends = io if io is not None else {"Bindings": ["x", "y"]}
    return json.dumps({"Layers": list(layers), **ends}).replace("\\u001e", "\x1e").replace("\\u0001", "\x01")


IO_11 = {
    "I/O Tensors": [
        {
            "Name": "x",
            "IOMode": "Input",
            "DataType": "Half",
            "Dimensions": [1, 3, 224, 224],
            "Location": "Device",
            "IsShapeInferenceIO": False,
            "ProfileInfo": [{"MinShape": [1, 3, 224, 224], "Format": "Row major linear FP16 format (kLINEAR)"}],
        }
    ]
}


CONV_NET_86 = write(
    reformat("stem/Conv + stem/Relu", "FLOAT", "HALF"),
    conv("stem/Conv\x01 + stem/Relu", "HALF", 9408, Metadata="[ONNX Layer: stem/Conv]\x1e[ONNX Layer: stem/Relu]"),
    layer("pool/MaxPool", "TiledPooling", [border("HALF")], [border("HALF")], TacticValue="0x0000000000270101"),
    conv("block/Conv + block/Add", "HALF", 36864, tactic="0x22"),
    layer("PWN(PWN(Sigmoid), Mul)", "PointWiseV2", [border("HALF")], [border("HALF")], TacticValue="0x1c"),
    reformat("head/Conv", "HALF", "FLOAT"),
    conv("head/Conv", "FLOAT", 64000, tactic="0x33"),
    reformat("concat_input_0 copy", "FLOAT", "FLOAT", origin="CONCAT"),
    layer("flatten", "NoOp", [border("FLOAT")], [border("FLOAT")], TacticValue="0x0000000000000000"),
    layer("scale", "Constant", [], [border("FLOAT")], TacticValue="0x0000000000000000"),
)

INT8_NET_86 = write(
    reformat("QuantizeLinear_2", "FLOAT", "INT8", origin="QDQ"),
    conv("conv1.weight + QuantizeLinear_7 + Conv_9", "INT8", 9408, writes="HALF", tactic="0x1"),
    layer("MaxPool_12", "TiledPooling", [border("HALF")], [border("HALF")], TacticValue="0x270101"),
    reformat("QuantizeLinear_15", "HALF", "INT8", origin="QDQ"),
    conv("conv2.weight + QuantizeLinear_20 + Conv_22 + Add_36 + Relu_37", "INT8", 36864, tactic="0x2"),
)

# The integers are made, and every convolution runs on halves all the same.
INT8_AS_HALF_86 = write(
    reformat("QuantizeLinear_2", "FLOAT", "INT8", origin="QDQ"),
    layer("DequantizeLinear_5", "Scale", [border("INT8")], [border("HALF")], TacticValue="0x0"),
    conv("conv1.weight + Conv_9", "HALF", 9408),
    conv("conv2.weight + Conv_22", "HALF", 36864),
)

REGION = "{ForeignNode[bert.embeddings.word_embeddings.weight.../encoder/layer.11/output/LayerNorm/Add_1]}"
TRANSFORMER_86 = write(
    "[trainStation1]",
    layer("/Cast", "Cast", [border("INT32")], [border("INT32")], TacticValue="0x0"),
    reformat(REGION, "FLOAT", "HALF"),
    layer(REGION, "Myelin", [border("INT32", dims=(-1, 128))], [border("HALF")], TacticValue="0x0000000000000000"),
)

NAMES_ONLY = write("conv1 + relu1", REGION, "Reformatting CopyNode for Input Tensor 0 to conv1 + relu1")


def kernel(name: str, kind: str, dtype: str, *nodes: str, ids: str | None = None) -> dict[str, Any]:
    """A kernel of the graph compiler; *ids*: it reads indices first."""
    tensor = {"Name": "__mye1", "Dimensions": [1, 128, 768], "Format/Datatype": BARE[dtype]}
    first = [{**tensor, "Format/Datatype": BARE[ids]}] if ids else []
    return layer(
        name,
        kind,
        [*first, tensor],
        [tensor],
        TacticName=f"__myl_{kind}_{dtype}_0xf2543c36",
        StreamId=0,
        Metadata="".join(f"[ONNX Layer: {node}]" for node in nodes),
    )


def transformer_10(dtype: str) -> str:
    return write(
        kernel("__myl_Gat_myl0_1", "kgen", dtype, "/embed/Gather", ids="INT64"),
        kernel("/layer_0/q/MatMul_myl0_2", "gemm", dtype, "/layer.0/q/MatMul", "/layer.0/q/Add"),
        kernel("_gemm_mha_v2_myl0_3", "kgen", dtype, "/layer.0/MatMul", "/layer.0/Softmax", "/layer.0/MatMul_1"),
        kernel("/layer_1/q/MatMul_myl7_1", "gemm", dtype, "/layer.1/q/MatMul"),
    )


CONV_NET_11 = write(
    reformat("stem", "FLOAT", "HALF", border=border_11),
    conv("stem", "HALF", 9408, border=border_11, Metadata="[ONNX Layer: stem/Conv]\x1e[ONNX Layer: stem/Relu]"),
    layer("pool", "TiledPooling", [border_11("HALF")], [border_11("HALF")], TacticValue="0x270101"),
    conv("head", "FLOAT", 64000, border=border_11, Metadata="[ONNX Layer: head/Conv]"),
    io=IO_11,
)
