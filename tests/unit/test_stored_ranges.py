"""Manifests with stored ranges in the place of a calibration, and stored outputs in that of the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper
from project import MANIFEST, write_model

from pytest_trt.errors import InputsError, ManifestError, PrecisionError
from pytest_trt.lab import Lab
from pytest_trt.settings import Settings
from pytest_trt.spec.manifest import Manifest
from pytest_trt.spec.precision.stored_ranges import read_ranges, write_ranges

RANGES = {"x": (-2.0, 2.0), "r": (-9.0, 9.0)}


def lab_of(folder: Path, **settings: Any) -> Lab:
    given = {"cache_dir": folder.parent / "cache", "backend": ("onnxruntime-cpu",), "profile": ("b8",), **settings}
    return Lab(Settings(**given), folder.parent)


def test_ranges_survive_a_file(tmp_path: Path) -> None:
    write_ranges(tmp_path / "r.json", RANGES)
    assert read_ranges(tmp_path / "r.json") == RANGES


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ("[1]", "must be one object"),
        ('{"x": 1}', "range of 'x' must be"),
        ('{"x": [1]}', "range of 'x' must be"),
        ('{"x": [2, 1]}', "range of 'x' must be"),
        ('{"x": [0, Infinity]}', "range of 'x' must be"),
        ('{"x": [true, 1]}', "range of 'x' must be"),
    ],
)
def test_ranges_that_are_none_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(PrecisionError, match=said):
        read_ranges(tmp_path / "r.json")


def test_stored_ranges_take_the_place_of_calibration(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny", MANIFEST + '[precision.int8]\nranges = "ranges.json"\n')
    write_ranges(folder / "ranges.json", RANGES)
    said: list[str] = []
    with lab_of(folder, precision=("int8",)) as lab:
        lab.progress = said.append
        (case,) = lab.cases(lab.add(folder))
        proto = lab.typed_model(case)[0].proto
        assert dict(lab.conversion(case).ranges or {}) == RANGES

    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    node = next(n for n in proto.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "r")
    assert float(values[node.input[1]]) == pytest.approx(9 / 127)
    assert not [line for line in said if "calibrating" in line]


def test_a_range_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny", MANIFEST + '[precision.int8]\nranges = "ranges.json"\n')
    write_ranges(folder / "ranges.json", {"x": (-2.0, 2.0)})
    with lab_of(folder, precision=("int8",)) as lab:
        (case,) = lab.cases(lab.add(folder))
        with pytest.raises(PrecisionError, match="no range for 1 activations, 'r' first"):
            lab.typed_model(case)


@pytest.mark.parametrize(
    "key", ['[precision.int8]\nranges = "../r.json"', '[inputs]\nfile = "x.npz"\nexpected = "/r.npz"']
)
def test_files_stay_in_the_folder(tmp_path: Path, key: str) -> None:
    (tmp_path / "trt.toml").write_text(key)
    with pytest.raises(ManifestError, match="leaves the model's folder"):
        Manifest.load(tmp_path / "trt.toml")


def test_stored_outputs_need_inputs(tmp_path: Path) -> None:
    (tmp_path / "trt.toml").write_text('[inputs]\nexpected = "expected.npz"')
    with pytest.raises(ManifestError, match=r"inputs\.expected are the outputs of inputs\.file"):
        Manifest.load(tmp_path / "trt.toml")


def expecting(folder: Path, rows: int) -> Path:
    write_model(folder, MANIFEST.replace('file = "inputs.npz"', 'file = "inputs.npz"\nexpected = "expected.npz"'))
    np.savez(folder / "expected.npz", y=np.full((rows, 3), 7, np.float32))
    return folder


def test_stored_outputs_take_the_place_of_the_reference(tmp_path: Path) -> None:
    folder = expecting(tmp_path / "tiny", 16)
    with lab_of(folder) as lab:
        (case,) = lab.cases(lab.add(folder))
        samples, expected, source = lab.expected(case, lab.profile(case).at("opt"), None)

    assert source == "stored outputs"
    assert len(samples) == 2
    assert all((row["y"] == 7).all() and row["y"].shape == (8, 3) for row in expected)


def test_stored_outputs_of_some_rows_only_are_said_to_be_unused(tmp_path: Path) -> None:
    folder = expecting(tmp_path / "tiny", 6)
    with lab_of(folder) as lab:
        (case,) = lab.cases(lab.add(folder))
        _, _, source = lab.expected(case, lab.profile(case).at("opt"), None)

    assert source == "onnxruntime-cpu fp32"
    assert "tiny: not every sample at x 8x4 has stored outputs: none of them is used" in lab.events


def test_an_output_that_is_not_stored_is_named(tmp_path: Path) -> None:
    folder = expecting(tmp_path / "tiny", 16)
    np.savez(folder / "expected.npz", z=np.zeros(3))
    with lab_of(folder) as lab:
        (case,) = lab.cases(lab.add(folder))
        with pytest.raises(InputsError, match="no array for output 'y'"):
            lab.expected(case, lab.profile(case).at("opt"), None)
