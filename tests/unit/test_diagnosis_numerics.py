"""NaN and infinity, saturation and 16-bit rounding, told from real values with the names of nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from networks import attention, conv_net, model, node, weights

from pytest_trt.diagnosis.conversion import as_computed
from pytest_trt.diagnosis.nonfinite import NonFinite, first_nonfinite
from pytest_trt.diagnosis.numerics import Range, rounding
from pytest_trt.diagnosis.pairs import Pair, quantization
from pytest_trt.diagnosis.present import numerics_lines
from pytest_trt.errors import PrecisionError
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import apply_recipe, get_precision
from pytest_trt.spec.precision.ranges import calibration_tensors


def untyped(proto: onnx.ModelProto) -> Model:
    return Model.from_proto(proto, "net")


def typed(proto: onnx.ModelProto, precision: str, top: float = 4.0, **options: Any) -> Model:
    """The typed model as a float32 runtime shows it; every activation is said to lie within ±top."""
    wanted = get_precision(precision)
    ranges = dict.fromkeys(calibration_tensors(proto, {}, precision), (-top, top)) if wanted.calibrated else None
    result = apply_recipe(wanted.make_recipe(**options), proto, ranges)
    return as_computed(untyped(result.proto), precision)


def growing(factor: float) -> onnx.ModelProto:
    """y = (relu(x · w) · factor) / factor."""
    nodes = [
        node("MatMul", ["x", "w"], ["h"], name="hidden"),
        node("Relu", ["h"], ["r"], name="relu"),
        node("Mul", ["r", "up"], ["big"], name="grow"),
        node("Mul", ["big", "down"], ["y"], name="shrink"),
    ]
    values = {"w": weights(1, 8, 8), "up": np.float32(factor), "down": np.float32(1 / factor)}
    return model(nodes, {"x": ["N", 8]}, {"y": ["N", 8]}, values)


FEEDS: Sequence[dict[str, Any]] = [{"x": weights(5, 64, 8)}, {"x": weights(6, 64, 8)}]


def hidden(feeds: Sequence[dict[str, Any]] = FEEDS) -> np.ndarray[Any, Any]:
    """relu(x · w) in float32, by NumPy."""
    return np.concatenate([np.maximum(np.asarray(f["x"]) @ weights(1, 8, 8), 0) for f in feeds])


# --- NaN and infinity ---


def test_the_first_node_that_makes_infinity_is_named_with_the_ranges_of_its_inputs():
    proto = growing(32768.0)
    found = first_nonfinite(typed(proto, "fp16"), untyped(proto), FEEDS)

    assert isinstance(found, NonFinite)
    assert (found.node, found.op_type, found.tensor) == ("grow", "Mul", "big")
    assert found.found.nonfinite == int(np.count_nonzero(hidden().astype(np.float16) >= 2))
    assert found.float32 is not None
    assert found.float32.high == pytest.approx(hidden().max() * 32768, rel=1e-5)
    assert found.inputs["r"].low == 0
    assert found.inputs["r"].high == pytest.approx(hidden().max(), rel=1e-3)


def test_groups_of_tensors_do_not_change_what_is_found():
    proto = growing(32768.0)
    alone = first_nonfinite(typed(proto, "fp16"), untyped(proto), FEEDS, group=1)

    assert alone == first_nonfinite(typed(proto, "fp16"), untyped(proto), FEEDS)


def test_infinity_that_the_float32_model_has_too_is_its_own():
    nodes = [
        node("Log", ["x"], ["l"], name="log"),
        node("Exp", ["l"], ["e"], name="exp"),
        node("MatMul", ["e", "w"], ["y"], name="out"),
    ]
    proto = model(nodes, {"x": ["N", 8]}, {"y": ["N", 8]}, {"w": weights(1, 8, 8)})
    feeds = [{"x": np.zeros((2, 8), np.float32)}]

    assert first_nonfinite(typed(proto, "fp16"), untyped(proto), feeds) is None


def test_a_model_without_any_has_none():
    proto = conv_net()
    assert first_nonfinite(typed(proto, "fp16"), untyped(proto), [{"x": weights(9, 2, 3, 8, 8)}]) is None


def test_integer_inputs_are_no_obstacle():
    proto = attention(-1e4)
    feeds = [{"x": weights(1, 2, 5, 16), "keep": np.ones((2, 1, 5), np.int64)}]

    assert first_nonfinite(typed(proto, "fp16"), untyped(proto), feeds) is None


# --- 16 bits ---


def test_overflow_and_underflow_are_counted_by_node():
    (grow,) = [row for row in rounding(typed(growing(32768.0), "fp16"), FEEDS) if row.overflowed]
    assert (grow.node, grow.tensor, grow.count) == ("grow", "big", 2 * 64 * 8)
    assert grow.overflowed == int(np.count_nonzero(hidden().astype(np.float16) >= 2))

    rows = {row.node: row for row in rounding(typed(growing(2.0**-24), "fp16", exclude_nodes=["shrink"]), FEEDS)}
    exact = hidden().astype(np.float16).astype(np.float32) * np.float32(2.0**-24)
    assert rows["grow"].vanished == int(np.count_nonzero((exact != 0) & (exact.astype(np.float16) == 0))) > 0
    assert rows["grow"].overflowed == 0


def test_bfloat16_does_not_overflow_there():
    assert [row for row in rounding(typed(growing(32768.0), "bf16"), FEEDS) if row.overflowed] == []


def test_an_input_that_does_not_fit_is_told_by_its_cast():
    rows = rounding(typed(growing(2.0), "fp16"), [{"x": np.full((1, 8), 1e5, np.float32)}])

    assert (rows[0].op_type, rows[0].overflowed) == ("Cast", 8)


def test_nothing_in_16_bits_is_an_error():
    with pytest.raises(PrecisionError, match="no tensor is rounded to 16 bits"):
        rounding(untyped(conv_net()), FEEDS)


# --- Q/DQ pairs ---


def pair_of(pairs: Sequence[Pair], tensor: str) -> Pair:
    (found,) = [pair for pair in pairs if pair.tensor == tensor]
    return found


@pytest.mark.parametrize("top", [0.4, 4.0, 40.0])
def test_saturation_is_the_share_of_real_values_beyond_the_scale(top: float):
    proto = growing(2.0)
    found = pair_of(quantization(typed(proto, "int8", top), FEEDS), "x")

    x = np.concatenate([np.asarray(f["x"]) for f in FEEDS])
    stored = np.rint(x / np.float32(top / 127))
    assert found.saturated == np.count_nonzero((stored > 127) | (stored < -128))
    assert (found.saturated > 0) == (top < 4)
    assert found.used == pytest.approx(np.abs(x).max() / top, rel=0.01)
    assert found.kept == pytest.approx((-top * 128 / 127, top), rel=1e-5)
    assert found.readers == ("hidden",)
    assert (found.values.low, found.values.high) == (float(x.min()), float(x.max()))
    assert not found.is_weight


def test_weights_fill_their_scales_channel_by_channel():
    found = pair_of(quantization(typed(growing(2.0), "int8"), FEEDS), "w")

    assert found.is_weight
    assert (found.saturated, found.values.count) == (0, 64)
    assert found.used == pytest.approx(1, abs=0.01)


def test_float8_has_its_own_largest_value():
    found = pair_of(quantization(typed(growing(2.0), "fp8", 0.5), FEEDS), "x")

    x = np.concatenate([np.asarray(f["x"]) for f in FEEDS])
    assert found.kept == pytest.approx((-0.5, 0.5), rel=1e-5)
    assert found.saturated == np.count_nonzero(np.abs(x) / np.float32(0.5 / 448) > 464)  # 463 is rounded to 448
    assert 0.3 < found.saturated_share < 0.9


def quantized_model(scale: Any, zero: np.ndarray[Any, Any], **attributes: Any) -> Model:
    """y = DQ(Q(x)) · w, as a model that is quantized already says it."""
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"], name="q", **attributes),
        node("DequantizeLinear", ["q", "s", "z"], ["d"], name="d", **attributes),
        node("MatMul", ["d", "w"], ["y"], name="mm"),
    ]
    values = {"w": weights(1, 8, 8), "s": np.asarray(scale, np.float32), "z": zero}
    return untyped(model(nodes, {"x": ["N", 8]}, {"y": ["N", 8]}, values, opset=21))


@pytest.mark.parametrize(
    ("dtype", "zero", "ends"),
    [
        (np.int8, 5, (-128, 127)),
        (np.uint8, 0, (0, 255)),
        (np.uint8, 128, (0, 255)),
        (np.int16, 0, (-32768, 32767)),
        (np.uint16, 40000, (0, 65535)),
        (ml_dtypes.int4, 0, (-8, 7)),
        (ml_dtypes.uint4, 3, (0, 15)),
    ],
)
def test_every_integer_type_saturates_at_its_own_ends(dtype: Any, zero: int, ends: tuple[int, int]):
    scale = np.float32(1.5 / (ends[1] - ends[0]))
    (found,) = quantization(quantized_model(scale, np.asarray(zero, dtype)), FEEDS)

    x = np.concatenate([np.asarray(f["x"]) for f in FEEDS])
    stored = np.rint(x / scale) + zero
    assert found.saturated == np.count_nonzero((stored < ends[0]) | (stored > ends[1])) > 0
    assert found.kept == pytest.approx(((ends[0] - zero) * scale, (ends[1] - zero) * scale))
    assert found.values.count == x.size


def test_negative_values_in_a_scale_that_has_none_are_told():
    pairs = quantization(quantized_model(0.02, np.asarray(0, np.uint8)), FEEDS)

    (line,) = numerics_lines(None, pairs, ())
    assert line.startswith("  saturation   'x' (activation of mm): ")
    assert "the scale holds 0 … 5.1 (" in line
    assert pairs[0].used == pytest.approx(1 - pairs[0].values.low / 5.1, rel=1e-4)


def test_what_an_unsigned_scale_holds_is_used_by_positive_values():
    feeds = [{"x": np.abs(weights(5, 64, 8))}]
    (found,) = quantization(quantized_model(0.02, np.asarray(0, np.uint8)), feeds)

    assert found.saturated == 0
    assert found.used == pytest.approx(feeds[0]["x"].max() / 5.1, rel=1e-4)


@pytest.mark.parametrize(("axis", "block"), [(1, 4), (-1, 4), (1, 0), (1, 3)])
def test_blocks_saturate_one_by_one(axis: int, block: int):
    """64 rows of 8: two scales along each row, or three where the last block is short."""
    scales = np.full((64, -(-8 // (block or 4))), 0.5, np.float32)
    scales[:, 1] = 0.01
    attributes = {"axis": axis, **({"block_size": block} if block else {})}
    (found,) = quantization(quantized_model(scales, np.zeros(scales.shape, np.int8), **attributes), FEEDS[:1])

    x = np.asarray(FEEDS[0]["x"])[:, block or 4 : 2 * (block or 4)]
    stored = np.rint(x / np.float32(0.01))
    assert found.saturated == np.count_nonzero((stored < -128) | (stored > 127)) > 0
    assert found.kept == pytest.approx((-64, 63.5))


def test_a_computed_scale_is_left_out():
    nodes = [
        node("ReduceMax", ["x"], ["s"], keepdims=0),
        node("QuantizeLinear", ["x", "s"], ["q"]),
        node("DequantizeLinear", ["q", "s"], ["y"]),
    ]
    assert quantization(untyped(model(nodes, {"x": ["N", 8]}, {"y": ["N", 8]}, {})), FEEDS) == []


# --- words ---


def test_the_words_name_what_is_notable_and_nothing_else():
    proto = growing(32768.0)
    bad = typed(proto, "fp16")
    lines = numerics_lines(first_nonfinite(bad, untyped(proto), FEEDS), (), rounding(bad, FEEDS))
    assert lines[0].startswith("  first NaN/inf  grow (Mul) makes 'big': ")
    assert any(line.startswith("    reads        'r': 0 … ") for line in lines)
    assert any(line.startswith("  overflow     grow (Mul): ") for line in lines)

    narrow, wide, right = (quantization(typed(growing(2.0), "int8", top), FEEDS) for top in (0.4, 40.0, 4.5))
    assert numerics_lines(None, narrow, ())[0].startswith("  saturation   'x' (activation of hidden): ")
    assert numerics_lines(None, narrow, ())[0].endswith("the scale holds ±0.4 (7.8 × used)")
    assert numerics_lines(None, wide, ())[0].startswith("  coarse scale 'x' (activation of hidden): 0% saturated")
    assert numerics_lines(None, right, ()) == []


def test_many_lines_are_counted():
    pairs = [Pair(f"q{i}", f"t{i}", Range(-10, 10, 0, 100), 50, (-1.0, 1.0), ("n",), False) for i in range(8)]
    lines = numerics_lines(None, pairs, ())

    assert len(lines) == 6
    assert lines[-1] == "  and 3 more such lines"
