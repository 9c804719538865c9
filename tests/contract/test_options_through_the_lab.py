"""Build options on their way from the settings to TensorRT and into the record, on the doubles of six versions."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx
import pytest
from hand_network import case_of, checked, lab_of
from test_tensorrt_contract import matmul
from test_tensorrt_options import FROM_10, ONLY_11, UP_TO_10

from pytest_trt.errors import RunError, UsageError
from pytest_trt.lab.command_lines import command_line

MODEL = '[model]\nname = "hand"\npath = "net.onnx"\n[profiles.b]\nx = { min = [1, 4], opt = [2, 4], max = [8, 4] }\n'


@pytest.fixture
def graph(folder: Path) -> Path:
    """The same folder with an ONNX model in place of a network function."""
    onnx.save(matmul().proto, folder / "net.onnx")
    (folder / "trt.toml").write_text(MODEL)
    return folder


@pytest.mark.usefixtures("backend")
def test_a_plan_is_read_as_the_command_line_says(folder: Path):
    """Its interface is read before there is a case: what it needs to be loaded must be known by then."""
    with lab_of(folder, version_compatibility="on") as lab:
        plan = lab.engine(case_of(lab))[0].plan
    (folder / "net.plan").write_bytes(plan)
    text = '[model]\nname = "hand"\nplan = "net.plan"\nreference = "net.py:reference"\n'
    (folder / "trt.toml").write_text(text)
    digest = hashlib.sha256(plan).hexdigest()

    comparison, record = checked(folder, trust=digest, version_compatibility="on")
    assert comparison.ok
    assert record.engine["options"] == {"version_compatibility": "on"}
    with pytest.raises(RunError, match="host code, which is not allowed"):
        checked(folder, trust=digest)


@pytest.mark.usefixtures("backend")
def test_what_decides_only_how_a_plan_is_loaded_is_reported_too(folder: Path, tmp_path: Path):
    library = tmp_path / "libnvinfer_lean.so"
    library.write_bytes(b"LEAN RUNTIME")

    asked = {"version_compatibility": "exclude-lean", "lean_runtime": library, "timing_cache_miss": "build"}
    _, record = checked(folder, **asked)

    digest = hashlib.sha256(b"LEAN RUNTIME").hexdigest()
    assert record.engine["options"] == {**asked, "lean_runtime": {library.name: digest}}


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("option", [{"typing": "strong"}, {"weight_streaming": True}])
@pytest.mark.parametrize("trt", FROM_10, indirect=True)
def test_what_cannot_be_calibrated_is_an_error_of_the_collection(trt, graph: Path, option):
    with lab_of(graph, precision=("fp32", "int8-entropy2"), **option) as lab:
        if trt.__version__ in ONLY_11:  # the case is skipped, and says that there are no calibrators
            assert len(lab.cases(lab.add("."))) == 2
            return
        with pytest.raises(UsageError, match=f"TensorRT {trt.__version__} calibrates weakly typed") as caught:
            lab.cases(lab.add("."))
    assert str(caught.value).startswith(f"--trt-{next(iter(option)).replace('_', '-')}=")
    assert "int8-entropy2" in caught.value.message
    assert "the precision int8" in caught.value.hint


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("trt", FROM_10, indirect=True)
def test_weights_of_a_network_by_hand_are_streamed_where_it_has_its_own_types(trt, folder: Path):
    if trt.__version__ not in ONLY_11:
        with lab_of(folder, weight_streaming=True) as lab, pytest.raises(UsageError) as caught:
            lab.engine(case_of(lab))
        assert f"TensorRT {trt.__version__} streams weights of strongly typed networks only" in caught.value.message
        assert "--trt-typing=strong" in caught.value.hint
        assert not trt._log
    with lab_of(folder, weight_streaming=True, typing="strong") as lab:
        assert "WEIGHT_STREAMING" in lab.engine(case_of(lab))[0].facts["flags"]


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("trt", UP_TO_10, indirect=True)
def test_a_line_for_the_installed_release_brings_the_table_of_the_calibration(trt, graph: Path, tmp_path: Path):
    release = tuple(int(part) for part in trt.__version__.split(".")[:2])
    settings = {"precision": ("int8-entropy2",), "cache": "rw", "cache_dir": tmp_path / "cache"}
    with lab_of(graph, **settings) as lab:
        case = case_of(lab)
        before = command_line(lab, case, "trtexec", release, tmp_path / "out")
        lab.engine(case)
        line = command_line(lab, case, "trtexec", release, tmp_path / "out")
        other = command_line(lab, case, "trtexec", (10, 99) if release[0] == 10 else (10, 0), tmp_path / "out")

    table = tmp_path / "out" / "hand-int8-entropy2" / f"{case.id}.calibration-cache"
    assert "add --calib=FILE" in before
    assert f"--calib={table}" in line
    assert table.read_bytes().startswith(b"TRT table of ")
    assert "add --calib=FILE" in other


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("trt", FROM_10, indirect=True)
def test_a_line_that_may_miss_no_tactic_brings_the_timing_cache(trt, graph: Path, tmp_path: Path):
    release = tuple(int(part) for part in trt.__version__.split(".")[:2])
    with lab_of(graph, cache="rw", cache_dir=tmp_path / "cache") as lab:
        lab.engine(case_of(lab))
    with lab_of(graph, cache="rw", cache_dir=tmp_path / "cache", timing_cache_miss="error") as lab:
        case = case_of(lab)
        line = command_line(lab, case, "trtexec", release, tmp_path / "out")
        kept = lab.timings("tensorrt")

    file = tmp_path / "out" / "hand-fp32" / f"{case.id}.timing-cache"
    assert f"--timingCacheFile={file}" in line
    assert file.read_bytes() == kept


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("trt", FROM_10[:1], indirect=True)
@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"timing_cache": "off"}, "--trt-timing-cache=off"),
        ({"cache": "off"}, "--trt-cache=off"),
        ({"builds": 2}, "--trt-builds=2"),
    ],
)
def test_a_miss_wants_a_timing_cache(graph: Path, tmp_path: Path, setting, said):
    settings = {"cache": "rw", "cache_dir": tmp_path / "cache", "timing_cache_miss": "error"}
    with lab_of(graph, **settings) as lab:
        assert case_of(lab)
    with lab_of(graph, **{**settings, **setting}) as lab, pytest.raises(UsageError, match=f"miss=error: with {said}"):
        case_of(lab)
