"""Nodes of a recipe: which there are, what excluding them gives, and the search for those that must stay float32."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from networks import attention, conv_net, find, types_of, weights
from planted import break_recipes, chain, shrink_scale

from pytest_trt.accuracy import Comparison, compare, default_tolerance
from pytest_trt.diagnosis.bisect import Found
from pytest_trt.diagnosis.conversion import Conversion, as_computed
from pytest_trt.diagnosis.culprits import Accuracy, Culprits, find_culprits
from pytest_trt.diagnosis.observe import by_suspicion, values
from pytest_trt.diagnosis.present import _culprits
from pytest_trt.errors import PrecisionError
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import Ranges, get_precision
from pytest_trt.spec.precision.ranges import calibration_tensors, make_collector

FEEDS = [{"x": weights(9 + i, 4, 3, 8, 8)} for i in range(2)]


def ranges_of(proto: onnx.ModelProto, feeds: Sequence[dict[str, Any]]) -> Ranges:
    tensors = calibration_tensors(proto, {})
    collectors = {name: make_collector("minmax", tensor=name) for name in tensors}
    for row in values(Model.from_proto(proto, "net"), tensors, feeds):
        for name, collector in collectors.items():
            collector.update(row[name])
    return {name: collector.range() for name, collector in collectors.items()}


def conversion(
    proto: onnx.ModelProto, precision: str, feeds: Sequence[dict[str, Any]] = FEEDS, **given: Any
) -> Conversion:
    wanted = get_precision(precision)
    ranges = ranges_of(proto, feeds) if wanted.calibrated else None
    return Conversion(Model.from_proto(proto, "net"), wanted, **{"ranges": ranges, **given})


def search(
    subject: Conversion, feeds: Sequence[dict[str, Any]] = FEEDS, cosine: float | None = None, **given: Any
) -> Culprits:
    limits = default_tolerance(subject.precision.name).merged({"cosine": cosine} if cosine else {}, "test")
    expected = values(subject.model, ["y"], feeds)

    def judge(typed: Model) -> Comparison:
        rows = values(as_computed(typed, subject.precision.name), ["y"], feeds)
        return Comparison.merge([compare(a, e, tolerance=limits) for a, e in zip(rows, expected, strict=True)])

    return find_culprits(subject, judge, **given)


# --- candidates ---


def test_candidates_are_the_nodes_that_the_recipe_changes():
    int8, fp16 = conversion(conv_net(), "int8"), conversion(conv_net(), "fp16")

    assert [c.entry for c in int8.candidates] == ["conv1", "conv2", "gemm"]
    assert [c.entry for c in fp16.candidates] == ["conv1", "conv2", "add", "pool", "gemm"]  # not Relu, not Flatten
    assert int8.candidates[1].inputs == ("r1",)
    assert int8.candidates[2].output == "y"


def test_what_the_recipe_keeps_in_float32_is_no_candidate():
    kept = conversion(conv_net(), "int8", options={"exclude_ops": ["Gemm"]})
    masked = conversion(attention(-3.4e38), "fp16")

    assert [c.entry for c in kept.candidates] == ["conv1", "conv2"]
    assert "bias" not in [c.entry for c in masked.candidates]
    assert "query" in [c.entry for c in masked.candidates]


def test_an_entry_means_one_node_alone():
    proto = conv_net()
    find(proto, "conv2").name = "c1"  # as conv1's output is called
    find(proto, "gemm").name = ""

    subject = conversion(proto, "int8")

    assert [c.entry for c in subject.candidates] == ["conv1", "c2", "y"]
    kept = subject.apply(["c2", "y"]).notes["kept_nodes"]
    assert kept == {"c1": "excluded by name", "Gemm:y": "excluded by name"}


def test_with_all_excluded_it_is_the_model_as_it_was():
    subject = conversion(conv_net(), "fp16")
    result = subject.apply([c.entry for c in subject.candidates])

    assert result.proto is subject.model.proto
    assert not result.modified


def test_a_model_that_is_typed_already_has_nothing_to_exclude():
    typed = conversion(conv_net(), "fp16").apply().proto

    with pytest.raises(PrecisionError, match="the recipe changes nothing that could be excluded"):
        _ = Conversion(Model.from_proto(typed, "net"), get_precision("fp16")).candidates


def test_rounding_is_shown_in_float32():
    subject = conversion(conv_net(), "fp16")
    typed = Model.from_proto(subject.apply().proto, "net")

    shown = as_computed(typed, "fp16")
    assert types_of(typed.proto)["c1"] == 10
    assert types_of(shown.proto)["c1"] == 1
    assert as_computed(typed, "int8") is typed
    assert as_computed(subject.model, "fp16") is subject.model


# --- culprits ---


def test_a_node_whose_float16_overflows_is_named():
    proto = chain(12, 16)
    # The square of 400 is beyond 65504; what follows brings the values back.
    for name, factor in (("w5", 400), ("s5", 400), ("w6", 1 / 160000)):
        tensor = next(t for t in proto.graph.initializer if t.name == name)
        tensor.CopyFrom(
            onnx.numpy_helper.from_array(np.asarray(onnx.numpy_helper.to_array(tensor) * np.float32(factor)), name)
        )
    feeds = [{"x": weights(1, 8, 16)}]

    found = search(conversion(proto, "fp16"), feeds)

    assert found.found.outcome == "found"
    # Its result is too large for its reader as well: both stay float32.
    assert found.exclude_nodes == ("mul_5", "matmul_6")
    assert (found.before.ok, found.before.error) == (False, float("inf"))
    assert found.after.ok
    assert found.after.error < 0.01


def test_a_corrupted_weight_is_named(monkeypatch: pytest.MonkeyPatch):
    def harm(proto: onnx.ModelProto) -> None:
        for tensor in proto.graph.initializer:
            if tensor.name == "w7" and tensor.data_type == 10:
                value = np.array(onnx.numpy_helper.to_array(tensor))
                value[3] *= -8
                tensor.CopyFrom(onnx.numpy_helper.from_array(value, "w7"))

    break_recipes(monkeypatch, harm)
    found = search(conversion(chain(12, 16), "fp16"), [{"x": weights(1, 8, 16)}])

    assert found.exclude_nodes == ("matmul_7",)
    assert found.found.minimal


def test_two_pairs_far_apart_whose_scales_are_ten_times_off(monkeypatch: pytest.MonkeyPatch):
    def harm(proto: onnx.ModelProto) -> None:
        shrink_scale(proto, "r2")
        shrink_scale(proto, "r29")

    break_recipes(monkeypatch, harm)
    feeds = [{"x": weights(1, 8, 16)}]
    subject = conversion(chain(40, 16), "int8", feeds)
    found = search(subject, feeds, cosine=0.98)
    ranked = search(
        subject,
        feeds,
        cosine=0.98,
        rank=lambda c: by_suspicion(c, Model.from_proto(subject.apply().proto, "net"), subject.model, feeds),
    )

    assert found.exclude_nodes == ranked.exclude_nodes == ("matmul_3", "matmul_30")
    assert found.candidates == 40
    assert ranked.evaluations < found.evaluations <= 2 * (2 * 5.4 + 1) + 12
    assert found.after.cosine is not None
    assert found.before.cosine is not None
    assert found.before.cosine < 0.98 <= found.after.cosine


def test_where_even_float32_is_not_close_nothing_helps():
    found = search(conversion(conv_net(), "int8"), cosine=1.0)
    said: list[str] = []
    hopeless = find_culprits(
        conversion(conv_net(), "int8", excluded=("conv1",)),
        lambda typed: compare({"y": np.ones(3)}, {"y": np.zeros(3)}),
        progress=said.append,
    )

    assert found.found.outcome in ("found", "nothing")
    assert (hopeless.found.outcome, hopeless.exclude_nodes) == ("nothing", ())
    assert not hopeless.after.ok
    assert hopeless.configured is not None
    assert said[0] == "0 of 3 nodes excluded: error 1.73, not close"


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (1.5e-07, "no exclusion helps, the tolerance asks for less than the 1.5e-07 that float32 itself rounds off"),
        (0.02, "no exclusion helps, the fault lies elsewhere"),
        (math.inf, "no exclusion helps, the fault lies elsewhere"),
    ],
)
def test_what_float32_leaves_says_whether_the_tolerance_is_to_blame(left: float, said: str):
    after = Accuracy(False, left, 1.0, "")
    found = Culprits(Found("nothing", (), 2, False), (), 9, 2, Accuracy(False, 0.1, 0.9, ""), after, None, 0.1)

    lines = _culprits(found, None, "fp16")

    assert lines[0].endswith(said)
    # The cosine is that of what is finite.
    assert lines[2].endswith("relative rms error NaN/inf" if math.isinf(left) else "cosine 1")


def test_the_set_is_run_once_more_before_it_is_believed():
    """A judge that likes everything but the whole once, and nothing the second time."""
    seen: list[bytes] = []

    def judge(typed: Model) -> Comparison:
        key = typed.serialized()
        seen.append(key)
        excluded = sum(node.op_type == "QuantizeLinear" for node in typed.proto.graph.node) < 6
        right = excluded and seen.count(key) == 1
        return compare({"y": np.ones(3)}, {"y": np.ones(3) if right else np.zeros(3)})

    found = find_culprits(conversion(conv_net(), "int8"), judge)

    assert found.found.outcome == "unstable"
    assert not found.found.minimal
    assert found.evaluations == len(seen)


@pytest.mark.parametrize("excluded", [(), ("matmul_4",)])
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 9, 16])
def test_no_model_more_is_run_than_the_limit_says(limit: int, excluded: tuple[str, ...]):
    """Where the error is spread, no limit is enough."""
    said: list[str] = []
    feeds = [{"x": weights(1, 8, 16)}]
    subject = conversion(chain(24, 16), "int8", feeds, excluded=excluded)
    found = search(subject, feeds, cosine=0.999, limit=limit, progress=said.append)

    assert found.found.outcome == "unfinished"
    assert len(said) == found.evaluations == limit
    assert found.after.ok == bool(found.nodes), "what is printed was seen to be close"
    assert (found.configured is None) == (not excluded or limit == 1)
    # An order is not weighed until nothing is left to search with.
    assert limit < 16 or len(found.nodes) < 10


def test_the_answer_is_json():
    import json

    found = search(conversion(conv_net(), "int8", excluded=("conv1",)), cosine=0.99999)
    data = json.loads(json.dumps(found.to_json()))

    assert data["outcome"] == "found"
    assert data["exclude_nodes"] == list(found.exclude_nodes)
    assert data["after"]["ok"] is True
    assert data["before"]["ok"] is False
    assert data["configured"] is not None
