"""Builds in a process of their own on a GPU: what kills TensorRT's parser is one failed build."""

from __future__ import annotations

import pytest
from networks import FLOAT, model, node

from pytest_trt.backends import BuildRequest
from pytest_trt.backends.isolation import build_isolated
from pytest_trt.errors import BuildError
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import get_precision
from pytest_trt.spec.shapes import Profile

pytestmark = pytest.mark.gpu

INPUTS = {"x": (FLOAT, [1, 1, 3, 2, 2]), "grid": (FLOAT, [1, 2, 4, 2, 3])}


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("corners", [0, 1])
def test_a_model_of_too_new_an_opset_is_at_worst_one_failed_build(backend, mode: str, corners: int):
    import tensorrt

    from pytest_trt.backends.tensorrt.versions import newest_opset, version

    if (newest_opset(version(tensorrt)) or 22) >= 22:
        pytest.skip("this parser reads opset 22")
    volumetric = node("GridSample", ["x", "grid"], ["y"], name="sample", mode=mode, align_corners=corners)
    proto = model([volumetric], INPUTS, {"y": [1, 1, 2, 4, 2]}, opset=22)
    profile = Profile.fixed("p", {name: tuple(shape) for name, (_, shape) in INPUTS.items()})
    request = BuildRequest(Model.from_proto(proto, "net"), get_precision("fp32"), profile)
    said: list[str] = []

    try:
        told = build_isolated(backend, request, said.append).facts["remarks"][0]
    except BuildError as error:
        told = str(error.hint)

    assert told.startswith("the model uses opset 22")
    assert f"parsing 'net': {told}" in said
