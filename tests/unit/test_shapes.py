"""Shape profiles: what the short form says, which points are tested, and what does not fit a model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trt.errors import ProfileError
from pytest_trt.spec.model import TensorSpec
from pytest_trt.spec.shapes import Profile, Shape, ShapeRange, format_shape

IMAGE = TensorSpec("image", "float32", ("N", 3, None))
MASK = TensorSpec("mask", "bool", ("N", 1))
SCALAR = TensorSpec("scale", "float32", ())

shapes = st.lists(st.integers(0, 9), max_size=4).map(tuple)


def ranged(low: Shape, mid: Shape, high: Shape, name: str = "image") -> Profile:
    return Profile("p", {name: ShapeRange(low, mid, high)})


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("x=1x3x8", {"x": ShapeRange.fixed((1, 3, 8))}),
        ("x=4", {"x": ShapeRange.fixed((4,))}),
        ("x=scalar", {"x": ShapeRange.fixed(())}),
        ("x=0x4", {"x": ShapeRange.fixed((0, 4))}),
        ("x=1x3:8x3:32x3", {"x": ShapeRange((1, 3), (8, 3), (32, 3))}),
        (" x=1 , y=2x2", {"x": ShapeRange.fixed((1,)), "y": ShapeRange.fixed((2, 2))}),
        ("input:0=1x2", {"input:0": ShapeRange.fixed((1, 2))}),
        ("a=b=1x2", {"a=b": ShapeRange.fixed((1, 2))}),
        ("x/y.z=scalar:scalar:scalar", {"x/y.z": ShapeRange.fixed(())}),
    ],
)
def test_the_short_form(text: str, ranges: dict[str, ShapeRange]):
    assert Profile.parse("p", text) == Profile("p", ranges)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", ""),
        ("x", "x"),
        ("=1x2", "=1x2"),
        ("x=", "x="),
        ("x=1x", "x=1x"),
        ("x=1,", ""),
        ("x=-1x2", "x=-1x2"),
        ("x=1:2", "x=1:2"),
        ("x=1:2:3:4", "x=1:2:3:4"),
        ("x=1x2.5", "x=1x2.5"),
        ("x=1, y=b", "y=b"),
        ("x=1X2", "x=1X2"),
    ],
)
def test_what_the_short_form_does_not_read_is_named(text: str, part: str):
    with pytest.raises(ProfileError) as caught:
        Profile.parse("p", text)

    assert caught.value.message == f"profile 'p': cannot read {part!r}"
    assert caught.value.hint == "write NAME=1x3x224x224, or NAME=MIN:OPT:MAX with three such shapes"


def test_an_input_that_is_given_twice_is_refused():
    with pytest.raises(ProfileError, match="profile 'p': input 'x' is given twice"):
        Profile.parse("p", "x=1,x=2")


@given(st.dictionaries(st.sampled_from(["x", "in:0", "a=b"]), st.tuples(shapes, shapes, shapes), min_size=1))
def test_the_short_form_holds_every_profile(table: dict[str, tuple[Shape, Shape, Shape]]):
    text = ",".join(f"{name}=" + ":".join(format_shape(shape) for shape in points) for name, points in table.items())

    assert Profile.parse("p", text).ranges == {name: ShapeRange(*points) for name, points in table.items()}


@pytest.mark.parametrize(("shape", "text"), [((), "scalar"), ((8,), "8"), ((8, "N", None), "8xNx?"), ((0, 1), "0x1")])
def test_a_shape_as_text(shape: tuple[int | str | None, ...], text: str):
    assert format_shape(shape) == text


def test_corners_begin_with_opt_and_leave_equal_points_out():
    assert ranged((1, 3), (8, 3), (32, 3)).corners() == {
        "opt": {"image": (8, 3)},
        "min": {"image": (1, 3)},
        "max": {"image": (32, 3)},
    }
    assert list(ranged((1, 3), (1, 3), (32, 3)).corners()) == ["opt", "max"]
    assert list(ranged((1, 3), (8, 3), (8, 3)).corners()) == ["opt", "min"]
    assert list(ranged((8, 3), (8, 3), (8, 3)).corners()) == ["opt"]


def test_a_corner_counts_when_one_of_two_inputs_changes():
    profile = Profile("p", {"a": ShapeRange.fixed((1,)), "b": ShapeRange((1,), (2,), (2,))})

    assert profile.corners() == {"opt": {"a": (1,), "b": (2,)}, "min": {"a": (1,), "b": (1,)}}
    assert not profile.is_static


def test_at_gives_one_point_of_all_inputs():
    profile = Profile.parse("p", "a=1:2:3,b=4")

    assert [profile.at(point) for point in ("min", "opt", "max")] == [
        {"a": (1,), "b": (4,)},
        {"a": (2,), "b": (4,)},
        {"a": (3,), "b": (4,)},
    ]


def test_a_fixed_profile_is_static():
    profile = Profile.fixed("p", {"x": (1, 2)})

    assert profile.is_static
    assert profile == Profile.parse("p", "x=1x2")


def test_described_as_json_in_the_order_of_names():
    described = Profile.parse("p", "b=1:2:3,a=scalar").describe()

    assert described == {"a": [[], [], []], "b": [[1], [2], [3]]}
    assert list(described) == ["a", "b"]


@pytest.mark.parametrize(
    "text",
    [
        "image=1x3x8,mask=1x1,scale=scalar",
        "image=1x3x8:2x3x8:4x3x99,mask=1x1:2x1:4x1,scale=scalar",
        "image=0x3x0,mask=0x1,scale=scalar",
    ],
)
def test_profiles_that_fit(text: str):
    profile = Profile.parse("p", text)

    profile.validate((IMAGE, MASK, SCALAR))
    with pytest.raises(ProfileError, match="no input 'scale'"):
        profile.validate((IMAGE, MASK))


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "imgae=1x3x8,mask=1x1",
            "profile 'p': the model has no input 'imgae'",
            "did you mean 'image'?",
        ),
        ("image=1x3x8", "profile 'p': no shape for input 'mask'", "the model declares it as Nx1"),
        (
            "image=1x3,mask=1x1",
            "profile 'p', input 'image': min 1x3 has rank 2, not 3",
            "the model declares Nx3x?",
        ),
        (
            "image=1x3x8:1x3:1x3x8,mask=1x1",
            "profile 'p', input 'image': opt 1x3 has rank 2, not 3",
            "the model declares Nx3x?",
        ),
        (
            "image=1x3x8:1x3x8:1x4x8,mask=1x1",
            "profile 'p', input 'image': max 1x4x8 changes axis 1, fixed at 3",
            "the model declares Nx3x?",
        ),
        (
            "image=1x3x8:1x3x7:1x3x9,mask=1x1",
            "profile 'p', input 'image': axis 2 needs 0 ≤ min ≤ opt ≤ max, got 8, 7, 9",
            None,
        ),
        (
            "image=1x3x8:2x3x8:1x3x8,mask=1x1",
            "profile 'p', input 'image': axis 0 needs 0 ≤ min ≤ opt ≤ max, got 1, 2, 1",
            None,
        ),
        (
            "image=1x3x8:2x3x8:4x3x8,mask=1x1:2x1:3x1",
            "profile 'p': at max, dimension 'N' is 4 in 'image' but 3 in 'mask'",
            "dimensions of one name must agree",
        ),
    ],
)
def test_what_does_not_fit_is_named(text: str, message: str, hint: str | None):
    with pytest.raises(ProfileError) as caught:
        Profile.parse("p", text).validate((IMAGE, MASK))

    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_one_symbol_twice_in_one_input_must_agree():
    square = TensorSpec("a", "float32", ("N", "N"))
    Profile.fixed("p", {"a": (2, 2)}).validate((square,))
    with pytest.raises(ProfileError, match="at min, dimension 'N' is 2 in 'a' but 3 in 'a'"):
        Profile.fixed("p", {"a": (2, 3)}).validate((square,))


def test_unknown_dimensions_need_not_agree():
    profile = Profile.fixed("p", {"a": (2, 3)})

    profile.validate((TensorSpec("a", "float32", (None, None)),))
    with pytest.raises(ProfileError, match="dimension 'N'"):
        profile.validate((TensorSpec("a", "float32", ("N", "N")),))
