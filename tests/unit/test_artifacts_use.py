"""What is kept between runs, from its user's side: engines, timings, references, ranges and models, each made once."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from project import write_model

from pytest_trt.artifacts import calibration
from pytest_trt.artifacts.calibration import CalibrationOptions, obtain_ranges
from pytest_trt.artifacts.directory import DirectoryStore
from pytest_trt.artifacts.engines import StoredEngine, engine_key, obtain_engine, stored_engine
from pytest_trt.artifacts.key import Key
from pytest_trt.artifacts.memory import MemoryStore
from pytest_trt.artifacts.models import obtain_model, source_ingredients
from pytest_trt.artifacts.references import obtain_reference
from pytest_trt.artifacts.store import Entry, NullStore, Payload, ReadOnlyStore
from pytest_trt.artifacts.timing_cache import load_timing_cache, save_timing_cache
from pytest_trt.backends import BuildOptions, BuildRequest, Built, Calibration, Progress, silent
from pytest_trt.backends.fake import FakeBackend
from pytest_trt.errors import ArtifactError, BuildError, ManifestError, ModelError, PrecisionError, RunError, UsageError
from pytest_trt.spec.inputs import Sample
from pytest_trt.spec.manifest import Manifest
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import get_precision
from pytest_trt.spec.shapes import Profile

PROFILE = Profile.parse("b8", "x=1x4:8x4:16x4")


class StubBackend(FakeBackend):
    """Builds at once. Its plan counts the builds; its timing cache is the one that it was given, and one build more."""

    def __init__(self, device: str = "stub 1") -> None:
        super().__init__()
        self.device = device
        self.requests: list[BuildRequest] = []

    def identity(self) -> dict[str, str]:
        return {"device": self.device}

    def build(self, request: BuildRequest, progress: Progress = silent) -> Built:
        self.requests.append(request)
        timings = (request.timing_cache or b"") + b"t"
        return Built(b"plan %d" % len(self.requests), ".plan", {"layers": 3}, timings)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model.load(write_model(tmp_path_factory.mktemp("model")) / "model.onnx")


@pytest.fixture
def request_(model: Model) -> BuildRequest:
    return BuildRequest(model, get_precision("fp16"), PROFILE)


def count(store: MemoryStore | DirectoryStore, kind: str) -> int:
    return sum(entry.kind == kind for entry in store.entries())


# ---- the key of an engine --------------------------------------------------------------------------------------------


def other_weight(model: Model) -> Model:
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    values = numpy_helper.to_array(proto.graph.initializer[0]).copy()
    values[0, 0] = np.nextafter(values[0, 0], np.float32(9))
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, proto.graph.initializer[0].name))
    return Model.from_proto(proto, model.name)


CALIBRATION = Calibration("entropy2", (), "ab")

CHANGES: dict[str, Callable[[BuildRequest], BuildRequest]] = {
    "min shape": lambda r: replace(r, profile=Profile.parse("b8", "x=2x4:8x4:16x4")),
    "opt shape": lambda r: replace(r, profile=Profile.parse("b8", "x=1x4:9x4:16x4")),
    "max shape": lambda r: replace(r, profile=Profile.parse("b8", "x=1x4:8x4:17x4")),
    "precision": lambda r: replace(r, precision=get_precision("bf16")),
    "flag that is set": lambda r: replace(r, precision=replace(r.precision, flags_on=("FP16", "BF16"))),
    "flag that is cleared": lambda r: replace(r, precision=replace(r.precision, flags_off=())),
    "workspace": lambda r: replace(r, options=BuildOptions(workspace=10**9)),
    "optimization level": lambda r: replace(r, options=BuildOptions(opt_level=5)),
    "optimization level of zero": lambda r: replace(r, options=BuildOptions(opt_level=0)),
    "tactics": lambda r: replace(r, options=BuildOptions(tactics=("+CUBLAS",))),
    "tactics taken away": lambda r: replace(r, options=BuildOptions(tactics=("-CUBLAS",))),
    "another profile beside it": lambda r: replace(r, profiles=(r.profile, Profile.parse("b1", "x=1x4"))),
    "calibration": lambda r: replace(r, calibration=CALIBRATION),
    "algorithm of the calibration": lambda r: replace(r, calibration=replace(CALIBRATION, algorithm="minmax")),
    "samples of the calibration": lambda r: replace(r, calibration=replace(CALIBRATION, fingerprint="cd")),
    "debug tensors": lambda r: replace(r, debug_tensors=("h",)),
    "tactic lock": lambda r: replace(r, tactic_lock={"layer": (7, 0.5)}),
    "locked tactic": lambda r: replace(r, tactic_lock={"layer": (8, 0.5)}),
    "last bit of one weight": lambda r: replace(r, model=other_weight(r.model)),
}


def test_every_ingredient_gives_a_key_of_its_own(request_: BuildRequest) -> None:
    stub = StubBackend()
    keys = {"as it is": engine_key(stub, request_)}
    keys |= {name: engine_key(stub, change(request_)) for name, change in CHANGES.items()}
    keys["other device"] = engine_key(StubBackend("stub 2"), request_)
    keys["other backend"] = engine_key(FakeBackend(), request_)

    assert len({key.digest for key in keys.values()}) == len(keys)


@pytest.mark.parametrize(
    "change",
    [
        lambda r: replace(r, model=Model(name="renamed", proto=r.model.proto, path=Path("/else/where.onnx"))),
        lambda r: replace(r, profile=replace(r.profile, name="renamed")),
        lambda r: replace(r, timing_cache=b"timings"),
        lambda r: replace(r, profiles=(r.profile,)),
        lambda r: replace(r, precision=replace(r.precision, summary="said in other words")),
    ],
    ids=[
        "name and path of the model",
        "name of the profile",
        "timing cache",
        "profile that is the only one",
        "summary",
    ],
)
def test_names_paths_and_timings_are_not_in_the_key(
    request_: BuildRequest, change: Callable[[BuildRequest], BuildRequest]
) -> None:
    assert engine_key(StubBackend(), change(request_)) == engine_key(StubBackend(), request_)


def test_the_order_of_tactics_is_not_in_the_key(request_: BuildRequest) -> None:
    there, back = (
        replace(request_, options=BuildOptions(tactics=t)) for t in (("+CUBLAS", "-CUDNN"), ("-CUDNN", "+CUBLAS"))
    )

    assert engine_key(StubBackend(), there) == engine_key(StubBackend(), back)


# ---- engines ---------------------------------------------------------------------------------------------------------


def test_an_engine_is_built_once(request_: BuildRequest) -> None:
    store, stub = MemoryStore(), StubBackend()

    first = obtain_engine(store, stub, request_, label="tiny")
    second = obtain_engine(store, stub, request_, label="tiny")

    assert len(stub.requests) == 1
    assert (first.fresh, second.fresh) == (True, False)
    assert first.plan == second.plan == b"plan 1"
    assert first.facts == second.facts == {"layers": 3}
    assert first.digest == second.digest == engine_key(stub, request_).digest


def test_an_engine_lies_on_the_disk_as_the_backend_made_it(request_: BuildRequest, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "cache")

    obtain_engine(store, StubBackend(), request_, label="tiny-fp16")

    (entry,) = (e for e in store.entries() if e.kind == "engine")
    assert entry.path is not None
    assert (entry.path / "engine.plan").read_bytes() == b"plan 1"
    assert json.loads((entry.path / "facts.json").read_text()) == {"layers": 3}
    assert entry.meta.label == "tiny-fp16"
    assert entry.ingredients["identity"] == {"device": "stub 1"}


def test_a_stored_engine_is_found_by_the_beginning_of_its_digest(request_: BuildRequest) -> None:
    store, stub = MemoryStore(), StubBackend()
    store.put(Key.make("reference", {}), {"outputs.npz": b""})
    engines = [obtain_engine(store, stub, at(request_, batch), label="tiny") for batch in (1, 2, 3)]

    for engine in engines:
        found = stored_engine(store, engine.digest[:12])
        assert found is not None
        assert (found.digest, found.plan, found.fresh) == (engine.digest, engine.plan, False)
    assert stored_engine(store, "0" * 64) is None
    assert stored_engine(store, Key.make("reference", {}).digest) is None


def test_a_failed_build_is_tried_again(request_: BuildRequest) -> None:
    store = MemoryStore()
    with pytest.raises(BuildError):
        obtain_engine(store, FakeBackend("build=1"), request_, label="tiny")

    assert list(store.entries()) == []
    assert obtain_engine(store, FakeBackend(), request_, label="tiny").fresh


def test_the_device_is_held_while_building_only(request_: BuildRequest) -> None:
    store, held = MemoryStore(), []

    @contextmanager
    def exclusive() -> Iterator[None]:
        held.append("taken")
        yield
        held.append("given back")

    for _ in range(2):
        obtain_engine(store, StubBackend(), request_, label="tiny", exclusive=exclusive)

    assert held == ["taken", "given back"]


def test_an_entry_without_one_plan_is_an_error(request_: BuildRequest) -> None:
    store, stub = MemoryStore(), StubBackend()
    store.put(engine_key(stub, request_), {"engine.plan": b"1", "engine.onnx": b"2", "facts.json": b"{}"})

    with pytest.raises(ArtifactError, match="not one engine"):
        obtain_engine(store, stub, request_, label="tiny")


# ---- tactic timings --------------------------------------------------------------------------------------------------


def at(request: BuildRequest, batch: int) -> BuildRequest:
    return replace(request, profile=Profile.parse("b", f"x={batch}x4"))


@pytest.mark.parametrize("kind", ["memory", "directory"])
def test_timings_go_from_build_to_build(request_: BuildRequest, kind: str, tmp_path: Path) -> None:
    store = MemoryStore() if kind == "memory" else DirectoryStore(tmp_path / "cache")
    stub = StubBackend()

    for batch in (1, 2, 3):
        obtain_engine(store, stub, at(request_, batch), label="tiny")

    assert [request.timing_cache for request in stub.requests] == [None, b"t", b"tt"]
    assert load_timing_cache(store, stub) == b"ttt"
    assert count(store, "timing-cache") == 1


def test_timings_that_another_device_left_meanwhile_are_merged(request_: BuildRequest) -> None:
    class Merging(StubBackend):
        def build(self, request: BuildRequest, progress: Progress = silent) -> Built:
            save_timing_cache(store, self, b"another's", request.timing_cache)
            return super().build(request, progress)

        def merge_timings(self, older: bytes, newer: bytes) -> bytes:
            return older + b"+" + newer

    store = MemoryStore()
    obtain_engine(store, Merging(), request_, label="tiny")

    assert load_timing_cache(store, Merging()) == b"another's+t"


def test_timings_stay_on_their_device(request_: BuildRequest) -> None:
    store, here, there = MemoryStore(), StubBackend("a"), StubBackend("b")

    obtain_engine(store, here, request_, label="tiny")
    obtain_engine(store, there, request_, label="tiny")

    assert there.requests[0].timing_cache is None
    assert count(store, "timing-cache") == 2


def test_timings_can_be_left_alone(request_: BuildRequest) -> None:
    store, stub = MemoryStore(), StubBackend()
    save_timing_cache(store, stub, b"from before")

    obtain_engine(store, stub, request_, label="tiny", timing_cache=False)

    assert stub.requests[0].timing_cache is None
    assert load_timing_cache(store, stub) == b"from before"


def test_a_backend_without_timings_leaves_none(request_: BuildRequest) -> None:
    store = MemoryStore()

    obtain_engine(store, FakeBackend(), request_, label="tiny")

    assert count(store, "timing-cache") == 0


def test_a_store_that_keeps_nothing_new_is_no_obstacle(request_: BuildRequest) -> None:
    kept, stub = MemoryStore(), StubBackend()
    save_timing_cache(kept, stub, b"old")

    for store in (NullStore(), ReadOnlyStore(kept)):
        assert obtain_engine(store, stub, request_, label="tiny").fresh

    assert [request.timing_cache for request in stub.requests] == [None, b"old"]
    assert load_timing_cache(kept, stub) == b"old"


class FullStore(MemoryStore):
    """Has no room for timings."""

    def put(self, key: Key, payload: Payload, *, label: str = "", replace: bool = False) -> Entry:
        if key.kind == "timing-cache":
            raise ArtifactError("no space left on device")
        return super().put(key, payload, label=label, replace=replace)


def test_timings_that_cannot_be_kept_cost_no_engine(request_: BuildRequest) -> None:
    store, said = FullStore(), []

    engine = obtain_engine(store, StubBackend(), request_, label="tiny", progress=said.append)

    assert engine.plan == b"plan 1"
    assert said == ["what would speed up the next build is not kept: no space left on device"]
    assert count(store, "engine") == 1


# ---- references ------------------------------------------------------------------------------------------------------


def samples(*rows: int) -> list[Sample]:
    return [Sample({"x": np.full((n, 4), n / 4, np.float32)}, n, n, f"sample of {n}") for n in rows]


def test_a_reference_is_computed_once_and_is_right(model: Model) -> None:
    store, said = MemoryStore(), []

    first = obtain_reference(store, model, samples(1, 3), "inputs", said.append)
    second = obtain_reference(store, model, samples(1, 3), "inputs", said.append)

    weights = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.proto.graph.initializer}
    for sample, outputs in zip(samples(1, 3), first.outputs, strict=True):
        expected = np.maximum(sample.feeds["x"] @ weights["W"], 0) @ weights["V"]
        np.testing.assert_allclose(outputs["y"], expected, rtol=1e-5, atol=1e-6)
        assert outputs["y"].dtype == np.float32
    assert (first.fresh, second.fresh) == (True, False)
    assert first.origin == second.origin == "onnxruntime-cpu fp32"
    for one, two in zip(first.outputs, second.outputs, strict=True):
        np.testing.assert_array_equal(one["y"], two["y"])
    assert len(said) == 1
    assert "2 samples" in said[0]


def test_other_inputs_or_another_model_have_a_reference_of_their_own(model: Model) -> None:
    store = MemoryStore()

    made = [
        obtain_reference(store, model, samples(2), "inputs").fresh,
        obtain_reference(store, model, samples(2), "other inputs").fresh,
        obtain_reference(store, other_weight(model), samples(2), "inputs").fresh,
        obtain_reference(store, replace(model, name="renamed"), samples(2), "inputs").fresh,
    ]

    assert made == [True, True, True, False]


@pytest.mark.parametrize("name", ["module/logits:0", "../up", "file", "0", "é…"])
def test_outputs_keep_their_names(name: str) -> None:
    reference = obtain_reference(MemoryStore(), chain([("x", name, 2.0)], name), samples(2), "inputs")

    (outputs,) = reference.outputs
    assert list(outputs) == [name]
    np.testing.assert_array_equal(outputs[name], np.ones((2, 4), np.float32))


def test_a_model_that_onnxruntime_cannot_run_is_an_error(model: Model) -> None:
    with pytest.raises(RunError, match="while running the reference"):
        obtain_reference(MemoryStore(), model, [Sample({"x": np.ones((1, 5), np.float32)}, 1, 1, "wrong")], "inputs")


# ---- ranges ----------------------------------------------------------------------------------------------------------


def chain(products: list[tuple[str, str, float]], output: str) -> Model:
    """A model of ``target = source · factor`` for each of *products*, from ``x`` [N, 4] to *output*."""
    nodes = [helper.make_node("Mul", [source, f"c{i}"], [target]) for i, (source, target, _) in enumerate(products)]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(np.float32(factor), f"c{i}") for i, (_, _, factor) in enumerate(products)],
    )
    return Model.from_proto(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "chain"
    )


FACTORS = {f"t{i}": float(f) for i, f in enumerate(np.linspace(-3, 3, 70))}
MINMAX = CalibrationOptions("minmax")


@pytest.fixture(scope="module")
def fan() -> Model:
    return chain([("x", name, factor) for name, factor in FACTORS.items()], "t69")


@pytest.fixture(scope="module")
def rows() -> list[Sample]:
    rng = np.random.default_rng(3)
    return [Sample({"x": rng.standard_normal((5, 4)).astype(np.float32)}, 5, 5, f"{i}") for i in range(3)]


def test_ranges_of_many_tensors_are_those_of_each(fan: Model, rows: list[Sample]) -> None:
    said: list[str] = []
    values = np.concatenate([row.feeds["x"] for row in rows])

    found = obtain_ranges(MemoryStore(), fan, ["x", *FACTORS], rows, "inputs", MINMAX, said.append)

    assert len(FACTORS) + 1 > calibration._TENSORS_AT_ONCE
    assert list(found) == sorted(["x", *FACTORS])
    for name, factor in {"x": 1.0, **FACTORS}.items():
        largest = np.abs(values * np.float32(factor)).max()  # quantization is symmetric, and so are ranges
        assert found[name] == pytest.approx((-largest, largest), rel=1e-6), name
    assert said == ["calibrating chain: minmax, 71 tensors, 3 samples"]


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_a_chunk_more_or_less_changes_no_range(
    fan: Model, rows: list[Sample], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, options = ["x", "t0", "t5", "t69"], CalibrationOptions(method)
    whole = obtain_ranges(MemoryStore(), fan, names, rows, "inputs", options)
    monkeypatch.setattr(calibration, "_TENSORS_AT_ONCE", 1)

    one_by_one = obtain_ranges(MemoryStore(), fan, names, rows, "inputs", options)

    assert one_by_one == whole


def test_ranges_are_computed_once_for_what_they_depend_on(fan: Model, rows: list[Sample]) -> None:
    store, said = MemoryStore(), []

    def obtain(tensors: list[str], options: CalibrationOptions, fingerprint: str = "inputs", model: Model = fan) -> int:
        obtain_ranges(store, model, tensors, rows, fingerprint, options, said.append)
        return len(said)

    assert obtain(["t0", "t1"], MINMAX) == 1
    assert obtain(["t1", "t0"], MINMAX) == 1
    assert obtain(["t1", "t0"], CalibrationOptions("minmax", percentile=50.0)) == 1  # which minmax does not have
    assert obtain(["t0"], MINMAX) == 2
    assert obtain(["t0", "t1"], CalibrationOptions("percentile", 99.0)) == 3
    assert obtain(["t0", "t1"], CalibrationOptions("percentile", 98.0)) == 4
    assert obtain(["t0", "t1"], MINMAX, "other inputs") == 5
    assert obtain(["t0", "t1"], MINMAX, model=chain([("x", "t0", 1.0), ("x", "t1", 2.0)], "t1")) == 6


def test_a_tensor_that_is_not_finite_has_no_range_and_is_named() -> None:
    model = chain([("x", "fine", 1.0), ("x", "boom", 3e38)], "boom")
    store = MemoryStore()

    with pytest.raises(PrecisionError, match="'boom'"):
        obtain_ranges(store, model, ["fine", "boom"], samples(8), "inputs", MINMAX)

    assert list(store.entries()) == []


def test_an_unknown_method_is_named(fan: Model, rows: list[Sample]) -> None:
    with pytest.raises(UsageError, match="unknown calibration method 'entrpy'"):
        obtain_ranges(MemoryStore(), fan, ["t0"], rows, "inputs", CalibrationOptions("entrpy"))


# ---- models ----------------------------------------------------------------------------------------------------------

BUILD = """
import importlib.util
from pathlib import Path

def _blocks():
    spec = importlib.util.spec_from_file_location("blocks_of_this_test", Path(__file__).parents[1] / "blocks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

def build(width=2):
    return _blocks().product(width)
"""
BLOCKS = """
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FACTOR = 1.0

def product(width):
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "c"], ["y"])], "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", width])],
        [numpy_helper.from_array(np.float32(FACTOR), "c")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
"""


@pytest.fixture
def made(tmp_path: Path) -> Manifest:
    """A model folder whose source uses a file of the folder above."""
    folder = tmp_path / "models" / "made"
    folder.mkdir(parents=True)
    (folder / "build.py").write_text(BUILD)
    (folder / "words.txt").write_text("one\n")
    (folder.parent / "blocks.py").write_text(BLOCKS)
    return Manifest(name="made", folder=folder, file=folder / "trt.toml", source="build.py:build")


def factor(model: Model) -> float:
    return float(numpy_helper.to_array(model.proto.graph.initializer[0]))


def test_a_source_runs_once(made: Manifest) -> None:
    store, said = MemoryStore(), []

    first, second = (obtain_model(made, store, said.append) for _ in range(2))

    assert said == ["building the model made with build.py:build"]
    assert first.fingerprint == second.fingerprint
    assert first.name == "made"
    assert first.inputs[0].shape == ("N", 2)


def write(name: str, text: str) -> Callable[[Manifest], Manifest]:
    def change(manifest: Manifest) -> Manifest:
        (manifest.folder / name).write_text(text)
        return manifest

    return change


@pytest.mark.parametrize(
    "change",
    [
        write("build.py", BUILD + "# a comment\n"),
        write("../blocks.py", BLOCKS.replace("1.0", "2.0")),
        write("helper.py", ""),
        write("../more.py", ""),
        write("words.txt", "two\n"),
        lambda m: replace(m, args={"width": 3}),
        lambda m: replace(m, requires=("numpy", "onnxruntime")),
    ],
    ids=["build.py", "blocks.py", "a new file", "a new file above", "words.txt", "args", "requires"],
)
def test_a_source_runs_again_when_what_it_depends_on_changes(
    made: Manifest, change: Callable[[Manifest], Manifest]
) -> None:
    store, said = MemoryStore(), []
    obtain_model(made, store, said.append)

    obtain_model(change(made), store, said.append)

    assert len(said) == 2


def test_a_change_above_the_folder_changes_the_model(made: Manifest) -> None:
    store = MemoryStore()
    before = obtain_model(made, store)
    (made.folder / "../blocks.py").write_text(BLOCKS.replace("1.0", "2.0"))

    assert (factor(before), factor(obtain_model(made, store))) == (1.0, 2.0)


@pytest.mark.parametrize(
    "change",
    [write("README.md", "words"), write("inputs.npz", "no"), lambda m: replace(m, name="renamed")],
    ids=["README.md", "inputs.npz", "name"],
)
def test_a_source_does_not_run_again_for_anything_else(made: Manifest, change: Callable[[Manifest], Manifest]) -> None:
    before = source_ingredients(made, "build.py:build")

    assert source_ingredients(change(made), "build.py:build") == before


def test_a_model_in_a_file_is_not_copied_into_the_store(tmp_path: Path) -> None:
    store = MemoryStore()
    manifest = Manifest.load(write_model(tmp_path / "tiny") / "trt.toml")

    found = obtain_model(manifest, store)

    assert found.path == tmp_path / "tiny" / "model.onnx"
    assert list(store.entries()) == []


@pytest.mark.parametrize(
    ("source", "text", "error", "message"),
    [
        ("build.py:build", "def build(): return 3", ModelError, "returned int, not an onnx.ModelProto"),
        ("build.py:build", "def build(): raise OSError('no weights')", ModelError, "build failed: OSError: no weights"),
        ("build.py:build", "def build(): raise SystemExit(2)", ModelError, "build failed: SystemExit: 2"),
        ("build.py:build", "import no_such_package", ModelError, "importing build.py failed: ModuleNotFoundError"),
        ("build.py:biuld", "def build(): pass", ManifestError, "no callable 'biuld'"),
        ("build.py:WIDTH", "WIDTH = 3", ManifestError, "no callable 'WIDTH'"),
        ("made.py:build", "", ManifestError, "there is no made.py in this folder"),
        ("../blocks.py:product", "", ManifestError, "not FILE:CALLABLE"),
        ("build.py", "", ManifestError, "not FILE:CALLABLE"),
        ("words.txt:build", "", ManifestError, "words.txt cannot be imported"),
        (
            "build.py:build",
            "from pytest_trt.errors import ManifestError\ndef build(): raise ManifestError('mine', hint='do it')",
            ManifestError,
            "^mine\n  hint: do it$",
        ),
    ],
)
def test_a_source_that_fails_is_an_error_and_keeps_nothing(
    made: Manifest, source: str, text: str, error: type[Exception], message: str
) -> None:
    (made.folder / "build.py").write_text(text)
    store = MemoryStore()

    with pytest.raises(error, match=message) as caught:
        obtain_model(replace(made, source=source), store)

    assert type(caught.value) is error
    assert list(store.entries()) == []


def test_an_engine_in_a_mapped_file_goes_to_another_process() -> None:
    engine = StoredEngine(memoryview(b"plan"), {"layers": 3}, fresh=False, digest="d", sha256="5" * 64)

    again = pickle.loads(pickle.dumps(engine))

    assert again == engine
    assert (again.plan, again.plan_digest) == (b"plan", "5" * 16)
