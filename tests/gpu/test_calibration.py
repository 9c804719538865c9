"""TensorRT's own calibration: every algorithm it has, its table bit for bit the same the second time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_trt.artifacts.calibration_cache import calibration_scales, same_cache
from pytest_trt.backends import BuildOptions, BuildRequest, Calibration
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import PRECISIONS
from pytest_trt.spec.shapes import Profile

pytestmark = pytest.mark.gpu

RNG = np.random.default_rng(11)
ALGORITHMS = [name for name, precision in PRECISIONS.items() if precision.calibrator]
# So large that int8 is the fastest: the builder may choose, and takes float32 for a convolution that costs nothing.
CHANNELS = 256
SHAPE = (4, CHANNELS, 32, 32)
BATCHES = [{"x": RNG.standard_normal(SHAPE).astype(np.float32)} for _ in range(6)]


def model() -> Model:
    weights = [
        numpy_helper.from_array((RNG.standard_normal((CHANNELS, CHANNELS, 3, 3)) / 48).astype(np.float32), f"w{index}")
        for index in range(2)
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["h"], "/first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h"], ["r"], "/relu"),
        helper.make_node("Conv", ["r", "w1"], ["y"], "/second", pads=[1, 1, 1, 1]),
    ]
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, SHAPE) for end in ("x", "y")]
    graph = helper.make_graph(nodes, "convolutions", ends[:1], ends[1:], weights)
    return Model.from_proto(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "convolutions"
    )


NET = model()


def request(precision: str, cache: bytes | None = None) -> BuildRequest:
    algorithm = PRECISIONS[precision].calibrator
    assert algorithm is not None
    return BuildRequest(
        NET,
        PRECISIONS[precision],
        Profile.fixed("p", {"x": SHAPE}),
        BuildOptions(opt_level=1),
        calibration=Calibration(algorithm, BATCHES, "made here", cache),
    )


@pytest.mark.parametrize("precision", ALGORITHMS)
def test_the_table_is_reproduced_and_used(backend, precision):
    first, second = (backend.build(request(precision)) for _ in range(2))

    assert first.calibration_cache
    assert second.calibration_cache
    assert same_cache(first.calibration_cache, second.calibration_cache)
    assert calibration_scales(first.calibration_cache)

    again = backend.build(request(precision, first.calibration_cache))

    assert again.facts["calibration"]["table"] == "reused"
    assert again.facts["calibration"]["sha256"] == first.facts["calibration"]["sha256"]


@pytest.mark.parametrize("precision", ALGORITHMS)
def test_the_engine_is_close(backend, precision):
    exact = dataclasses.replace(request(precision), precision=PRECISIONS["fp32"], calibration=None)
    outputs, facts = [], {}
    for wanted in (exact, request(precision)):
        built = backend.build(wanted)
        facts = built.facts
        with backend.load(built.plan, wanted) as session:
            outputs.append(session.run(BATCHES[0])["y"].ravel().astype(np.float64))
    cosine = outputs[0] @ outputs[1] / np.linalg.norm(outputs[0]) / np.linalg.norm(outputs[1])

    assert facts.get("not_honoured") is None
    assert 0.99 < cosine < 1, "equal outputs would mean that nothing ran in int8"
