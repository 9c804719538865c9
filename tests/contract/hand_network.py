"""A network made by hand, y = relu(x), in a model folder; and a lab that runs it on the doubles."""

from __future__ import annotations

from pathlib import Path

from pytest_trt.lab import Lab
from pytest_trt.settings import Settings

NET = """
import numpy as np
def build(network, trt):
    x = network.add_input("x", trt.DataType.FLOAT, (-1, 4))
    y = network.add_activation(x, trt.ActivationType.RELU).get_output(0)
    y.name = "y"
    network.mark_output(y)
def reference(feeds):
    return {"y": np.maximum(feeds["x"], 0)}
def wrong(feeds):
    return {"y": feeds["x"] + 1}
"""
TOML = """
[model]
name = "hand"
source = "net.py:build"
reference = "net.py:reference"
[interface.inputs]
x = ["N", 4]
[interface.outputs]
y = ["N", 4]
[profiles.b]
x = { min = [1, 4], opt = [2, 4], max = [8, 4] }
"""


def write_hand(folder: Path) -> Path:
    (folder / "net.py").write_text(NET)
    (folder / "trt.toml").write_text(TOML)
    return folder


def case_of(lab: Lab):
    return lab.cases(lab.add("."))[0]


def lab_of(folder: Path, **settings) -> Lab:
    return Lab(Settings(**{"backend": ("tensorrt",), "cache": "off", "census": "off", **settings}), folder)


def checked(folder: Path, **settings):
    with lab_of(folder, **settings) as lab:
        case = case_of(lab)
        record = lab.record(case)
        return lab.check(case, record), record
