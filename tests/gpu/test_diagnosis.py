"""Planted faults, named through engines of a real TensorRT: where the error enters, then the nodes or the tensor.

Products are large enough that a builder which may choose takes 16 bits or 8.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from planted import PLANTS, Plant, plant, with_other_weight, write_chain

from pytest_trt.diagnosis.hunt import Bisection
from pytest_trt.diagnosis.present import bisection_lines
from pytest_trt.lab import Lab
from pytest_trt.settings import Settings

pytestmark = pytest.mark.gpu

WIDTH, ROWS = 512, 512
# What each stage costs is a build or two: one fault is attributed with all of them.
FEW = ("reference", "conversion", "parser")


@pytest.fixture
def bisected(backend, tmp_path: Path, capsys) -> Iterator[Any]:
    labs: list[Lab] = []

    def act(folder: Path, precision: str, **given: Any) -> Bisection:
        quick = {"opt_level": 1, "loads": 1, "duration": 1.0, "warmup": 0.2}
        settings = Settings(cache_dir=tmp_path / "cache", backend=("tensorrt",), precision=(precision,), **quick)
        labs.append(Lab(settings, tmp_path))
        (case,) = labs[-1].cases(labs[-1].add(folder))
        started = time.perf_counter()
        found = labs[-1].bisect(case, **given)
        with capsys.disabled():
            said = "\n".join(bisection_lines(found, precision))
            sys.stdout.write(f"\n{case} ({time.perf_counter() - started:.1f} s)\n{said}\n")
        return found

    yield act
    for lab in labs:
        lab.close()


# Values far below fp16's range. On an H200 the outputs of TensorRT 8.6.0 are NaN there: it multiplies a weight and its
# scale while it builds, and of the two products one becomes 0 and the other infinity.
UNDERFLOW = next(fault for fault in PLANTS if fault.vanished)
# The same with one product, and every weight, scale and result within fp16's range.
FOLDED = {"w2": 1e3, "w3": 1e-3, "s3": 1e-5, "w4": 1e5}


def test_what_the_engine_makes_of_values_too_small_for_fp16_is_its_own_error(
    bisected: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = plant(monkeypatch, tmp_path / "chain", UNDERFLOW, width=WIDTH, rows=ROWS)
    found = bisected(folder, UNDERFLOW.precision, stages=FEW)

    assert found.explanation.attribution.stage("conversion").ok is False
    assert found.explanation.attribution.culprit == "parser"
    assert (found.divergence.tensor, found.divergence.node) == ("t3", UNDERFLOW.vanished)
    vanished = {row.node for row in found.explanation.roundings if row.vanished > row.count / 2}
    assert UNDERFLOW.vanished in vanished


def test_constants_whose_product_fp16_does_not_hold_are_the_engines_own_error(bisected: Any, tmp_path: Path) -> None:
    folder = write_chain(tmp_path / "chain", 8, width=WIDTH, rows=ROWS, factors=FOLDED)
    found = bisected(folder, "fp16", stages=FEW, group=16)

    assert found.explanation.attribution.stage("conversion").ok is True
    assert found.explanation.attribution.culprit == "parser"
    assert (found.divergence.tensor, found.divergence.node) == ("t3", "mul_3")

    found = bisected(folder, "fp16", stages=("conversion",), on_engine=True)
    assert found.culprits.exclude_nodes == ("mul_3",)
    assert found.culprits.after.ok is True


@pytest.mark.parametrize("fault", [f for f in PLANTS if f is not UNDERFLOW], ids=lambda fault: fault.name)
def test_a_fault_of_the_typed_model_is_named(
    bisected: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: Plant
) -> None:
    folder = plant(monkeypatch, tmp_path / "chain", fault, width=WIDTH, rows=ROWS)
    given = {} if fault is PLANTS[0] else {"stages": FEW}
    found = bisected(folder, fault.precision, **given)

    explanation, culprits = found.explanation, found.culprits
    assert explanation.attribution.culprit == "conversion"
    assert explanation.attribution.share > 0.9
    assert explanation.attribution.stage("fusion").ok is False
    assert culprits.exclude_nodes == fault.nodes
    assert (culprits.before.ok, culprits.after.ok) == (False, True)
    assert (explanation.nonfinite.node if explanation.nonfinite else None) == fault.nonfinite
    assert tuple(pair.tensor for pair in explanation.pairs if pair.saturated_share > 0.1) == fault.saturated


def test_nodes_are_judged_by_engines_and_what_they_cost_is_measured(
    bisected: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every evaluation is a build: the typed model with some nodes in float32, in TensorRT."""
    found = bisected(
        plant(monkeypatch, tmp_path / "chain", PLANTS[0], width=WIDTH, rows=ROWS),
        PLANTS[0].precision,
        stages=("reference", "conversion"),
        on_engine=True,
        latency=True,
    )

    assert found.culprits.exclude_nodes == PLANTS[0].nodes
    assert found.cost is not None, found.explanation.notes
    assert (found.cost.clock, found.cost.simulated) == ("graph", "")
    assert 0 < found.cost.low <= found.cost.ratio <= found.cost.high
    assert (found.culprits.before.ok, found.culprits.after.ok) == (False, True)


@pytest.mark.parametrize(("optimized_only", "culprit"), [(False, "parser"), (True, "fusion")])
def test_an_engine_that_leaves_its_model_is_named_with_the_tensor(
    backend, bisected: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, optimized_only: bool, culprit: str
) -> None:
    """The builder is given another weight than the model has: at every optimization level, or only above 0."""
    build = type(backend).build

    def wrong(self: Any, request: Any, *arguments: Any) -> Any:
        if not (optimized_only and request.options.opt_level == 0):
            request = with_other_weight(request, "w3")
        return build(self, request, *arguments)

    monkeypatch.setattr(type(backend), "build", wrong)
    found = bisected(write_chain(tmp_path / "chain", 6, width=WIDTH, rows=ROWS), "fp16", stages=FEW, group=16)

    assert found.explanation.attribution.culprit == culprit
    assert found.explanation.attribution.stage("conversion").ok is True
    assert (found.divergence.tensor, found.divergence.node) == ("m3", "matmul_3")
    assert found.divergence.outcome == "found"
