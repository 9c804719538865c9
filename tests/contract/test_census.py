"""What is read of an engine, and when it is said that a precision was not honoured."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import inspected
import numpy as np
import pytest
from inspected import border, conv, layer, reformat, transformer_10, write
from onnx import TensorProto, helper, numpy_helper

from pytest_trt.backends import BuildOptions, BuildRequest, Calibration
from pytest_trt.backends.tensorrt.census import Census, take_census
from pytest_trt.backends.tensorrt.inspector import read_layers
from pytest_trt.backends.tensorrt.weight_sizes import judge_size, size_text, weight_sizes
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import PRECISIONS
from pytest_trt.spec.shapes import Profile, ShapeRange

STATIC = Profile.fixed("s", {"x": (1, 3)})
SMALL = Profile("small", {"x": ShapeRange((1, 3), (2, 3), (4, 3))})
LARGE = Profile("large", {"x": ShapeRange((4, 3), (8, 3), (64, 3))})


class Context:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = tuple(shape)
        return True


class Inspector:
    def __init__(self, text: str) -> None:
        self.text, self.execution_context = text, None

    def get_engine_information(self, layout: object) -> str:
        assert layout == "JSON"
        return self.text


class Engine:
    """An engine of two inputs and one output whose inspector writes *text*."""

    num_io_tensors = 3
    num_layers = 42
    device_memory_size_v2 = 4096

    def __init__(self, text: str, *, dynamic: bool = False, context: bool = True) -> None:
        self.inspector, self.dynamic = Inspector(text), dynamic
        self.context = Context() if context else None

    def get_tensor_name(self, index: int) -> str:
        return ("x", "constant", "y")[index]

    def get_tensor_mode(self, name: str) -> Any:
        return SimpleNamespace(name="OUTPUT" if name == "y" else "INPUT")

    def get_tensor_shape(self, name: str) -> tuple[int, int]:
        return (-1 if self.dynamic and name != "constant" else 1, 3)

    def create_execution_context(self) -> Context | None:
        return self.context

    def create_engine_inspector(self) -> Inspector:
        return self.inspector


TRT = SimpleNamespace(LayerInformationFormat=SimpleNamespace(JSON="JSON"))


def model(count: int = 24, dtype: Any = np.float32) -> Model:
    """y = x @ w, with *count* weights of *dtype*; they are never read, so none is stored."""
    weight = numpy_helper.from_array(np.zeros(0, dtype), "w")
    weight.dims[:] = [count]
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "mm")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in "xy"]
    return Model.from_proto(helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:], [weight])), "m")


def int4_model(count: int) -> Model:
    weight = helper.make_tensor("w", TensorProto.INT4, [2], b"\0", raw=True)
    weight.dims[:] = [count]
    nodes = [helper.make_node("DequantizeLinear", ["w", "s"], ["wd"]), helper.make_node("MatMul", ["x", "wd"], ["y"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in "xy"]
    return Model.from_proto(helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])), "m")


def request(precision: str = "fp16", made: Model | None = None, **more: Any) -> BuildRequest:
    return BuildRequest(made or model(), PRECISIONS[precision], more.pop("profile", STATIC), **more)


def census(text: str, asked: BuildRequest | None = None, plan_bytes: int = 1000) -> Census:
    return take_census(TRT, Engine(text), asked or request(), plan_bytes)


def refusal(text: str, precision: str, **more: Any) -> str | None:
    asked = request(precision, more.pop("made", None), **more)
    return census(text, asked).not_honoured(asked)


def section(found: Census, name: str) -> dict[str, Any]:
    part = found.facts()[name]
    assert isinstance(part, dict)
    return part


def test_a_convolutional_net_of_8_6():
    found = census(inspected.CONV_NET_86)
    assert found.facts() == {
        "precisions": {"HALF": 4, "FLOAT": 1},
        "census": {
            "layers": {"HALF": 4, "FLOAT": 1},
            "weights_bytes": {"FLOAT": 256000, "HALF": 92544},
            "hidden": 0,
            "fused": 3,
            "reformats": 2,
            "myelin": 0,
            "evidence": "4 of 5 computing layers in HALF, 1 in FLOAT",
        },
        "structure": {
            "layers": 42,
            "fused": 3,
            "reformats": 2,
            "myelin": 0,
            "plan_bytes": 1000,
            "device_memory_bytes": 4096,
        },
        "tactics": {
            "stem/Conv\x01 + stem/Relu": (
                "sm90_xmma_fprop_implicit_gemm_half_tilesize64x64x64_stage3 0x11bde0e1d9f2f35d"
            ),
            "pool/MaxPool": "0x0000000000270101",
            "block/Conv + block/Add": "sm90_xmma_fprop_implicit_gemm_half_tilesize64x64x64_stage3 0x22",
            "PWN(PWN(Sigmoid), Mul)": "0x1c",
            "head/Conv": "sm90_xmma_fprop_implicit_gemm_float_tilesize64x64x64_stage3 0x33",
        },
    }
    json.dumps(found.facts())
    assert found.not_honoured(request()) is None


def test_a_transformer_of_8_6_is_one_region():
    found = census(inspected.TRANSFORMER_86, request(made=model(66_000_000, np.float16)), 133_000_000)
    assert found.describe() == "not visible"
    assert section(found, "census") == {
        "layers": {},
        "weights_bytes": {},
        "hidden": 1,
        "fused": 0,
        "reformats": 1,
        "myelin": 1,
        "evidence": ("types not visible (1 Myelin region); plan 133 MB for 132 MB of weights as typed, 264 MB in fp32"),
    }
    assert found.facts()["tactics"] == {}


def test_a_transformer_of_10_shows_its_kernels():
    found = census(transformer_10("HALF"))
    assert found.describe() == {"HALF": 4}
    assert (found.hidden, found.fused, found.myelin) == (0, 2, 2)
    assert found.facts()["tactics"]["/layer_0/q/MatMul_myl0_2"] == "__myl_gemm_HALF_0xf2543c36"
    assert found.evidence == "4 of 4 computing layers in HALF"


def test_a_net_of_11():
    found = census(inspected.CONV_NET_11)
    assert found.describe() == {"HALF": 2, "FLOAT": 1}
    assert section(found, "structure") == {
        "layers": 42,
        "fused": 1,
        "reformats": 1,
        "myelin": 0,
        "plan_bytes": 1000,
        "device_memory_bytes": 4096,
    }
    assert found.weight_bytes == {"FLOAT": 256000, "HALF": 18816}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"Layers": null}', '{"Layers": []}', "null"])
def test_an_inspector_that_shows_nothing(text: str):
    found = census(text, plan_bytes=2_500_000)
    assert found.describe() == "not visible"
    assert found.evidence.startswith("the engine inspector shows no layer that computes; plan 2.5 MB")
    assert found.not_honoured(request()) is None
    assert section(found, "structure")["layers"] == 42


def test_a_runtime_without_an_inspector():
    engine = Engine("")
    engine.create_engine_inspector = None  # type: ignore[assignment, method-assign]
    assert take_census(TRT, engine, request(), 1).describe() == "not visible"
    engine.create_engine_inspector = lambda: None  # type: ignore[assignment, method-assign, return-value]
    assert take_census(TRT, engine, request(), 1).describe() == "not visible"


def test_names_alone_show_fusions_and_regions():
    found = census(inspected.NAMES_ONLY)
    assert found.describe() == "not visible"
    assert (found.hidden, found.myelin, found.fused, found.reformats) == (2, 1, 1, 1)
    assert found.evidence.startswith("types not visible (1 Myelin region); plan 1 KB for 0 KB of weights")


@pytest.mark.parametrize(
    ("entry", "parts"),
    [
        ({"Name": "conv1"}, 1),
        ({"Name": "conv1.weight + QuantizeLinear_7 + Conv_9"}, 3),
        ({"Name": "conv1.weight + Conv_9", "Metadata": "[ONNX Layer: Conv_9]"}, 1),
        ({"Name": "a_myl0_1", "Metadata": "[ONNX Layer: a][ONNX Layer: b]"}, 2),
        ({"Name": "a_myl0_1", "Metadata": "[ONNX Layer: a]\x1e[ONNX Layer: a]"}, 1),
        ({"Name": "PWN(relu)"}, 1),
        ({"Name": "PWN(PWN(Sigmoid), Mul)"}, 2),
        ({"Name": "conv + PWN(relu)", "Metadata": ""}, 2),
        ("conv1 + relu1", 2),
    ],
)
def test_fused_parts_are_counted(entry: Any, parts: int):
    (found,) = read_layers(json.dumps({"Layers": [entry]}))
    assert found.parts == parts


@pytest.mark.parametrize(
    ("written", "dtype"),
    [
        ("Row major linear FP32", "FLOAT"),
        ("Float", "FLOAT"),
        ("Half", "HALF"),
        ("Channel major FP16 format where channel % 4 == 0", "HALF"),
        ("BFloat16", "BF16"),
        ("Thirty-two wide channel vectorized row major Int8 format.", "INT8"),
        ("UInt8", "UINT8"),
        ("FP8E4M3", "FP8"),
        ("FP4", "FP4"),
        ("Int4", "INT4"),
        ("Int64", "INT64"),
        ("N/A due to dynamic shapes", None),
        ("Unknown", None),
    ],
)
def test_types_are_read_in_every_spelling(written: str, dtype: str | None):
    entry = {"Name": "a", "LayerType": "kgen", "Inputs": [{"Format/Datatype": written}], "Outputs": "odd"}
    (found,) = read_layers(json.dumps({"Layers": [entry]}))
    assert found.dtype == dtype


def test_indices_do_not_give_a_layer_its_type():
    gather = layer("g", "Gather", [border("INT32"), border("HALF")], [border("HALF")])
    shape = layer("s", "ElementWise", [border("INT32")], [border("INT32")])
    assert [found.dtype for found in read_layers(write(gather, shape))] == ["HALF", "INT32"]


def test_weights_say_what_a_layer_computes_in():
    found = census(write(conv("c", "HALF", 10, reads="FLOAT")))
    assert found.describe() == {"HALF": 1}


def test_layers_of_further_profiles_repeat_those_of_the_first():
    found = census(write(conv("c", "HALF", 10), conv("c [profile 1]", "FLOAT", 10), conv("d [profile 0]", "HALF", 10)))
    assert found.describe() == {"HALF": 2}


def test_a_layer_name_that_comes_twice_keeps_both_tactics():
    found = census(write(conv("c", "HALF", 1, tactic="0x1"), conv("c", "HALF", 1, tactic="0x2")))
    assert [tactic[-3:] for tactic in found.tactics.values()] == ["0x1", "0x2"]
    assert list(found.tactics) == ["c", "c #2"]


@pytest.mark.parametrize(("profile", "profiles"), [(SMALL, ()), (SMALL, (SMALL, LARGE)), (LARGE, (SMALL, LARGE))])
def test_dynamic_engines_are_read_at_the_opt_shapes_of_their_first_profile(profile: Profile, profiles: tuple):
    engine = Engine(inspected.CONV_NET_86, dynamic=True)
    take_census(TRT, engine, request(profile=profile, profiles=profiles), 1)
    assert engine.inspector.execution_context is engine.context
    assert engine.context is not None
    assert engine.context.shapes == {"x": (2, 3)}


def test_static_engines_need_no_context():
    engine = Engine(inspected.CONV_NET_86)
    take_census(TRT, engine, request(profile=SMALL), 1)
    assert engine.inspector.execution_context is None


def test_no_memory_for_a_context_hides_the_types():
    engine = Engine(write(conv("c", "HALF", 10)), dynamic=True, context=False)
    assert take_census(TRT, engine, request(profile=SMALL), 1).describe() == {"HALF": 1}
    assert engine.inspector.execution_context is None


# Judgement.


def test_int8_that_ran():
    asked = request("int8")
    found = census(inspected.INT8_NET_86, asked)
    assert found.describe() == {"INT8": 2, "HALF": 1}
    assert found.weight_bytes == {"INT8": 46272}
    assert found.reformats == 0
    assert found.not_honoured(asked) is None


def test_int8_that_ran_on_halves_is_not_honoured():
    assert refusal(inspected.INT8_AS_HALF_86, "int8") == (
        "int8 was asked, but no layer of the engine that multiplies runs in INT8: 2 in HALF"
    )


def test_fp16_beside_convolutions_alone_is_not_honoured():
    text = write(conv("c", "FLOAT", 100), conv("d", "FLOAT", 100), layer("PWN(a)", "PointWiseV2", [border("HALF")], []))
    assert refusal(text, "fp16") == (
        "fp16 was asked, but no layer of the engine that multiplies runs in HALF: 2 in FLOAT"
    )


def test_fp16_nowhere_is_not_honoured():
    text = write(reformat("c", "FLOAT", "HALF"), conv("c", "FLOAT", 100))
    assert refusal(text, "fp16") == "fp16 was asked, but no layer of the engine runs in HALF: 1 in FLOAT"


def test_an_engine_without_products_is_judged_by_what_it_has():
    half = layer("PWN(a)", "PointWiseV2", [border("HALF")], [border("HALF")])
    full = layer("PWN(a)", "PointWiseV2", [border("FLOAT")], [border("FLOAT")])
    assert refusal(write(half), "fp16") is None
    assert refusal(write(full), "fp16") == "fp16 was asked, but no layer of the engine runs in HALF: 1 in FLOAT"


def test_products_are_known_by_their_kind_where_no_weights_are_shown():
    gemm = layer("m", "MatrixMultiply", [border("FLOAT")], [border("FLOAT")])
    pointwise = layer("PWN(a)", "PointWiseV2", [border("HALF")], [border("HALF")])
    assert "that multiplies runs in HALF: 1 in FLOAT" in (refusal(write(pointwise, gemm), "fp16") or "")


def test_kernels_of_the_graph_compiler_may_hold_the_products():
    text = write(
        inspected.kernel("__myl_FcAdd_myl0_1", "kgen", "INT8", "/fc"),
        inspected.kernel("/a_myl0_2", "gemm", "HALF", "/a"),
    )
    assert refusal(text, "int8") is None
    assert refusal(text.replace("Int8", "Half"), "int8") is not None


def test_fp8_products_are_honoured():
    assert refusal(transformer_10("FP8"), "fp8") is None
    assert refusal(transformer_10("HALF"), "fp8") == (
        "fp8 was asked, but no layer of the engine runs in FP8: 2 in HALF"
    )


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_fp32_must_not_multiply_lower(precision: str):
    assert refusal(write(conv("c", "FLOAT", 10)), precision) is None
    assert refusal(write(layer("a", "PointWiseV2", [border("HALF")], []), conv("c", "FLOAT", 10)), precision) is None
    assert refusal(write(conv("b", "HALF", 10), conv("c", "FLOAT", 10)), precision) == (
        f"{precision} was asked, but layers of the engine run lower: 1 in HALF"
    )


def test_tf32_is_nowhere_to_be_seen():
    said = census(write(conv("c", "FLOAT", 10)), request("tf32")).evidence
    assert said == ("1 of 1 computing layers in FLOAT; the inspector does not show whether FLOAT products are TF32")
    assert "TF32" not in census(write(conv("c", "FLOAT", 10)), request("fp32")).evidence


HALVES = model(66_400_000, np.float16)


@pytest.mark.parametrize("hidden", [inspected.TRANSFORMER_86, inspected.NAMES_ONLY])
def test_a_hidden_fp32_is_told_by_the_size_of_the_plan(hidden: str):
    asked = request(made=HALVES)
    assert census(hidden, asked, 265_000_000).not_honoured(asked) == (
        "fp16 was asked, but the plan has 265 MB, as much as the fp32 weights (266 MB); in HALF they take 133 MB"
    )
    assert census(hidden, asked, 133_500_000).not_honoured(asked) is None


@pytest.mark.parametrize(
    "more",
    [
        {"profile": SMALL, "profiles": (SMALL, LARGE)},
        {"options": BuildOptions(version_compatibility="on")},
        {"options": BuildOptions(refit="on")},
        {"options": BuildOptions(builder_flags=("+VERSION_COMPATIBLE",))},
    ],
)
def test_a_plan_that_holds_more_than_its_weights_once_says_nothing_by_its_size(more: dict[str, Any]):
    asked = request(made=HALVES, **more)
    assert census(inspected.TRANSFORMER_86, asked, 265_000_000).not_honoured(asked) is None


def test_a_size_condemns_even_where_one_layer_is_low():
    asked = request(made=HALVES)
    text = write(conv("c", "HALF", 10), layer(inspected.REGION, "Myelin", [border("HALF")], []))
    assert census(text, asked, 265_000_000).not_honoured(asked) is not None
    assert census(text, asked, 133_500_000).not_honoured(asked) is None


def test_hidden_layers_without_weights_change_nothing():
    tail = layer("{ForeignNode[/Softmax.../Mul]}", "Myelin", [border("FLOAT")], [border("FLOAT")])
    text = write(conv("c", "FLOAT", 1000), tail)
    assert refusal(text, "fp16", made=model(1000)) is not None
    assert refusal(text, "fp16", made=model(1000, np.float16)) is not None
    assert refusal(text, "fp16", made=model(2000)) is None  # half of the weights may be in it
    assert refusal(write(conv("c", "HALF", 1000), tail), "fp16", made=model(1000)) is None


def test_weights_alone_in_int4_are_judged_by_the_size_of_the_plan():
    asked = request("int4", int4_model(100_000_000))
    dequantized = write(conv("c", "FLOAT", 100_000_000))
    for text in (inspected.TRANSFORMER_86, transformer_10("FLOAT"), transformer_10("INT4"), dequantized):
        assert census(text, asked, 52_000_000).not_honoured(asked) is None
        assert "in INT4 they take 50 MB" in (census(text, asked, 400_000_000).not_honoured(asked) or "")
    assert census(transformer_10("FLOAT"), asked, 52_000_000).evidence == (
        "0 of 4 computing layers in INT4, 4 in FLOAT; plan 52 MB for 50 MB of weights as typed, 400 MB in fp32"
    )


def test_calibrated_by_tensorrt_every_weight_counts_a_byte():
    calibration = Calibration("entropy2", [], "0")
    asked = request("int8", model(10_000_000), calibration=calibration)
    found = census(inspected.TRANSFORMER_86, asked, 40_000_000)
    assert found.weights == (10_000_000, 40_000_000)
    assert "in INT8 they take 10 MB" in (found.not_honoured(asked) or "")


@pytest.mark.parametrize(
    ("plan", "typed", "fp32", "told"),
    [
        # On an H200: a BERT-like model in half, built without the FP16 flag and with it.
        (265_000_000, 133_000_000, 265_000_000, True),
        (133_000_000, 133_000_000, 265_000_000, False),
        (239_000_000, 133_000_000, 265_000_000, True),
        (237_000_000, 133_000_000, 265_000_000, False),  # below nine tenths
        (265_000_000, 160_000_000, 265_000_000, False),  # too alike
        (4_000_000, 2_000_000, 4_000_000, False),  # generated code alone may be that much
        (0, 0, 0, False),
    ],
)
def test_size_is_judged_by_the_bytes_of_the_weights(plan: int, typed: int, fp32: int, told: bool):
    said = judge_size(plan, typed, fp32, "HALF")
    assert (said is not None) == told
    if said:
        assert size_text(plan) in said
        assert size_text(typed) in said


def test_sizes_of_weights_follow_what_reads_them():
    names = {"w": np.float32, "s": np.float32, "q": np.int8, "h": np.float16, "ids": np.int64}
    constants = [numpy_helper.from_array(np.zeros(10, kind), name) for name, kind in names.items()]
    nodes = [
        helper.make_node("QuantizeLinear", ["w", "s"], ["wq"]),
        helper.make_node("DequantizeLinear", ["wq", "s"], ["wd"]),
        helper.make_node("DequantizeLinear", ["q", "s"], ["qd"]),
        helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.zeros(5, np.float32))),
        helper.make_node("Constant", [], ["i"], value_int=3),
    ]
    proto = helper.make_model(helper.make_graph(nodes, "g", [], [], constants))
    # w, q: a byte each; s, k: four; h: two; ids: none of it.
    assert weight_sizes(proto) == (10 + 40 + 10 + 20 + 20, 4 * (10 + 10 + 10 + 10 + 5))


def test_weights_of_inner_graphs_count():
    inner = helper.make_graph([], "inner", [], [], [numpy_helper.from_array(np.zeros(7, np.float16), "w")])
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    assert weight_sizes(helper.make_model(helper.make_graph([node], "g", [], []))) == (28, 56)


def calibrated(text: str, plan_bytes: int = 1000, precision: str = "int8-entropy2", **more: Any) -> str | None:
    calibration = Calibration("entropy2", [], "0")
    asked = request(precision, model(22_700_000), calibration=calibration, **more)
    return census(text, asked, plan_bytes).not_honoured(asked)


def test_an_engine_that_tensorrt_calibrated_must_show_int8():
    assert calibrated(write(conv("c", "INT8", 10), conv("d", "HALF", 10))) is None
    assert calibrated(write(conv("c", "HALF", 10))) == (
        "int8-entropy2 was asked, but no layer of the engine runs in INT8: 1 in HALF"
    )


def test_int8_in_a_hidden_region_is_told_by_the_size_of_the_plan():
    # As MiniLM on an H200: 45.7 MB, which is what fp16 takes.
    assert calibrated(inspected.TRANSFORMER_86, 45_663_556) == (
        "int8-entropy2 was asked, but the plan has 46 MB, as much as the fp16 weights (45 MB); in int8 they take 23 MB"
    )
    assert calibrated(inspected.TRANSFORMER_86, 30_000_000) is None
    assert calibrated(inspected.TRANSFORMER_86, 45_663_556, options=BuildOptions(refit="on")) is None
