"""Every build option on every recorded version: it reaches the builder, or one message says why it cannot."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import fake_cuda
import numpy as np
import pytest
from test_tensorrt_contract import DYNAMIC, WEIGHT, X, loaded, matmul, request_for

from pytest_trt.backends import BuildOptions, BuildRequest, Calibration
from pytest_trt.backends.tensorrt.versions.requirements import REQUIREMENTS
from pytest_trt.errors import BuildError, RunError, UnsupportedError, UsageError
from pytest_trt.spec.build_options import IoFormat
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import PRECISIONS

EVERY = ("8.6.0", "10.0.1", "10.13.3.9", "10.16.1.11", "11.0.0.114", "11.4.0.106")
FROM_10, FROM_10_13, UP_TO_10, ONLY_11 = EVERY[1:], EVERY[2:], EVERY[:4], EVERY[4:]


@dataclass
class Row:
    """One option: who has it, what of the config it sets, and what is said elsewhere."""

    options: dict[str, Any]
    versions: tuple[str, ...] = EVERY
    flags: tuple[str, ...] = ()
    attributes: dict[str, object] = field(default_factory=dict)
    pools: dict[str, int] = field(default_factory=dict)
    instead: str = ""

    @property
    def id(self) -> str:
        return ",".join(f"{name}={value}" for name, value in self.options.items())


TABLE = (
    Row({"workspace": 2**20}, pools={"WORKSPACE": 2**20}),
    Row({"memory_pools": (("TACTIC_DRAM", 10**9),)}, pools={"TACTIC_DRAM": 10**9}),
    Row(
        {"memory_pools": (("TACTIC_SHARED_MEMORY", 10**5),)},
        FROM_10,
        pools={"TACTIC_SHARED_MEMORY": 10**5},
        instead="known: TACTIC_DRAM",
    ),
    Row({"opt_level": 0}, attributes={"builder_optimization_level": 0}),
    Row({"typing": "strong"}, FROM_10, instead="leave it out"),
    Row({"typing": "weak"}, UP_TO_10, instead="the recipe of a precision types the model"),
    Row({"profiles_per_engine": "one"}),
    Row({"profiles_per_engine": "all"}),
    Row({"sparsity": True}, flags=("SPARSE_WEIGHTS",)),
    Row({"sparsity": False}),
    Row({"max_aux_streams": 0}, attributes={"max_aux_streams": 0}),
    Row({"tiling": "none"}),
    Row(
        {"tiling": "moderate"},
        FROM_10_13,
        attributes={"tiling_optimization_level": "MODERATE"},
        instead="--trt-opt-level=5",
    ),
    Row({"max_tactics": 20}, FROM_10_13, attributes={"max_num_tactics": 20}, instead="--trt-opt-level"),
    Row({"avg_timing": 8}, attributes={"avg_timing_iterations": 8}),
    Row({"refit": "off"}),
    Row({"refit": "on"}, flags=("REFIT",)),
    Row({"refit": "identical"}, FROM_10, ("REFIT_IDENTICAL",), instead="--trt-refit=on"),
    Row({"refit": "individual"}, FROM_10_13, ("REFIT_INDIVIDUAL",), instead="--trt-refit=on"),
    Row({"strip_plan": True}, FROM_10, ("STRIP_PLAN", "REFIT_IDENTICAL"), instead="always carries its weights"),
    Row({"strip_plan": True, "refit": "on"}, FROM_10, ("STRIP_PLAN", "REFIT"), instead="always carries its weights"),
    Row({"strip_plan": False}),
    Row({"weight_streaming": True}, FROM_10, ("WEIGHT_STREAMING",), instead="all weights lie on the device"),
    Row({"hardware_compatibility": "none"}, attributes={"hardware_compatibility_level": "NONE"}),
    Row({"hardware_compatibility": "ampere-plus"}, attributes={"hardware_compatibility_level": "AMPERE_PLUS"}),
    Row(
        {"hardware_compatibility": "same-capability"},
        FROM_10_13,
        attributes={"hardware_compatibility_level": "SAME_COMPUTE_CAPABILITY"},
        instead="ampere-plus",
    ),
    Row({"version_compatibility": "off"}),
    Row({"version_compatibility": "on"}, flags=("VERSION_COMPATIBLE",)),
    Row({"version_compatibility": "exclude-lean"}, flags=("VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME")),
    Row({"builder_flags": ("+DIRECT_IO",)}, flags=("DIRECT_IO",)),
    Row({"builder_flags": ("+MONITOR_MEMORY",)}, FROM_10_13, ("MONITOR_MEMORY",), instead="known: "),
    Row({"builder_flags": ("-DEBUG",)}),
    Row({"timing_cache_miss": "build"}),
    Row({"timing_cache_miss": "error"}, FROM_10, ("ERROR_ON_TIMING_CACHE_MISS",), instead="--trt-lock=fail"),
    Row({"editable_timing_cache": True}, FROM_10_13, ("EDITABLE_TIMING_CACHE",), instead="timing cache"),
    Row({"io_formats": ("x=LINEAR",)}),
    Row({"io_formats": ("x=HALF:LINEAR",), "typing": "weak"}, UP_TO_10, instead="the recipe of a precision"),
)


def name_of(value: object) -> object:
    return getattr(value, "name", value)


def test_the_table_has_every_option():
    tested = {name for row in TABLE for name in row.options}
    elsewhere = {"tactics", "plugins", "lean_runtime", "dla"}  # below, and in test_tensorrt_contract.py
    assert tested | elsewhere == set(BuildOptions.names())
    assert {requirement.option for requirement in REQUIREMENTS} <= tested


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.id)
def test_an_option_reaches_the_builder_or_is_refused(trt, backend, row):
    options = BuildOptions(**row.options)
    if trt.__version__ not in row.versions:
        with pytest.raises(UsageError) as caught:
            backend.check(options)
        said = str(caught.value)
        assert any(f"--trt-{name.replace('_', '-')}" in said for name in row.options)
        assert f"TensorRT {trt.__version__}" in said
        assert row.instead in caught.value.hint
        return
    backend.check(options)
    request = request_for(**row.options)
    if options.timing_cache_miss == "error":  # a build without it fills the cache
        request = request_for(**row.options, timing_cache=backend.build(request_for()).timing_cache)
    built = backend.build(request)
    network, config = trt._log[-1]
    assert set(built.facts["flags"]) == set(row.flags)
    assert config._pools == row.pools
    for name, value in row.attributes.items():
        assert name_of(getattr(config, name)) == value
    # Nothing else is set: what is not asked for stays TensorRT's own.
    ours = {"profiling_verbosity", "progress_monitor", *row.attributes}
    assert set(config._set) <= ours
    assert built.facts["options"] == json.loads(json.dumps(options.describe()))
    assert ("STRONGLY_TYPED" in network._names) == (built.facts["typing"] == "strong")


def test_every_option_is_refused_by_the_builder_in_a_child_too(trt, backend):
    """A build checks for itself: its options may never have been seen at collection."""
    with pytest.raises(UsageError, match="--trt-dla=0"):
        backend.build(request_for(dla=0))
    assert not trt._log


@pytest.mark.parametrize(
    ("options", "said", "hint"),
    [
        ({"dla": 0}, "--trt-dla=0: DLA is a core of Jetson and DRIVE", "trtexec --useDLACore"),
        ({"opt_level": 6}, "--trt-opt-level=6", "0 to 5"),
        ({"max_aux_streams": -1}, "--trt-max-aux-streams=-1", None),
        ({"avg_timing": 0}, "--trt-avg-timing=0", None),
        ({"workspace": 0}, "--trt-workspace must be positive", None),
        ({"memory_pools": (("WORKSPACE", 1),)}, "does not set WORKSPACE", "--trt-workspace"),
        ({"memory_pools": (("DLA_LOCAL_DRAM", 1),)}, "belongs to DLA", "TACTIC_DRAM"),
        ({"memory_pools": (("TACTIC_DRUM", 1),)}, "no memory pool 'TACTIC_DRUM'", "did you mean 'TACTIC_DRAM'"),
        ({"memory_pools": (("TACTIC_DRAM", 0),)}, "must be positive", None),
        ({"builder_flags": ("+FP16",)}, "does not set FP16", "--trt-precision"),
        ({"builder_flags": ("-TF32",)}, "does not set TF32", "--trt-precision"),
        ({"builder_flags": ("+REFIT",)}, "does not set REFIT", "--trt-refit"),
        ({"builder_flags": ("+SPARSE_WEIGHTS",)}, "does not set SPARSE_WEIGHTS", "--trt-sparsity"),
        ({"builder_flags": ("+EXCLUDE_LEAN_RUNTIME",)}, "does not set EXCLUDE", "--trt-version-compatibility"),
        ({"builder_flags": ("+WEIGHTLESS",)}, "does not set WEIGHTLESS", "--trt-strip-plan"),
        ({"builder_flags": ("+ERROR_ON_TIMING_CACHE_MISS",)}, "does not set ERROR", "--trt-timing-cache-miss"),
        ({"builder_flags": ("+GPU_FALLBACK",)}, "does not set GPU_FALLBACK", "DLA"),
        ({"builder_flags": ("+DIRECT_OI",)}, "no builder flag 'DIRECT_OI'", "did you mean 'DIRECT_IO'"),
        ({"builder_flags": ("DEBUG",)}, "cannot read 'DEBUG'", "+NAME"),
        ({"builder_flags": ("+DEBUG", "-DEBUG")}, "'DEBUG' is given twice", None),
        ({"io_formats": ("x=CHW17",)}, "no layout 'CHW17'", "did you mean 'CHW16'"),
        ({"io_formats": ("x=DLA_LINEAR",)}, "a layout of DLA", None),
        ({"io_formats": ("x=HALFF:CHW16",)}, "no data type 'HALFF'", "did you mean 'HALF'"),
        ({"io_formats": ("CHW16",)}, "cannot be read", "TENSOR=DTYPE:LAYOUT"),
        ({"io_formats": ("x=CHW16", "x=LINEAR")}, "'x' is given twice", None),
        ({"lean_runtime": Path("no/such/lib.so")}, "there is no file", "tensorrt-lean"),
        ({"plugins": (Path("no/such/lib.so"),)}, "--trt-plugin: there is no file", None),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_no_version_does_is_named(backend, options, said, hint):
    with pytest.raises(UsageError) as caught:
        backend.check(BuildOptions(**options))
    assert said in caught.value.message
    if hint is not None:
        assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("trt", UP_TO_10[1:], indirect=True)
def test_weights_are_streamed_with_strong_typing_only(trt, backend):
    with pytest.raises(UsageError, match="strongly typed networks only") as caught:
        backend.check(BuildOptions(weight_streaming=True, typing="weak"))
    assert "--trt-typing=weak" in caught.value.hint


@pytest.mark.parametrize("trt", FROM_10, indirect=True)
def test_options_that_exclude_each_other(trt, backend):
    with pytest.raises(UsageError, match="--trt-refit=off forbids"):
        backend.check(BuildOptions(strip_plan=True, refit="off"))


# --- typing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("trt", UP_TO_10, indirect=True)
def test_weak_typing_sets_the_flags_of_a_precision(trt, backend, precision):
    built = backend.build(request_for(precision, typing="weak"))
    assert built.facts["flags"] == {"fp16": ["FP16"], "int8": ["FP16", "INT8"]}[precision]
    assert built.facts["typing"] == "weak"


@pytest.mark.parametrize("trt", FROM_10, indirect=True)
def test_strong_typing_sets_none(trt, backend):
    assert backend.build(request_for("fp16", typing="strong")).facts["flags"] == []


# --- profiles -----------------------------------------------------------------------------------------


def three_profiles():
    from pytest_trt.spec.shapes import Profile, ShapeRange

    return (
        Profile("small", {"x": ShapeRange((1, 4), (1, 4), (2, 4))}),
        DYNAMIC,
        Profile("large", {"x": ShapeRange((16, 4), (32, 4), (64, 4))}),
    )


def test_all_profiles_are_in_one_engine_in_their_order(trt, backend):
    profiles = three_profiles()
    request = replace(request_for(profile=profiles[1], profiles_per_engine="all"), profiles=profiles)
    built = backend.build(request)
    assert built.facts["profiles"] == 3
    assert [held["x"] for held in json.loads(built.plan)["profiles"]] == [
        [[1, 4], [1, 4], [2, 4]],
        [[1, 4], [2, 4], [8, 4]],
        [[16, 4], [32, 4], [64, 4]],
    ]
    assert backend.build(request_for()).facts["profiles"] == 1


def test_contexts_may_share_a_profile(trt, backend):
    backend.build(request_for())
    _, config = trt._log[-1]
    # From 10 on they always may; the feature is still named there, and is left alone.
    assert config._preview == ({"PROFILE_SHARING_0806": True} if trt.__version__ == "8.6.0" else {})


# --- weights ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trt", FROM_10_13, indirect=True)
def test_individual_refit_marks_the_models_own_weights(trt, backend):
    backend.build(request_for(refit="individual"))
    network, _ = trt._log[-1]
    assert network._refittable == {"w"}
    backend.build(request_for(refit="on"))
    network, _ = trt._log[-1]
    assert network._refittable == set()


@pytest.mark.parametrize(
    ("trt", "refit"),
    [
        *((version, refit) for version in FROM_10 for refit in (None, "on", "identical")),
        *((version, "individual") for version in FROM_10_13),
    ],
    indirect=["trt"],
)
def test_a_stripped_plan_gets_its_weights_back(trt, backend, refit):
    from pytest_trt.backends.tensorrt.logger import process_logger
    from pytest_trt.backends.tensorrt.refitting import refit_from_model

    plan = backend.build(request_for(strip_plan=True, refit=refit)).plan
    logger = process_logger(trt)
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    assert engine._missing == {"w"}
    assert not np.frombuffer(engine._proto.graph.initializer[0].raw_data, np.float32).any()
    refit_from_model(trt, engine, logger, matmul())
    np.testing.assert_array_equal(
        np.frombuffer(engine._proto.graph.initializer[0].raw_data, np.float32).reshape(4, 3), WEIGHT
    )


@pytest.mark.parametrize("trt", FROM_10, indirect=True)
def test_a_refit_above_the_message_limit_goes_through_a_file(trt, backend, monkeypatch):
    from pytest_trt.backends.tensorrt.logger import process_logger
    from pytest_trt.backends.tensorrt.refitting import refit_from_model

    request = request_for(strip_plan=True)
    engine = trt.Runtime(process_logger(trt)).deserialize_cuda_engine(backend.build(request).plan)
    monkeypatch.setattr("pytest_trt.spec.model._MAX_MESSAGE_BYTES", 10)
    refit_from_model(trt, engine, process_logger(trt), request.model)
    assert not engine._missing


@pytest.mark.parametrize("trt", FROM_10, indirect=True)
def test_a_refit_that_fails_says_why(trt, backend):
    trt.misbehave.add("no-refit")
    with pytest.raises(BuildError) as caught:
        backend.build(request_for(strip_plan=True))
    assert "no initializer of this name" in str(caught.value)
    assert "--trt-strip-plan" in caught.value.hint


@pytest.mark.parametrize("trt", FROM_10, indirect=True)
def test_a_refit_without_all_weights_names_them(trt, backend):
    from pytest_trt.backends.tensorrt.logger import process_logger
    from pytest_trt.backends.tensorrt.refitting import refit_from_model

    plan = backend.build(request_for(strip_plan=True)).plan
    other = matmul()
    other.proto.graph.initializer[0].name = "v"
    logger = process_logger(trt)
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    with pytest.raises(RunError, match="without weights: w"):
        refit_from_model(trt, engine, logger, other)


# --- inputs and outputs -------------------------------------------------------------------------------


def formats_of(trt, plan: bytes) -> dict[str, list[str]]:
    written = json.loads(plan)["formats"]
    known = trt.TensorFormat.__members__.values()
    return {name: [m.name for m in known if mask & 1 << int(m)] for name, mask in written.items()}


def test_io_formats_restrict_the_tensors(trt, backend):
    built = backend.build(request_for(io_formats=("x=CHW16", "y=HWC8")))
    assert formats_of(trt, built.plan) == {"x": ["CHW16"], "y": ["HWC8"]}
    assert json.loads(built.plan)["dtypes"] == {"x": "FLOAT", "y": "FLOAT"}


def test_a_type_at_the_border_is_for_weak_typing(trt, backend):
    options = {"io_formats": ("x=HALF:LINEAR", "y=HALF:LINEAR")}
    if trt.__version__ in UP_TO_10:
        built = backend.build(request_for("fp16", **options, typing="weak"))
        assert json.loads(built.plan)["dtypes"] == {"x": "HALF", "y": "HALF"}
    if trt.__version__ in FROM_10:
        with pytest.raises(UsageError) as caught:
            backend.check(BuildOptions(**options))
        assert "a tensor's type is the model's" in caught.value.message
        assert "x=LINEAR" in caught.value.hint


def test_a_tensor_that_is_not_there_is_named(backend):
    with pytest.raises(UsageError) as caught:
        backend.build(request_for(io_formats=("z=LINEAR",)))
    assert "no input or output 'z'" in caught.value.message
    assert "x, y" in caught.value.hint


def test_a_format_is_read_as_the_option_wrote_it():
    assert IoFormat.parse("a=b=HALF:CHW16") == IoFormat("a=b", "CHW16", "HALF")
    assert IoFormat.parse("x=CHW16") == IoFormat("x", "CHW16", None)


# --- plugins ------------------------------------------------------------------------------------------


@pytest.fixture
def library(tmp_path) -> Path:
    path = tmp_path / "libown.so"
    path.write_bytes(b"CREATORS")
    return path


def broken() -> Model:
    from onnx import TensorProto, helper

    node = helper.make_node("NoSuchOp", ["x"], ["y"], "own")
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4])] for name in "xy"]
    graph = helper.make_graph([node], "g", *ends)
    return Model.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), "own")


def test_plugins_are_there_before_parsing(trt, backend, library):
    with pytest.raises(BuildError, match="NoSuchOp"):
        backend.build(request_for(which=broken()))
    built = backend.build(request_for(which=broken(), plugins=(library,)))
    assert trt._plugins == [str(library)]
    assert list(built.facts["options"]["plugins"]) == ["libown.so"]


def test_a_library_is_loaded_once(trt, backend, library):
    for _ in range(2):
        backend.check(BuildOptions(plugins=(library,)))
    backend.build(request_for(plugins=(library.parent / "." / library.name,)))
    assert trt._plugins == [str(library)]


def test_a_library_that_registers_itself_is_only_loaded(trt, backend, monkeypatch, tmp_path):
    path = tmp_path / "libold.so"
    path.write_bytes(b"\x7fELF")
    seen = []
    monkeypatch.setattr("ctypes.CDLL", lambda name, mode: seen.append((name, mode)) or object())
    backend.check(BuildOptions(plugins=(path,)))
    import ctypes

    assert seen == [(str(path), ctypes.RTLD_GLOBAL)]
    assert trt._plugins == []


def test_a_library_that_does_not_load_is_named_with_both_reasons(trt, backend, tmp_path):
    path = tmp_path / "libbad.so"
    path.write_bytes(b"no library")
    with pytest.raises(UsageError) as caught:
        backend.check(BuildOptions(plugins=(path,)))
    said = str(caught.value)
    assert str(path) in said
    assert "getCreators is not exported" in said
    assert "invalid ELF header" in said or "file too short" in said
    assert f"TensorRT {trt.__version__}" in caught.value.hint


# --- the timing cache ---------------------------------------------------------------------------------


@pytest.mark.parametrize("trt", FROM_10, indirect=True)
def test_a_miss_in_the_timing_cache_ends_the_build(trt, backend):
    with pytest.raises(BuildError) as caught:
        backend.build(request_for(timing_cache_miss="error"))
    assert "a tactic is missing in the timing cache" in str(caught.value)
    assert "--trt-timing-cache-miss=build" in caught.value.hint


@pytest.mark.parametrize("trt", FROM_10_13, indirect=True)
def test_an_editable_cache_is_read_and_written_back(trt, backend):
    from pytest_trt.backends.tensorrt.editable_cache import read_entries, write_entries

    built = backend.build(request_for(editable_timing_cache=True))
    assert len(built.facts["timing"]) == 1
    entries = read_entries(trt._log[-1][1].get_timing_cache())
    key = f"{0:#034x} MatMul"
    assert entries == {key: (0xF00, 0.25)}

    again = backend.build(request_for(editable_timing_cache=True, timing_cache=built.timing_cache))
    cache = trt._log[-1][1].get_timing_cache()
    write_entries(trt, cache, {key: (0xABC, 1)})
    assert read_entries(cache) == {key: (0xABC, 1.0)}
    assert again.facts["timing_cache"] == "used"
    with pytest.raises(BuildError, match="no layer with the key 'nonsense'"):
        write_entries(trt, cache, {"nonsense": (1, 1.0)})
    trt.misbehave.add("no-entry")
    with pytest.raises(BuildError, match="refused tactic 0x2"):
        write_entries(trt, cache, {key: (2, 1.0)})


# --- version compatibility ----------------------------------------------------------------------------


def test_a_builder_without_its_lean_library_says_which_file_it_wants(trt, backend):
    trt.misbehave.add("no-lean-library")
    with pytest.raises(BuildError) as caught:
        backend.build(request_for(version_compatibility="on"))
    if trt.__version__ == "8.6.0":
        assert "libnvinfer_lean.so.8.6.0" in caught.value.hint
        assert "exclude-lean" in caught.value.hint
    else:
        assert caught.value.hint is None
    backend.build(request_for(version_compatibility="exclude-lean"))


# --- the log ------------------------------------------------------------------------------------------


def test_the_log_has_a_message_a_line(backend):
    built = backend.build(request_for())
    lines = built.log.splitlines()
    assert "WARNING: weights are subnormal" in lines
    assert "INFO: [BuilderFlag] timing layers" in lines
    assert not any("tactic was timed" in line for line in lines)  # VERBOSE


def test_a_failed_build_has_its_log(trt, backend):
    trt.misbehave.add("no-plan")
    with pytest.raises(BuildError) as caught:
        backend.build(request_for())
    lines = caught.value.log.splitlines()
    assert lines[-1].startswith("ERROR: [optimizer.cpp]")
    assert "WARNING: weights are subnormal" in lines
    assert caught.value.again().log == caught.value.log


def test_a_failed_parse_has_its_log(trt, backend):
    trt.misbehave.add("no-errors")
    with pytest.raises(BuildError) as caught:
        backend.build(request_for())
    assert caught.value.log == "ERROR: ModelImporter: something broke"


def test_a_long_log_keeps_both_ends():
    from pytest_trt.backends.tensorrt.logger import Messages

    messages = Messages(limit=10)
    for number in range(25):
        messages.add("WARNING" if number % 2 else "INFO", f"line\n{number}")
    lines = messages.text().splitlines()
    assert lines[:5] == ["INFO: line 0", "WARNING: line 1", "INFO: line 2", "WARNING: line 3", "INFO: line 4"]
    assert lines[5] == "… 15 messages left out …"
    assert lines[6:] == ["INFO: line 20", "WARNING: line 21", "INFO: line 22", "WARNING: line 23", "INFO: line 24"]
    assert messages.warnings == 12
    assert messages.first_warnings == ["line\n1", "line\n3", "line\n5"]


def test_the_first_warnings_are_different_ones():
    from pytest_trt.backends.tensorrt.logger import Messages

    messages = Messages()
    for text in ("a", "a", "b ", "b", "c", "d"):
        messages.add("WARNING", text)
    assert messages.warnings == 6
    assert messages.first_warnings == ["a", "b", "c"]


def test_a_log_that_fits_is_whole():
    from pytest_trt.backends.tensorrt.logger import Messages

    messages = Messages(limit=10)
    for number in range(10):
        messages.add("INFO", str(number))
    assert messages.text() == "\n".join(f"INFO: {number}" for number in range(10))


# --- a network by hand --------------------------------------------------------------------------------


def by_hand(function) -> Model:
    from pytest_trt.spec.interface import Interface
    from pytest_trt.spec.model import TensorSpec

    interface = Interface((TensorSpec("x", "float32", ("N", 4)),), (TensorSpec("y", "float32", ("N", 4)),))
    return Model.from_interface(interface, "hand", identity="1", network=function)


def relu(network, trt):
    x = network.add_input("x", trt.float32 if hasattr(trt, "float32") else trt.DataType.FLOAT, (-1, 4))
    y = network.add_activation(x, trt.ActivationType.RELU).get_output(0)
    y.name = "y"
    network.mark_output(y)


def test_a_network_function_takes_the_place_of_the_parser(trt, backend):
    with loaded(backend, request_for(which=by_hand(relu))) as session:
        np.testing.assert_array_equal(session.run({"x": X})["y"], np.maximum(X, 0))


def test_a_network_function_that_fails_is_a_build_error_with_its_words(backend):
    def wrong(network, trt):
        raise KeyError("weights.npz has no 'fc'")

    with pytest.raises(BuildError) as caught:
        backend.build(request_for(which=by_hand(wrong)))
    assert "network function of model 'hand' failed: KeyError: \"weights.npz has no 'fc'\"" in caught.value.message
    assert "raised in wrong, line" in caught.value.hint
    assert "test_tensorrt_options.py" in caught.value.hint


def test_a_network_without_an_output_is_named(backend):
    def forgot(network, trt):
        network.add_input("x", trt.DataType.FLOAT, (-1, 4))

    with pytest.raises(BuildError, match="marked no output"):
        backend.build(request_for(which=by_hand(forgot)))


@pytest.mark.parametrize("trt", FROM_10, indirect=True)
def test_a_network_by_hand_cannot_be_stripped(trt, backend):
    with pytest.raises(UsageError, match="'hand' is a network function"):
        backend.build(request_for(which=by_hand(relu), strip_plan=True))


# --- TensorRT's own calibration -----------------------------------------------------------------------


def calibrated(batches=3, cache=None, profiles=(), **options) -> BuildRequest:
    samples = [{"x": X + number} for number in range(batches)]
    calibration = Calibration("entropy2", samples, "f", cache)
    return replace(request_for("int8-entropy2", which=matmul(), **options), calibration=calibration, profiles=profiles)


def test_calibration_builds_weakly_typed_and_gives_its_table(trt, cuda, backend):
    if trt.__version__ in ONLY_11:
        assert backend.support(PRECISIONS["int8-entropy2"]).kind == "unsupported"
        with pytest.raises(UnsupportedError, match=trt.__version__):
            backend.build(calibrated())
        return
    built = backend.build(calibrated())
    _, config = trt._log[-1]
    assert built.facts["typing"] == "weak"
    assert built.facts["flags"] == ["FP16", "INT8"]
    assert built.calibration_cache == b"TRT table of 3 batches"
    assert config._calibration_profile._shapes == {"x": [[2, 4]] * 3}
    assert not cuda.live
    # A table that is there is used, and no batch is.
    again = backend.build(calibrated(cache=built.calibration_cache, batches=0))
    assert again.calibration_cache == built.calibration_cache


@pytest.mark.parametrize("trt", UP_TO_10[1:], indirect=True)
def test_strong_typing_cannot_be_calibrated(trt, backend):
    with pytest.raises(UsageError, match="calibrates weakly typed networks only"):
        backend.build(calibrated(typing="strong"))


@pytest.mark.parametrize("trt", UP_TO_10, indirect=True)
def test_what_goes_wrong_in_a_callback_is_the_error_of_the_build(trt, cuda, backend):
    """The double, like the bindings, goes on with the batches that it got."""
    cuda.fail["cudaMalloc"] = fake_cuda.cudaError_t.cudaErrorMemoryAllocation
    with pytest.raises(RunError, match="cudaMalloc of 32 bytes failed"):
        backend.build(calibrated())
    assert not cuda.live


@pytest.mark.parametrize("trt", UP_TO_10, indirect=True)
def test_calibration_without_samples_is_no_build(trt, backend):
    with pytest.raises(BuildError, match="was given no samples"):
        backend.build(request_for("int8-entropy2", which=matmul()))
    assert not trt._log


def test_timing_caches_of_two_devices_are_merged(trt, backend):
    version = trt.__version__.encode()
    one, other = (b"CACHE " + version + b'|{"0x1": [%d, 0.5], "0x%d": [7, 0.5]}' % (n, n + 1) for n in (1, 2))

    merged = backend.merge_timings(one, other)

    assert merged == b"CACHE " + version + b'|{"0x1": [2, 0.5], "0x2": [7, 0.5], "0x3": [7, 0.5]}'
    assert backend.merge_timings(b"CACHE of another version", other) == other
    assert backend.merge_timings(b"nothing that is one", other) == other
