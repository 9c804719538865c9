"""Debug tensors under the recorded bindings: marked in the network, read while the listener is asked."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import doubles
import ml_dtypes
import numpy as np
import onnx
import pytest
from networks import model, node, weights
from planted import with_other_weight, write_chain
from recorded import parse

from pytest_trt.artifacts.engines import engine_key
from pytest_trt.backends import BuildRequest
from pytest_trt.backends.tensorrt.versions.debugging import DebugTensors, _listener, can_debug
from pytest_trt.errors import RunError, UnsupportedError
from pytest_trt.lab import Lab
from pytest_trt.settings import Settings
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import PRECISIONS
from pytest_trt.spec.shapes import Profile, ShapeRange

W = weights(1, 4, 4)
X = weights(2, 3, 4)


def request_of(*debug_tensors: str, kind: int = 1) -> BuildRequest:
    """y = relu(identity(x · W)); inner tensors of type *kind*."""
    nodes = [
        node("Cast", ["x"], ["low"], "down", to=kind),
        node("MatMul", ["low", "w"], ["h"], "product"),
        node("Identity", ["h"], ["same"], "same"),
        node("Relu", ["same"], ["r"], "relu"),
        node("Cast", ["r"], ["y"], "up", to=1),
    ]
    low = onnx.numpy_helper.to_array(onnx.helper.make_tensor("w", kind, W.shape, W.astype(NUMPY[kind]).ravel()))
    proto = model(nodes, {"x": ["N", 4]}, {"y": ["N", 4]}, {"w": low})
    profile = Profile("p", {"x": ShapeRange((1, 4), (3, 4), (8, 4))})
    return BuildRequest(Model.from_proto(proto, "net"), PRECISIONS["fp32"], profile, debug_tensors=debug_tensors)


NUMPY: dict[int, Any] = {1: np.float32, 10: np.float16, 16: ml_dtypes.bfloat16}


@pytest.fixture
def debugging(trt: Any) -> Any:
    if not can_debug(trt):
        pytest.skip(f"TensorRT {trt.__version__} has no debug tensors")
    return trt


def test_versions_from_10_on_have_them(trt, backend):
    assert backend.can_debug() == (not trt.__version__.startswith("8"))


@pytest.mark.parametrize("kind", [1, 10])
def test_a_run_shows_them_beside_the_outputs(debugging, backend, cuda, kind):
    request = request_of("h", "r", kind=kind)
    with backend.load(backend.build(request).plan, request) as session:
        for rows in (3, 8, 1):
            found = session.run({"x": np.resize(X, (rows, 4))})
            assert list(found) == ["y", "h", "r"]
            assert found["h"].dtype == NUMPY[kind]
            np.testing.assert_allclose(found["h"], np.resize(X, (rows, 4)) @ W, rtol=1e-2, atol=1e-2)
            np.testing.assert_array_equal(found["r"], np.maximum(found["h"], 0))
            np.testing.assert_array_equal(found["y"], found["r"].astype(np.float32))
    assert not cuda.live


def test_what_was_shown_is_the_callers_own(debugging, backend):
    request = request_of("h")
    with backend.load(backend.build(request).plan, request) as session:
        first = session.run({"x": X})["h"]
        kept = first.copy()
        session.run({"x": -X})
    np.testing.assert_array_equal(first, kept)


def test_a_tensor_that_the_network_calls_otherwise_is_not_shown(debugging, backend):
    request = request_of("h", "same")
    with backend.load(backend.build(request).plan, request) as session:
        assert list(session.run({"x": X})) == ["y", "h"]


def test_they_are_refused_where_there_are_none(trt, backend):
    if can_debug(trt):
        trt.misbehave.add("no-debug")
        with pytest.raises(RunError, match="does not mark 'h' as a debug tensor"):
            backend.build(request_of("h"))
    else:
        with pytest.raises(UnsupportedError, match=r"8\.6\.0 has no debug tensors") as caught:
            backend.build(request_of("h"))
        assert "--taps=outputs" in (caught.value.hint or "")


def test_the_listener_has_the_recorded_parameters(debugging):
    recording = json.loads((doubles.API / f"{debugging.__version__}.json").read_text())
    (recorded,) = parse(recording["classes"]["IDebugListener"]["process_debug_tensor"])
    ours = inspect.signature(_listener(debugging, DebugTensors.__new__(DebugTensors)).process_debug_tensor)

    assert [name.lstrip("_") for name in ours.parameters] == [parameter.name for parameter in recorded]


def test_a_type_that_cannot_be_read_is_an_error_of_that_run(debugging, backend):
    request = request_of("h")
    with backend.load(backend.build(request).plan, request) as session:
        session._debugged.keep("h", 1, False, "INT4", (1,))
        with pytest.raises(RunError, match="tensor 'h' is INT4"):
            session._debugged.take()
        assert "h" in session.run({"x": X})


def test_the_tensor_that_diverges_is_found_without_another_output(
    debugging, backend, cuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    build, outputs = type(backend).build, []

    def wrong(self: Any, request: Any, *arguments: Any) -> Any:
        outputs.append([spec.name for spec in request.model.outputs])
        return build(self, with_other_weight(request, "w2"), *arguments)

    monkeypatch.setattr(type(backend), "build", wrong)
    folder = write_chain(tmp_path / "chain", 4, width=16, rows=8)
    settings = Settings(cache_dir=tmp_path / "cache", backend=("tensorrt",), precision=("fp16",), census="off")
    with Lab(settings, tmp_path) as lab:
        (case,) = lab.cases(lab.add(folder))
        found = lab.bisect(case, stages=("conversion",), taps="debug", group=3)

    assert (found.divergence.outcome, found.divergence.tensor, found.divergence.node) == ("found", "m2", "matmul_2")
    assert {tuple(names) for names in outputs} == {("y",)}
    assert not cuda.live


def test_an_engine_that_shows_tensors_has_a_key_of_its_own(debugging, backend):
    plain, shown = (engine_key(backend, request_of(*names)) for names in ((), ("h",)))

    assert plain.digest != shown.digest
    assert "debug_tensors" not in plain.ingredients  # nor any other digest than before
