"""Precision floors: measured without an engine, cached, put in for multiples; and the tolerances that inputs earn."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from project import write_model

from pytest_trt.accuracy.comparison import compare
from pytest_trt.accuracy.floors import RESOLUTION, Evidence, Floor, Measured, floor_of, greater, resolve
from pytest_trt.accuracy.measurement import measure
from pytest_trt.accuracy.tolerance import ToleranceSet, default_tolerance, parse_tolerance
from pytest_trt.artifacts.float64_reference import float64_model, obtain_float64_reference
from pytest_trt.artifacts.store import NullStore
from pytest_trt.cli import main
from pytest_trt.errors import AccuracyFailure, UnsupportedError, UsageError
from pytest_trt.lab import Lab
from pytest_trt.lab.floors import measure_floors, propose
from pytest_trt.latency.student import t_quantile
from pytest_trt.settings import Settings
from pytest_trt.spec.inputs import Sample
from pytest_trt.spec.model import Model

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def metrics_of(error: float, scale: float = 2.0, count: int = 1000):
    """Metrics of a wave of rms *scale*, off by *error* everywhere."""
    expected = scale * math.sqrt(2) * np.sin(np.arange(count))
    return measure(expected + error, expected, rtol=None, atol=None)


@pytest.fixture
def lab(tmp_path: Path):
    """A Lab over a small model, fp16 on the CPU."""

    def make(manifest: str = "", **settings) -> Lab:
        folder = tmp_path / "tiny"
        if not folder.exists():
            write_model(folder)
            with (folder / "trt.toml").open("a") as stream:
                stream.write(manifest)
        asked = {"backend": ("onnxruntime-cpu",), "precision": ("fp16",), "profile": ("b8",), **settings}
        return Lab(Settings(cache_dir=tmp_path / "cache", **asked), tmp_path)

    return make


def case_of(lab: Lab):
    (case,) = lab.cases(lab.add("tiny"))
    return case


def model(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray] | None = None, shape=(2, 8)) -> Model:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    proto = helper.make_model(graph, opset_imports=imports, ir_version=8)
    return Model.from_proto(proto, "m")


# Floors


def test_a_floor_is_in_units_of_the_outputs_scale():
    floor = floor_of([metrics_of(0.002), metrics_of(0.05, scale=50.0)], "s")

    assert floor is not None
    assert floor.peak == pytest.approx(0.001, rel=1e-3)  # the worse sample's: 0.002 of 2
    assert floor.samples == 2
    assert floor.snr_db == pytest.approx(60, abs=0.1)  # 0.05 of 50 is 0.002 of 2, at the scale of both


def test_a_floor_is_never_finer_than_float32():
    exact = floor_of([metrics_of(0.0)], "s")

    assert exact is not None
    assert exact.noise == RESOLUTION
    assert exact.peak == pytest.approx(RESOLUTION * math.sqrt(2), rel=1e-3)


@pytest.mark.parametrize("values", [np.arange(4), np.array([True, False]), np.zeros(3), np.array([np.nan])])
def test_integers_and_nothing_have_no_floor(values: np.ndarray):
    assert floor_of([measure(values, values, rtol=None, atol=None, allow_nonfinite=True)], "s") is None


def test_of_two_floors_each_quantity_counts_where_it_is_greater():
    found = greater([Floor(3e-3, 1e-4, "peaks", 4), None, Floor(1e-3, 2e-4, "noise", 9)])

    assert found == Floor(3e-3, 2e-4, "noise", 9)
    assert greater([None, None]) is None


# Multiples of it


def limits_of(text: str, precision: str = "fp16") -> ToleranceSet:
    return ToleranceSet(default_tolerance(precision)).merged(parse_tolerance(text), "--trt-tolerance")


def test_a_multiple_becomes_limits_that_say_where_they_come_from():
    limit = resolve(limits_of("floor=3"), {"y": Floor(1e-3, 1e-4, "fp16 in ONNX Runtime", 8)}).of("y")

    assert (limit.rtol, limit.atol_scale, limit.cosine, limit.floor) == (0.0, pytest.approx(3e-3), None, None)
    assert limit.snr_db == pytest.approx(80 - 20 * math.log10(3))
    assert limit.describe_origin() == (
        "rtol, atol, atol_scale, snr_db from 3 × floor (peak 0.001 × rms, 80 dB: fp16 in ONNX Runtime), --trt-tolerance"
    )


@pytest.mark.parametrize(("factor", "ok"), [(2.9, True), (3.1, False)])
def test_an_engine_may_be_off_by_the_multiple_and_not_more(factor: float, ok: bool):
    rng = np.random.default_rng(0)
    expected, error = rng.standard_normal(4096), 1e-4 * rng.standard_normal(4096)
    floor = floor_of([measure(expected + error, expected, rtol=None, atol=None)], "s")

    found = compare(
        {"y": expected + factor * error}, {"y": expected}, tolerance=resolve(limits_of("floor=3"), {"y": floor})
    )

    assert found.ok is ok


def test_what_is_given_beside_a_multiple_stays():
    limit = resolve(limits_of("floor=3,cosine=0.9,snr_db=20"), {"y": Floor(1e-3, 1e-4, "s", 8)}).of("y")

    assert (limit.cosine, limit.snr_db) == (0.9, 20)


def test_a_later_limit_takes_the_place_of_a_multiple_and_the_other_way_round():
    first = limits_of("floor=3").merged({"rtol": 1e-3, "atol": 1e-4}, "marker")
    second = limits_of("rtol=1e-3,atol=1e-4").merged({"floor": 2}, "marker")

    assert (first.default.floor, first.default.rtol) == (None, 1e-3)
    assert (second.default.floor, second.default.rtol) == (2, None)


def test_one_output_may_have_a_multiple_and_another_its_own_limit():
    limits = resolve(limits_of("a:floor=3,rtol=1e-2,atol=1e-2"), {"a": Floor(1e-3, 1e-4, "s", 8), "b": None})

    assert limits.of("a").atol_scale == pytest.approx(3e-3)
    assert (limits.of("b").rtol, limits.of("b").atol_scale) == (1e-2, 0.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("floor=3,rtol=1e-2,atol=1e-2", "floor takes the place of rtol, atol and atol_scale"),
        ("floor=0", "floor must be a multiple above 0, not 0.0"),
        ("floor=inf", "floor must be a finite number"),
    ],
)
def test_what_a_multiple_cannot_be(text: str, said: str):
    with pytest.raises(UsageError, match=said):
        limits_of(text)


def test_nothing_is_compared_with_a_multiple_that_was_not_measured():
    with pytest.raises(UsageError, match="a multiple of the floor was not measured"):
        compare({"y": [1.0]}, {"y": [1.0]}, tolerance=limits_of("floor=3"))


# Float64


def sample(array: np.ndarray) -> Sample:
    return Sample({"x": array}, len(array), len(array), "test")


def evaluate(of: Model, array: np.ndarray) -> np.ndarray:
    return obtain_float64_reference(NullStore(), of, [sample(array)], "f").outputs[0]["y"]


def test_float64_shows_what_float32_loses():
    """(x + 1e8) - 1e8 is x in float64, and 0 or 8 in float32."""
    big = {"big": np.asarray(1e8, np.float32)}
    nodes = [helper.make_node("Add", ["x", "big"], ["a"]), helper.make_node("Sub", ["a", "big"], ["y"])]
    values = np.full((2, 8), 0.3, np.float32)

    found = evaluate(model(nodes, big), values)

    assert found.dtype == np.float64
    np.testing.assert_allclose(found, values.astype(np.float64), atol=1e-7)


def test_constants_casts_and_subgraphs_are_widened():
    """x + c (a Constant), through Cast to float32, and an If whose branch holds float32 constants."""
    third = 1 / 3
    branch = [helper.make_node("Constant", [], ["k"], value_float=1.0), helper.make_node("Add", ["a", "k"], ["b"])]
    out = [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)]
    nodes = [
        helper.make_node("Constant", [], ["c"], value_floats=[1e8]),
        helper.make_node("Add", ["x", "c"], ["s"]),
        helper.make_node("Cast", ["s"], ["t"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["t", "c"], ["a"]),
        helper.make_node("If", ["yes"], ["y"], then_branch=helper.make_graph(branch, "then", [], out),
                         else_branch=helper.make_graph(branch, "else", [], out)),
    ]  # fmt: skip

    found = evaluate(model(nodes, {"yes": np.asarray(True)}), np.full((2, 8), third, np.float32))

    np.testing.assert_allclose(found, np.float64(np.float32(third)) + 1, atol=1e-7)


def test_the_models_own_graph_is_not_changed():
    untouched = model([helper.make_node("Add", ["x", "w"], ["y"])], {"w": np.ones(8, np.float32)})
    before = untouched.proto.SerializeToString()

    wide = float64_model(untouched.proto)

    assert untouched.proto.SerializeToString() == before
    assert wide.graph.initializer[0].data_type == wide.graph.input[0].type.tensor_type.elem_type == TensorProto.DOUBLE


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([helper.make_node("RandomNormalLike", ["x"], ["y"])], "RandomNormalLike draws at random"),
        ([helper.make_node("Foo", ["x"], ["y"], domain="com.example")], "onnx.reference says"),
        ([helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
          helper.make_node("Cast", ["h"], ["y"], to=TensorProto.FLOAT)], "the model has float16 already"),
    ],
)  # fmt: skip
def test_what_has_no_float64_form_is_refused_by_name(nodes: list[onnx.NodeProto], said: str):
    with pytest.raises(UnsupportedError, match=said):
        evaluate(model(nodes), np.ones((2, 8), np.float32))


def test_an_operator_that_falls_back_to_float32_is_named(monkeypatch: pytest.MonkeyPatch):
    from onnx.reference.ops.op_concat import Concat

    monkeypatch.setattr(Concat, "_run", lambda self, *args, axis=None: (args[0].astype(np.float32),))
    nodes = [helper.make_node("Concat", ["x"], ["y"], name="joined", axis=0)]

    with pytest.raises(UnsupportedError, match=r"computes node 'joined' \(Concat\) in float32"):
        evaluate(model(nodes), np.ones((2, 8), np.float32))


# In the lab


def test_both_floors_are_measured_without_an_engine_and_once(lab):
    with lab() as first:
        case = case_of(first)
        floors = measure_floors(first, case)
    said: list[str] = []
    with lab() as again:
        again.progress = said.append
        assert measure_floors(again, case_of(again)) == floors

    conditioning, precision = floors.conditioning["y"], floors.precision["y"]
    assert conditioning is not None
    assert precision is not None
    assert 20 < precision.noise / conditioning.noise < 1e5  # float16 keeps 13 bits fewer
    assert precision.source == "fp16 in ONNX Runtime"
    assert said == []  # all of it was cached


def test_a_multiple_in_the_manifest_judges_by_the_measured_floor(lab):
    with lab("[tolerance.fp16]\nfloor = 2.0\n", backend=("fake",), fake="error=0") as good:
        case = case_of(good)
        found = good.check(case, good.record(case))
    with lab(backend=("fake",), fake="error=0.01") as bad:
        case = case_of(bad)
        with pytest.raises(AccuracyFailure, match=r"2 × floor \(peak .*: fp16 in ONNX Runtime\), \[tolerance.fp16\]"):
            bad.check(case, bad.record(case))

    assert found.outputs[0].tolerance.floor is None
    assert 0 < found.outputs[0].tolerance.atol_scale < 0.02  # tighter than the default


def test_a_precision_that_the_cpu_lacks_has_no_floor(lab):
    with lab(precision=("tf32",), backend=("fake",)) as one, pytest.raises(UnsupportedError, match="no tf32"):
        measure_floors(one, case_of(one))


# Earned tolerances


@pytest.mark.parametrize(("count", "by_spread"), [(20, True), (200, False)])
def test_a_limit_lies_where_the_spread_says_and_beyond_the_worst_seen(count: int, by_spread: bool):
    logs = np.random.default_rng(1).normal(-7, 1.0, count)
    one = Evidence("y", tuple(Measured(v, v, v) for v in np.exp(logs).tolist()))
    quantile = t_quantile(0.999, count - 1)

    bound = one.bound("noise", quantile)

    # Where the next value of a normal distribution stays, of which as many were seen.
    spread = math.exp(logs.mean() + quantile * logs.std(ddof=1) * math.sqrt(1 + 1 / count))
    worst = 1.5 * math.exp(logs.max())
    assert bound == pytest.approx(spread if by_spread else worst)
    assert bound == pytest.approx(max(spread, worst))


def test_few_samples_earn_a_wider_limit_and_no_limit_is_below_the_floor():
    few = Evidence("y", (Measured(1e-3, 1e-6, 1e-4),) * 3)
    held = Evidence("y", (Measured(1e-6, 1e-12, 1e-7),) * 3, Floor(1e-3, 1e-3, "s", 3))

    assert few.bound("element", 3.0) == pytest.approx(3e-3)
    assert held.bound("noise", 3.0) == pytest.approx(1.5e-3)


@pytest.mark.parametrize(
    ("dtype", "resolution"),
    [("float64", RESOLUTION), ("float32", RESOLUTION), ("float16", 2.0**-11), ("bfloat16", 2.0**-8)],
)
def test_no_limit_is_finer_than_the_type_of_the_output(dtype: str, resolution: float):
    """Equal outputs on one machine are luck: half a unit in the last place is what rounding alone makes."""
    array = np.linspace(1, 2, 100).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    measured = Measured.of(array, array.astype(np.float32))

    assert measured is not None
    assert measured.resolution == resolution
    assert Evidence("y", (measured,) * 3).bound("noise", 3.0) == pytest.approx(3 * resolution)


def test_limits_are_rounded_outwards():
    limits = Evidence("y", (Measured(1.234e-3, 1.234e-6, 1e-3),) * 3).limits(3.0, elementwise=True)

    assert limits == {"rtol": "0.0038", "atol": "1e-07", "atol_scale": "0.0038", "cosine": "0.9999962", "snr_db": "50"}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_what_is_proposed_can_be_pasted_and_holds(lab, tmp_path: Path, precision: str):
    with lab(precision=(precision,)) as one:
        found = propose(one, [case_of(one)])
    table = tomllib.loads(found.toml)["tolerance"][precision]
    assert re.search(r"^snr_db = \S+  # rms of difference / rms: median \S+, worst \S+$", found.toml, re.MULTILINE)
    with (tmp_path / "tiny" / "trt.toml").open("a") as stream:
        stream.write(f"\n{found.toml}\n")
    with lab(precision=(precision,)) as again:
        case = case_of(again)
        assert again.check(case, again.record(case)).ok
        assert again.tolerance(case).default.snr_db == table["snr_db"]

    assert ("rtol" in table) == (precision != "int8")
    assert "inputs file inputs.npz (real)" in found.lines[0]
    assert "|difference|" in "\n".join(found.lines)


def test_the_shell_proposes_for_all_profiles_at_once(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    write_model(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)

    code = main(["tolerances", "tiny", "--precision=fp16,tf32", "--backend=onnxruntime-cpu", "--cache-dir=cache"])
    out = capsys.readouterr().out

    assert code == 0
    assert "tiny fp16 on onnxruntime-cpu (simulated): 18 samples at b1, b8" in out
    assert out.count("[tolerance.fp16]") == 1
    assert "skipped: ONNX Runtime's CPU provider has no tf32" in out


def test_what_is_looser_than_the_default_is_said(lab, tmp_path: Path):
    with lab(precision=("int8",), backend=("fake",)) as one:
        assert "looser" not in "\n".join(propose(one, [case_of(one)]).lines)
    with lab(precision=("int8",), backend=("fake",), fake="error=0.9") as one:
        told = "\n".join(propose(one, [case_of(one)]).lines)

    assert "  looser than the default of int8: snr_db" in told
    assert "pytest-trt bisect" in told


def one_model(folder: Path, nodes: list[onnx.NodeProto], **weights: np.ndarray) -> None:
    """A model folder with one profile, x of shape 2x8."""
    folder.mkdir()
    onnx.save(model(nodes, weights).proto, folder / "model.onnx")


def test_an_operator_that_float64_evaluates_to_another_shape_leaves_the_conditioning_unknown(
    lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def flat(*given, **named):
        found = obtain_float64_reference(*given, **named)
        return replace(found, outputs=tuple({n: a.reshape(-1) for n, a in row.items()} for row in found.outputs))

    monkeypatch.setattr("pytest_trt.artifacts.float64_reference.obtain_float64_reference", flat)
    with lab("[tolerance.fp16]\nfloor = 2.0\n") as one:
        case = case_of(one)
        floors = measure_floors(one, case)
        assert one.check(case, one.record(case)).ok

    assert floors.conditioning == {"y": None}
    assert floors.precision["y"] is not None
    (note,) = floors.notes
    assert note.startswith("conditioning is unknown: output 'y' of ")
    assert "cannot be measured element by element" in note


def test_nothing_finite_is_not_called_an_integer(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    nodes = [helper.make_node("Log", ["c"], ["l"]), helper.make_node("Mul", ["x", "l"], ["y"])]
    one_model(tmp_path / "nan", nodes, c=np.float32(-1))
    monkeypatch.chdir(tmp_path)

    assert main(["tolerances", "nan", "--precision=fp16", "--backend=onnxruntime-cpu", "--cache-dir=cache"]) == 4
    assert "skipped: no output holds a finite float that is not 0" in capsys.readouterr().out


def test_no_tolerance_is_proposed_for_another_shape(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    """float16 rounds 1 + 1e-4 to 1, which is not above it."""
    nodes = [
        helper.make_node("Add", ["x", "small"], ["a"]),
        helper.make_node("Greater", ["a", "one"], ["c"]),
        helper.make_node("Compress", ["a", "c"], ["y"]),
    ]
    folder = tmp_path / "net"
    one_model(folder, nodes, small=np.float32(1e-4), one=np.float32(1))
    np.savez(folder / "inputs.npz", x=np.ones((2, 8), np.float32))
    (folder / "trt.toml").write_text('[inputs]\nfile = "inputs.npz"\n')
    monkeypatch.chdir(tmp_path)

    assert main(["tolerances", "net", "--precision=fp16", "--backend=onnxruntime-cpu", "--cache-dir=cache"]) == 1
    out = capsys.readouterr().out
    assert 'FAILED net[fp16, default, onnxruntime-cpu]: output "y" has shape (0,), the reference has (16,)' in out


def test_no_tolerance_is_proposed_for_nan_and_other_models_follow(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    write_model(tmp_path / "tiny")
    write_model(tmp_path / "hot")
    np.savez(
        tmp_path / "hot" / "inputs.npz",
        **{n: a * np.float32(1e6) for n, a in np.load(tmp_path / "hot" / "inputs.npz").items()},
    )
    monkeypatch.chdir(tmp_path)

    code = main(["tolerances", "hot", "tiny", "--precision=fp16", "--backend=onnxruntime-cpu", "--cache-dir=cache"])
    out = capsys.readouterr().out

    assert code == 1
    assert "FAILED hot[fp16" in out
    assert "no tolerance allows that" in out
    assert out.count("[tolerance.fp16]") == 1
