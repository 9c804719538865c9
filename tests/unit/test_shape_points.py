"""Points of a profile: which there are, what they are called, what must agree; regressions saved within them."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trt.errors import InputsError, UsageError
from pytest_trt.spec.inputs import InputSet
from pytest_trt.spec.model import TensorSpec
from pytest_trt.spec.regressions import load_regressions, regressions_folder, save_regression
from pytest_trt.spec.shape_points import MOST_POINTS, ShapeSpace, fitted, left_out, outside, points
from pytest_trt.spec.shapes import Profile, ShapeRange

X = TensorSpec("x", "float32", ("N", 3))
MASK = TensorSpec("mask", "bool", ("N", "L"))
PROFILE = Profile.parse("p", "x=1x3:8x3:32x3,mask=1x2:8x16:32x64")


def test_opt_and_corners_are_the_profile_s() -> None:
    assert points(PROFILE, (X, MASK), "opt") == {"opt": PROFILE.at("opt")}
    assert points(PROFILE, (X, MASK), "corners") == PROFILE.corners()


def test_all_are_single_extremes_and_odd_sizes_by_name() -> None:
    found = points(PROFILE, (X, MASK), "all")

    assert list(found) == [
        *("opt", "min", "max", "N=1", "N=32", "L=2", "L=64", "N=2", "N=31", "L=3", "L=63"),
        *("N=5", "L=11", "L=61", "primes"),
    ]
    assert found["N=31"] == {"x": (31, 3), "mask": (31, 16)}
    assert found["L=2"] == {"x": (8, 3), "mask": (8, 2)}
    assert found["primes"] == {"x": (5, 3), "mask": (5, 11)}


@pytest.mark.parametrize("mode", ["all", 20])
def test_points_are_distinct_and_within_the_profile_with_one_size_per_symbol(mode: str | int) -> None:
    found = points(PROFILE, (X, MASK), mode)

    assert len({str(shapes) for shapes in found.values()}) == len(found) > 10
    for shapes in found.values():
        assert outside(PROFILE, shapes) is None
        assert shapes["x"][0] == shapes["mask"][0]


def test_random_points_depend_on_seed_and_number_alone() -> None:
    five, twenty = points(PROFILE, (X, MASK), 5), points(PROFILE, (X, MASK), 20)

    assert list(five) == ["opt", "min", "max", *(f"random-{n}" for n in range(1, 6))]
    assert {name: twenty[name] for name in five} == five
    assert points(PROFILE, (X, MASK), 5, seed=1) != five
    # The same on every Python: other shapes would be other references, and other verdicts.
    assert five["random-1"] == {"x": (12, 3), "mask": (12, 17)}


def test_a_small_profile_has_fewer_random_points_than_asked() -> None:
    small = Profile.parse("p", "x=1x3:2x3:4x3")

    assert {shapes["x"][0] for shapes in points(small, (X,), 100).values()} == {1, 2, 3, 4}
    assert points(Profile.fixed("p", {"x": (2, 3)}), (X,), 100) == {"opt": {"x": (2, 3)}}
    assert points(Profile.fixed("p", {"x": (2, 3)}), (X,), "all") == {"opt": {"x": (2, 3)}}


def test_all_stops_at_its_bound_and_says_how_many_are_left_out() -> None:
    wide = Profile("p", {"x": ShapeRange((1,) * 20, (50,) * 20, (99,) * 20)})

    found = points(wide, (TensorSpec("x", "float32", tuple("abcdefghijklmnopqrst")),), "all")

    assert len(found) == MOST_POINTS
    assert {f"{symbol}={size}" for symbol in "abcdefghijklmnopqrst" for size in (1, 99)} <= set(found)
    assert left_out(wide, (TensorSpec("x", "float32", tuple("abcdefghijklmnopqrst")),), "all") == 3 + 20 * 6 + 1 - 64
    assert left_out(PROFILE, (X, MASK), "all") == left_out(wide, (), 5) == 0


@pytest.mark.parametrize("mode", ["al", 0, -3, True + 0.5])
def test_other_modes_are_refused(mode: str | int) -> None:
    with pytest.raises(UsageError, match="names no points"):
        points(PROFILE, (X, MASK), mode)


def test_unnamed_axes_move_together_where_position_and_sizes_are_equal() -> None:
    profile = Profile.parse("p", "a=1x4:2x8:4x16,b=1x4:2x8:4x16,c=1x4:2x9:4x16")
    unnamed = tuple(TensorSpec(name, "float32", (None, None)) for name in "abc")

    space = ShapeSpace(profile, unnamed)

    assert [d.name for d in space.free] == ["a[0]", "a[1]", "c[1]"]
    assert space.shapes({"a[0]": 3, "a[1]": 5}) == {"a": (3, 5), "b": (3, 5), "c": (3, 9)}


def test_a_sum_of_symbols_follows_them() -> None:
    specs = (
        TensorSpec("ids", "int64", ("B", "new")),
        TensorSpec("past", "float32", ("B", "past")),
        TensorSpec("mask", "int64", ("B", "past + new")),
    )
    profile = Profile.parse("p", "ids=1x1:1x8:1x16,past=1x0:1x24:1x48,mask=1x1:1x32:1x64")

    for shapes in [*points(profile, specs, "all").values(), *points(profile, specs, 30).values()]:
        assert shapes["mask"][1] == shapes["ids"][1] + shapes["past"][1]


@pytest.mark.parametrize(
    "symbol", ["past - new", "__import__('os')", "a b", "2 ** 99999999", "new / 0", "new // 0", "-"]
)
def test_a_symbol_that_cannot_be_followed_is_one_of_its_own(symbol: str) -> None:
    specs = (TensorSpec("x", "float32", ("new",)), TensorSpec("y", "float32", (symbol,)))

    space = ShapeSpace(Profile.parse("p", "x=1:2:3,y=1:2:3"), specs)

    assert [d.name for d in space.free] == ["new", symbol]


def test_a_difference_that_leaves_the_profile_is_no_point() -> None:
    specs = (
        TensorSpec("a", "float32", ("A",)),
        TensorSpec("b", "float32", ("B",)),
        TensorSpec("c", "float32", ("A - B",)),
    )
    profile = Profile.parse("p", "a=4:8:16,b=1:2:4,c=3:6:12")

    space = ShapeSpace(profile, specs)

    assert space.shapes({"A": 4, "B": 4}) is None
    assert all(3 <= shapes["c"][0] <= 12 for shapes in points(profile, specs, "all").values())


@given(st.data())
def test_every_profile_has_points_of_every_mode(data: st.DataObject) -> None:
    rank = data.draw(st.integers(0, 3))
    columns = [sorted(data.draw(st.tuples(*[st.integers(0, 40)] * 3))) for _ in range(rank)]
    profile = Profile("p", {"x": ShapeRange(*(tuple(c[i] for c in columns) for i in range(3)))})

    for mode in ("opt", "corners", "all", 7):
        found = points(profile, (TensorSpec("x", "float32", (None,) * rank),), mode)
        assert next(iter(found)) == "opt"
        assert all(outside(profile, shapes) is None for shapes in found.values())


# Samples that do not fit a point.


def test_samples_are_repeated_or_cut_to_the_shape() -> None:
    stored = InputSet(({"x": np.arange(6).reshape(2, 3)},), "file", labels=np.arange(2), notes=("n",))

    found = fitted(stored, {"x": (3, 2)})

    assert found.samples({"x": (3, 2)})[0].feeds["x"].tolist() == [[0, 1], [3, 4], [0, 1]]
    assert found.labels is None
    assert found.notes == ("n", "file: values repeated or cut to the shape")
    assert found.fingerprint != stored.fingerprint


def test_a_stack_gives_its_first_sample() -> None:
    stack = InputSet(({"x": np.arange(12).reshape(2, 2, 3)},), "file")

    assert fitted(stack, {"x": (1, 4)}).sets[0]["x"].tolist() == [[0, 1, 2, 0]]


def test_samples_that_fit_are_not_touched() -> None:
    stored = InputSet(({"x": np.zeros((4, 3))},), "file")

    assert fitted(stored, {"x": (2, 3)}) is stored


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((0, 3))])
def test_what_cannot_be_repeated_stays_a_misfit(array: np.ndarray) -> None:
    stored = InputSet(({"x": array},), "file")

    with pytest.raises(InputsError, match="'x'"):
        fitted(stored, {"x": (2, 3)}).samples({"x": (2, 3)})


# Regressions.


def test_a_saved_input_comes_back_bit_by_bit(tmp_path: Path) -> None:
    feeds = {
        "file": np.array([[np.nan, -0.0, np.inf]], np.float32),  # np.savez has a parameter of this name
        "a/b:0": np.array([1.5], ml_dtypes.bfloat16),
        "scalar": np.array(7),
    }
    specs = (
        TensorSpec("file", "float32", ("N", 3)),
        TensorSpec("a/b:0", "bfloat16", (1,)),
        TensorSpec("scalar", "int64", ()),
    )
    profile = Profile.parse("p", "file=1x3:2x3:4x3,a/b:0=1,scalar=scalar")

    path = save_regression(tmp_path / "regressions", feeds, "fp16-b8[-X]-fake")
    found = load_regressions(path.parent, specs, profile)

    assert path.name.startswith("fp16-b8-X-fake-")
    (sample,) = found.samples
    assert sample.origin == f"regression {path.stem}"
    assert {n: (a.dtype, a.shape, a.tobytes()) for n, a in sample.feeds.items()} == {
        n: (a.dtype, a.shape, a.tobytes()) for n, a in feeds.items()
    }


def test_the_same_arrays_are_one_file_with_the_same_bytes(tmp_path: Path) -> None:
    feeds = {"x": np.zeros((2, 3), np.float32)}

    first = save_regression(tmp_path / "a", feeds, "fp16")
    content = first.read_bytes()

    assert save_regression(tmp_path / "a", feeds, "int8") == first
    assert save_regression(tmp_path / "b", feeds, "fp16").read_bytes() == content
    assert save_regression(tmp_path / "a", {"x": np.ones((2, 3), np.float32)}, "fp16") != first
    assert len(list((tmp_path / "a").iterdir())) == 2


@pytest.mark.parametrize(
    ("label", "stem"), [("fp16", "fp16"), ("", "input"), ("[/]", "input"), ("-a b-", "a-b"), ("x=1.5+y_2", "x=1.5+y_2")]
)
def test_a_label_becomes_a_name(tmp_path: Path, label: str, stem: str) -> None:
    path = save_regression(tmp_path / "deep" / "er", {"x": np.zeros(2, np.float32)}, label)

    assert re.fullmatch(rf"{re.escape(stem)}-[0-9a-f]{{8}}\.npz", path.name)
    assert path.is_file()


def test_many_equal_numbers_take_little_room(tmp_path: Path) -> None:
    assert save_regression(tmp_path, {"x": np.zeros(10_000, np.float32)}, "l").stat().st_size < 10_000


def test_all_that_is_read_is_in_the_fingerprint(tmp_path: Path) -> None:
    profile = Profile.parse("p", "x=1x3:2x3:4x3")
    assert load_regressions(tmp_path, (X,), profile).fingerprint == ""
    seen = []
    for number in range(2):
        save_regression(tmp_path, {"x": np.full((2, 3), number, np.float32)}, f"l{number}")
        found = load_regressions(tmp_path, (X,), profile)
        seen.append(found.fingerprint)
        assert [(s.rows, s.batch) for s in found.samples] == [(1, 1)] * (number + 1)
    assert len({"", *seen}) == 3
    assert seen[1].startswith(f"{seen[0]}+")


def test_what_lies_outside_of_the_profile_is_left_out_and_named(tmp_path: Path) -> None:
    inside = save_regression(tmp_path, {"x": np.zeros((2, 3), np.float32)}, "in")
    large = save_regression(tmp_path, {"x": np.zeros((9, 3), np.float32)}, "out")

    found = load_regressions(tmp_path, (X,), Profile.parse("p", "x=1x3:2x3:4x3"))

    assert [s.origin for s in found.samples] == [f"regression {inside.stem}"]
    assert found.left_out == (f"{large.stem}: 'x' 9x3 is not within 1x3 … 4x3",)
    assert load_regressions(tmp_path / "none", (X,), PROFILE).samples == ()


@pytest.mark.parametrize(
    "feeds", [{"z": np.zeros((2, 3), np.float32)}, {"x": np.full((2, 3), 0.1)}, {}], ids=["name", "type", "empty"]
)
def test_a_file_of_another_model_is_an_error_that_names_it(tmp_path: Path, feeds: dict[str, np.ndarray]) -> None:
    with zipfile.ZipFile(tmp_path / "old-1.npz", "w") as archive:
        for name, array in feeds.items():
            with archive.open(f"{name}.npy", "w") as stream:
                np.lib.format.write_array(stream, array)

    with pytest.raises(InputsError, match=r"regression old-1\.npz") as caught:
        load_regressions(tmp_path, (X,), Profile.parse("p", "x=1x3"))
    assert "remove" in str(caught.value.hint)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "regressions").write_text("a file")

    with pytest.raises(InputsError, match="cannot be written"):
        save_regression(tmp_path / "regressions", {"x": np.zeros(1)}, "l")


def test_where_regressions_lie() -> None:
    assert regressions_folder(Path("m/trt.toml")) == Path("m/regressions")
    assert regressions_folder(Path("m/net.onnx")) == Path("m/net.regressions")
