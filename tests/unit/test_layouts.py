"""Formats of inputs and outputs: where each element lies, and that nothing is lost on the way there and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pytest_trt.backends.tensorrt.layouts import ROW_MAJOR, layout_of
from pytest_trt.errors import RunError

IMAGES = ("CHW2", "CHW4", "CHW16", "CHW32", "HWC", "HWC8", "HWC16")
VOLUMES = ("CDHW32", "DHWC", "DHWC8")


def sized(low: int, high: int):
    return hnp.array_shapes(min_dims=low, max_dims=high, min_side=0, max_side=9)


@st.composite
def tensors(draw):
    name = draw(st.sampled_from((*IMAGES, *VOLUMES, "LINEAR")))
    least = 0 if name == "LINEAR" else 4 if name in VOLUMES else 3
    shape = draw(sized(least, 5))
    kind = draw(st.sampled_from((np.float32, np.float16, np.int8, np.bool_)))
    array = draw(hnp.arrays(kind, shape, elements={"allow_nan": False} if np.dtype(kind).kind == "f" else None))
    return layout_of(name, len(shape), "t"), array


@given(tensors())
def test_unpack_undoes_pack(made):
    layout, array = made
    stored = layout.pack(array)
    assert stored.shape == layout.stored(array.shape)
    assert stored.flags.c_contiguous
    assert stored.dtype == array.dtype
    np.testing.assert_array_equal(layout.unpack(stored, array.shape), array)


def test_chw4_by_hand():
    """Six channels of one row and two columns: two vectors of four, the second half empty."""
    array = np.array([[[11, 12]], [[21, 22]], [[31, 32]], [[41, 42]], [[51, 52]], [[61, 62]]], np.int8)
    stored = [
        [[[11, 21, 31, 41], [12, 22, 32, 42]]],
        [[[51, 61, 0, 0], [52, 62, 0, 0]]],
    ]
    np.testing.assert_array_equal(layout_of("CHW4", 3, "t").pack(array), stored)


def test_hwc8_by_hand():
    array = np.array([[[[1, 2]], [[3, 4]], [[5, 6]]]], np.float16)
    stored = [[[[1, 3, 5, 0, 0, 0, 0, 0], [2, 4, 6, 0, 0, 0, 0, 0]]]]
    np.testing.assert_array_equal(layout_of("HWC8", 4, "t").pack(array), stored)


@pytest.mark.parametrize("name", IMAGES + VOLUMES)
def test_each_element_lies_where_the_documentation_says(name):
    """TensorRT's subscripts, written out: [n][c/v][d][h][w][c%v] for vectors, [n][d][h][w][c] for channels last."""
    shape = (2, 37, 2, 3, 4) if name in VOLUMES else (2, 37, 3, 4)
    array = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    layout = layout_of(name, array.ndim, "t")
    stored = layout.pack(array)
    length = int(name.lstrip("CDHW") or 1)
    for index, element in np.ndenumerate(array):
        n, c, *inner = index
        where = (n, *inner, c) if "WC" in name else (n, c // length, *inner, c % length)
        assert stored[where] == element
    assert np.count_nonzero(stored) == array.size - 1  # element 0 is a zero, and so is the padding


@pytest.mark.parametrize(
    ("name", "shape", "stored"),
    [
        ("LINEAR", (2, 3), (2, 3)),
        ("LINEAR", (), ()),
        ("CHW2", (1, 3, 5, 7), (1, 2, 5, 7, 2)),
        ("CHW32", (3, 5, 7), (1, 5, 7, 32)),
        ("HWC", (1, 3, 5, 7), (1, 5, 7, 3)),
        ("HWC16", (1, 17, 5, 7), (1, 5, 7, 32)),
        ("CDHW32", (1, 33, 2, 5, 7), (1, 2, 2, 5, 7, 32)),
        ("DHWC8", (1, 3, 2, 5, 7), (1, 2, 5, 7, 8)),
        ("CHW4", (0, 3, 5, 7), (0, 1, 5, 7, 4)),
    ],
)
def test_stored_shape(name, shape, stored):
    assert layout_of(name, len(shape), "t").stored(shape) == stored


@pytest.mark.parametrize("name", ["DLA_LINEAR", "DLA_HWC4", "NCHW", "CHW4x"])
def test_formats_of_special_hardware_are_named(name):
    with pytest.raises(RunError, match=f"'image' has the format {name}"):
        layout_of(name, 4, "image")


@pytest.mark.parametrize(("name", "rank", "axis"), [("CHW4", 2, -1), ("DHWC8", 3, -1), ("CHW4", 4, 4)])
def test_a_format_must_fit_the_dimensions(name, rank, axis):
    with pytest.raises(RunError, match=f"does not fit its {rank} dimensions"):
        layout_of(name, rank, "t", axis=axis)


def test_the_engine_has_the_last_word_on_axis_and_length():
    assert layout_of("CHW4", 5, "t", axis=1).stored((1, 9, 2, 2, 2)) == (1, 3, 2, 2, 2, 4)
    assert layout_of("CHW4", 5, "t").stored((1, 2, 9, 2, 2)) == (1, 2, 3, 2, 2, 4)
    assert layout_of("CHW4", 4, "t", axis=1, components=8).stored((1, 9, 2, 2)) == (1, 2, 2, 2, 8)
    assert ROW_MAJOR.is_row_major
    assert not layout_of("HWC", 4, "t", axis=-1, components=1).is_row_major
