"""Planted faults of a chain, each named by attribution and by bisection, through a Lab on the CPU."""

from __future__ import annotations

import importlib
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import model, node, run, weights
from planted import PLANTS, Plant, plant, write_chain

from pytest_trt.backends.fake import FakeBackend
from pytest_trt.diagnosis.hunt import Bisection
from pytest_trt.diagnosis.present import bisection_lines, explanation_lines, numerics_lines
from pytest_trt.errors import PrecisionError, RunError
from pytest_trt.lab import Lab
from pytest_trt.latency.interleave import Interleaved
from pytest_trt.settings import Settings
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision.graph import copy_model

WIDTH, ROWS = 64, 64


class Bisected:
    """Bisects the model of a folder, in a Lab of its own each time."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def lab(self, backend: str, precision: str, **settings: Any) -> Lab:
        given = {"cache_dir": self.root / "cache", "backend": (backend,), "precision": (precision,), **settings}
        return Lab(Settings(**given), self.root)

    def __call__(
        self,
        folder: Path,
        backend: str,
        precision: str,
        *,
        fake: str | None = None,
        settings: dict[str, Any] | None = None,
        **given: Any,
    ) -> Bisection:
        with self.lab(backend, precision, fake=fake, **(settings or {})) as lab:
            (case,) = lab.cases(lab.add(folder))
            return lab.bisect(case, **given)


@pytest.fixture
def bisected(tmp_path: Path) -> Bisected:
    return Bisected(tmp_path)


def node_index(bisected: Bisected, folder: Path, precision: str, name: str) -> int:
    """Where the typed model has the node."""
    with bisected.lab("fake", precision) as lab:
        (case,) = lab.cases(lab.add(folder))
        return [node.name for node in lab.typed_model(case)[0].proto.graph.node].index(name)


@pytest.mark.parametrize("backend", ["onnxruntime-cpu", "fake"])
@pytest.mark.parametrize("fault", PLANTS, ids=lambda fault: fault.name)
def test_a_fault_of_the_typed_model_is_named(
    bisected: Bisected, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: Plant, backend: str
):
    folder = plant(monkeypatch, tmp_path / "chain", fault, width=WIDTH, rows=ROWS)
    found = bisected(folder, backend, fault.precision)

    explanation, culprits = found.explanation, found.culprits
    assert (explanation.attribution.culprit, culprits.found.outcome) == ("conversion", "found")
    assert explanation.attribution.share > 0.9
    assert culprits.exclude_nodes == fault.nodes
    assert (culprits.before.ok, culprits.after.ok) == (False, True)
    assert found.divergence is None
    assert (explanation.nonfinite.node if explanation.nonfinite else None) == fault.nonfinite
    assert {row.node for row in explanation.roundings if row.overflowed} == {fault.nonfinite} - {None}
    most = {row.node for row in explanation.roundings if row.vanished > row.count / 2}
    assert most - {"relu_3"} == {fault.vanished} - {None}
    assert tuple(pair.tensor for pair in explanation.pairs if pair.saturated_share > 0.1) == fault.saturated


def test_fusion_is_named_with_its_tensor(bisected: Bisected, tmp_path: Path):
    folder = write_chain(tmp_path / "chain", 8, width=WIDTH, rows=ROWS)
    found = bisected(folder, "fake", "fp32", fake="fusion=0.5,at=12")  # the fifth product

    assert found.explanation.attribution.culprit == "fusion"
    assert found.explanation.attribution.stage("parser").ok is True
    assert (found.divergence.outcome, found.divergence.tensor, found.divergence.node) == ("found", "m4", "matmul_4")
    assert found.divergence.before < 1e-6 < found.divergence.error
    assert found.culprits is None


def test_a_typed_model_that_is_close_leads_on_to_the_engine(bisected: Bisected, tmp_path: Path):
    """Most of the error is the conversion's, and within the tolerance; what the engine adds is not."""
    folder = write_chain(tmp_path / "chain", 8, width=WIDTH, rows=ROWS)
    limits = {"tolerance": "rtol=0,atol=0.19,cosine=0.9"}
    at = node_index(bisected, folder, "int8", "mul_4")
    found = bisected(folder, "fake", "int8", fake=f"fusion=-0.015,at={at}", settings=limits)

    attribution = found.explanation.attribution
    assert attribution.culprit == "conversion"
    assert [attribution.stage(word).ok for word in ("conversion", "parser", "fusion")] == [True, True, False]
    assert found.culprits.found.outcome == "empty"
    assert (found.divergence.outcome, found.divergence.tensor, found.divergence.node) == ("found", "t4", "mul_4")
    assert not any(tap.tensor.startswith("w") for tap in found.divergence.taps)  # constants are not computed
    lines = bisection_lines(found, "int8")
    assert "the typed model is close with nothing excluded" in lines
    assert "the first tensor of the engine that diverges: 't4', made by mul_4 (Mul)" in lines


@pytest.mark.parametrize("scale", [0.003, 0.03])
def test_a_model_that_came_quantized_is_its_own_fault(bisected: Bisected, tmp_path: Path, scale: float):
    """Its pair of unsigned integers clips; what is expected was stored before it was quantized."""
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("MatMul", ["d", "w"], ["y"], name="mm"),
    ]
    x, w = weights(1, 8, 16), weights(2, 16, 8)
    values = {"w": w, "s": np.float32(scale), "z": np.uint8(128)}
    folder = tmp_path / "net"
    folder.mkdir()
    onnx.save(model(nodes, {"x": ["N", 16]}, {"y": ["N", 8]}, values), folder / "model.onnx")
    np.savez(folder / "inputs.npz", x=x)
    np.savez(folder / "outputs.npz", y=x @ w)
    (folder / "trt.toml").write_text('[inputs]\nfile = "inputs.npz"\nexpected = "outputs.npz"\n')
    explanation = bisected(folder, "onnxruntime-cpu", "int8").explanation

    clips = scale < 0.01
    assert explanation.attribution.culprit == ("reference" if clips else "none")
    lines = explanation_lines(explanation)
    assert any(line.startswith("  reference    model as it came, ONNX Runtime ") for line in lines)
    assert any(line.startswith("  saturation   'x' (activation of mm): ") for line in lines) == clips


@pytest.mark.parametrize("stored", [False, True])
def test_nan_of_the_float32_model_itself_is_hunted_there(bisected: Bisected, tmp_path: Path, stored: bool):
    """Its own reference holds NaN, or what was stored does not and the model makes some."""
    nodes = [
        node("Abs", ["x"], ["a"], name="abs"),
        node("Neg", ["a"], ["n"], name="neg"),
        node("Sqrt", ["n"], ["s"], name="sqrt"),
        node("MatMul", ["s", "w"], ["y"], name="mm"),
    ]
    folder = tmp_path / "net"
    folder.mkdir()
    proto = model(nodes, {"x": ["N", 8]}, {"y": ["N", 8]}, {"w": weights(2, 8, 8)})
    onnx.save(proto, folder / "model.onnx")
    if stored:
        np.savez(folder / "inputs.npz", x=weights(1, 8, 8))
        np.savez(folder / "outputs.npz", y=np.ones((8, 8), np.float32))
        (folder / "trt.toml").write_text('[inputs]\nfile = "inputs.npz"\nexpected = "outputs.npz"\n')
    explanation = bisected(folder, "onnxruntime-cpu", "fp16").explanation

    assert explanation.attribution.culprit == "reference"
    assert explanation.nonfinite.node == "sqrt"
    lines = explanation_lines(explanation)
    assert any(line.startswith("  first NaN/inf  sqrt (Sqrt) makes 's': ") for line in lines)
    assert not any(", 0% of the squared error" in line for line in lines)


@pytest.mark.parametrize(("precision", "searched"), [("fp16", "nothing"), ("fp32", None)])
@pytest.mark.parametrize("anew", [False, True])
def test_where_no_exclusion_helps_an_engine_its_tensor_is_searched(
    bisected: Bisected,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    searched: str | None,
    anew: bool,
):
    """A factor of the engine is not the model's, whatever the type of its nodes. fp32 has no node to exclude."""
    load = FakeBackend.load
    monkeypatch.setattr(FakeBackend, "load", lambda self, plan, request: load(self, plan, with_scales(request, s4=1.5)))
    folder = write_chain(tmp_path / "chain", 6, width=WIDTH, rows=ROWS)
    if anew and searched is None:  # nodes are what was asked for
        with pytest.raises(PrecisionError, match="changes nothing that could be excluded"):
            bisected(folder, "fake", precision, on_engine=True, anew=True)
        return
    found = bisected(folder, "fake", precision, on_engine=True, anew=anew)

    assert found.explanation.attribution.culprit == "parser"
    assert (found.culprits.found.outcome if found.culprits else None) == searched
    assert (found.divergence.outcome, found.divergence.node) == ("found", "mul_4")
    lines = bisection_lines(found, precision)
    assert any(line.startswith("the first tensor of the engine that diverges: 't4'") for line in lines)
    said = [line for line in lines if "no nodes are searched: " in line]
    assert len(said) == (searched is None)


def test_an_output_that_the_recipe_renames_is_reduced_to_its_node(
    bisected: Bisected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """In fp16 the node makes y_float16, and a cast makes y of it: the float32 model knows the node alone."""
    nodes = [
        *(node("MatMul", [f"m{i}" if i else "x", "w"], [f"m{i + 1}"], name=f"matmul_{i}") for i in range(6)),
        node("Mul", ["m6", "s0"], ["y"], name="last"),
    ]
    values = {"w": weights(1, 16, 16, scale=0.25), "s0": np.float32(1)}
    folder = tmp_path / "net"
    folder.mkdir()
    onnx.save(model(nodes, {"x": ["N", 16]}, {"y": ["N", 16]}, values), folder / "model.onnx")
    load = FakeBackend.load
    monkeypatch.setattr(FakeBackend, "load", lambda self, plan, request: load(self, plan, with_scales(request, s0=1.5)))
    with bisected.lab("fake", "fp16", bundle=tmp_path / "bundles") as lab:
        (case,) = lab.cases(lab.add(folder))
        found = lab.bisect(case)
        told = lab.bundle(case, found)

    assert (found.divergence.tensor, found.divergence.node) == ("y_float16", "last")
    assert "  reduced      1 of 7 nodes still fails: last; 1 evaluation" in told


def test_an_output_that_no_node_makes_is_called_so(bisected: Bisected, tmp_path: Path):
    """An input that is an output too, of an engine that is never the same."""
    folder = tmp_path / "net"
    folder.mkdir()
    proto = model([node("Relu", ["x"], ["y"], name="relu")], {"x": ["N", 8]}, {"x": ["N", 8], "y": ["N", 8]})
    onnx.save(proto, folder / "model.onnx")
    lines = bisection_lines(bisected(folder, "fake", "fp32", fake="unstable=4000000"), "fp32")

    what = "the first tensor of the engine that is not the same in every run"
    assert f"{what}: 'x', an output that no node makes" in lines


def test_engines_with_marked_tensors_follow_the_timings_of_the_engine_itself(
    bisected: Bisected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of another choice of tactics the fault might be gone by chance."""
    marked, build = [], FakeBackend.build

    def recorded(self: FakeBackend, request: Any, *given: Any) -> Any:
        if len(request.model.outputs) > 1:
            marked.append(request.timing_cache)
        return build(self, request, *given)

    monkeypatch.setattr(FakeBackend, "build", recorded)
    monkeypatch.setattr(Lab, "timings", lambda self, backend: b"of the engine")
    folder = write_chain(tmp_path / "chain", 4, width=WIDTH, rows=ROWS)
    found = bisected(folder, "fake", "fp32", fake="fusion=0.5,at=6")

    assert found.divergence.builds == len(marked) > 0
    assert set(marked) == {b"of the engine"}


def test_nodes_that_are_searched_anew_do_not_hide_the_engines_tensor(bisected: Bisected, tmp_path: Path):
    folder = write_chain(tmp_path / "chain", 6, width=WIDTH, rows=ROWS)
    at = node_index(bisected, folder, "fp16", "mul_4")
    found = bisected(folder, "fake", "fp16", fake=f"fusion=0.5,at={at}", anew=True)

    assert (found.explanation.attribution.culprit, found.culprits.found.outcome) == ("fusion", "empty")
    assert (found.divergence.outcome, found.divergence.node) == ("found", "mul_4")


@pytest.mark.parametrize("on_engine", [False, True])
def test_nodes_that_mend_the_engine_are_the_answer(
    bisected: Bisected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_engine: bool
):
    """The engine is wrong only where the fourth product runs in float16."""
    load = FakeBackend.load

    def wrong(self: FakeBackend, plan: bytes, request: Any) -> Any:
        stored = {tensor.name: tensor.data_type for tensor in request.model.proto.graph.initializer}
        is_low = stored.get("s4") == onnx.TensorProto.FLOAT16
        return load(self, plan, with_scales(request, s4=1.5) if is_low else request)

    given, build = [], FakeBackend.build

    def recorded(self: FakeBackend, request: Any, *rest: Any) -> Any:
        given.append(request.timing_cache)
        return build(self, request, *rest)

    monkeypatch.setattr(FakeBackend, "load", wrong)
    monkeypatch.setattr(FakeBackend, "build", recorded)
    monkeypatch.setattr(Lab, "timings", lambda self, backend: b"of the engine")
    folder = write_chain(tmp_path / "chain", 6, width=WIDTH, rows=ROWS)
    found = bisected(folder, "fake", "fp16", on_engine=on_engine)

    assert found.explanation.attribution.culprit == "parser"
    if on_engine:
        assert (found.culprits.exclude_nodes, found.divergence) == (("mul_4",), None)
        assert given.count(b"of the engine") == found.culprits.evaluations  # by the tactics that it has
    else:
        assert (found.culprits, found.divergence.node) == (None, "mul_4")


@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.parametrize("limit", ["cosine=0.999999,rtol=1e-6,atol=1e-6", "rtol=1,atol=0.15"])
def test_a_list_that_leaves_nothing_to_type_is_no_recipe(
    bisected: Bisected, tmp_path: Path, precision: str, limit: str
):
    """A recipe refuses to exclude all that it could change, or keeps a cast at a node that only moves values."""
    folder = write_chain(tmp_path / "chain", 2, width=16, rows=8, factors={"w0": 8.0})
    found = bisected(folder, "onnxruntime-cpu", precision, settings={"tolerance": limit}, anew=True)
    lines = bisection_lines(found, precision)

    is_all = len(found.culprits.nodes) == found.culprits.candidates
    assert is_all == limit.startswith("cosine")
    assert (
        any(line.startswith(f"  note         these are all nodes that compute in {precision}: ") for line in lines)
        == is_all
    )
    assert (f"[precision.{precision}]" in lines) == (not is_all and bool(found.culprits.nodes))


def test_a_long_list_of_nodes_is_told_once(bisected: Bisected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fault = PLANTS[0]
    found = bisected(plant(monkeypatch, tmp_path / "chain", fault, width=WIDTH, rows=ROWS), "onnxruntime-cpu", "fp16")
    many = replace(found.culprits, nodes=found.culprits.nodes * 25)

    lines = bisection_lines(replace(found, culprits=many), "fp16")

    assert lines.count("  matmul_5 (MatMul)") == 20
    assert "  and 5 more: the list below has all of them" in lines
    assert lines[-1].count('"matmul_5"') == 25
    assert not any("more: the list" in line for line in bisection_lines(found, "fp16"))


def with_scales(request: Any, **scales: float) -> Any:
    """The request with other factors s_i in its model."""
    proto = copy_model(request.model.proto)
    for tensor in proto.graph.initializer:
        if tensor.name in scales:
            kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.asarray(scales[tensor.name], kind), tensor.name))
    return replace(request, model=Model.from_proto(proto, request.model.name))


def test_an_error_that_only_grows_is_said_to(bisected: Bisected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Every product of the engine is a little off: no single one makes the error."""
    load, off = FakeBackend.load, {f"s{i}": 1.05 for i in range(8)}
    monkeypatch.setattr(FakeBackend, "load", lambda self, plan, request: load(self, plan, with_scales(request, **off)))
    found = bisected(write_chain(tmp_path / "chain", 8, width=WIDTH, rows=ROWS), "fake", "int8", group=1)

    assert found.explanation.attribution.culprit == "parser"
    assert found.divergence.error > found.divergence.before > found.divergence.error / 2
    assert any("the error grows from node to node" in line for line in bisection_lines(found, "int8"))


@pytest.mark.parametrize("taps", ["outputs", "debug"])
def test_an_engine_whose_runs_differ_is_named_with_the_tensor(
    bisected: Bisected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taps: str
):
    """Every other run of each engine multiplies by 1.3 in the third layer."""
    load = FakeBackend.load

    def flickering(self: FakeBackend, plan: bytes, request: Any) -> Any:
        session, other = load(self, plan, request), load(self, plan, with_scales(request, s2=1.3))
        turns = itertools.cycle([session.run, other.run])

        def run(feeds: Any) -> Any:
            return next(turns)(feeds)

        monkeypatch.setattr(session, "run", run)
        return session

    monkeypatch.setattr(FakeBackend, "load", flickering)
    folder = write_chain(tmp_path / "chain", 6, width=WIDTH, rows=ROWS)
    found = bisected(folder, "fake", "fp32", fake="debug=1", taps=taps)

    assert found.explanation.attribution.culprit == "run-to-run"
    assert found.culprits is None
    assert (found.divergence.outcome, found.divergence.tensor, found.divergence.node) == ("found", "t2", "mul_2")
    assert found.divergence.error == pytest.approx(0.3 * (2 / 3) ** 0.5, rel=1e-3)  # two of the three later runs
    lines = bisection_lines(found, "fp32")
    assert "the first tensor of the engine that is not the same in every run: 't2', made by mul_2 (Mul)" in lines
    assert any("runs of one engine differ" in line for line in lines)


def test_an_engine_that_is_never_the_same_anywhere(bisected: Bisected, tmp_path: Path):
    folder = write_chain(tmp_path / "chain", 4, width=WIDTH, rows=ROWS)
    found = bisected(folder, "fake", "fp32", fake="unstable=40000")

    assert found.explanation.attribution.culprit == "run-to-run"
    assert (found.divergence.tensor, found.divergence.node) == ("m0", "matmul_0")


def test_stages_can_be_left_out(bisected: Bisected, tmp_path: Path):
    folder = write_chain(tmp_path / "chain", 4, width=WIDTH, rows=ROWS)
    found = bisected(folder, "fake", "fp32", fake="fusion=0.5,at=3", stages=("parser",))

    attribution = found.explanation.attribution
    assert [s.word for s in attribution.stages] == ["conversion", "parser", "fusion"]
    assert [s.note for s in attribution.stages if s.error is None] == ["not run: left out"]
    assert attribution.suspects == ("fusion",)
    assert found.divergence.tensor == "m1"

    without = bisected(folder, "fake", "fp32", fake="fusion=0.5,at=3", stages=("reference",))
    assert without.explanation.attribution.suspects == ("conversion", "parser", "fusion")


def test_what_is_late_is_not_begun(bisected: Bisected, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    folder = plant(monkeypatch, tmp_path / "chain", PLANTS[0], width=WIDTH, rows=ROWS)
    explained = bisected(folder, "onnxruntime-cpu", "fp16").explanation
    found = bisected(folder, "onnxruntime-cpu", "fp16", seconds=0.0, explanation=explained)

    assert found.culprits.found.outcome == "unfinished"
    assert found.culprits.evaluations <= 4
    assert found.culprits.after.ok, "what was found by then is close"
    assert PLANTS[0].nodes[0] in found.culprits.exclude_nodes
    assert any(line.startswith("a limit was reached: a set that is close") for line in bisection_lines(found, "fp16"))


def test_a_tensor_is_not_searched_when_it_is_late(bisected: Bisected, tmp_path: Path):
    folder = write_chain(tmp_path / "chain", 8, width=WIDTH, rows=ROWS)
    explained = bisected(folder, "fake", "fp32", fake="fusion=0.5,at=12").explanation
    found = bisected(folder, "fake", "fp32", fake="fusion=0.5,at=12", seconds=0.0, explanation=explained)

    assert (found.divergence.outcome, found.divergence.builds) == ("unfinished", 0)


def test_the_latency_of_the_exclusions_is_measured_where_it_is_asked(
    bisected: Bisected, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    folder = plant(monkeypatch, tmp_path / "chain", PLANTS[0], width=WIDTH, rows=ROWS)
    quick = {"duration": 0.3, "warmup": 0.0, "loads": 1}
    found = bisected(folder, "onnxruntime-cpu", "fp16", settings=quick, latency=True)

    assert found.cost.clock == "host"
    assert 0 < found.cost.low <= found.cost.ratio <= found.cost.high
    assert found.cost.after_ms > 0 < found.cost.before_ms
    assert found.cost.simulated.startswith("computed in float32")
    assert found.to_json()["cost"]["rounds"] == found.cost.rounds
    (line,) = [line for line in bisection_lines(found, "fp16") if line.startswith("  latency ")]
    assert "host clock; computed in float32" in line


def test_a_latency_that_cannot_be_measured_loses_nothing(
    bisected: Bisected, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def refuse(*_: Any) -> None:
        raise RunError("no memory for two")

    monkeypatch.setattr("pytest_trt.lab.exclusion_cost.take_turns", refuse)
    folder = plant(monkeypatch, tmp_path / "chain", PLANTS[0], width=WIDTH, rows=ROWS)
    found = bisected(folder, "onnxruntime-cpu", "fp16", latency=True)

    assert found.culprits.exclude_nodes == PLANTS[0].nodes
    assert found.cost is None
    assert "  note         latency not measured: no memory for two" in bisection_lines(found, "fp16")


def test_ranges_that_calibration_clipped_are_named(bisected: Bisected, tmp_path: Path):
    """A few values lie beyond the range: too few to be called saturation."""
    folder = write_chain(tmp_path / "chain", 4, width=WIDTH, rows=ROWS)
    manifest = folder / "trt.toml"
    manifest.write_text(manifest.read_text().replace('"minmax"', '"percentile"\npercentile = 99.95'))
    found = bisected(folder, "onnxruntime-cpu", "int8", stages=("conversion",)).explanation

    (pair,) = [pair for pair in found.pairs if pair.tensor == "r1"]
    assert pair.readers == ("matmul_2",)
    assert pair.used > 1.05
    assert 0 < pair.saturated_share <= 0.001
    lines = numerics_lines(found.nonfinite, found.pairs, found.roundings)
    assert any(line.startswith("  clipped      'r1' (activation of matmul_2): ") for line in lines)
    (row,) = [row for row in found.to_json()["pairs"] if row["tensor"] == "r1"]
    assert (row["readers"], row["used"]) == (["matmul_2"], round(pair.used, 4))


def test_the_sides_of_the_latency_are_without_and_with_the_exclusions(
    bisected: Bisected, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    outputs: list[Any] = []

    def compare(settings: Any, clock: str, *sides: Any) -> Any:
        outputs.extend(again().run(feeds)["y"] for again, feeds in sides)
        samples = [np.full((3, 50), 1.0 + side) for side in range(2)]
        return Interleaved(*samples, clock, [])

    # By its module: pytester, in other tests, makes this package forget what an inner run was the first to import.
    monkeypatch.setattr(importlib.import_module("pytest_trt.lab.exclusion_cost"), "take_turns", compare)
    folder = plant(monkeypatch, tmp_path / "chain", PLANTS[0], width=WIDTH, rows=ROWS)
    found = bisected(folder, "onnxruntime-cpu", "fp16", latency=True)

    with np.load(folder / "inputs.npz") as archive:
        (expected,) = run(onnx.load(folder / "model.onnx"), {"x": archive["x"]})
    broken, mended = (np.abs(array - expected).max() for array in outputs)
    assert mended < 0.01 < broken
    assert (found.cost.before_ms, found.cost.after_ms, found.cost.ratio) == (1.0, 2.0, pytest.approx(2.0))
