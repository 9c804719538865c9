"""ONNX Runtime on the CPU: what it supports, builds and runs, and what it says when it cannot."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import BFLOAT16, conv_net, find, layer_norm, model, node, run, weights

from pytest_trt.artifacts.references import obtain_reference
from pytest_trt.artifacts.store import NullStore
from pytest_trt.backends import BuildOptions, BuildRequest, get_backend
from pytest_trt.backends.onnxruntime import CpuBackend, CpuSession, GraphRunner, HostClock
from pytest_trt.backends.onnxruntime.opening import message
from pytest_trt.errors import BuildError, InputsError, RunError, TrtError, UsageError
from pytest_trt.spec.inputs import Sample
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import PRECISIONS, Precision, apply_recipe, get_precision
from pytest_trt.spec.precision.ranges import calibration_tensors
from pytest_trt.spec.shapes import Profile

FEEDS = {"x": weights(9, 2, 3, 8, 8)}
PROFILE = Profile.parse("p", "x=1x3x8x8:2x3x8x8:8x3x8x8")


def request_of(name: str = "fp32", proto: onnx.ModelProto | None = None) -> BuildRequest:
    precision = get_precision(name)
    proto = proto if proto is not None else conv_net()
    ranges = dict.fromkeys(calibration_tensors(proto, {}), (-4.0, 4.0)) if precision.calibrated else None
    typed = apply_recipe(precision.make_recipe(), proto, ranges)
    return BuildRequest(Model.from_proto(typed.proto, "net"), precision, PROFILE)


def session_of(name: str = "fp32", proto: onnx.ModelProto | None = None) -> CpuSession:
    request = request_of(name, proto)
    backend = CpuBackend()
    return backend.load(backend.build(request).plan, request)


def as_is(proto: onnx.ModelProto, precision: str = "fp32") -> BuildRequest:
    """A request without a recipe before it; its profile is the model's fixed shapes, if it has them."""
    model = Model.from_proto(proto, "net")
    shapes = {spec.name: tuple(size for size in spec.shape if isinstance(size, int)) for spec in model.inputs}
    is_fixed = all(len(shapes[spec.name]) == len(spec.shape) for spec in model.inputs)
    return BuildRequest(model, PRECISIONS[precision], Profile.fixed("p", shapes) if is_fixed else PROFILE)


def test_it_is_there_with_its_version():
    found = get_backend("onnxruntime-cpu").probe()

    assert found.ok
    assert dict(found.versions) == {"onnxruntime": onnxruntime.__version__}


def test_where_onnxruntime_is_missing_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = CpuBackend().probe()

    assert not found.ok
    assert 'pip install "pytest-trt[cpu]"' in found.reason


@pytest.mark.parametrize(
    ("precision", "kind", "reason"),
    [
        ("fp32", "native", ""),
        ("fp16", "simulated", "every float16 tensor rounded to float16"),
        ("bf16", "simulated", "every bfloat16 tensor rounded to bfloat16"),
        ("int8", "simulated", "latency is not that of int8"),
        ("tf32", "unsupported", "--trt-backend=tensorrt"),
    ],
)
def test_what_it_supports(precision: str, kind: str, reason: str):
    support = CpuBackend().support(PRECISIONS[precision])

    assert support.kind == kind
    assert reason in support.reason


def test_an_unknown_precision_is_unsupported():
    assert CpuBackend().support(Precision("fp4", "casts:Fp4")).kind == "unsupported"


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        (BuildOptions(tactics=("+A",)), "--trt-tactics"),
        (BuildOptions(workspace=10**9), "--trt-workspace"),
        (BuildOptions(workspace=0), "--trt-workspace"),
        (BuildOptions(opt_level=3), "--trt-opt-level"),
        (BuildOptions(opt_level=0), "--trt-opt-level"),
    ],
)
def test_options_of_tensorrt_are_refused(options: BuildOptions, flag: str):
    with pytest.raises(UsageError, match=f"{flag} is TensorRT's") as caught:
        CpuBackend().check(options)

    assert f"leave {flag} out, or test with --trt-backend=tensorrt alone" in caught.value.hint
    assert "a manifest's [build] and a marker give it to" in caught.value.hint


def test_no_options_are_fine():
    CpuBackend().check(BuildOptions())


def test_what_a_plan_depends_on():
    assert set(CpuBackend().identity()) == {"onnxruntime", "cpu"}
    assert CpuBackend().identity()["onnxruntime"] == onnxruntime.__version__


def test_a_build_gives_an_optimized_model_and_its_facts():
    said: list[str] = []
    built = CpuBackend().build(request_of(), said.append)

    assert said == ["onnxruntime: optimizing net"]
    assert built.suffix == ".onnx"
    nodes = onnx.load_model_from_string(built.plan).graph.node
    assert built.facts["layers"] == len(nodes) <= len(conv_net().graph.node)
    assert built.facts["plan_bytes"] == len(built.plan)
    assert built.facts["build_seconds"] >= 0
    assert "simulated" not in built.facts
    assert built.timing_cache is None


def test_outputs_are_those_of_the_model():
    (expected,) = run(conv_net(), FEEDS, level="ORT_DISABLE_ALL")
    found = session_of().run(FEEDS)

    assert list(found) == ["y"]
    np.testing.assert_allclose(found["y"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("precision", "low", "high"), [("fp16", 1e-6, 1e-2), ("bf16", 1e-4, 1e-1), ("int8", 1e-4, 0.5)]
)
def test_low_precisions_have_errors_of_their_size(precision: str, low: float, high: float):
    """A simulation that rounded nothing would pass every accuracy test."""
    exact = session_of().run(FEEDS)["y"]
    found = session_of(precision).run(FEEDS)["y"]

    error = np.abs(found - exact).max() / np.abs(exact).max()
    assert found.dtype == np.float32
    assert low < error < high
    assert CpuBackend().build(request_of(precision)).facts["simulated"]


def test_int8_is_computed_as_the_model_writes_it():
    """Fused into integer kernels, results would depend on the processor."""
    plan = onnx.load_model_from_string(CpuBackend().build(request_of("int8")).plan)

    kinds = {n.op_type for n in plan.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert not {k for k in kinds if k.startswith("QLinear") or k.endswith("Integer")}


def test_inputs_that_are_not_contiguous():
    x = np.asfortranarray(FEEDS["x"])

    np.testing.assert_array_equal(session_of().run({"x": x})["y"], session_of().run(FEEDS)["y"])


def test_outputs_are_the_callers_own():
    session = session_of()
    first = session.run(FEEDS)["y"]
    kept = first.copy()
    session.run({"x": FEEDS["x"] * 2})

    np.testing.assert_array_equal(first, kept)


def test_another_batch_in_the_same_session():
    session = session_of()

    assert session.run({"x": weights(1, 7, 3, 8, 8)})["y"].shape == (7, 5)
    assert session.run({"x": weights(1, 1, 3, 8, 8)})["y"].shape == (1, 5)


@pytest.mark.parametrize("batch", [0, 9])
def test_a_batch_outside_the_profile_is_refused_as_tensorrt_does(batch: int):
    feeds = {"x": weights(1, batch, 3, 8, 8)}
    said = rf"'x': shape {batch}x3x8x8 is outside profile 'p', which allows 1x3x8x8 to 8x3x8x8\n  hint: "
    session = session_of()

    for act in (session.run, session.stage):
        with pytest.raises(RunError, match=said):
            act(feeds)


def test_launches_of_what_is_staged_are_timed():
    session = session_of()
    session.stage(FEEDS)
    clock = session.clock()
    times = clock.time(session.launch, 5)

    assert clock.name == "host"
    assert times.shape == (5,)
    assert times.dtype == np.float64
    assert (times > 0).all()
    assert session.transfers_ms(FEEDS) == {}


def test_the_host_clock_is_in_milliseconds(monkeypatch: pytest.MonkeyPatch):
    ticks = iter([0, 1_500_000, 2_000_000, 2_250_000])
    monkeypatch.setattr("time.perf_counter_ns", lambda: next(ticks))

    assert HostClock().time(lambda: None, 2).tolist() == [1.5, 0.25]


def test_the_machines_load_is_a_condition():
    found = HostClock().conditions()
    assert found["cpus"] >= 1
    assert found.keys() <= {"load_1min", "cpus", "cpu_mhz", "cpu_governor"}


@pytest.mark.parametrize(
    ("feeds", "error", "said"),
    [
        ({}, InputsError, "no array for input 'x'"),
        ({"z": np.zeros((1, 3, 8, 8), np.float32)}, InputsError, "no input 'z'"),
        ({"x": np.zeros((1, 3, 8, 8), np.float64)}, RunError, "onnxruntime failed while running: "),
        ({"x": np.zeros((1, 4, 8, 8), np.float32)}, RunError, "1x4x8x8 is outside profile 'p'"),
        ({"x": np.zeros((1, 3, 8), np.float32)}, RunError, "1x3x8 is outside profile 'p'"),
    ],
    ids=["none", "name", "type", "shape", "rank"],
)
def test_inputs_that_do_not_fit(feeds: dict[str, np.ndarray], error: type[TrtError], said: str):
    with pytest.raises(error, match=said):
        session_of().run(feeds)


@pytest.mark.parametrize("plan", [b"", b"no plan", conv_net().SerializeToString()[:200]], ids=["empty", "text", "cut"])
def test_what_is_no_plan_is_not_loaded(plan: bytes):
    with pytest.raises(RunError, match="onnxruntime cannot load the plan: "):
        CpuBackend().load(plan, request_of())


def test_a_plan_may_be_mapped_into_memory():
    backend, request = CpuBackend(), request_of()
    session = backend.load(memoryview(backend.build(request).plan), request)
    np.testing.assert_array_equal(session.run(FEEDS)["y"], session_of().run(FEEDS)["y"])


def test_a_closed_session_neither_runs_nor_launches():
    session = session_of()
    session.close()
    session.close()

    with pytest.raises(RunError, match="closed"):
        session.run(FEEDS)
    with pytest.raises(RunError, match="closed"):
        session.launch()


def test_an_operator_that_nobody_knows_is_a_build_error_with_a_hint():
    proto = model(
        [node("Frobnicate", ["x"], ["y"], domain="com.example")], {"x": [1]}, {"y": [1]}, domains={"com.example": 1}
    )
    with pytest.raises(BuildError) as caught:
        CpuBackend().build(as_is(proto))

    assert caught.value.message.startswith("onnxruntime cannot build 'net': ")
    assert "Frobnicate" in caught.value.message
    assert "has no kernel for this operator and type" in (caught.value.hint or "")


def test_a_type_without_a_kernel_is_a_build_error_with_a_hint():
    shape = (BFLOAT16, [1, 1, 4, 4])
    weight = (BFLOAT16, [1, 1, 1, 1])
    proto = model([node("Conv", ["x", "w"], ["y"])], {"x": shape, "w": weight}, {"y": shape}, opset=22)
    with pytest.raises(BuildError) as caught:
        CpuBackend().build(as_is(proto))

    assert "Conv" in caught.value.message
    assert "has no kernel for this operator and type" in (caught.value.hint or "")


def test_an_opset_of_the_future_is_a_build_error_with_a_hint():
    proto = conv_net()
    proto.opset_import[0].version = 999
    with pytest.raises(BuildError) as caught:
        CpuBackend().build(as_is(proto))

    assert "older than the model" in (caught.value.hint or "")


def test_a_broken_graph_is_a_build_error():
    proto = conv_net()
    find(proto, "relu1").input[0] = "nowhere"

    with pytest.raises(BuildError, match="onnxruntime cannot build 'net'"):
        CpuBackend().build(as_is(proto))


def test_a_model_above_the_limit_goes_through_a_file(monkeypatch: pytest.MonkeyPatch):
    import pytest_trt.spec.model

    expected = session_of().run(FEEDS)["y"]
    monkeypatch.setattr(pytest_trt.spec.model, "_MAX_MESSAGE_BYTES", 10)
    request = as_is(conv_net())
    found = CpuBackend().load(CpuBackend().build(request).plan, request).run(FEEDS)["y"]

    assert not request.model.fits_in_memory_message
    np.testing.assert_array_equal(found, expected)


def test_the_graph_runner_runs_the_model_as_it_is_written():
    found = GraphRunner(Model.from_proto(conv_net(), "net")).run(FEEDS)

    assert list(found) == ["y"]
    np.testing.assert_array_equal(found["y"], run(conv_net(), FEEDS, level="ORT_DISABLE_ALL")[0])


def test_the_graph_runner_gives_any_tensor():
    runner = GraphRunner(Model.from_proto(conv_net(), "net"), ["r1", "c1", "y"])
    found = runner.run(FEEDS)

    assert runner.output_names == list(found) == ["r1", "c1", "y"]
    np.testing.assert_array_equal(found["r1"], np.maximum(found["c1"], 0))
    assert found["c1"].shape == (2, 8, 8, 8)
    np.testing.assert_array_equal(found["y"], GraphRunner(Model.from_proto(conv_net(), "net")).run(FEEDS)["y"])


def test_the_graph_runner_changes_no_model():
    proto = layer_norm(1e-5)
    before = proto.SerializeToString()
    GraphRunner(Model.from_proto(proto, "net"), ["v"])

    assert proto.SerializeToString() == before


def test_a_tensor_that_is_not_there():
    with pytest.raises(BuildError, match="onnxruntime cannot build 'net'"):
        GraphRunner(Model.from_proto(conv_net(), "net"), ["nowhere"])


def test_the_graph_runner_names_its_failures():
    with pytest.raises(RunError, match="onnxruntime failed while running the reference: "):
        GraphRunner(Model.from_proto(conv_net(), "net")).run({"x": np.zeros((1, 4, 8, 8), np.float32)})


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find\n it", "NOT_IMPLEMENTED : Could not find it"),
        (
            "/x/cuda_call.cc:121 std::conditional_t<THRW, void, Status> CudaCall(...) CUDA failure 35: CUDA driver"
            " version is insufficient for CUDA runtime version ; GPU=-1 ; hostname=somewhere ; expr=cudaSetDevice(0);",
            "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version",
        ),
        ("plain words", "plain words"),
    ],
)
def test_the_words_of_an_error_are_what_is_left_of_it(raised: str, said: str):
    assert message(RuntimeError(raised)) == said


Specs = dict[str, tuple[int, tuple[int, ...]]]


def proto_of(
    nodes: list[onnx.NodeProto],
    fed: Specs,
    given: Specs,
    filled: dict[str, np.ndarray] | None = None,
    ir_version: int = 8,
) -> onnx.ModelProto:
    """A model of *nodes*; *fed* and *given* are type and shape of inputs and outputs, *filled* initializers that are
    inputs as well, as old exporters write them."""
    values = [[onnx.helper.make_tensor_value_info(name, *spec) for name, spec in side.items()] for side in (fed, given)]
    weights = [onnx.numpy_helper.from_array(array, name) for name, array in (filled or {}).items()]
    values[0] += [onnx.helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in weights]
    graph = onnx.helper.make_graph(nodes, "g", *values, weights)
    imports = [onnx.helper.make_opsetid("", 13)]
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


def test_a_scalar_stays_a_scalar():
    proto = proto_of([onnx.helper.make_node("Neg", ["x"], ["y"])], {"x": (1, ())}, {"y": (1, ())})
    request = as_is(proto)
    session = CpuBackend().load(CpuBackend().build(request).plan, request)

    assert session.run({"x": np.asarray(2.0, np.float32)})["y"].shape == ()


@pytest.mark.parametrize("ir_version", [3, 8])
def test_inputs_that_initializers_fill_need_not_be_fed(ir_version: int):
    """Two equal constants become one when ONNX Runtime folds them: the input of the other must not be left behind."""
    nodes = [
        onnx.helper.make_node("ConstantOfShape", ["s"], ["a"]),
        onnx.helper.make_node("ConstantOfShape", ["t"], ["b"]),
        onnx.helper.make_node("Add", ["x", "a"], ["c"]),
        onnx.helper.make_node("Add", ["c", "b"], ["y"]),
    ]
    shape = np.asarray([3], np.int64)
    proto = proto_of(nodes, {"x": (1, (3,))}, {"y": (1, (3,))}, {"s": shape, "t": shape}, ir_version)
    request = as_is(proto)
    session = CpuBackend().load(CpuBackend().build(request).plan, request)

    np.testing.assert_array_equal(session.run({"x": np.ones(3, np.float32)})["y"], np.ones(3, np.float32))
    assert len(proto.graph.input) == 3  # the caller's model is left alone


@pytest.mark.parametrize(("name", "kind"), [("bfloat16", BFLOAT16), ("float8_e4m3fn", 17), ("float8_e5m2", 19)])
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_types_that_numpy_lacks_go_in_and_come_out(name: str, kind: int, shape: tuple[int, ...]):
    import ml_dtypes

    nodes = [onnx.helper.make_node("Identity", [a], [b]) for a, b in (("x", "y"), ("z", "w"))]
    fed = {"x": (kind, shape), "z": (1, (2,))}
    proto = proto_of(nodes, fed, {"y": (kind, shape), "w": (1, (2,))})
    proto.opset_import[0].version, proto.ir_version = 19, 9
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(getattr(ml_dtypes, name))
    feeds = {"x": array, "z": np.ones(2, np.float32)}

    found = GraphRunner(Model.from_proto(proto, "m")).run(feeds)
    request = as_is(proto)
    session = CpuBackend().load(CpuBackend().build(request).plan, request)
    run = session.run(feeds)

    for outputs in (found, run):
        assert outputs["y"].dtype == array.dtype
        assert outputs["y"].shape == shape
        np.testing.assert_array_equal(outputs["y"].astype(np.float32), array.astype(np.float32))
        np.testing.assert_array_equal(outputs["w"], feeds["z"])
    sample = Sample(feeds, 1, 1, "test")
    (stored,) = obtain_reference(NullStore(), Model.from_proto(proto, "m"), [sample], "f").outputs
    assert stored["y"].dtype == array.dtype
