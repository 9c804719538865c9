"""TensorRT's own calibrators: what the bindings ask of them, on the versions that have them and that do not."""

from __future__ import annotations

import ctypes
from dataclasses import replace

import doubles
import fake_cuda
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_trt.backends import BuildOptions, BuildRequest, Calibration
from pytest_trt.backends.tensorrt.calibrators import (
    CLASSES,
    calibrator_support,
    make_calibrator,
    set_calibration_shapes,
)
from pytest_trt.errors import InputsError, ProfileError, RunError, UnsupportedError, UsageError
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import PRECISIONS
from pytest_trt.spec.shapes import Profile, ShapeRange

ALGORITHMS = tuple(CLASSES)
TABLE = b"TRT-0-EntropyCalibration2\nx: 3c010a14\n"


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def log(self, severity, text: str) -> None:
        self.lines.append((severity.name, text))


def batches(count: int = 3, *, ids: int = 5) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        {"x": rng.standard_normal((2, 4)).astype(np.float32), "ids": np.full((2, 3), ids + index, np.int64)}
        for index in range(count)
    ]


def calibration(algorithm: str = "entropy2", **changes) -> Calibration:
    return replace(Calibration(algorithm, batches(), "samples"), **changes)


@pytest.fixture(params=[version for version in doubles.VERSIONS if not version.startswith("11")])
def old(request, cuda):
    """A TensorRT that calibrates."""
    return doubles.make_tensorrt(request.param, cuda)


@pytest.fixture
def make(old):
    """Makes calibrators and closes them: the fake device must be empty at the end."""
    made = []

    def make(wanted: Calibration, log: Log | None = None):
        made.append(make_calibrator(old, wanted, log or Log()))
        return made[-1]

    yield make
    for calibrator in made:
        calibrator.close()
        calibrator.close()
    assert not old._cuda.live


def read(cuda: fake_cuda.FakeCuda, address: int, like: np.ndarray) -> np.ndarray:
    assert cuda.holds(address, like.nbytes, "device")
    return np.frombuffer(ctypes.string_at(address, like.nbytes), like.dtype).reshape(like.shape)


def calibrate(calibrator, names: list[str]) -> int:
    """What the builder does: the cache if there is one, else all batches; then it hands over a table."""
    table = calibrator.read_calibration_cache()
    seen = 0
    if table is None:
        while (addresses := calibrator.get_batch(names)) is not None:
            assert len(addresses) == len(names)  # the bindings copy as many pointers as there are names, unchecked
            seen += 1
        table = TABLE
    owned = bytearray(table)
    calibrator.write_calibration_cache(memoryview(owned))
    owned[:] = bytes(len(owned))  # the view is of TensorRT's memory, which does not last
    return seen


@pytest.mark.parametrize(
    ("algorithm", "base"),
    [
        ("entropy", "IInt8EntropyCalibrator"),
        ("entropy2", "IInt8EntropyCalibrator2"),
        ("minmax", "IInt8MinMaxCalibrator"),
        ("legacy", "IInt8LegacyCalibrator"),
    ],
)
def test_the_class_of_the_algorithm_is_derived_from(make, old, algorithm, base):
    calibrator = make(calibration(algorithm))
    assert isinstance(calibrator, getattr(old, base))
    assert calibrator.get_batch_size() == 1


def test_eleven_has_none(trt):
    gone = trt.__version__.startswith("11")
    assert {hasattr(trt, name) for name in CLASSES.values()} == {not gone}
    for algorithm in ALGORITHMS:
        support = calibrator_support(trt, PRECISIONS[f"int8-{algorithm}"])
        if gone:
            assert support.kind == "unsupported"
            assert support.reason == (
                f"TensorRT {trt.__version__} has no calibrators; int8 with Q/DQ is the way (--trt-precision=int8)"
            )
        else:
            assert support is None


@pytest.mark.parametrize("name", ["fp32", "fp16", "int8", "fp8", "int4"])
def test_other_precisions_need_no_calibrator(trt, name):
    assert calibrator_support(trt, PRECISIONS[name]) is None


def test_batches_arrive_in_the_order_of_the_names(make, old, cuda):
    calibrator = make(calibration())
    narrow = np.int32 if old.__version__.startswith("8.6") else np.int64
    for expected in batches():
        x, ids = calibrator.get_batch(["x", "ids"])
        assert calibrator._memory.put(expected, ["ids", "x"]) == [ids, x]
        np.testing.assert_array_equal(read(cuda, x, expected["x"]), expected["x"])
        np.testing.assert_array_equal(read(cuda, ids, expected["ids"].astype(narrow)), expected["ids"])
    assert calibrator.get_batch(["x", "ids"]) is None
    assert (calibrator.batches_used, calibrator.error) == (3, None)


def test_inputs_that_the_network_does_not_read_are_not_uploaded(make, cuda):
    calibrator = make(calibration())
    (x,) = calibrator.get_batch(["x"])
    assert cuda.holds(x, 32, "device")
    assert sum(kind == "device" for kind, _ in cuda.live) == 1


def test_arrays_of_other_layouts_and_types_are_what_the_network_has(make, cuda):
    x = np.asfortranarray(np.arange(8, dtype=np.float64).reshape(2, 4))
    calibrator = make(calibration(batches=[{"x": x}]))
    (address,) = calibrator.get_batch(["x"])
    np.testing.assert_array_equal(read(cuda, address, np.zeros((2, 4), np.float32)), x)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_table_is_kept_after_the_memory_behind_it_is_gone(make, algorithm):
    calibrator = make(calibration(algorithm))
    assert calibrator.cache is None
    assert calibrate(calibrator, ["x", "ids"]) == 3
    assert calibrator.cache == TABLE


def test_a_cache_makes_batches_needless_and_allocates_nothing(make, cuda):
    calibrator = make(calibration(cache=TABLE, batches=[]))
    assert calibrate(calibrator, ["x"]) == 0
    assert calibrator.cache == TABLE
    assert calibrator.batches_used == 0
    assert not cuda.live


def test_legacy_has_its_parameters_and_no_histogram(make):
    calibrator = make(calibration("legacy"))
    assert (calibrator.get_quantile(), calibrator.get_regression_cutoff()) == (0.9999, 1.0)
    assert calibrator.read_histogram_cache(0) is None
    assert calibrator.write_histogram_cache(None, 0) is None


def test_a_missing_input_is_kept_and_ends_the_calibration(make):
    log = Log()
    calibrator = make(calibration(), log)
    assert calibrator.get_batch(["x", "idz"]) is None
    assert isinstance(calibrator.error, InputsError)
    assert calibrator.error.hint == "did you mean 'ids'?"
    assert log.lines == [("ERROR", f"calibration: {calibrator.error}")]
    assert calibrator.get_batch(["x", "ids"]) is None  # not another batch after an error
    assert calibrator.batches_used == 0


def test_a_failing_device_is_kept(make, cuda):
    cuda.fail["cudaMemcpyAsync"] = fake_cuda.cudaError_t.cudaErrorIllegalAddress
    calibrator = make(calibration())
    assert calibrator.get_batch(["x"]) is None
    assert isinstance(calibrator.error, RunError)
    assert "cudaErrorIllegalAddress" in str(calibrator.error)


def test_a_table_of_a_part_of_the_samples_is_not_kept(make):
    class Failing(list):
        def __iter__(self):
            yield self[0]
            raise InputsError("sample 2 cannot be read")

    wanted = calibration()
    calibrator = make(wanted)
    calibrator._batches = iter(Failing(wanted.batches))
    assert calibrate(calibrator, ["x"]) == 1
    assert str(calibrator.error) == "sample 2 cannot be read"
    assert calibrator.cache is None


def test_ctrl_c_does_not_cross_the_frames_of_tensorrt(make, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    log = Log()
    calibrator = make(calibration(), log)
    monkeypatch.setattr(calibrator._memory, "put", interrupt)
    assert calibrator.get_batch(["x"]) is None
    assert isinstance(calibrator.error, KeyboardInterrupt)
    assert log.lines == [("ERROR", "calibration: KeyboardInterrupt")]


def test_integers_that_do_not_fit_are_an_error_where_they_are_narrowed(make, old):
    calibrator = make(calibration(batches=batches(1, ids=2**40)))
    addresses = calibrator.get_batch(["ids"])
    if old.__version__.startswith("8.6"):
        assert addresses is None
        assert "1099511627776, which does not fit the engine's int32" in str(calibrator.error)
    else:
        assert calibrator.error is None
        assert len(addresses) == 1


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"algorithm": "entropy3"}, UsageError, "unknown calibration algorithm 'entropy3'"),
        ({"batches": []}, InputsError, "needs real samples, and there are none"),
        ({"batches": [{"x": np.zeros((2, 4))}, {"x": np.zeros((1, 4))}]}, InputsError, "batch 1 is"),
        ({"batches": [{"x": np.zeros(2)}, {"z": np.zeros(2)}]}, InputsError, "batch 1 is"),
        ({"batches": [{"x": np.zeros(2)}, {"x": np.zeros(2, np.float32)}]}, InputsError, "batch 1 is"),
    ],
)
def test_what_cannot_be_calibrated_with_is_refused(old, changes, error, message):
    with pytest.raises(error, match=message):
        make_calibrator(old, calibration(**changes), Log())


# In a build


def network(dims: list[int | str]) -> Model:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "mm")],
        "m",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [*dims[:-1], 3])],
        [numpy_helper.from_array(np.ones((4, 3), np.float32), "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(proto, full_check=True)
    return Model.from_proto(proto, "m")


def request_for(name: str, rows: int = 2, **options) -> BuildRequest:
    samples = [{"x": feeds["x"][:rows]} for feeds in batches()]
    precision = PRECISIONS[name]
    return BuildRequest(
        network(["N", 4]),
        precision,
        Profile("b", {"x": ShapeRange((1, 4), (2, 4), (8, 4))}),
        BuildOptions(**options),
        calibration=Calibration(precision.calibrator or "", samples, "samples"),
    )


class Parts:
    """A builder, a network with one input, and a configuration of a recorded version."""

    def __init__(self, trt, dims: tuple[int, ...]) -> None:
        self.builder = trt.Builder(trt.ILogger())
        self.config = self.builder.create_builder_config()
        made = trt.ITensor.__new__(trt.ITensor)
        made.__dict__.update(_name="x", _shape=list(dims))
        self.network = trt.INetworkDefinition.__new__(trt.INetworkDefinition)
        self.network.__dict__.update(_inputs=[made])

    @property
    def shapes(self):
        profile = self.config._calibration_profile
        return None if profile is None else profile._shapes

    def set(self, wanted: Calibration) -> None:
        set_calibration_shapes(self.builder, self.network, self.config, wanted)


def test_the_builder_is_told_the_shapes_of_the_batches(old):
    parts = Parts(old, (-1, 4))
    parts.set(calibration())
    assert parts.shapes == {"x": [[2, 4], [2, 4], [2, 4]]}


def test_a_network_of_fixed_shapes_or_a_cache_alone_needs_no_shapes(old):
    fixed, cached = Parts(old, (2, 4)), Parts(old, (-1, 4))
    fixed.set(calibration())
    cached.set(calibration(batches=[], cache=TABLE))
    assert (fixed.shapes, cached.shapes) == (None, None)


def test_shapes_that_are_refused_and_inputs_that_are_missing(old, monkeypatch):
    with pytest.raises(InputsError, match="the samples have no input 'x'"):
        Parts(old, (-1, 4)).set(calibration(batches=[{"y": np.zeros((2, 4))}]))
    monkeypatch.setattr(old.IBuilderConfig, "set_calibration_profile", lambda *_: False)
    with pytest.raises(ProfileError, match="refuses to calibrate"):
        Parts(old, (-1, 4)).set(calibration())


def test_a_build_is_weakly_typed_calibrated_and_leaves_the_table(trt, backend, monkeypatch):
    if trt.__version__.startswith("11"):
        with pytest.raises(UnsupportedError, match="int8"):
            backend.build(request_for("int8-entropy2"))
        return
    inner = trt.Builder.build_serialized_network
    seen = []

    def build(self, network, config):
        calibrator = config.int8_calibrator
        seen.append((type(calibrator).__mro__[1], calibrate(calibrator, ["x"]), set(config._flags)))
        return inner(self, network, config)

    monkeypatch.setattr(trt.Builder, "build_serialized_network", build)
    built = backend.build(request_for("int8-entropy2"))
    ((base, used, flags),) = seen
    assert (base, used) == (trt.IInt8EntropyCalibrator2, 3)
    assert {"INT8", "FP16"} <= flags
    assert built.facts["typing"] == "weak"
    assert built.calibration_cache == TABLE
    assert not trt._cuda.live
