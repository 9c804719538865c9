"""Every call of the TensorRT backend, held against the recorded bindings of six versions, end to end."""

from __future__ import annotations

import dataclasses
import gc
import json

import fake_cuda
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_trt.backends import BuildOptions, BuildRequest
from pytest_trt.backends.tensorrt import building
from pytest_trt.backends.tensorrt.versions import flag, members
from pytest_trt.errors import BuildError, InputsError, ModelError, ProfileError, RunError, UnsupportedError, UsageError
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import PRECISIONS, Precision
from pytest_trt.spec.shapes import Profile, ShapeRange

WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3) / 10
X = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
DYNAMIC = Profile("b", {"x": ShapeRange((1, 4), (2, 4), (8, 4))})


def model(nodes, inputs, outputs, initializers=(), *, opset=17, name="m") -> Model:
    graph = helper.make_graph(nodes, name, inputs, outputs, list(initializers))
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(proto, full_check=True)
    return Model.from_proto(proto, name)


def value(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def matmul(precision: str = "fp32") -> Model:
    """x[N,4] @ w[4,3], typed as a recipe would type it; input and output stay float32."""
    w = numpy_helper.from_array(WEIGHT, "w")
    ends = [value("x", TensorProto.FLOAT, ["N", 4])], [value("y", TensorProto.FLOAT, ["N", 3])]
    if precision in ("fp16", "bf16"):
        kind = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[precision]
        nodes = [
            helper.make_node("Cast", ["x"], ["xt"], "in", to=kind),
            helper.make_node("Cast", ["w"], ["wt"], "weights", to=kind),
            helper.make_node("MatMul", ["xt", "wt"], ["yt"], "mm"),
            helper.make_node("Cast", ["yt"], ["y"], "out", to=TensorProto.FLOAT),
        ]
        return model(nodes, *ends, [w])
    if precision == "int8":
        scale = numpy_helper.from_array(np.float32(1 / 127), "scale")
        zero = numpy_helper.from_array(np.int8(0), "zero")
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["xq"], "q"),
            helper.make_node("DequantizeLinear", ["xq", "scale", "zero"], ["xd"], "dq"),
            helper.make_node("MatMul", ["xd", "w"], ["y"], "mm"),
        ]
        return model(nodes, *ends, [w, scale, zero])
    return model([helper.make_node("MatMul", ["x", "w"], ["y"], "mm")], *ends, [w])


def request_for(precision="fp32", *, which=None, profile=DYNAMIC, **options) -> BuildRequest:
    timing_cache = options.pop("timing_cache", None)
    chosen = PRECISIONS[precision]
    return BuildRequest(which or matmul(precision), chosen, profile, BuildOptions(**options), timing_cache=timing_cache)


def is_86(trt) -> bool:
    return trt.__version__.startswith("8.6")


# --- building -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16", "int8"])
def test_build_sets_the_right_flags(trt, backend, precision):
    if is_86(trt) and precision == "bf16":
        support = backend.support(PRECISIONS["bf16"])
        assert support.kind == "unsupported"
        assert "8.6.0" in support.reason
        assert "BF16" in support.reason
        with pytest.raises(UnsupportedError, match="BF16"):
            backend.build(request_for("bf16"))
        return
    assert backend.support(PRECISIONS[precision]).kind == "native"
    built = backend.build(request_for(precision))

    expected = {"tf32": ["TF32"]}.get(precision, [])
    if is_86(trt):
        expected = {"fp16": ["FP16"], "int8": ["FP16", "INT8"]}.get(precision, expected)
    assert built.facts["flags"] == expected
    assert built.facts["typing"] == ("weak" if is_86(trt) else "strong")
    assert json.loads(built.plan)["network"] == (["EXPLICIT_BATCH"] if is_86(trt) else ["STRONGLY_TYPED"])
    assert "not_honoured" not in built.facts
    assert built.suffix == ".plan"


def test_facts_are_what_happened(trt, backend):
    built = backend.build(request_for("fp16"))
    facts = built.facts
    assert facts["tensorrt"] == trt.__version__
    assert facts["layers"] == 4
    assert facts["device_memory_bytes"] == 4096
    assert facts["plan_bytes"] == len(built.plan)
    assert facts["warnings"] == 1
    assert facts["first_warnings"] == ["weights are subnormal"]
    assert facts["build_seconds"] >= 0
    assert list(facts["step_seconds"]) == ["open", "parse", "configure", "build", "inspect", "timings"]
    # 8.6 is weakly typed: the double runs everything in half there; 10 and 11 leave the last cast in float.
    assert facts["precisions"] == ({"HALF": 4} if is_86(trt) else {"HALF": 3, "FLOAT": 1})


def test_nothing_persisted_holds_enum_integers(trt, backend):
    kept = {**backend.build(request_for("int8")).facts, **backend.identity()}
    for key in ("flags", "tactic_sources"):
        assert all(isinstance(name, str) and not name.isdigit() for name in kept[key])
    assert set(kept["flags"]) <= set(members(trt.BuilderFlag))
    json.dumps(kept)


def test_removed_flags_are_not_touched_on_11(trt):
    expected = None if trt.__version__.startswith("11") else "FP16"
    found = flag(trt, "FP16")
    assert (found.name if found else None) == expected


def test_identity(trt, backend):
    identity = backend.identity()
    assert identity["tensorrt"] == trt.__version__
    assert identity["gpu"] == "Fake GPU"
    assert identity["compute_capability"] == "9.0"
    assert identity["cuda"] == "12.9"
    assert int(identity["gpu_memory_bytes"]) == 80 * 2**30
    assert all(isinstance(v, str) for v in identity.values())


def test_fp8_needs_more_than_a_name(trt, backend):
    fp8 = Precision("fp8", "x:y", flags_on=("FP8",))
    support = backend.support(fp8)
    assert support.kind == ("unsupported" if is_86(trt) else "native")
    assert ("--trt-precision=" in support.reason) == is_86(trt), "what to ask for instead"
    fp4 = Precision("fp4", "x:y", flags_on=("FP4",))
    assert backend.support(fp4).kind == "unsupported"  # not in 8.6 and 10.0; later it needs a newer GPU than 9.0


def test_progress_speaks(trt, backend):
    lines = []
    backend.build(request_for(), lines.append)
    assert lines
    assert all("\n" not in line for line in lines)


def test_interrupt_ends_the_build(trt, backend):
    def interrupted(line):
        raise KeyboardInterrupt

    if hasattr(trt, "IProgressMonitor"):
        trt.ILogger.INFO.name = "VERBOSE"  # only the monitor speaks
        with pytest.raises(KeyboardInterrupt):
            backend.build(request_for(), interrupted)
    else:
        assert not hasattr(trt.IBuilderConfig, "progress_monitor")


def test_options_are_applied(trt, backend):
    backend.build(request_for(workspace=2**20, opt_level=2, tactics=("-JIT_CONVOLUTIONS",)))
    _, config = trt._log[-1]
    assert config._pools == {"WORKSPACE": 2**20}
    assert config.builder_optimization_level == 2
    assert not config._tactics & 1 << int(trt.TacticSource.JIT_CONVOLUTIONS)
    assert config._tactics & 1 << int(trt.TacticSource.EDGE_MASK_CONVOLUTIONS)


def test_tactics_are_reported_by_name(trt, backend):
    default = backend.build(request_for()).facts["tactic_sources"]
    assert "JIT_CONVOLUTIONS" in default
    assert ("CUBLAS" in default) == is_86(trt)
    removed = backend.build(request_for(tactics=("-JIT_CONVOLUTIONS",))).facts["tactic_sources"]
    assert removed == [name for name in default if name != "JIT_CONVOLUTIONS"]
    if hasattr(trt.TacticSource, "CUDNN"):
        added = backend.build(request_for(tactics=("+CUDNN",))).facts["tactic_sources"]
        assert "CUDNN" in added


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tactics": ("JIT_CONVOLUTIONS",)}, "+NAME"),
        ({"tactics": ("+",)}, "+NAME"),
        ({"tactics": ("+JIT_CONVOLUTION",)}, "did you mean 'JIT_CONVOLUTIONS'"),
        ({"tactics": ("+JIT_CONVOLUTIONS", "-JIT_CONVOLUTIONS")}, "twice"),
        ({"opt_level": 6}, "0 to 5"),
        ({"opt_level": -1}, "0 to 5"),
        ({"workspace": 0}, "positive"),
    ],
)
def test_bad_options_are_named(backend, options, said):
    with pytest.raises(UsageError) as caught:
        backend.check(BuildOptions(**options))
    assert said in str(caught.value)


def test_a_tactic_source_this_version_lacks(trt, backend):
    options = BuildOptions(tactics=("+CUBLAS",))
    if not trt.__version__.startswith("11"):
        backend.check(options)
        return
    with pytest.raises(UsageError) as caught:
        backend.check(options)
    assert trt.__version__ in str(caught.value)
    assert "EDGE_MASK_CONVOLUTIONS, JIT_CONVOLUTIONS" in str(caught.value)


def test_timing_cache_round_trip(backend):
    first = backend.build(request_for())
    assert first.facts["timing_cache"] == "new"
    second = backend.build(request_for(timing_cache=first.timing_cache))
    assert second.facts["timing_cache"] == "used"
    assert second.timing_cache.startswith(first.timing_cache)


@pytest.mark.parametrize("blob", [b"garbage", b"CACHE of another version"])
def test_a_rejected_timing_cache_starts_empty(backend, blob):
    built = backend.build(request_for(timing_cache=blob))
    assert built.facts["timing_cache"] == "rejected"
    assert built.timing_cache.startswith(b"CACHE ")
    assert b"another" not in built.timing_cache


def test_static_shapes_need_no_profile(trt, backend):
    static = model(
        [helper.make_node("Relu", ["x"], ["y"], "relu")],
        [value("x", TensorProto.FLOAT, [2, 4])],
        [value("y", TensorProto.FLOAT, [2, 4])],
    )
    request = request_for(which=static, profile=Profile.fixed("static", {"x": (2, 4)}))
    built = backend.build(request)
    assert json.loads(built.plan)["profile"] == {}
    with backend.load(built.plan, request) as session:
        np.testing.assert_array_equal(session.run({"x": X})["y"], np.maximum(X, 0))
        with pytest.raises(RunError, match="which allows 2x4"):
            session.run({"x": X[:1]})


# --- failures of a build ------------------------------------------------------------------------------


def test_parser_error_names_node_and_operator(trt, backend):
    ends = [value("x", TensorProto.FLOAT, ["N", 4])], [value("y", TensorProto.FLOAT, ["N", 4])]
    nodes = [helper.make_node("Relu", ["x"], ["h"], "first"), helper.make_node("NoSuchOp", ["h"], ["y"], "second")]
    graph = helper.make_graph(nodes, "g", *ends)
    broken = Model.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), "broken")
    with pytest.raises(BuildError) as caught:
        backend.build(request_for(which=broken))
    text = str(caught.value)
    assert "'broken'" in text
    assert "node 'second' (NoSuchOp)" in text
    assert "Assertion failed: plugin not found" in text
    assert "no operator NoSuchOp" in caught.value.hint


@pytest.mark.parametrize(("zero", "hint"), [(3, "'q' has the zero point 3, 'dq' has the zero point 3"), (0, None)])
def test_a_refused_pair_is_explained_by_its_zero_point(trt, backend, zero, hint):
    trt.misbehave.add("asymmetric")
    ends = [value("x", TensorProto.FLOAT, ["N", 4])], [value("y", TensorProto.FLOAT, ["N", 4])]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["i"], "q"),
        helper.make_node("DequantizeLinear", ["i", "s", "z"], ["y"], "dq"),
    ]
    filled = [numpy_helper.from_array(np.float32(0.1), "s"), numpy_helper.from_array(np.int8(zero), "z")]
    graph = helper.make_graph(nodes, "g", *ends, filled)
    model = Model.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), "shifted")
    with pytest.raises(BuildError, match=r"node 'q' \(QuantizeLinear\).*shiftIsAllZeros") as caught:
        backend.build(request_for("int8", which=model))
    assert (hint in caught.value.hint) if hint else caught.value.hint is None


def test_parse_failure_without_errors_shows_the_log(trt, backend):
    trt.misbehave.add("no-errors")
    with pytest.raises(BuildError, match="ModelImporter: something broke"):
        backend.build(request_for())


def test_too_new_an_opset_is_the_hint(trt, backend):
    trt.misbehave.add("no-errors")
    newest = {"8": 17, "11": 25}.get(trt.__version__.split(".")[0])
    request = request_for(which=model_of_opset(26))
    with pytest.raises(BuildError) as caught:
        backend.build(request)
    if newest:
        assert f"up to opset {newest}" in caught.value.hint
    else:
        assert caught.value.hint is None


def test_an_engine_of_too_new_an_opset_says_so(trt, backend):
    newest = {"8": 17, "11": 25}.get(trt.__version__.split(".")[0])
    remarks = backend.build(request_for(which=model_of_opset(26))).facts.get("remarks")
    if newest:
        assert remarks is not None
        assert f"up to opset {newest}" in remarks[0]
        assert f"--trt-graph=opset={newest}" in remarks[0]
    else:
        assert remarks is None
    assert "remarks" not in backend.build(request_for()).facts


def test_too_new_an_opset_is_told_before_the_parser_may_die_of_it(trt, backend, monkeypatch):
    newest = {"8": 17, "11": 25}.get(trt.__version__.split(".")[0])
    trt.misbehave.add("no-errors")  # the parser gives up: what was told, was told before
    told, hints = [], []
    monkeypatch.setattr(building, "crash_hint", hints.append)
    with pytest.raises(BuildError):
        backend.build(request_for(which=model_of_opset(26)), told.append)
    told = [line for line in told if "opset" in line]
    if newest:
        assert f"up to opset {newest}" in hints[0]
        assert told == [f"parsing 'm': {hints[0]}"]
    else:
        assert (told, hints) == ([], [])


def test_a_build_that_fails_for_no_known_reason_has_the_opset_as_its_hint(trt, backend, monkeypatch):
    newest = {"8": 17, "11": 25}.get(trt.__version__.split(".")[0])
    trt.misbehave.add("no-plan")
    monkeypatch.setattr(building, "_hint", lambda *_: None)
    with pytest.raises(BuildError, match="cannot build") as caught:
        backend.build(request_for(which=model_of_opset(26)))
    assert (caught.value.hint or "").startswith("the model uses opset 26" if newest else "")
    assert bool(caught.value.hint) == bool(newest)


def test_a_known_opset_is_parsed_without_a_word(backend, monkeypatch):
    told, hints = [], []
    monkeypatch.setattr(building, "crash_hint", hints.append)
    backend.build(request_for(), told.append)
    assert hints == []
    assert not [line for line in told if "opset" in line]


def test_an_input_that_the_parser_named_anew(backend):
    request = request_for()
    other = dataclasses.replace(
        request,
        model=Model.from_proto(renamed(request.model.proto), "m"),
        profile=Profile("b", {"__x": DYNAMIC.ranges["x"]}),
    )
    plan = backend.build(other).plan
    with pytest.raises(RunError, match=r"has an input '__x', which is none of the model's \(x\)"):
        backend.load(plan, request)


def renamed(proto):
    """*proto* with its input x called __x."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    made.graph.input[0].name = "__x"
    for node in made.graph.node:
        node.input[:] = ["__x" if name == "x" else name for name in node.input]
    return made


def test_an_input_whose_shape_the_engine_does_not_know(trt, backend, monkeypatch):
    class Unknown:
        def __len__(self):
            return -1  # noqa: PLE0303 - as TensorRT's Dims of an unknown rank

        def __iter__(self):
            return iter(())

    request = request_for()
    plan = backend.build(request).plan
    monkeypatch.setattr(trt.ICudaEngine, "get_tensor_shape", lambda _, name: Unknown())
    with pytest.raises(RunError, match="the engine knows no shape of its tensor 'x'"):
        backend.load(plan, request)


def model_of_opset(opset: int) -> Model:
    made = matmul()
    made.proto.opset_import[0].version = opset
    return made


def test_no_plan_shows_the_log(trt, backend):
    trt.misbehave.add("no-plan")
    with pytest.raises(BuildError) as caught:
        backend.build(request_for("fp32"))
    assert "could not find any implementation" in str(caught.value)
    assert "fp32" in str(caught.value)
    assert "workspace" in caught.value.hint


def test_a_silently_dropped_precision_is_a_fact(trt, backend):
    trt.misbehave.add("fp32-only")
    facts = backend.build(request_for("fp16")).facts
    assert "no layer of the engine runs in HALF: 4 in FLOAT" in facts["not_honoured"]
    assert "not_honoured" not in backend.build(request_for("fp32")).facts


def test_fused_layers_do_not_show_their_types(trt, backend):
    trt.misbehave |= {"myelin", "fp32-only"}
    facts = backend.build(request_for("fp16")).facts
    assert facts["precisions"] == "not visible"
    assert "not_honoured" not in facts


def test_types_stay_hidden_without_a_context(trt, backend):
    trt.misbehave.add("no-context")
    facts = backend.build(request_for("fp16")).facts
    if trt.__version__.startswith("11"):  # there the type is a field of its own
        assert facts["precisions"]["HALF"] == 3
    else:
        assert facts["precisions"] == "not visible"


def test_profile_without_an_input(backend):
    with pytest.raises(ProfileError, match="no shapes for input 'x'"):
        backend.build(request_for(profile=Profile("p", {})))


def test_profile_that_is_refused(backend):
    wrong = Profile("p", {"x": ShapeRange((4, 4), (2, 4), (8, 4))})
    with pytest.raises(ProfileError, match="refuses profile 'p'"):
        backend.build(request_for(profile=wrong))
    ragged = Profile("p", {"x": ShapeRange((4, 4), (4,), (8, 4))})
    with pytest.raises(ProfileError, match="different ranks"):
        backend.build(request_for(profile=ragged))


def test_an_input_that_decides_shapes_is_unsupported(backend):
    reshaped = model(
        [helper.make_node("Reshape", ["x", "shape"], ["y"], "r")],
        [value("x", TensorProto.FLOAT, ["N", 4]), value("shape", TensorProto.INT64, [2])],
        [value("y", TensorProto.FLOAT, [None, None])],
    )
    profile = Profile("p", {"x": DYNAMIC.ranges["x"], "shape": ShapeRange.fixed((2,))})
    with pytest.raises(UnsupportedError, match="'shape' decides shapes"):
        backend.build(request_for(which=reshaped, profile=profile))


# --- running ------------------------------------------------------------------------------------------


def loaded(backend, request):
    return backend.load(backend.build(request).plan, request)


def test_run_at_every_corner(cuda, backend):
    with loaded(backend, request_for()) as session:
        for rows in (2, 1, 8, 2):
            feed = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
            outputs = session.run({"x": feed})
            assert list(outputs) == ["y"]
            assert outputs["y"].dtype == np.float32
            assert outputs["y"].flags.owndata
            np.testing.assert_allclose(outputs["y"], feed @ WEIGHT, rtol=1e-6)
    assert not cuda.live


def test_outputs_are_the_callers_own(backend):
    with loaded(backend, request_for()) as session:
        first = session.run({"x": X})["y"]
        kept = first.copy()
        session.run({"x": -X})
        np.testing.assert_array_equal(first, kept)


def test_non_contiguous_feeds(backend):
    with loaded(backend, request_for()) as session:
        feed = np.asfortranarray(X)
        np.testing.assert_allclose(session.run({"x": feed})["y"], X @ WEIGHT, rtol=1e-6)


@pytest.mark.parametrize(
    ("feeds", "error", "said"),
    [
        ({}, InputsError, "no array for input 'x'"),
        ({"x": X, "z": X}, InputsError, "no input 'z'"),
        ({"x": X.astype(np.float64)}, InputsError, "is float32, got float64"),
        ({"x": np.zeros((9, 4), np.float32)}, RunError, "shape 9x4 is outside profile 'b', which allows 1x4 to 8x4"),
        ({"x": np.zeros((2, 5), np.float32)}, RunError, "shape 2x5 is outside"),
        ({"x": np.zeros((2, 4, 1), np.float32)}, RunError, "shape 2x4x1 is outside"),
    ],
)
def test_bad_feeds_are_named(backend, feeds, error, said):
    with loaded(backend, request_for()) as session:
        with pytest.raises(error) as caught:
            session.run(feeds)
        assert said in str(caught.value)
        np.testing.assert_allclose(session.run({"x": X})["y"], X @ WEIGHT, rtol=1e-6)  # still usable


def integers() -> Model:
    return model(
        [
            helper.make_node("Gather", ["table", "i"], ["picked"], "g", axis=0),
            helper.make_node("Add", ["picked", "picked"], ["y"], "a"),
            helper.make_node("Greater", ["i", "two"], ["big"], "gt"),
        ],
        [value("i", TensorProto.INT64, ["N"])],
        [value("y", TensorProto.INT64, ["N"]), value("big", TensorProto.BOOL, ["N"])],
        [
            numpy_helper.from_array(np.arange(10, dtype=np.int64) * 7, "table"),
            numpy_helper.from_array(np.int64(2), "two"),
        ],
    )


def test_int64_at_the_border(trt, backend):
    profile = Profile("n", {"i": ShapeRange((1,), (3,), (4,))})
    request = request_for(which=integers(), profile=profile)
    with loaded(backend, request) as session:
        outputs = session.run({"i": np.array([1, 3, 9])})
        assert outputs["y"].dtype == np.int64
        np.testing.assert_array_equal(outputs["y"], [14, 42, 126])
        assert outputs["big"].dtype == np.bool_
        np.testing.assert_array_equal(outputs["big"], [False, True, True])
        if is_86(trt):
            with pytest.raises(RunError, match=f"the value {2**31}, which does not fit the engine's int32"):
                session.run({"i": np.array([1, 2**31])})


def test_data_dependent_shapes(trt, cuda, backend):
    nonzero = model(
        [helper.make_node("NonZero", ["x"], ["y"], "nz")],
        [value("x", TensorProto.FLOAT, ["N", 4])],
        [value("y", TensorProto.INT64, [2, None])],
    )
    request = request_for(which=nonzero)
    with loaded(backend, request) as session:
        for feed in (X, np.zeros_like(X), np.eye(4, dtype=np.float32)):
            outputs = session.run({"x": feed})
            np.testing.assert_array_equal(outputs["y"], np.array(np.nonzero(feed)))
            assert outputs["y"].dtype == np.int64
        session.stage({"x": X})
        clock = session.clock()
        assert clock.name == "sync"
        assert "output 'y' depends on the data" in clock.note
        assert (clock.time(session.launch, 3) > 0).all()
    assert not cuda.live


def test_contexts_whose_output_sizes_depend_on_the_data(trt, cuda, backend):
    """Memory is there before TensorRT asks for it: 8.6 was seen not to ask for enough where two contexts take turns."""
    nonzero = model(
        [helper.make_node("NonZero", ["x"], ["y"], "nz")],
        [value("x", TensorProto.FLOAT, ["N", 4])],
        [value("y", TensorProto.INT64, [2, None])],
    )
    trt.misbehave.add("shared-sizes")
    with loaded(backend, request_for(which=nonzero)) as session, session.sibling() as other:
        for one, rows in ((session, 1), (other, 8), (session, 8), (other, 2)):
            feed = np.ones((rows, 4), np.float32)
            np.testing.assert_array_equal(one.run({"x": feed})["y"], np.array(np.nonzero(feed)))


def test_an_upper_bound_that_does_not_fit_is_left_to_what_tensorrt_asks_for(trt, cuda, backend, monkeypatch):
    nonzero = model(
        [helper.make_node("NonZero", ["x"], ["y"], "nz")],
        [value("x", TensorProto.FLOAT, ["N", 4])],
        [value("y", TensorProto.INT64, [2, None])],
    )
    monkeypatch.setattr(trt.IExecutionContext, "get_max_output_size", lambda self, name: 2**50)
    with loaded(backend, request_for(which=nonzero)) as session:
        np.testing.assert_array_equal(session.run({"x": X})["y"], np.array(np.nonzero(X)))


def test_scalars_and_empty_tensors(cuda, backend):
    scaled = model(
        [helper.make_node("Mul", ["x", "s"], ["y"], "mul")],
        [value("x", TensorProto.FLOAT, ["N", 4]), value("s", TensorProto.FLOAT, [])],
        [value("y", TensorProto.FLOAT, ["N", 4])],
    )
    profile = Profile("z", {"x": ShapeRange((0, 4), (2, 4), (8, 4)), "s": ShapeRange.fixed(())})
    with loaded(backend, request_for(which=scaled, profile=profile)) as session:
        np.testing.assert_allclose(session.run({"x": X, "s": np.float32(3)})["y"], X * 3)
        empty = session.run({"x": X[:0], "s": np.array(3, np.float32)})["y"]
        assert empty.shape == (0, 4)
    assert not cuda.live


def test_unused_inputs_may_be_fed(trt, backend, monkeypatch):
    request = request_for()
    built = backend.build(request)
    wider = matmul()
    wider.proto.graph.input.append(value("ghost", TensorProto.FLOAT, [1]))
    asked = BuildRequest(wider, request.precision, request.profile)
    with backend.load(built.plan, asked) as session:
        outputs = session.run({"x": X, "ghost": np.zeros(1, np.float32)})
        np.testing.assert_allclose(outputs["y"], X @ WEIGHT, rtol=1e-6)


def test_stage_launch_and_graph_clock(cuda, backend):
    with loaded(backend, request_for()) as session:
        session.stage({"x": X})
        session.launch()
        clock = session.clock()
        assert clock.name == "graph"
        assert session.clock() is clock
        before = cuda.graph_launches
        times = clock.time(session.launch, 300)
        assert times.shape == (300,)
        assert times.dtype == np.float64
        np.testing.assert_allclose(times, fake_cuda.LAUNCH_MS)
        assert cuda.graph_launches - before == 302  # one ahead per batch of 256
        np.testing.assert_allclose(session.run({"x": X})["y"], X @ WEIGHT, rtol=1e-6)
    assert not cuda.live


def test_sync_clock_where_capture_fails(trt, cuda, backend):
    trt.misbehave.add("no-capture")
    with loaded(backend, request_for()) as session:
        session.stage({"x": X})
        clock = session.clock()
        assert clock.name == "sync"
        assert "no CUDA graph" in clock.note
        assert "launch failed" in clock.note
        np.testing.assert_allclose(clock.time(session.launch, 4), fake_cuda.LAUNCH_MS)
        np.testing.assert_allclose(session.run({"x": X})["y"], X @ WEIGHT, rtol=1e-6)
    assert not cuda.live
    assert gc.isenabled()


def test_runs_in_between_leave_the_staged_inputs(cuda, backend):
    seen = []
    with loaded(backend, request_for()) as session:
        session.stage({"x": X})
        clock = session.clock()
        session.run({"x": np.ones((8, 4), np.float32)})  # other shapes, larger buffers: the graph is stale now
        clock.time(session.launch, 2)
        session._download()
        seen.append(session._outputs[0].decode())
    np.testing.assert_allclose(seen[0], X @ WEIGHT, rtol=1e-6)
    assert not cuda.live


def test_a_run_that_fails_halfway_leaves_no_graph_on_freed_memory(trt, cuda, backend, monkeypatch):
    with loaded(backend, request_for()) as session:
        session.stage({"x": X})
        clock = session.clock()
        with monkeypatch.context() as patch:
            patch.setattr(trt.IExecutionContext, "infer_shapes", lambda self: ["x"])
            with pytest.raises(RunError, match="shapes cannot be inferred"):
                session.run({"x": np.ones((8, 4), np.float32)})  # its buffer has grown by then
        with pytest.raises(RunError, match="nothing is staged"):
            clock.time(session.launch, 2)
        session.stage({"x": X})
        assert (clock.time(session.launch, 2) > 0).all()
    assert not cuda.live


def test_launch_needs_stage(backend):
    with loaded(backend, request_for()) as session:
        for call in (session.launch, session.clock):
            with pytest.raises(RunError, match="nothing is staged"):
                call()


def test_transfers(backend):
    with loaded(backend, request_for()) as session:
        times = session.transfers_ms({"x": X})
        assert times == {"h2d_ms": pytest.approx(fake_cuda.COPY_MS), "d2h_ms": pytest.approx(fake_cuda.COPY_MS)}


def test_close_twice_frees_once(cuda, backend):
    session = loaded(backend, request_for())
    session.run({"x": X})
    session.stage({"x": X})
    session.clock()
    assert cuda.live
    session.close()
    assert not cuda.live
    session.close()
    with pytest.raises(RunError, match="closed"):
        session.run({"x": X})
    with pytest.raises(RunError):
        session.launch()


def test_a_broken_plan(trt, cuda, backend):
    with pytest.raises(RunError, match="magicTag") as caught:
        backend.load(b"no plan", request_for())
    assert trt.__version__ in str(caught.value)
    assert not cuda.live


def test_no_context(trt, cuda, backend):
    request = request_for()
    plan = backend.build(request).plan
    trt.misbehave.add("no-context")
    with pytest.raises(RunError, match="no execution context"):
        backend.load(plan, request)
    assert not cuda.live


def test_failed_execution_shows_the_log(trt, backend):
    with loaded(backend, request_for()) as session:
        trt.misbehave.add("no-enqueue")
        with pytest.raises(RunError, match="Cask"):
            session.run({"x": X})


@pytest.mark.parametrize("function", ["cudaMalloc", "cudaHostAlloc"])
def test_out_of_memory_is_named(cuda, backend, function):
    with loaded(backend, request_for()) as session:
        cuda.fail[function] = fake_cuda.cudaError_t.cudaErrorMemoryAllocation
        with pytest.raises(RunError) as caught:
            session.run({"x": X})
        assert f"{function} of 32 bytes failed: cudaErrorMemoryAllocation" in str(caught.value)
        assert "no memory left" in caught.value.hint
        cuda.fail.clear()
        np.testing.assert_allclose(session.run({"x": X})["y"], X @ WEIGHT, rtol=1e-6)
    assert not cuda.live


def test_a_kernel_that_fails_later(cuda, backend):
    session = loaded(backend, request_for())
    session.run({"x": X})
    cuda.fail["cudaStreamSynchronize"] = fake_cuda.cudaError_t.cudaErrorIllegalAddress
    with pytest.raises(RunError, match="cudaErrorIllegalAddress"):
        session.run({"x": X})
    session.close()  # must not raise: the error was told already
    assert not cuda.live


def test_a_model_above_the_message_limit_goes_through_a_file(backend, monkeypatch):
    small = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "mm")],
        [value("x", TensorProto.FLOAT, ["N", 4])],
        [value("y", TensorProto.FLOAT, ["N", 300])],
        [numpy_helper.from_array(np.ones((4, 300), np.float32), "w")],
    )
    monkeypatch.setattr("pytest_trt.spec.model._MAX_MESSAGE_BYTES", 1000)
    with pytest.raises(ModelError):
        small.serialized()
    with loaded(backend, request_for(which=small)) as session:
        np.testing.assert_allclose(session.run({"x": X})["y"], X @ np.ones((4, 300)), rtol=1e-5, atol=1e-6)
