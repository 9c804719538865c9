"""Through the Lab on a real GPU: a network that Python defines, its plan as a finished one, a calibration's table."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_trt.errors import UnsafeModelError
from pytest_trt.lab import Lab
from pytest_trt.lab.command_lines import command_line
from pytest_trt.settings import Settings

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("backend")]

NET = """
import numpy as np
WEIGHT = np.linspace(-1, 1, 64 * 32, dtype=np.float32).reshape(64, 32)
def build(network, trt):
    x = network.add_input("x", trt.float32, (-1, 64))
    weight = network.add_constant(WEIGHT.shape, trt.Weights(WEIGHT)).get_output(0)
    none = trt.MatrixOperation.NONE
    product = network.add_matrix_multiply(x, none, weight, none).get_output(0)
    y = network.add_activation(product, trt.ActivationType.RELU).get_output(0)
    y.name = "y"
    network.mark_output(y)
    return WEIGHT
def reference(feeds):
    return {"y": np.maximum(feeds["x"] @ WEIGHT, 0)}
"""
TOML = """
[model]
name = "hand"
source = "net.py:build"
reference = "net.py:reference"
[interface.inputs]
x = ["N", 64]
[interface.outputs]
y = ["N", 32]
[profiles.b]
x = { min = [1, 64], opt = [4, 64], max = [16, 64] }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "trt.toml").write_text(TOML)
    return tmp_path


def lab_of(folder: Path, **settings: Any) -> Lab:
    return Lab(Settings(**{"backend": ("tensorrt",), "cache_dir": folder / "cache", **settings}), folder)


def plan_of(folder: Path, **settings: Any) -> str:
    """Build the network's engine, leave nothing but its plan, and return the digest of that."""
    with lab_of(folder, **settings) as lab:
        plan = bytes(lab.engine(lab.cases(lab.add("."))[0])[0].plan)
    (folder / "net.plan").write_bytes(plan)
    (folder / "trt.toml").write_text('[model]\nname = "hand"\nplan = "net.plan"\nreference = "net.py:reference"\n')
    return hashlib.sha256(plan).hexdigest()


def test_a_network_by_hand_is_close_to_its_reference(folder: Path) -> None:
    with lab_of(folder) as lab:
        case = lab.cases(lab.add("."))[0]
        record = lab.record(case)

        assert lab.check(case, record).ok
        feeds = {"x": np.zeros((3, 64), np.float32)}
        np.testing.assert_array_equal(lab.engine(case)[1].run(feeds)["y"], np.zeros((3, 32), np.float32))


@pytest.mark.parametrize("options", [{}, {"version_compatibility": "exclude-lean"}], ids=["plain", "exclude-lean"])
def test_a_finished_plan_is_read_and_run(folder: Path, options: dict[str, Any]) -> None:
    digest = plan_of(folder, **options)

    with lab_of(folder, trust=digest, **options) as lab:
        case = lab.cases(lab.add("."))[0]
        record = lab.record(case)
        assert lab.check(case, record).ok
        assert record.accuracy is not None
        assert record.accuracy["points"]["max"]["shapes"] == {"x": [16, 64]}
        assert record.engine is not None
        assert record.engine["sha256"] == digest
    with lab_of(folder, **options) as lab, pytest.raises(UnsafeModelError, match=digest):
        lab.engine(lab.cases(lab.add("."))[0])


def test_the_line_of_trtexec_brings_the_table_of_the_calibration(backend, tmp_path: Path) -> None:
    release = tuple(int(part) for part in backend.probe().versions["tensorrt"].split(".")[:2])
    if release >= (11,):
        pytest.skip("TensorRT 11 has no calibration of its own")
    settings = Settings(
        backend=("tensorrt",), precision=("int8-entropy2",), profile=("b8",), cache_dir=tmp_path / "cache"
    )
    with Lab(settings, Path(__file__).parents[2]) as lab:
        case = lab.cases(lab.add("models/digits"))[0]
        lab.engine(case)
        line = command_line(lab, case, "trtexec", release, tmp_path / "out")

    (table,) = (tmp_path / "out").rglob("*.calibration-cache")
    assert f"--calib={table}" in line
    assert table.read_bytes().startswith(b"TRT-")
