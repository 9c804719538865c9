"""Pictures of an error."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from pytest_trt.diagnosis.bundle.pictures import draw_curve, draw_histogram, relative_errors
from pytest_trt.diagnosis.taps import Divergence, Tap
from pytest_trt.errors import UsageError

pytest.importorskip("matplotlib")

EXPECTED = [{"y": np.array([3.0, -3.0]), "n": np.array([1, 2])}, {"y": np.array([3.0, np.nan]), "n": np.array([1, 2])}]
ACTUAL = [{"y": np.array([3.0, -3.3]), "n": np.array([1, 9])}, {"y": np.array([6.0, 0.0]), "n": np.array([1, 2])}]
LAYERS = {"a": 1e-7, "b": 0.0, "c": 2e-3, "d": math.inf}


def divergence(*taps: Tap) -> Divergence:
    return Divergence("found", "c", "node", "MatMul", taps, (), 3)


def test_errors_are_relative_to_the_rms_of_what_is_expected() -> None:
    found = relative_errors(ACTUAL, EXPECTED)

    assert list(found) == ["y"]  # integers have no histogram
    np.testing.assert_allclose(found["y"], [0, 0.1, 1.0], atol=1e-12)  # a NaN is on no axis


@pytest.mark.parametrize(("suffix", "begins"), [(".svg", b"<?xml"), (".png", b"\x89PNG")])
def test_the_suffix_is_the_format(tmp_path: Path, suffix: str, begins: bytes) -> None:
    draw_histogram(ACTUAL, EXPECTED, tmp_path / f"h{suffix}")
    draw_curve(LAYERS, divergence(Tap("c", 0.5, True)), tmp_path / f"c{suffix}")

    assert all((tmp_path / f"{name}{suffix}").read_bytes().startswith(begins) for name in "hc")


def test_pictures_say_what_they_show_and_repeat_themselves(tmp_path: Path) -> None:
    for name in ("1.svg", "2.svg"):
        draw_histogram(ACTUAL, EXPECTED, tmp_path / f"h{name}")
        draw_curve(LAYERS, divergence(Tap("c", 0.5, True)), tmp_path / f"c{name}")

    histogram, curve = ((tmp_path / f"{kind}1.svg").read_text() for kind in "hc")
    axes = (">elements<", "log10 of |actual - expected| / rms(expected); equal elements are at -12")
    assert all(word in histogram for word in ("y: 3 elements, the greatest 1; 1 not finite", *axes))
    lines = ("engine against the typed model", "typed model against float32", "NaN or infinite in the typed model")
    axes = (">rms(actual - expected) / rms(expected)<", ">tensor, in graph order<", ">a<", ">d<")
    assert all(word in curve for word in (*lines, *axes))
    assert all((tmp_path / f"{kind}1.svg").read_bytes() == (tmp_path / f"{kind}2.svg").read_bytes() for kind in "hc")


def test_many_layers_leave_labels_out(tmp_path: Path) -> None:
    draw_curve({f"layer{i}": 1e-3 for i in range(400)}, None, tmp_path / "c.svg")

    assert 0 < (tmp_path / "c.svg").read_text().count(">layer") <= 40


@pytest.mark.parametrize("name", ["$y^{$", "日本", "a_b\\c"])
@pytest.mark.filterwarnings("error")
def test_names_are_text(tmp_path: Path, name: str) -> None:
    draw_histogram([{name: np.array([1.0])}], [{name: np.array([2.0])}], tmp_path / "h.svg")
    draw_curve({name: 1e-3}, None, tmp_path / "c.svg")

    assert all(f">{name}" in (tmp_path / f"{kind}.svg").read_text() for kind in "hc")


def test_many_outputs_have_panels_for_the_worst(tmp_path: Path) -> None:
    expected = {f"o{i}": np.array([1.0]) for i in range(40)}
    actual = {f"o{i}": np.array([1.0 + (i + 1) / 1e3]) for i in range(40)}

    draw_histogram([actual], [expected], tmp_path / "h.svg")

    drawn = (tmp_path / "h.svg").read_text()
    assert drawn.count(": 1 element, the greatest") == 12
    assert "o39: 1 element," in drawn
    assert "o27: 1 element," not in drawn


def test_what_cannot_be_drawn_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no output of floats has finite elements"):
        draw_histogram([{"y": np.array([np.nan])}], [{"y": np.array([1.0])}], tmp_path / "h.svg")
    with pytest.raises(UsageError, match="no inner tensor differs"):
        draw_curve({"a": 0.0}, None, tmp_path / "c.svg")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match="matplotlib is not installed") as caught:
        draw_histogram(ACTUAL, EXPECTED, tmp_path / "h.svg")
    assert caught.value.hint == "pip install matplotlib"
    assert list(tmp_path.iterdir()) == []
