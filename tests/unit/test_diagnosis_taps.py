"""The first tensor of an engine that diverges: on invented engines, and on the fake backend's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import model, node, run, weights

from pytest_trt.diagnosis.hunt import Bisection, bisect
from pytest_trt.diagnosis.present import bisection_lines
from pytest_trt.diagnosis.stages import Subject
from pytest_trt.diagnosis.tapping import Look, by_outputs, with_taps
from pytest_trt.diagnosis.taps import Divergence, first_divergence
from pytest_trt.errors import UnsupportedError
from pytest_trt.lab import Lab
from pytest_trt.settings import Settings
from pytest_trt.spec.model import Model

FEEDS = {"x": weights(3, 4, 16)}


def ladder(depth: int) -> onnx.ModelProto:
    """Two branches of *depth* MatMuls each, added half-way (``mixed``, for the second one) and at the end."""
    nodes, values, left, right = [], {}, "x", "x"
    for i in range(depth):
        nodes.append(node("MatMul", [left, f"w{i}"], [f"a{i}"], name=f"left_{i}"))
        if i == depth // 2:
            nodes.append(node("Add", [f"a{i}", right], ["mixed"], name="mix"))
            right = "mixed"
        nodes.append(node("MatMul", [right, f"v{i}"], [f"b{i}"], name=f"right_{i}"))
        values |= {f"w{i}": weights(2 * i, 16, 16, scale=0.3), f"v{i}": weights(2 * i + 1, 16, 16, scale=0.3)}
        left, right = f"a{i}", f"b{i}"
    nodes.append(node("Add", [left, right], ["y"], name="sum"))
    return model(nodes, {"x": ["N", 16]}, {"y": ["N", 16]}, values)


class Engine:
    """Builds a model with one tensor scaled by 1.5; *hidden_by* are tensors that repair it when they are outputs."""

    def __init__(self, proto: onnx.ModelProto, broken: str, hidden_by: tuple[str, ...] = ()) -> None:
        self.model, self.broken, self.hidden_by = Model.from_proto(proto, "net"), broken, hidden_by
        self.marked: list[set[str]] = []
        names = [o for n in proto.graph.node for o in n.output]
        tapped, _ = with_taps(self.model, [n for n in names if n != "y"])
        self.right = dict(zip([o.name for o in tapped.outputs], run(tapped.proto, FEEDS), strict=True))
        self.plain = self.build(self.model)

    def build(self, model: Model) -> list[dict[str, Any]]:
        proto = onnx.ModelProto()
        proto.CopyFrom(model.proto)
        outputs = {o.name for o in proto.graph.output}
        self.marked.append(outputs - {"y"})
        if not outputs & set(self.hidden_by):
            index, maker = next((i, n) for i, n in enumerate(proto.graph.node) if self.broken in n.output)
            maker.output[0] = "exact"
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1.5), "factor"))
            proto.graph.node.insert(index + 1, node("Mul", ["exact", "factor"], [self.broken]))
        names = [o.name for o in proto.graph.output]
        return [dict(zip(names, run(proto, FEEDS), strict=True))]

    def look(self) -> Look:
        return by_outputs(self.model, self.build)

    def search(self, look: Look | None = None, **given: int) -> Divergence:
        def deviations(tensors: list[str], rows: Any) -> dict[str, tuple[float, bool]]:
            errors = {
                t: float(np.sqrt(np.mean((rows[0][t] - self.right[t]) ** 2) / np.mean(self.right[t] ** 2)))
                for t in tensors
            }
            return {t: (error, error > 1e-3) for t, error in errors.items()}

        def fails(rows: Any) -> bool:
            return not np.allclose(rows[0]["y"], self.right["y"], rtol=1e-3)

        self.marked.clear()
        return first_divergence(self.model, self.plain, look or self.look(), deviations, fails, **given)


@pytest.mark.parametrize("broken", ["a0", "b0", "a7", "b19", "a20", "b21", "a39", "b39", "y"])
@pytest.mark.parametrize("group", [1, 8])
def test_the_first_tensor_that_diverges_is_found(broken: str, group: int):
    engine = Engine(ladder(40), broken)
    found = engine.search(group=group, limit=200)

    assert (found.outcome, found.tensor) == ("found", broken)
    assert found.node == {"a": "left_", "b": "right_", "y": "sum"}[broken[0]] + broken[1:]
    assert found.op_type == ("Add" if broken == "y" else "MatMul")
    assert max((len(marked) for marked in engine.marked), default=0) <= group
    assert found.builds == len(engine.marked)
    assert found.builds <= (6 if group == 8 else 24)


def test_what_is_read_by_the_guilty_node_was_seen_to_be_right():
    found = Engine(ladder(40), "mixed").search(group=4)

    right = {tap.tensor for tap in found.taps if not tap.diverges}
    assert (found.tensor, found.node) == ("mixed", "mix")
    assert {"a20", "b19"} <= right


def test_a_fault_that_vanishes_while_tapped_is_said_to():
    engine = Engine(ladder(10), "a5", hidden_by=("a5",))
    found = engine.search(group=4)

    assert found.hiding == ("a5",)
    assert found.outcome == "found"
    assert found.tensor in ("a6", "mixed")  # the first one that could be looked at: both read a5
    assert {"a4"} <= {tap.tensor for tap in found.taps if not tap.diverges}


def test_where_every_tap_repairs_the_engine_nothing_is_claimed():
    tensors = ("mixed", *(f"{side}{i}" for side in "ab" for i in range(4)))
    found = Engine(ladder(4), "a2", hidden_by=tensors).search(group=3, limit=50)

    assert found.outcome == "vanished"
    assert set(found.hiding) == set(tensors)


def test_the_limit_of_builds_is_kept():
    found = Engine(ladder(40), "a0").search(group=1, limit=2)

    assert (found.outcome, found.builds) == ("unfinished", 2)


def test_an_engine_that_is_right_has_nothing_to_find():
    engine = Engine(ladder(4), "a2")
    engine.plain = [{"y": engine.right["y"]}]

    assert (engine.search().outcome, engine.search().builds) == ("none", 0)


def test_bfloat16_is_looked_at_through_a_cast():
    proto = model(
        [
            node("Cast", ["x"], ["low"], name="down", to=16),
            node("Identity", ["low"], ["same"], name="same"),
            node("Cast", ["same"], ["y"], name="up", to=1),
        ],
        {"x": ["N", 16]},
        {"y": ["N", 16]},
    )
    tapped, names = with_taps(Model.from_proto(proto, "net"), ["low", "same"])

    assert names == {"low": "low_tapped", "same": "same_tapped"}
    assert [o.dtype for o in tapped.outputs] == ["float32"] * 3
    assert [o.name for o in Model.from_proto(proto, "net").outputs] == ["y"]
    assert len(run(tapped.proto, FEEDS)) == 3


# --- the fake backend's engines, through a Lab ---


@pytest.fixture
def bisected(tmp_path: Path) -> Iterator[Any]:
    labs: list[Lab] = []
    folder = tmp_path / "ladder"
    folder.mkdir()
    onnx.save(ladder(10), folder / "model.onnx")
    np.savez(folder / "inputs.npz", x=weights(3, 8, 16))
    (folder / "trt.toml").write_text('[inputs]\nfile = "inputs.npz"\n[profiles.b4]\nx = [4, 16]\n')

    def act(fake: str, precision: str = "fp32", **given: Any) -> Bisection:
        settings = Settings(cache_dir=tmp_path / "cache", backend=("fake",), precision=(precision,), fake=fake)
        labs.append(Lab(settings, tmp_path))
        (case,) = labs[-1].cases(labs[-1].add(folder))
        return bisect(labs[-1], Subject(labs[-1], case), **given)  # type: ignore[arg-type]

    yield act
    for lab in labs:
        lab.close()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_fusion_that_breaks_one_node_is_found(bisected: Any, precision: str):
    found = bisected("fusion=0.5,at=14", precision)

    assert found.explanation.attribution.culprit == "fusion"
    assert found.divergence.outcome == "found"
    if precision == "fp32":
        assert (found.divergence.tensor, found.divergence.node) == ("b6", "right_6")
    assert any("the first tensor of the engine that diverges" in line for line in bisection_lines(found, precision))
    assert found.culprits is None


def test_fusion_that_hides_is_reported(bisected: Any):
    found = bisected("fusion=0.5,at=12,shy=1")

    assert found.divergence.hiding == ("b5",)
    lines = bisection_lines(found, "fp32")
    assert any("the fault vanished while tapped: 'b5'" in line for line in lines)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_debug_tensor_hides_no_fault_that_an_output_would(bisected: Any, precision: str):
    shy = bisected("fusion=0.5,at=12,shy=1,debug=1", precision)
    found = bisected("fusion=0.5,at=12,shy=1,debug=1", precision, taps="debug")

    assert shy.divergence.hiding
    assert (found.divergence.outcome, found.divergence.hiding, found.divergence.missing) == ("found", (), ())
    assert found.divergence.tensor in shy.divergence.hiding
    assert precision == "fp16" or (found.divergence.tensor, found.divergence.node) == ("b5", "right_5")


def test_debug_tensors_that_the_backend_lacks_are_refused(bisected: Any):
    with pytest.raises(UnsupportedError, match="fake has no debug tensors here"):
        bisected("fusion=0.5,at=12", taps="debug")


def test_a_tensor_that_the_engine_does_not_have_is_reported():
    engine = Engine(ladder(10), "a5")
    look = engine.look()

    def without(tensors: list[str]) -> list[dict[str, Any]]:
        return [{name: array for name, array in row.items() if name not in ("a5", "mixed")} for row in look(tensors)]

    found = engine.search(without, group=4)

    assert (found.outcome, found.tensor, found.missing) == ("found", "b5", ("a5", "mixed"))
    assert found.hiding == ()


def test_a_case_that_is_close_is_not_searched(bisected: Any):
    found = bisected("")

    assert found.explanation.attribution.culprit == "none"
    assert found.divergence is None
    assert found.culprits is None
