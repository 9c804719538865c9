"""The plan and the options of ONNX Runtime's TensorRT provider, on a double."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import onnx
import pytest
from networks import conv_net, model, node, run, weights
from ort_gpu import CPU, CUDA, FEEDS, OVERRIDE, PROFILE, TENSORRT, World, loaded, request, working

from pytest_trt.backends import BuildOptions, BuildRequest
from pytest_trt.backends.onnxruntime.on_cuda import CudaBackend
from pytest_trt.backends.onnxruntime.on_tensorrt import OrtTensorRTBackend
from pytest_trt.errors import RunError, UnsupportedError, UsageError
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import PRECISIONS
from pytest_trt.spec.shapes import Profile


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return working(monkeypatch)


def test_the_plan_holds_the_model_and_its_engines_and_no_timings(world: World):
    backend = OrtTensorRTBackend()
    built = backend.build(request())
    with zipfile.ZipFile(io.BytesIO(built.plan)) as archive:
        names = archive.namelist()

    assert built.suffix == ".ort-trt.zip"
    assert names[0] == "model.onnx"
    assert [name.rpartition(".")[2] for name in names[1:]] == ["engine"]
    assert list(built.facts["engines"]) == names[1:]


def test_equal_builds_give_equal_plans(world: World):
    first, second = (OrtTensorRTBackend().build(request()).plan for _ in range(2))
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        times = {entry.date_time for entry in archive.infolist()}

    assert first == second
    assert times == {(1980, 1, 1, 0, 0, 0)}


def test_models_of_one_structure_do_not_share_an_engine(world: World):
    """The provider names engines by inputs and outputs: in one folder, the second model would run the first's."""
    backend = OrtTensorRTBackend()
    double, triple = (
        model([node("Mul", ["x", "k"], ["y"])], {"x": ["N", 3, 8, 8]}, {"y": ["N", 3, 8, 8]}, {"k": np.float32(k)})
        for k in (2, 3)
    )
    for proto, factor in ((double, 2), (triple, 3)):
        session = loaded(backend, request(proto))
        np.testing.assert_allclose(session.run(FEEDS)["y"], FEEDS["x"] * factor)
        session.close()


def test_loading_uses_the_stored_engine(world: World):
    backend = OrtTensorRTBackend()
    built = backend.build(request())
    name = next(iter(built.facts["engines"]))
    other = conv_net()
    other.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights(77, 8, 3, 3, 3), "w1"))
    with zipfile.ZipFile(io.BytesIO(built.plan), "a") as archive:
        model_bytes = archive.read("model.onnx")
    swapped = io.BytesIO()
    with zipfile.ZipFile(swapped, "w") as archive:
        archive.writestr("model.onnx", model_bytes)
        archive.writestr(name, other.SerializeToString())
    session = backend.load(swapped.getvalue(), request())

    np.testing.assert_allclose(session.run(FEEDS)["y"], run(other, FEEDS)[0], rtol=1e-4, atol=1e-5)
    session.close()


def test_an_engine_that_is_built_again_is_noticed(world: World):
    backend = OrtTensorRTBackend()
    without = io.BytesIO()
    with zipfile.ZipFile(without, "w") as archive:
        archive.writestr("model.onnx", conv_net().SerializeToString())

    with pytest.raises(RunError, match="built an engine anew"):
        backend.load(without.getvalue(), request())
    assert not world.cuda.live


@pytest.mark.parametrize("plan", [b"", b"no archive"])
def test_a_broken_plan(world: World, plan: bytes):
    with pytest.raises(RunError, match="is no archive of an engine"):
        OrtTensorRTBackend().load(plan, request())


@pytest.mark.parametrize("name", ["../outside.engine", "/tmp/outside.engine", "a/b.engine"])
def test_a_plan_that_would_write_elsewhere(world: World, name: str):
    plan = io.BytesIO()
    with zipfile.ZipFile(plan, "w") as archive:
        archive.writestr(name, b"")
        archive.writestr("model.onnx", b"")
    with pytest.raises(RunError, match="no plain file name"):
        OrtTensorRTBackend().load(plan.getvalue(), request())


def test_timings_are_kept_only_for_a_known_tensorrt(world: World, monkeypatch: pytest.MonkeyPatch):
    assert OrtTensorRTBackend().build(request(timing_cache=b"old ")).timing_cache is None
    monkeypatch.setattr("pytest_trt.backends.onnxruntime.providers._tensorrt_version", lambda: "10.13.3")
    backend = OrtTensorRTBackend()

    assert backend.identity()["tensorrt"] == "10.13.3"
    assert backend.build(request(timing_cache=b"old ")).timing_cache == b"old timed "


def test_shapes_are_passed_on(world: World):
    OrtTensorRTBackend().build(request())

    assert {name: value for name, value in world.last[TENSORRT].items() if "shapes" in name} == {
        "trt_profile_min_shapes": "x:1x3x8x8",
        "trt_profile_opt_shapes": "x:2x3x8x8",
        "trt_profile_max_shapes": "x:4x3x8x8",
    }


def test_fixed_shapes_need_no_profile(world: World):
    proto = model([node("Relu", ["x"], ["y"])], {"x": [2, 3, 8, 8]}, {"y": [2, 3, 8, 8]})
    OrtTensorRTBackend().build(request(proto))

    assert not [name for name in world.last[TENSORRT] if "shapes" in name]


def test_a_name_that_the_provider_would_misread(world: World):
    proto = model([node("Relu", ["x:0"], ["y"])], {"x:0": ["N", 3]}, {"y": ["N", 3]})
    wanted = BuildRequest(Model.from_proto(proto, "net"), PRECISIONS["tf32"], Profile.fixed("p", {"x:0": (2, 3)}))
    with pytest.raises(UnsupportedError, match="input 'x:0'"):
        OrtTensorRTBackend().build(wanted)


def test_one_engine_holds_one_profile(world: World):
    with pytest.raises(UnsupportedError, match="one engine per profile"):
        OrtTensorRTBackend().build(request(profiles=(PROFILE, Profile("q", PROFILE.ranges))))


def test_build_options_are_passed_on(world: World):
    options = BuildOptions(workspace=2**20, opt_level=1, sparsity=True, max_aux_streams=2)
    backend = OrtTensorRTBackend()
    backend.check(options)
    backend.build(request(options=options))

    wanted = {
        "trt_max_workspace_size": "1048576",
        "trt_builder_optimization_level": "1",
        "trt_sparsity_enable": "True",
        "trt_auxiliary_streams": "2",
    }
    assert wanted.items() <= world.last[TENSORRT].items()


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        (CudaBackend, BuildOptions(opt_level=1), "--trt-opt-level is TensorRT's; onnxruntime-cuda has nothing like it"),
        (OrtTensorRTBackend, BuildOptions(tiling="fast"), "onnxruntime-tensorrt has nothing like it"),
        (OrtTensorRTBackend, BuildOptions(opt_level=6), "opt_level 6 does not exist"),
        (OrtTensorRTBackend, BuildOptions(workspace=0), "workspace must be positive"),
    ],
)
def test_build_options_that_it_lacks(world: World, kind, options: BuildOptions, said: str):
    with pytest.raises(UsageError, match=said):
        kind().check(options)


def test_a_build_option_that_this_release_lacks(world: World):
    world.refused.add("trt_auxiliary_streams")
    with pytest.raises(UsageError, match="this onnxruntime has no trt_auxiliary_streams"):
        OrtTensorRTBackend().check(BuildOptions(max_aux_streams=1))


def test_without_a_cuda_provider_what_tensorrt_leaves_goes_to_the_cpu(world: World):
    world.available = (TENSORRT, CPU)
    OrtTensorRTBackend().build(request())

    assert list(world.last) == [TENSORRT, CPU]


def test_both_gpu_providers_compute_on_one_stream(world: World):
    session = loaded(OrtTensorRTBackend())

    assert world.last[TENSORRT]["user_compute_stream"] == world.last[CUDA]["user_compute_stream"]
    session.close()


def test_the_override_is_part_of_the_identity(world: World, monkeypatch: pytest.MonkeyPatch):
    before = OrtTensorRTBackend().identity()
    monkeypatch.setenv(OVERRIDE, "0")

    assert OrtTensorRTBackend().identity() == {**before, "nvidia_tf32_override": "0"}
