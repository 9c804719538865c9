"""Sums in another order, imitated: what moves a typed model when no engine is at fault."""

from __future__ import annotations

import math
import re

import numpy as np
import onnx
import pytest
from networks import FLOAT, model, node, weights

from pytest_trt.accuracy import Comparison, Tolerance, compare
from pytest_trt.diagnosis.attribution import Attribution, Measured, attribute
from pytest_trt.diagnosis.observe import values
from pytest_trt.diagnosis.present import attribution_lines
from pytest_trt.diagnosis.summation import STEP, reordered
from pytest_trt.spec.model import Model

X = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)


def chain(*, rounded: bool) -> Model:
    """Two products, with the first one's result through fp16 if *rounded*."""
    nodes = [node("MatMul", ["x", "w0"], ["m"], name="first")]
    if rounded:
        nodes += [node("Cast", ["m"], ["h"], to=10), node("Cast", ["h"], ["r"], to=1)]
    nodes.append(node("MatMul", ["r" if rounded else "m", "w1"], ["y"], name="second"))
    constants = {f"w{i}": weights(i, 64, 64, scale=0.125) for i in range(2)}
    return Model.from_proto(model(nodes, {"x": (FLOAT, [64, 64])}, {"y": [64, 64]}, constants), "chain")


def distance(net: Model) -> float:
    moved = reordered(net)
    assert moved is not None
    (plain,), (other,) = (values(one, ["y"], [{"x": X}]) for one in (net, moved))
    return float(np.abs(other["y"] - plain["y"]).max() / np.abs(plain["y"]).max())


def test_without_rounding_outputs_move_as_little_as_the_sums():
    assert 0 <= distance(chain(rounded=False)) < 3 * STEP


def test_what_rounds_moves_more():
    assert distance(chain(rounded=True)) > 10 * STEP


def test_the_model_stays_and_its_outputs_keep_their_names():
    net = chain(rounded=True)
    before = net.proto.SerializeToString()
    moved = reordered(net)
    assert moved is not None
    assert net.proto.SerializeToString() == before
    onnx.checker.check_model(moved.proto)
    assert [o.name for o in moved.proto.graph.output] == ["y"]
    assert [n.op_type for n in moved.proto.graph.node] == ["MatMul", "Mul", "Cast", "Cast", "MatMul", "Mul"]


def test_nothing_sums_up_in_it():
    proto = model([node("Relu", ["x"], ["y"])], {"x": (FLOAT, [64, 64])}, {"y": [64, 64]})
    assert reordered(Model.from_proto(proto, "relu")) is None


EXPECTED = [{"y": np.full(1000, 10.0)}]
NOISE = np.random.default_rng(1).standard_normal((3, 1000))


def split(moved: float, fusion: float, build: float | None = None) -> Attribution:
    """A conversion whose error is 1, whose sums in another order are *moved* from it, an engine beyond it, and perhaps
    another *build*, that far from the engine."""

    def stage(word: str, rows: list[dict[str, np.ndarray]], **more: object) -> Measured:
        judged = compare(rows[0], EXPECTED[0], tolerance=Tolerance(rtol=0.0, atol=0.5), allow_nonfinite=False)
        return Measured(word, word, rows, Comparison.merge([judged]), **more)  # type: ignore[arg-type]

    typed = EXPECTED[0]["y"] + NOISE[0]
    engine = typed + fusion * NOISE[2]
    measured = [
        stage("reference", EXPECTED),
        stage("conversion", [{"y": typed}], reordered=[{"y": typed + moved * NOISE[1]}]),
        stage("fusion", [{"y": engine}]),
    ]
    if build is not None:
        measured.append(stage("lottery", [{"y": engine + build * NOISE[1]}]))
    return attribute(measured, EXPECTED)


def test_an_engine_no_further_than_another_order_is_not_blamed():
    found = split(moved=2.0, fusion=1.9)
    assert found.culprit == "conversion"
    assert found.share == pytest.approx(1.0)
    (note,) = found.notes
    said = re.search(r"move the typed model by ([\d.]+):", note)
    assert said
    assert float(said[1]) == pytest.approx(0.2, rel=0.1)
    assert any(line.startswith("  rounding     sums moved") for line in attribution_lines(found))


def test_what_is_beyond_another_order_is_the_engines():
    found = split(moved=1.0, fusion=3.0)
    assert found.culprit == "fusion"
    stage = found.stage("fusion")
    assert stage is not None
    assert stage.added == pytest.approx(0.3, rel=0.1)
    assert found.share == pytest.approx(8 / 9, rel=0.05)


@pytest.mark.parametrize(("build", "culprit"), [(1.9, "conversion"), (4.0, "lottery")])
def test_builds_may_add_up_in_another_order_as_well(build: float, culprit: str):
    found = split(moved=2.0, fusion=0.0, build=build)
    assert found.culprit == culprit
    share = {"conversion": 1.0, "lottery": 12 / 13}[culprit]
    assert found.share == pytest.approx(share, rel=0.05)
    assert "of parser, fusion and lottery is not in their shares" in found.notes[0]


def test_a_little_is_not_worth_a_word():
    assert split(moved=0.1, fusion=3.0).notes == ()


def test_what_overflows_only_when_moved_takes_nothing_from_the_engine():
    typed = [{"y": np.full(1000, 10.0)}]
    measured = [
        Measured("conversion", "typed", typed, reordered=[{"y": np.full(1000, np.inf)}]),
        Measured("fusion", "engine", [{"y": np.full(1000, np.inf)}]),
    ]
    found = attribute(measured, EXPECTED)
    assert found.culprit == "fusion"
    assert math.isinf(found.stages[1].added or 0.0)
