"""Inputs: every format is read into the same InputSet, rows become samples, nothing is converted with loss."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from pytest_trt.errors import InputsError
from pytest_trt.spec.dtypes import fit_dtype
from pytest_trt.spec.input_files import inputs_from_arrays, load_expected, load_inputs
from pytest_trt.spec.inputs import InputSet
from pytest_trt.spec.model import TensorSpec
from pytest_trt.spec.synthetic import synthetic_inputs

X = TensorSpec("x", "float32", ("n", 3))
IDS = TensorSpec("ids", "int64", ("n",))
Y = TensorSpec("y", "float32", ("n", 2))


def _rows(count: int, start: int = 0) -> np.ndarray:
    return np.arange(start * 3, (start + count) * 3, dtype=np.float32).reshape(count, 3)


def _pb(path: Path, array: np.ndarray, name: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(numpy_helper.from_array(array, name).SerializeToString())


def _encoded(array: np.ndarray) -> dict[str, str]:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return {"array": base64.b64encode(buffer.getvalue()).decode(), "polygraphy_class": "ndarray"}


# One InputSet from every format.


def test_every_format_gives_the_same_arrays(tmp_path: Path) -> None:
    arrays = {"x": _rows(4), "ids": np.arange(4)}
    np.savez(tmp_path / "stored.npz", **arrays)
    np.savez_compressed(tmp_path / "compressed.npz", **arrays)
    (tmp_path / "npy").mkdir()
    for name, array in arrays.items():
        np.save(tmp_path / "npy" / f"{name}.npy", array)
    (tmp_path / "feeds.json").write_text(json.dumps([{n: _encoded(a) for n, a in arrays.items()}]))
    (tmp_path / "iterations").mkdir()
    (tmp_path / "iterations" / "0000000000.json").write_text(json.dumps({n: _encoded(a) for n, a in arrays.items()}))
    _pb(tmp_path / "model" / "test_data_set_0" / "input_0.pb", arrays["x"])
    _pb(tmp_path / "model" / "test_data_set_0" / "input_1.pb", arrays["ids"])
    origins = {}
    fingerprints = set()
    for place in ("stored.npz", "compressed.npz", "npy", "feeds.json", "iterations", "model", "model/test_data_set_0"):
        inputs = load_inputs(tmp_path / place, (X, IDS))
        assert len(inputs.sets) == 1
        for name, array in arrays.items():
            np.testing.assert_array_equal(inputs.sets[0][name], array)
        assert not inputs.synthetic
        origins[place] = inputs.origin
        fingerprints.add(inputs.fingerprint)
    assert len(fingerprints) == 1
    assert origins["stored.npz"] == "file stored.npz"
    assert origins["model"] == "test_data_set_0"


def test_fingerprint_covers_values_names_shapes_and_labels() -> None:
    base = InputSet(({"x": _rows(2)},), "a")
    others = [
        InputSet(({"x": _rows(2, 1)},), "a"),
        InputSet(({"z": _rows(2)},), "a"),
        InputSet(({"x": _rows(2).reshape(3, 2)},), "a"),
        InputSet(({"x": _rows(2)},), "a", labels=np.array([0, 1])),
        InputSet(({"x": _rows(2)},), "a", expected=({"x": _rows(2)},)),
        InputSet(({"x": _rows(2)}, {"x": _rows(2)}), "a"),
        InputSet(({"x": _rows(2), "y": _rows(2)},), "a"),
        InputSet(({"x": _rows(2)}, {"y": _rows(2)}), "a"),
    ]
    assert len({base.fingerprint, *(o.fingerprint for o in others)}) == 1 + len(others)
    assert InputSet(({"x": np.asfortranarray(_rows(2))},), "b").fingerprint == base.fingerprint


def test_polygraphy_reads_back_what_it_wrote(tmp_path: Path) -> None:
    """The JSON is Polygraphy's own, not our idea of it."""
    save_json = pytest.importorskip("polygraphy.json").save_json
    comparator = pytest.importorskip("polygraphy.comparator")
    save_json([{"x": _rows(2)}, {"x": _rows(2, 2)}], str(tmp_path / "inputs.json"))
    inputs = load_inputs(tmp_path / "inputs.json", (X,))
    assert [s["x"][0, 0] for s in inputs.sets] == [0, 6]
    result = comparator.IterationResult({"y": np.ones((2, 2), np.float32)}, runtime=0.1, runner_name="ort")
    comparator.RunResults([("ort", [result, result])]).save(str(tmp_path / "outputs.json"))
    expected = load_expected(tmp_path / "outputs.json", (Y,))
    assert len(expected) == 2
    np.testing.assert_array_equal(expected[1]["y"], np.ones((2, 2), np.float32))
    assert inputs.with_expected(expected).samples({"x": (2, 3)})[1].expected is not None
    with pytest.raises(InputsError, match="holds outputs"):
        load_inputs(tmp_path / "outputs.json", (X,))


def test_results_of_two_runners_are_refused(tmp_path: Path) -> None:
    (tmp_path / "outputs.json").write_text(
        json.dumps({"lst": [["a", []], ["b", []]], "polygraphy_class": "RunResults"})
    )
    with pytest.raises(InputsError, match="2 runners"):
        load_expected(tmp_path / "outputs.json", (Y,))


@pytest.mark.parametrize(
    "text",
    ["", "[" * 100_000, "[1]", '{"x": 1}', '{"x": {"array": "???"}}', '{"x": {"array": "AAAA"}}', "[]", '"x"', "\x00"],
)
def test_broken_json_is_one_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "inputs.json").write_text(text)
    with pytest.raises(InputsError) as caught:
        load_inputs(tmp_path / "inputs.json", (X,))
    assert caught.value.hint
    assert "inputs.json" in caught.value.message


# Test data sets.


def test_test_data_sets_are_ordered_by_number_and_bring_outputs(tmp_path: Path) -> None:
    for n in (0, 2, 10):
        _pb(tmp_path / f"test_data_set_{n}" / "input_0.pb", _rows(1, n), "x")
        _pb(tmp_path / f"test_data_set_{n}" / "output_0.pb", np.full((1, 2), n, np.float32), "y")
    inputs = load_inputs(tmp_path, (X,), model_outputs=(Y,))
    assert inputs.titles == ("test_data_set_0", "test_data_set_2", "test_data_set_10")
    assert inputs.origin == "test_data_set_0..10"
    (sample,) = inputs.samples({"x": (4, 3)})
    assert sample.rows == 3
    assert sample.expected is not None
    assert sample.expected["y"][:, 0].tolist() == [0, 2, 10, 0]
    exact = inputs.samples({"x": (1, 3)})
    assert [s.origin for s in exact] == list(inputs.titles)


def test_names_in_a_test_data_set_decide_over_numbers(tmp_path: Path) -> None:
    data = tmp_path / "test_data_set_0"
    _pb(data / "input_0.pb", np.arange(2), "ids")
    _pb(data / "input_1.pb", _rows(2), "x")
    inputs = load_inputs(tmp_path, (X, IDS))
    assert inputs.sets[0]["ids"].tolist() == [0, 1]
    assert inputs.notes == ()


def test_a_stale_name_is_taken_by_number_with_a_note(tmp_path: Path) -> None:
    _pb(tmp_path / "test_data_set_0" / "input_0.pb", _rows(2), "gpu_0/data_0")
    inputs = load_inputs(tmp_path, (X,))
    assert "taken by its number as 'x'" in inputs.notes[0]


def test_bfloat16_tensors_are_read(tmp_path: Path) -> None:
    values = np.array([[1, -2, 0.5]], ml_dtypes.bfloat16)
    tensor = TensorProto(name="x", data_type=TensorProto.BFLOAT16, dims=[1, 3], raw_data=values.tobytes())
    data = tmp_path / "test_data_set_0"
    data.mkdir()
    (data / "input_0.pb").write_bytes(tensor.SerializeToString())
    (inputs,) = load_inputs(tmp_path, (TensorSpec("x", "bfloat16", (1, 3)),)).sets
    assert inputs["x"].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(inputs["x"], values)


def test_bfloat16_survives_npz(tmp_path: Path) -> None:
    """NumPy stores ml_dtypes' types as raw bytes; the model's type says what they are."""
    values = np.array([[1, -2, 0.5]], ml_dtypes.bfloat16)
    np.savez(tmp_path / "inputs.npz", x=values)
    (inputs,) = load_inputs(tmp_path / "inputs.npz", (TensorSpec("x", "bfloat16", (1, 3)),)).sets
    np.testing.assert_array_equal(inputs["x"], values)


# Names, labels, stored outputs, values.


def test_names_must_match() -> None:
    with pytest.raises(InputsError, match=r"'idz' is no input[^\0]*did you mean 'ids'"):
        inputs_from_arrays({"x": _rows(2), "idz": np.arange(2)}, (X, IDS), origin="a test")
    with pytest.raises(InputsError, match="no array for input 'ids'"):
        inputs_from_arrays({"x": _rows(2)}, (X, IDS), origin="a test")


def test_labels_and_outputs_lie_beside_the_inputs(tmp_path: Path) -> None:
    np.savez(tmp_path / "i.npz", x=_rows(5), y=np.ones((5, 2), np.float32), truth=np.arange(5, dtype=np.int32))
    inputs = load_inputs(tmp_path / "i.npz", (X,), labels="truth", model_outputs=(Y,))
    first, last = inputs.samples({"x": (3, 3)})
    assert (first.labels.tolist(), last.labels.tolist()) == ([0, 1, 2], [3, 4])  # type: ignore[union-attr]
    assert last.rows == 2
    assert last.expected is not None
    assert last.expected["y"].shape == (3, 2)
    with pytest.raises(InputsError, match=r"no array 'thruth'[^\0]*did you mean 'truth'"):
        load_inputs(tmp_path / "i.npz", (X,), labels="thruth", model_outputs=(Y,))


def test_labels_must_be_one_integer_per_row() -> None:
    with pytest.raises(InputsError, match="labels 'l' are 2 of float64"):
        inputs_from_arrays({"x": _rows(2), "l": np.zeros(2)}, (X,), origin="a", labels="l")
    inputs = inputs_from_arrays({"x": _rows(2), "l": np.zeros(3, int)}, (X,), origin="a", labels="l")
    with pytest.raises(InputsError, match="3 labels for 2 rows"):
        inputs.samples({"x": (2, 3)})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nonfinite_inputs_need_permission(value: float) -> None:
    rows = _rows(2)
    rows[1, 1] = value
    with pytest.raises(InputsError, match="1 value of NaN or infinity"):
        inputs_from_arrays({"x": rows}, (X,), origin="a")
    assert inputs_from_arrays({"x": rows}, (X,), origin="a", allow_nonfinite=True).sets[0]["x"] is not None


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nothing.npz", "no such file"),
        ("folder", "holds no inputs"),
        ("inputs.csv", "cannot be read"),
        ("x.npy", "2 inputs"),
        ("pointer.npz", "is a git-lfs pointer, not the file"),
    ],
)
def test_unusable_places(place: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "pointer.npz").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "inputs.csv").write_text("1,2")
    np.save(tmp_path / "x.npy", _rows(1))
    with pytest.raises(InputsError, match=message) as caught:
        load_inputs(tmp_path / place, (X, IDS))
    assert caught.value.hint


@pytest.mark.parametrize(("change", "there"), [(lambda data: data[:-1], 23), (lambda data: data + b"\0", 25)])
def test_a_header_is_believed_only_when_its_bytes_are_there(
    change: Callable[[bytes], bytes], there: int, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", _rows(2))
    (tmp_path / "x.npy").write_bytes(change((tmp_path / "x.npy").read_bytes()))

    with pytest.raises(InputsError, match=rf"x\.npy: shape 2x3 of float32 needs 24 bytes, but {there} are there"):
        load_inputs(tmp_path / "x.npy", (X,))


def test_damaged_npz_is_one_error(tmp_path: Path) -> None:
    """Every truncation and 200 seeded byte flips give an InputSet or an InputsError, never anything else."""
    np.savez_compressed(tmp_path / "sound.npz", x=_rows(4))
    sound = (tmp_path / "sound.npz").read_bytes()
    rng = np.random.default_rng(3)
    refused = 0
    for i in range(300):
        data = bytearray(sound)
        data[int(rng.integers(len(data)))] ^= int(rng.integers(1, 256))
        (tmp_path / "bad.npz").write_bytes(data if i < 200 else sound[: int(rng.integers(len(sound)))])
        try:
            load_inputs(tmp_path / "bad.npz", (X,))
        except InputsError:
            refused += 1
    assert refused > 100


# Types.


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (np.array([1, -2], np.int32), "int64"),
        (np.array([1, 2], np.int64), "int32"),
        (np.array([1, 2], np.uint8), "int8"),
        (np.array([1.5, 2], np.float16), "float32"),
        (np.array([1.5, np.nan]), "float32"),
        (np.array([1.5, 2], ">f4"), "float32"),
        (np.array([1.5, 2], np.float32), "bfloat16"),
        (np.array([1, -2], np.int8), "int4"),
    ],
)
def test_lossless_conversions(array: np.ndarray, wanted: str) -> None:
    converted, note = fit_dtype(array, TensorSpec("x", wanted, (2,)), "x")
    assert converted.dtype.name == wanted
    np.testing.assert_array_equal(converted.astype(np.float64), array.astype(np.float64))
    assert (note is None) == (array.dtype.newbyteorder("=").name == wanted)


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (np.array([0.1]), "float32"),
        (np.array([1e300]), "float32"),
        (np.array([2**40]), "int32"),
        (np.array([-1]), "uint64"),
        (np.array([2**63], np.uint64), "int64"),
        (np.array([200], np.uint8), "int8"),
        (np.array([1], np.uint8), "float32"),
        (np.array([1.0]), "int64"),
        (np.array([True]), "int64"),
        (np.array([0.1], np.float32), "bfloat16"),
        (np.array([9], np.int8), "int4"),
    ],
)
def test_lossy_conversions_are_refused(array: np.ndarray, wanted: str) -> None:
    with pytest.raises(InputsError, match=f"is {array.dtype}, but the model wants {wanted}"):
        fit_dtype(array, TensorSpec("x", wanted, (1,)), "x")


# Rows to samples.


@given(count=st.integers(1, 40), batch=st.integers(1, 12), limit=st.none() | st.integers(0, 5))
def test_every_row_comes_once_and_in_order(count: int, batch: int, limit: int | None) -> None:
    """ceil(N / B) batches of exactly B; the real rows are all rows in order; the filling repeats the first rows."""
    inputs = InputSet(({"x": _rows(count)},), "a", labels=np.arange(count))
    samples = inputs.samples({"x": (batch, 3)}, limit=limit)
    wanted = -(-count // batch)
    assert len(samples) == (wanted if limit is None else min(limit, wanted))
    assert all(s.feeds["x"].shape == (batch, 3) and s.batch == batch for s in samples)
    if limit is None:
        real = np.concatenate([s.feeds["x"][: s.rows] for s in samples])
        np.testing.assert_array_equal(real, _rows(count))
        assert np.concatenate([s.labels for s in samples]).tolist() == list(range(count))
        tail = samples[-1]
        filling = [int(v) // 3 for v in tail.feeds["x"][tail.rows :, 0]]
        assert filling == [i % count for i in range(len(filling))]


def test_cut_drops_the_filling_only() -> None:
    (sample,) = InputSet(({"x": _rows(3)},), "a").samples({"x": (4, 3)})
    outputs = {"scores": np.zeros((4, 9)), "total": np.zeros(7), "scalar": np.zeros(())}
    assert {k: v.shape for k, v in sample.cut(outputs).items()} == {"scores": (3, 9), "total": (7,), "scalar": ()}
    (whole,) = InputSet(({"x": _rows(4)},), "a").samples({"x": (4, 3)})
    assert whole.cut(outputs)["scores"].shape == (4, 9)


def test_full_batches_are_views() -> None:
    rows = _rows(8)
    first, second = InputSet(({"x": rows},), "a").samples({"x": (4, 3)})
    assert np.shares_memory(first.feeds["x"], rows)
    assert np.shares_memory(second.feeds["x"], rows)


def test_stacked_samples_without_a_batch_axis() -> None:
    stack = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    inputs = InputSet(({"x": stack, "s": np.arange(4)},), "a", expected=({"y": np.arange(4)},), labels=np.arange(4))
    samples = inputs.samples({"x": (2, 3), "s": ()})
    assert [s.feeds["s"].shape for s in samples] == [()] * 4
    np.testing.assert_array_equal(samples[2].feeds["x"], stack[2])
    assert samples[2].expected is not None
    assert (samples[2].expected["y"], samples[2].expected["y"].shape) == (2, ())
    assert samples[2].labels.tolist() == [2]  # type: ignore[union-attr]


def test_exact_shapes_are_one_sample_whatever_the_axes_mean() -> None:
    feeds = {"x": _rows(5), "mask": np.ones((2, 7))}
    (sample,) = InputSet((feeds,), "a").samples({"x": (5, 3), "mask": (2, 7)})
    assert (sample.rows, sample.batch) == (1, 1)
    np.testing.assert_array_equal(sample.cut({"y": np.zeros((9, 2))})["y"], np.zeros((9, 2)))


def test_sets_that_do_not_fit_are_left_out_and_named() -> None:
    inputs = InputSet(({"x": _rows(2)}, {"x": np.ones((2, 5), np.float32)}), "sets", titles=("s0", "s1"))
    assert [s.origin for s in inputs.samples({"x": (2, 3)})] == ["s0"]
    assert inputs.left_out({"x": (2, 3)}) == ("s1",)
    assert [s.origin for s in inputs.samples({"x": (2, 5)})] == ["s1"]


@pytest.mark.parametrize(
    ("feeds", "shapes", "message"),
    [
        ({"x": _rows(4)}, {"x": (4, 5)}, "input 'x' is 4x3, but the profile asks for 4x5"),
        ({"x": _rows(4)}, {"x": (2, 4, 5)}, "input 'x' is 4x3, but the profile asks for 2x4x5"),
        ({"x": _rows(4), "m": _rows(3)}, {"x": (2, 3), "m": (2, 3)}, "the same rows: 'x' 4x3 for 2x3, 'm' 3x3 for 2x3"),
        ({"x": _rows(4), "m": _rows(4)}, {"x": (2, 3), "m": (3, 3)}, "the same rows"),
        ({"x": _rows(0)}, {"x": (2, 3)}, "input 'x' has no rows"),
        ({"x": np.float32(1)}, {"x": (1,)}, "input 'x' is scalar"),
        ({}, {"x": (1,)}, "no array for input 'x'"),
    ],
)
def test_misfits_name_the_input_and_both_shapes(feeds: dict, shapes: dict, message: str) -> None:
    with pytest.raises(InputsError, match=message) as caught:
        InputSet((feeds,), "a").samples(shapes)
    assert caught.value.hint


def test_stored_outputs_need_one_set_per_set() -> None:
    with pytest.raises(InputsError, match="2 sets of stored outputs, but 1 of inputs"):
        InputSet(({"x": _rows(1)},), "a").with_expected(({}, {}))


# Synthetic inputs.


def test_synthetic_inputs_depend_on_seed_and_name_only() -> None:
    shapes = {"x": (4, 3), "ids": (4,)}
    both = synthetic_inputs((X, IDS), shapes, ranges={"ids": (0, 999)})
    swapped = synthetic_inputs((IDS, X), shapes, ranges={"ids": (0, 999)})
    alone = synthetic_inputs((X,), {"x": (4, 3)}, count=3)
    np.testing.assert_array_equal(both.sets[0]["x"], swapped.sets[0]["x"])
    np.testing.assert_array_equal(both.sets[0]["ids"], swapped.sets[0]["ids"])
    np.testing.assert_array_equal(both.sets[0]["x"], alone.sets[0]["x"])
    assert both.fingerprint == swapped.fingerprint
    assert len({s["x"].tobytes() for s in alone.sets}) == 3
    assert synthetic_inputs((X,), shapes, seed=1).fingerprint != synthetic_inputs((X,), shapes).fingerprint


def test_synthetic_inputs_say_so() -> None:
    inputs = synthetic_inputs((X, IDS), {"x": (4, 3), "ids": (4,)}, seed=7)
    assert inputs.synthetic
    assert inputs.origin == "synthetic seed 7"
    assert inputs.notes == ("input 'ids' (int64) is zeros and ones: no range is given for it",)
    assert synthetic_inputs((IDS,), {"ids": (4,)}, ranges={"ids": (0, 9)}).notes == ()


def test_synthetic_values_follow_their_distribution() -> None:
    normal = synthetic_inputs((X,), {"x": (4000, 3)}).sets[0]["x"]
    assert normal.dtype == np.float32
    assert abs(float(normal.mean())) < 0.05
    assert abs(float(normal.std()) - 1) < 0.05
    uniform = synthetic_inputs((X,), {"x": (4000, 3)}, ranges={"x": (2, 4)}).sets[0]["x"]
    assert 2 <= uniform.min() < 2.01
    assert 3.99 < uniform.max() <= 4
    ids = synthetic_inputs((IDS,), {"ids": (4000,)}, ranges={"ids": (-3, 3)}).sets[0]["ids"]
    assert sorted(set(ids.tolist())) == [-3, -2, -1, 0, 1, 2, 3]
    default = synthetic_inputs((IDS,), {"ids": (4000,)}).sets[0]["ids"]
    assert sorted(set(default.tolist())) == [0, 1]


@pytest.mark.parametrize(
    "dtype",
    ["float16", "bfloat16", "float64", "float8e4m3fn", "int8", "uint8", "int32", "uint64", "bool", "int4", "complex64"],
)
def test_synthetic_inputs_of_every_type(dtype: str) -> None:
    inputs = synthetic_inputs((TensorSpec("x", dtype, (50,)),), {"x": (50,)})
    (sample,) = inputs.samples({"x": (50,)})
    assert sample.feeds["x"].shape == (50,)
    assert fit_dtype(sample.feeds["x"], TensorSpec("x", dtype, (50,)), "x")[1] is None
    assert len(set(map(str, sample.feeds["x"].tolist()))) > 1


@pytest.mark.parametrize(
    ("spec", "shape", "ranges", "message"),
    [
        (X, (2, 3), {"z": (0, 1)}, "no input of the model"),
        (X, (2, 3), {"x": (1, 0)}, "no interval"),
        (X, (2, 3), {"x": (0, np.inf)}, "no interval"),
        (IDS, (2,), {"ids": (0, 1.5)}, "not made of integers"),
        (TensorSpec("x", "uint8", (2,)), (2,), {"x": (-1, 5)}, "does not fit the type"),
        (TensorSpec("x", "float16", (2,)), (2,), {"x": (0, 1e6)}, "does not fit the type"),
        (TensorSpec("x", "bool", (2,)), (2,), {"x": (0, 1)}, "takes no range"),
        (TensorSpec("x", "string", (2,)), (2,), {}, "cannot be fed"),
        (X, (2**40, 2**22), {}, "more than memory holds"),
        (X, (-1, 3), {}, "cannot have shape"),
    ],
)
def test_synthetic_inputs_refuse(spec: TensorSpec, shape: tuple, ranges: dict, message: str) -> None:
    with pytest.raises(InputsError, match=message) as caught:
        synthetic_inputs((spec,), {spec.name: shape}, ranges=ranges)
    assert caught.value.hint


def test_synthetic_inputs_need_every_shape() -> None:
    with pytest.raises(InputsError, match="no shape is given for input 'ids'"):
        synthetic_inputs((X, IDS), {"x": (1, 3)})
