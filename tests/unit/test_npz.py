"""Arrays under any name as a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pytest_trt.spec.npz import write_npz


def test_any_name_and_shape_come_back(tmp_path: Path) -> None:
    arrays = {
        "file": np.arange(6.0).reshape(2, 3).T,
        "allow_pickle": np.float32(1).reshape(()),
        "in/put:0": np.zeros((0, 4), np.int8),
        "日本": np.array([True, False]),
    }
    for name, compress in (("1.npz", False), ("2.npz", False), ("3.npz", True)):
        write_npz(tmp_path / name, arrays, compress=compress)

    for name in ("1.npz", "3.npz"):
        with np.load(tmp_path / name, allow_pickle=False) as archive:
            assert archive.files == sorted(arrays)
            for key, array in arrays.items():
                np.testing.assert_array_equal(archive[key], array, strict=True)
    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()


def test_compression_is_asked_for(tmp_path: Path) -> None:
    arrays = {"x": np.zeros(10_000, np.float32)}
    for compress in (False, True):
        write_npz(tmp_path / f"{compress}.npz", arrays, compress=compress)

    assert (tmp_path / "True.npz").stat().st_size < 1000 < 40_000 < (tmp_path / "False.npz").stat().st_size
    write_npz(tmp_path / "unsaid.npz", arrays)
    assert (tmp_path / "unsaid.npz").read_bytes() == (tmp_path / "False.npz").read_bytes()


def test_objects_are_not_pickled(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        write_npz(tmp_path / "x.npz", {"x": np.array([object()])})
