"""int8 by TensorRT's own calibration: the untouched model, who runs it, and the table that it leaves."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest
from networks import conv_net, weights

from pytest_trt.accuracy.tolerance import default_tolerance
from pytest_trt.artifacts.calibration_cache import (
    calibration_scales,
    load_calibration_cache,
    same_cache,
    save_calibration_cache,
)
from pytest_trt.artifacts.memory import MemoryStore
from pytest_trt.backends import BuildRequest, Calibration, get_backend
from pytest_trt.backends.fake import FakeBackend
from pytest_trt.errors import ArtifactError, PrecisionError
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import PRECISIONS, apply_recipe, get_precision
from pytest_trt.spec.shapes import Profile

ALGORITHMS = ("entropy", "entropy2", "minmax", "legacy")
NAMES = tuple(f"int8-{algorithm}" for algorithm in ALGORITHMS)
PROFILE = Profile.fixed("p", {"x": (2, 3, 8, 8)})
FEEDS = {"x": weights(9, 2, 3, 8, 8)}


def table(**scales: float) -> bytes:
    lines = [f"{name}: {struct.pack('>f', scale).hex()}" for name, scale in scales.items()]
    return "\n".join(["TRT-8600-EntropyCalibration2", *lines, ""]).encode()


def request_for(
    name: str = "int8-entropy2", fingerprint: str = "samples 1", model: Model | None = None
) -> BuildRequest:
    precision = get_precision(name)
    calibration = Calibration(precision.calibrator or "", [FEEDS], fingerprint)
    return BuildRequest(model or Model.from_proto(conv_net(), "net"), precision, PROFILE, calibration=calibration)


@pytest.mark.parametrize("name", NAMES)
def test_the_model_stays_what_it_is(name):
    proto = conv_net()
    result = apply_recipe(get_precision(name).make_recipe(), proto)
    assert result.proto is proto
    assert not result.modified


def test_each_algorithm_is_a_precision_of_its_own():
    found = {p.name: p.calibrator for p in PRECISIONS.values() if p.calibrator is not None}
    assert found == dict(zip(NAMES, ALGORITHMS, strict=True))
    for name in NAMES:
        precision = get_precision(name)
        assert (precision.flags_on, precision.flags_off) == (("INT8", "FP16"), ("TF32",))
        assert not precision.calibrated  # the recipe needs no ranges: TensorRT finds them
        assert precision.options == ("samples",)


@pytest.mark.parametrize("name", NAMES)
def test_tolerances_are_those_of_int8(name):
    assert default_tolerance(name) == default_tolerance("int8")
    assert set(default_tolerance(name).origin.values()) == {f"{name} default"}


@pytest.mark.parametrize("name", NAMES)
def test_onnxruntime_does_not_claim_to_run_it(name):
    support = get_backend("onnxruntime-cpu").support(get_precision(name))
    assert support.kind == "unsupported"
    assert support.reason == f"{name} is TensorRT's own calibration; --trt-precision=int8 works with any backend"


def test_the_fake_backend_says_that_it_calibrates_nothing():
    backend, request = FakeBackend(), request_for()
    built = backend.build(request)
    assert built.facts["simulated"] == "the fake backend computes int8-entropy2 in float32, without a calibration"
    exact = backend.load(backend.build(request_for()).plan, request_for()).run(FEEDS)["y"]
    float32 = replace(request, precision=get_precision("fp32"), calibration=None)
    np.testing.assert_array_equal(exact, backend.load(backend.build(float32).plan, float32).run(FEEDS)["y"])


@pytest.mark.parametrize(
    ("other", "message", "hint"),
    [
        ("int8", "the model has Q/DQ pairs, and TensorRT calibrates no model that says its scales", "ask for int8"),
        ("fp16", "already typed: it has float16", "ask for fp16"),
    ],
)
def test_a_model_that_says_its_types_is_refused(other, message, hint):
    ranges = {"x": (-4.0, 4.0), "r1": (0.0, 4.0), "f": (0.0, 4.0)} if other == "int8" else None
    typed = apply_recipe(get_precision(other).make_recipe(), conv_net(), ranges).proto
    with pytest.raises(PrecisionError, match=f"recipe implicit int8: .*{message}") as caught:
        apply_recipe(get_precision("int8-entropy2").make_recipe(), typed)
    assert hint in caught.value.hint


def test_a_table_is_found_again_for_the_same_calibration_only():
    store, backend = MemoryStore(), FakeBackend()
    blob = table(x=0.5)
    assert load_calibration_cache(store, backend, request_for()) is None
    save_calibration_cache(store, backend, request_for(), blob)
    assert load_calibration_cache(store, backend, request_for()) == blob

    class Other(FakeBackend):
        def identity(self) -> dict[str, str]:
            return {"fake": "2"}

    other_model = conv_net()
    other_model.graph.node[0].attribute[0].ints[0] = 2
    for found in (
        load_calibration_cache(store, backend, request_for("int8-minmax")),
        load_calibration_cache(store, backend, request_for(fingerprint="samples 2")),
        load_calibration_cache(store, backend, request_for(model=Model.from_proto(other_model, "net"))),
        load_calibration_cache(store, Other(), request_for()),
    ):
        assert found is None


def test_the_newest_table_is_kept():
    store, backend = MemoryStore(), FakeBackend()
    save_calibration_cache(store, backend, request_for(), table(x=0.5))
    save_calibration_cache(store, backend, request_for(), table(x=0.25))
    assert load_calibration_cache(store, backend, request_for()) == table(x=0.25)
    assert [entry.kind for entry in store.entries()] == ["calibration"]


def test_a_build_without_a_calibration_has_no_table():
    with pytest.raises(ArtifactError, match="has no calibration"):
        load_calibration_cache(MemoryStore(), FakeBackend(), replace(request_for(), calibration=None))


def test_a_calibration_is_reproduced_bit_for_bit_or_not_at_all():
    assert same_cache(table(x=0.5), table(x=0.5))
    assert not same_cache(table(x=0.5), table(x=float(np.nextafter(np.float32(0.5), np.float32(1)))))
    assert not same_cache(table(x=0.5), table(x=0.5).replace(b"TRT-8600", b"TRT-8601"))
    assert not same_cache(table(x=0.5), table(x=0.5) + b"\n")


def test_the_scales_of_a_table():
    # IEEE float32: 0x3e200000 is 0.15625, 0x3f800000 is 1.
    blob = b"TRT-8600-EntropyCalibration2\nprob: 3e200000\n(Unnamed Layer* 3) [Shuffle]: x: 3f800000\n"
    assert calibration_scales(blob) == {"prob": 0.15625, "(Unnamed Layer* 3) [Shuffle]: x": 1.0}


def test_the_table_of_the_legacy_algorithm_is_read():
    """As TensorRT 8.6.0 wrote it on an H200."""
    blob = b"0 3ff0000000000000 3fefff2e48e8a71e\nx: 3cf78229\nr: 3cea4453\ny: 3ca54056\n"

    assert calibration_scales(blob) == pytest.approx({"x": 0.0302134, "r": 0.0285970, "y": 0.0201723}, abs=1e-6)


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"", "this is no calibration cache"),
        (b"\x00\xff\x00", "this is no calibration cache"),
        (b"x: 3f800000\n", "this is no calibration cache"),
        (b"TRT-8600-MinMaxCalibration\nx: 3f80\n", "line 2 of the calibration cache is no 'tensor: hexadecimal float'"),
        (b"TRT-8600-MinMaxCalibration\nx: 3f800000\ny: zz\n", "line 3 of the calibration cache is no"),
        (b"TRT-8600-MinMaxCalibration\n3f800000\n", "line 2 of the calibration cache names no tensor"),
    ],
)
def test_what_is_no_table_is_said(blob, message):
    with pytest.raises(ArtifactError, match=message):
        calibration_scales(blob)
