"""onnxruntime-cuda and onnxruntime-tensorrt on a double: what they need, refuse, report and compute."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from contract import fake_cuda
from networks import INT64, conv_net, model, node, run, weights
from ort_gpu import CPU, CUDA, FEEDS, OTHER, OVERRIDE, TENSORRT, World, loaded, request, working

from pytest_trt.backends import BuildRequest
from pytest_trt.backends.onnxruntime.on_cuda import CudaBackend
from pytest_trt.backends.onnxruntime.on_tensorrt import OrtTensorRTBackend
from pytest_trt.backends.onnxruntime.partition import nodes_by_provider
from pytest_trt.errors import BackendUnavailableError, BuildError, InputsError, RunError, UnsupportedError
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import PRECISIONS
from pytest_trt.spec.shapes import Profile

BACKENDS = (CudaBackend, OrtTensorRTBackend)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return working(monkeypatch)


@pytest.mark.parametrize("kind", BACKENDS)
def test_it_is_there_with_its_versions(world: World, kind):
    found = kind().probe()

    assert found.ok
    assert found.versions["onnxruntime"]
    assert found.versions["gpu"] == "Fake GPU"
    assert found.versions["compute_capability"] == "9.0"
    assert not world.cuda.live


@pytest.mark.parametrize("kind", BACKENDS)
@pytest.mark.parametrize(
    ("breakage", "reason"),
    [
        (lambda world, patch: patch.setitem(sys.modules, "onnxruntime", None), "onnxruntime-gpu is not installed"),
        (lambda world, patch: setattr(world, "available", (CPU,)), "is built without the"),
        (lambda world, patch: setattr(world.cuda, "devices", 0), "lists no GPU"),
        (lambda world, patch: patch.setitem(sys.modules, "cuda.bindings", None), "cuda-python"),
        (lambda world, patch: world.broken.update({CUDA, TENSORRT}), "left the"),
        (lambda world, patch: setattr(world, "fails", lambda proto: "no libnvinfer"), "no libnvinfer"),
    ],
    ids=["no module", "no provider", "no device", "no cuda-python", "silent fallback", "error"],
)
def test_the_probe_says_what_is_missing(world: World, monkeypatch: pytest.MonkeyPatch, kind, breakage, reason: str):
    breakage(world, monkeypatch)
    backend = kind()
    found = backend.probe()

    assert not found.ok
    assert reason in found.reason
    with pytest.raises(BackendUnavailableError, match="cannot work here"):
        backend.identity()


def test_a_provider_that_fell_out_is_explained_by_the_loader(world: World, monkeypatch: pytest.MonkeyPatch):
    def cannot(path: str) -> None:
        raise OSError("libcublasLt.so.13: cannot open shared object file")

    world.broken.add(CUDA)
    monkeypatch.setattr("pytest_trt.backends.onnxruntime.providers.ctypes.CDLL", cannot)

    assert "libcublasLt.so.13: cannot open shared object file" in CudaBackend().probe().reason


def test_the_device_is_asked_before_a_provider_is_touched(world: World):
    world.cuda.devices = 0
    OrtTensorRTBackend().probe()

    assert world.opened == []


@pytest.mark.parametrize(
    ("kind", "precision", "override", "expected"),
    [
        (CudaBackend, "fp32", None, "native"),
        (CudaBackend, "tf32", None, "native"),
        (CudaBackend, "tf32", "0", "unsupported"),
        (CudaBackend, "fp16", None, "native"),
        (CudaBackend, "bf16", None, "native"),
        (CudaBackend, "int8", None, "simulated"),
        (CudaBackend, "fp8", None, "unsupported"),
        (OrtTensorRTBackend, "fp32", None, "unsupported"),
        (OrtTensorRTBackend, "fp32", "0", "native"),
        (OrtTensorRTBackend, "tf32", None, "native"),
        (OrtTensorRTBackend, "tf32", "0", "unsupported"),
        (OrtTensorRTBackend, "fp16", None, "native"),
        (OrtTensorRTBackend, "bf16", None, "native"),
        (OrtTensorRTBackend, "int8", None, "native"),
        (OrtTensorRTBackend, "fp8", None, "unsupported"),
    ],
)
def test_support(
    world: World, monkeypatch: pytest.MonkeyPatch, kind, precision: str, override: str | None, expected: str
):
    if override is not None:
        monkeypatch.setenv(OVERRIDE, override)

    assert kind().support(PRECISIONS[precision]).kind == expected


def test_without_a_switch_for_tf32_there_is_no_float32(world: World):
    world.refused.add("use_tf32")
    backend = CudaBackend()

    assert "cannot switch TF32 off" in backend.support(PRECISIONS["fp32"]).reason
    assert "use_tf32" not in (backend.build(request()) and world.last[CUDA])


def test_without_the_option_there_is_no_bfloat16(world: World):
    world.refused.add("trt_bf16_enable")

    assert OrtTensorRTBackend().support(PRECISIONS["bf16"]).kind == "unsupported"


@pytest.mark.parametrize(("precision", "switch"), [("fp32", "0"), ("tf32", "1"), ("fp16", "0"), ("int8", "0")])
def test_tf32_is_on_only_where_the_precision_says_so(world: World, precision: str, switch: str):
    backend, wanted = CudaBackend(), request(precision=precision)
    built = backend.build(wanted)
    assert world.last[CUDA]["use_tf32"] == switch
    backend.load(built.plan, wanted).close()

    assert world.last[CUDA]["use_tf32"] == switch


@pytest.mark.parametrize(
    ("precision", "flags"),
    [("tf32", set()), ("fp16", {"fp16"}), ("bf16", {"bf16"}), ("int8", {"fp16", "int8"})],
)
def test_tensorrt_gets_the_flags_of_the_precision(world: World, precision: str, flags: set[str]):
    OrtTensorRTBackend().build(request(precision=precision))
    given = {name for name, value in world.last[TENSORRT].items() if value == "True" and name.endswith("_enable")}

    assert given == {f"trt_{flag}_enable" for flag in flags} | {"trt_engine_cache_enable", "trt_timing_cache_enable"}


@pytest.mark.parametrize(("precision", "noted"), [("tf32", False), ("fp16", True)])
def test_tf32_that_cannot_be_switched_off_is_written_down(world: World, precision: str, noted: bool):
    assert ("tf32" in OrtTensorRTBackend().build(request(precision=precision)).facts) == noted


def test_an_unsupported_precision_is_not_built(world: World):
    with pytest.raises(UnsupportedError, match="TF32"):
        OrtTensorRTBackend().build(request(precision="fp32"))


def test_a_simulation_is_called_one(world: World):
    assert "float32" in CudaBackend().build(request(precision="int8")).facts["simulated"]


def test_a_missing_bfloat16_kernel_is_a_skip_and_any_other_missing_kernel_a_failure(world: World):
    world.fails = lambda proto: (
        "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for Conv(11)"
        if len(proto.graph.node) > 1
        else None
    )
    with pytest.raises(UnsupportedError, match=r"no bfloat16 kernel: .* Conv\(11\)"):
        CudaBackend().build(request(precision="bf16"))
    with pytest.raises(BuildError, match=r"'net': onnxruntime's CUDA provider cannot build: .* Conv\(11\)") as caught:
        CudaBackend().build(request(precision="fp16"))

    assert "CUDA provider has no kernel" in (caught.value.hint or "")


@pytest.mark.parametrize("kind", BACKENDS)
def test_nodes_on_another_provider_are_counted(world: World, kind):
    world.leaves = {"Flatten", "Conv"}
    facts = kind().build(request()).facts

    assert facts["partition"] == "assignment"
    assert facts["nodes"] == 4
    assert facts["nodes_elsewhere"] == {CPU: 3}
    assert facts["operators_elsewhere"] == {CPU: {"Conv": 2, "Flatten": 1}}


@pytest.mark.parametrize("kind", BACKENDS)
def test_nothing_elsewhere_is_said_as_well(world: World, kind):
    assert kind().build(request()).facts["nodes_elsewhere"] == {}


@pytest.mark.parametrize("kind", BACKENDS)
def test_a_model_that_runs_wholly_elsewhere_is_no_success(world: World, kind):
    world.leaves = {n.op_type for n in conv_net().graph.node}
    with pytest.raises(BuildError, match=f"not one node runs on .*; all are on {CPU}"):
        kind().build(request())


def test_older_releases_tell_it_by_a_profiled_run(world: World, monkeypatch: pytest.MonkeyPatch):
    world.says_assignment = False
    world.install(monkeypatch)
    # The double's kernels are those of the CPU, and the profile says so: nothing runs on the provider.
    with pytest.raises(BuildError, match=f"not one node runs on {CUDA}; all are on {CPU}"):
        CudaBackend().build(request())


def test_a_profile_is_read_by_kernels_and_copies_between_providers_are_no_nodes(tmp_path: Path):
    def event(name: str, provider: str, operator: str) -> dict[str, object]:
        return {"cat": "Node", "name": name, "args": {"provider": provider, "op_name": operator}}

    events = [
        {"cat": "Session", "name": "model_run"},
        event("a_fence_before", CUDA, "Conv"),
        event("a_kernel_time", CUDA, "Conv"),
        event("m_kernel_time", CUDA, "MemcpyToHost"),
        event("d_kernel_time", CPU, "Det"),
    ]

    class Profiled:
        def run(self, names, feeds):
            assert feeds["x"].shape == (2, 3, 8, 8)

        def end_profiling(self) -> str:
            (tmp_path / "profile.json").write_text(json.dumps(events))
            return str(tmp_path / "profile.json")

    nodes, how = nodes_by_provider(Profiled(), request())

    assert how == "profile"
    assert nodes == {CUDA: {"Conv": 1}, CPU: {"Det": 1}}


def test_where_no_run_on_zeros_is_possible_it_says_that_it_does_not_know(world: World, monkeypatch: pytest.MonkeyPatch):
    world.says_assignment = False
    world.install(monkeypatch)
    # Eight elements do not fit into the shape (2,), which zero stands for here.
    proto = model([node("Reshape", ["x", "s"], ["y"])], {"x": ["N", 4], "s": (INT64, [1])}, {"y": ["M"]})
    profile = Profile.fixed("p", {"x": (2, 4), "s": (1,)})
    built = CudaBackend().build(BuildRequest(Model.from_proto(proto, "net"), PRECISIONS["tf32"], profile))

    assert built.facts["partition"].startswith("unknown: a run on zeros failed")
    assert built.facts["nodes_elsewhere"] == {}


@pytest.mark.parametrize("kind", BACKENDS)
def test_a_provider_that_falls_out_later_is_noticed(world: World, kind):
    backend = kind()
    plan = backend.build(request()).plan
    world.broken = {CUDA, TENSORRT}

    with pytest.raises(RunError, match=r"the plan cannot be loaded: onnxruntime left the \w+ provider out"):
        backend.load(plan, request())
    with pytest.raises(BuildError, match="provider out"):
        backend.build(request())
    assert not world.cuda.live


@pytest.mark.parametrize("kind", BACKENDS)
@pytest.mark.parametrize("refused", [set(), {"user_compute_stream"}], ids=["our stream", "its own stream"])
class TestSession:
    def test_it_computes_the_model(self, world: World, kind, refused: set[str]):
        world.refused |= refused
        session = loaded(kind())

        for feeds in (FEEDS, OTHER, FEEDS):
            np.testing.assert_allclose(session.run(feeds)["y"], run(conv_net(), feeds)[0], rtol=1e-4, atol=1e-5)
        session.close()

    def test_outputs_belong_to_the_caller(self, world: World, kind, refused: set[str]):
        world.refused |= refused
        session = loaded(kind())
        first = session.run(FEEDS)["y"]
        kept = first.copy()
        session.run({"x": -FEEDS["x"]})

        np.testing.assert_array_equal(first, kept)
        session.close()

    def test_launches_are_timed_by_the_better_clock(self, world: World, kind, refused: set[str]):
        world.refused |= refused
        session = loaded(kind())
        session.stage(FEEDS)
        clock = session.clock()
        times = clock.time(session.launch, 5)

        assert clock.name == ("host" if refused else "sync")
        assert clock.note
        assert times.shape == (5,)
        if not refused:
            np.testing.assert_allclose(times, fake_cuda.LAUNCH_MS)
        assert session.clock() is clock
        session.close()

    def test_isolated_launches_and_modes_that_are_not_there(self, world: World, kind, refused: set[str]):
        world.refused |= refused
        session = loaded(kind())
        session.stage(FEEDS)
        clock = session.clock("isolated")

        assert clock.name == ("host" if refused else "isolated")
        assert clock.time(session.launch, 5).shape == (5,)
        assert session.clock("isolated") is clock
        for mode in ("queued", "throughput"):
            with pytest.raises(UnsupportedError, match=f"no latency mode '{mode}'"):
                session.clock(mode)
        session.close()
        assert not world.cuda.live

    def test_a_run_leaves_the_staged_inputs(self, world: World, kind, refused: set[str]):
        world.refused |= refused
        session = loaded(kind())
        session.stage(FEEDS)
        session.run(OTHER)
        session.launch()
        session._download()

        staged = session._landing["y"].view(np.dtype("float32"), (2, 5))
        np.testing.assert_allclose(staged, run(conv_net(), FEEDS)[0], rtol=1e-4, atol=1e-5)
        session.close()

    def test_transfers(self, world: World, kind, refused: set[str]):
        world.refused |= refused
        session = loaded(kind())
        times = session.transfers_ms(FEEDS)

        assert times == {"h2d_ms": pytest.approx(fake_cuda.COPY_MS), "d2h_ms": pytest.approx(fake_cuda.COPY_MS)}
        session.close()

    def test_everything_is_freed(self, world: World, kind, refused: set[str]):
        world.refused |= refused
        session = loaded(kind())
        session.stage(FEEDS)
        session.clock().time(session.launch, 2)
        session.run(OTHER)
        session.close()
        session.close()

        assert not world.cuda.live
        with pytest.raises(RunError, match="closed"):
            session.run(FEEDS)


@pytest.mark.parametrize(
    ("feeds", "error", "said"),
    [
        ({"z": FEEDS["x"], **FEEDS}, InputsError, "no input 'z'"),
        ({}, InputsError, "no array for input 'x'"),
        ({"x": FEEDS["x"].astype(np.float64)}, InputsError, "is float64, but the model wants float32"),
        ({"x": weights(1, 2, 4, 8, 8)}, RunError, "2x4x8x8 is outside profile"),
    ],
    ids=["unknown", "missing", "type", "shape"],
)
def test_feeds_that_do_not_fit(world: World, feeds, error, said: str):
    session = loaded(CudaBackend())
    with pytest.raises(error, match=said):
        session.run(feeds)
    session.close()


def test_nothing_to_launch_before_something_is_staged(world: World):
    session = loaded(CudaBackend())
    with pytest.raises(RunError, match="nothing is staged"):
        session.launch()
    session.close()


def test_a_session_has_no_sibling(world: World):
    session = loaded(CudaBackend())
    with pytest.raises(UnsupportedError, match="one stream"):
        session.sibling()
    session.close()


def test_a_session_that_cannot_be_opened_leaves_nothing(world: World):
    backend = OrtTensorRTBackend()
    plan = backend.build(request()).plan
    world.fails = lambda proto: "engine of another TensorRT"
    with pytest.raises(RunError, match="engine of another TensorRT"):
        backend.load(plan, request())

    assert not world.cuda.live
