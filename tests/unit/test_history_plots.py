from __future__ import annotations

import sys
from pathlib import Path

import pytest
from history_rows import row

from pytest_trt.errors import UsageError
from pytest_trt.history.change_points import shifts
from pytest_trt.history.plots import draw, file_name
from pytest_trt.history.rows import Series

pytest.importorskip("matplotlib")
pytest.importorskip("ruptures")

ROWS = [row(number, 1.0 if number < 8 else 1.1) for number in range(16)]
SERIES = ROWS[0].series


def test_a_picture_shows_commits_panels_and_the_change(tmp_path: Path):
    draw(SERIES, ROWS, shifts(ROWS, smallest=0.01), tmp_path / "deep" / "a.svg")

    text = (tmp_path / "deep" / "a.svg").read_text()
    assert all(word in text for word in ("median ms", "relative RMSE", "plan MB", "+10.0%", ROWS[0].revision))


def test_equal_rows_make_equal_bytes(tmp_path: Path):
    for name in ("a.svg", "b.svg"):
        draw(SERIES, ROWS, [], tmp_path / name)

    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_panels_without_a_figure_are_left_out(tmp_path: Path):
    draw(SERIES, [row(n, accuracy=None, engine=None) for n in range(4)], [], tmp_path / "a.svg")

    text = (tmp_path / "a.svg").read_text()
    assert "median ms" in text
    assert "RMSE" not in text
    assert "plan MB" not in text


@pytest.mark.parametrize(
    "rows", [[row(median_ms=None, accuracy=None, engine=None)], [row(accuracy={"y": {"rmse": 0.0}})]]
)
def test_rows_without_figures_or_errors_still_draw(tmp_path: Path, rows: list):
    draw(SERIES, rows, [], tmp_path / "a.png")

    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_names_hold_nothing_that_a_shell_minds():
    series = Series("a-b8[-JIT]-tensorrt", "tensorrt", "NVIDIA H200 (1/2)", "graph")

    assert file_name(series, "svg") == "a-b8_-JIT_-tensorrt_tensorrt_NVIDIA_H200_1_2__graph.svg"


def test_a_folder_that_cannot_be_is_said(tmp_path: Path):
    (tmp_path / "file").write_text("")

    with pytest.raises(UsageError, match="cannot be written"):
        draw(SERIES, ROWS, [], tmp_path / "file" / "a.svg")


def test_without_the_library_the_way_to_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(UsageError, match=r"pip install \"pytest-trt\[history\]\""):
        draw(SERIES, ROWS, [], tmp_path / "a.svg")
