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
from networks import run
from planted import PLANTS, Plant, plant, write_chain

from pytest_trt.backends.fake import FakeBackend
from pytest_trt.diagnosis.hunt import Bisection
from pytest_trt.diagnosis.present import bisection_lines, numerics_lines
from pytest_trt.errors import RunError
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
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.float32(scales[tensor.name]), tensor.name))
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

    assert [stage.word for stage in found.explanation.attribution.stages] == ["parser", "fusion"]
    assert found.divergence.tensor == "m1"


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
