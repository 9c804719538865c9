"""``benchmarks/axes.py`` claims to hold every build axis of 8.6: held against 8.6 and against our own options."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import doubles
import fake_cuda
import pytest

from pytest_trt.lab import Lab
from pytest_trt.settings import Settings, as_text
from pytest_trt.spec.build_options import BuildOptions
from pytest_trt.spec.case import Axes

ROOT = Path(__file__).parents[2]

# Fields of BuildOptions that no axis of the script names, and why.
ELSEWHERE = {
    "max_tactics": "10.4 and later",
    "dla": "refused everywhere",
    "plugins": "needs a library; added where TensorRT's own is found",
    "lean_runtime": "an environment variable",
    "version_compatibility": "needs a lean runtime to run what was built",
    "tactics": "an axis of its own in a marker",
}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("axes_of_8_6", ROOT / "benchmarks" / "axes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def lab(cuda: fake_cuda.FakeCuda, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tensorrt", doubles.make_tensorrt("8.6.0", cuda))
    with Lab(Settings(variant="full", backend=("tensorrt",), cache="off"), ROOT) as found:
        yield found


def cases_of(lab: Lab, model: str, keywords: dict[str, object]):
    asked = {"precisions": ["fp16"], "profiles": ["b8"], **keywords}
    axes = {key: tuple(asked.pop(key)) for key in ("precisions", "profiles", "graphs") if key in asked}
    tactics = asked.pop("tactics", None)
    options = tuple((name, as_text(value)) for name, value in asked.items())
    return lab.cases(lab.add(f"models/{model}"), Axes(**axes, tactics=tactics and (tuple(tactics),), options=options))


def test_8_6_accepts_every_axis(script, lab):
    for model in ("digits", "minilm", "resnet50", "bert_base"):
        for keywords in {**script.AXES, **script.OF_MODEL[model]}.values():
            assert cases_of(lab, model, keywords)


def test_every_option_is_an_axis(script):
    named = {key for axes in (script.AXES, *script.OF_MODEL.values()) for keywords in axes.values() for key in keywords}

    assert named | set(ELSEWHERE) >= set(BuildOptions.names())
    assert not set(ELSEWHERE) & (named - {"tactics", "version_compatibility"}), "it is an axis by now"


def test_every_tactic_source_and_builder_flag_of_8_6_is_an_axis(script, lab):
    from pytest_trt.backends.tensorrt.flags import _OWNED

    trt = sys.modules["tensorrt"]
    sources = {entry[1:] for keywords in script.AXES.values() for entry in keywords.get("tactics", ())}
    every = [keywords for axes in (script.AXES, *script.OF_MODEL.values()) for keywords in axes.values()]
    flags = {entry[1:] for keywords in every for entry in keywords.get("builder_flags", ())}

    assert sources == set(trt.TacticSource.__members__)
    assert flags | set(_OWNED) | {"SAFETY_SCOPE"} >= set(trt.BuilderFlag.__members__)
