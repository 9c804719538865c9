"""Which stage is guilty: shares of invented outputs, then planted faults in cases of a Lab."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from planted import break_recipes, corrupt_tiny
from project import write_model

from pytest_trt.accuracy import Comparison, Tolerance, compare
from pytest_trt.diagnosis.attribution import Attribution, Culprit, Measured, attribute
from pytest_trt.diagnosis.hunt import explain
from pytest_trt.diagnosis.present import attribution_lines, explanation_lines
from pytest_trt.diagnosis.stages import Subject, attribute_case
from pytest_trt.lab import Lab
from pytest_trt.settings import Settings

# --- shares of invented outputs ---

EXPECTED = [{"y": np.full(1000, 10.0)}, {"y": np.full(1000, 10.0)}]
RNG = np.random.default_rng(0)
NOISE = {name: RNG.standard_normal((2, 1000)) for name in ("conversion", "parser", "fusion", "lottery", "run-to-run")}


def outputs(**sizes: float) -> list[dict[str, np.ndarray]]:
    """The reference plus independent noise of these sizes."""
    return [
        {"y": EXPECTED[i]["y"] + sum(size * NOISE[name.replace("_", "-")][i] for name, size in sizes.items())}
        for i in range(2)
    ]


def measured(word: Culprit, rows: Sequence[dict[str, np.ndarray]], atol: float = 0.5) -> Measured:
    limits = Tolerance(rtol=0.0, atol=atol)
    found = [compare(a, e, tolerance=limits, allow_nonfinite=False) for a, e in zip(rows, EXPECTED, strict=True)]
    return Measured(word, f"the {word} stage", rows, Comparison.merge(found))


def chain(run: float = 0.0, lottery: float = 0.0, **steps: float) -> Attribution:
    """All stages; each step adds the noise of its own name to what came before."""
    given, rows = {}, [measured("reference", EXPECTED)]
    for word in ("conversion", "parser", "fusion"):
        given[word] = steps.get(word, 0.0)
        rows.append(measured(word, outputs(**given)))
    rows.append(measured("lottery", outputs(**given, lottery=lottery)))
    rows.append(measured("run-to-run", outputs(**given, run_to_run=run)))
    return attribute(rows, EXPECTED)


@pytest.mark.parametrize("word", ["conversion", "parser", "fusion"])
def test_the_step_that_adds_the_most_is_guilty(word: Culprit):
    steps = {"conversion": 0.1, "parser": 0.1, "fusion": 0.1} | {word: 1.0}
    found = chain(**steps)

    assert found.culprit == word
    assert found.share == pytest.approx(1 / 1.02, abs=0.01)
    assert [s.share for s in found.stages] == pytest.approx(
        [0, *(steps[w] ** 2 / 1.02 for w in ("conversion", "parser", "fusion")), 0, 0], abs=0.01
    )
    assert sum(s.share or 0 for s in found.stages) == pytest.approx(1)


def test_outputs_of_another_shape_are_no_infinity():
    flat = [{"y": row["y"].reshape(10, 100)} for row in outputs(conversion=0.1)]
    rows = [measured("reference", EXPECTED), measured("conversion", outputs(conversion=0.1)), measured("fusion", flat)]
    found = attribute([*rows, measured("run-to-run", flat)], EXPECTED)

    assert (found.culprit, found.share) == ("fusion", 1)
    assert [stage.comparable for stage in found.stages] == [True, True, False, False]
    _, _, _, conversion, fusion, run, *_ = attribution_lines(found)
    assert "n/a" not in conversion
    said = 'n/a n/a 100% not close ("y" has shape (10, 100), the reference has (1000,))'
    assert " ".join(fusion.split()).endswith(said)
    assert run.split()[-5:] == ["n/a", "0", "0%", "not", "close"]


def test_errors_and_what_is_added_are_relative_to_the_reference():
    found = chain(conversion=0.3, fusion=0.4)

    by_word = {stage.word: stage for stage in found.stages}
    assert by_word["conversion"].error == pytest.approx(0.03, rel=0.1)
    assert by_word["fusion"].added == pytest.approx(0.04, rel=0.1)
    assert by_word["fusion"].error == pytest.approx(0.05, rel=0.1)
    assert by_word["parser"].added == 0


@pytest.mark.parametrize(("moved", "culprit"), [(2.0, "rounding"), (0.1, "fusion")])
def test_what_another_order_of_sums_explains_is_nobodys_fault(moved: float, culprit: str):
    """Nothing before the engine adds any error, and the tolerance is tighter than what the sums make of the model."""
    typed = replace(measured("conversion", outputs()), reordered=outputs(parser=moved))
    found = attribute([measured("reference", EXPECTED), typed, measured("fusion", outputs(fusion=1.0))], EXPECTED)

    assert found.culprit == culprit
    advice = next(line for line in attribution_lines(found) if line.startswith("  next "))
    assert ("no fault: " in advice) == (culprit == "rounding")


def test_builds_that_differ_as_much_as_fusion_does_are_the_lottery():
    found = chain(lottery=2.0, fusion=1.0)
    assert found.culprit == "lottery"
    assert found.stage("fusion").share == 0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("skipped", "words"),
    [
        ((), "fusion"),
        (("parser",), "parser or fusion"),
        (("conversion", "parser"), "conversion or parser or fusion"),
        (("conversion",), "fusion"),
    ],
)
def test_a_step_that_was_not_run_is_a_suspect_with_the_next_one(skipped: tuple[Culprit, ...], words: str):
    given = {"conversion": 0.1, "parser": 0.1, "fusion": 1.0}
    steps = [measured(word, outputs(**dict(itertools.islice(given.items(), i + 1)))) for i, word in enumerate(given)]
    rows = [Measured(m.word, m.title, note="not run") if m.word in skipped else m for m in steps]
    found = attribute([measured("reference", EXPECTED), *rows], EXPECTED)

    assert found.culprit == "fusion"
    assert any(line.startswith(f"  culprit      {words}, ") for line in attribution_lines(found))
    assert " or ".join(found.to_json()["suspects"]) == words


def test_builds_that_add_up_in_another_order_are_no_lottery():
    typed = replace(measured("conversion", outputs()), reordered=outputs(parser=2.0))
    engine = measured("fusion", outputs(fusion=1.0))
    found = attribute([typed, engine, measured("lottery", outputs(fusion=1.0, lottery=1.0))], EXPECTED)

    assert found.culprit == "rounding"
    assert found.stage("lottery").share == 0  # type: ignore[union-attr]


def test_the_stage_in_which_nan_begins_has_it_whatever_later_ones_do():
    def broken(rows: list[dict[str, np.ndarray]], at: int) -> list[dict[str, np.ndarray]]:
        rows[0]["y"][at] = np.nan
        return rows

    rows = [
        measured("conversion", broken(outputs(), 3)),
        measured("parser", broken(outputs(), 3)),
        measured("fusion", broken(outputs(), 7)),
    ]
    found = attribute(rows, EXPECTED)

    assert found.culprit == "conversion"
    assert [s.share for s in found.stages] == [1, 0, 0]


def test_runs_that_differ_explain_what_builds_and_steps_seem_to_add():
    rows = [
        measured("reference", EXPECTED),
        measured("fusion", outputs(run_to_run=1.0)),
        measured("lottery", outputs(fusion=1.0)),
        measured("run-to-run", outputs(parser=1.0)),
    ]
    found = attribute(rows, EXPECTED)

    assert found.culprit == "run-to-run"
    assert found.share > 0.9


def test_an_error_that_the_next_step_cancels_is_still_seen():
    rows = [
        measured("reference", EXPECTED),
        measured("conversion", outputs(conversion=2.0)),
        measured("fusion", outputs(conversion=0.1)),
    ]
    found = attribute(rows, EXPECTED)

    assert found.culprit == "none"  # the engine is close, whatever the stages before it were
    assert [s.ok for s in found.stages] == [True, False, True]
    assert [s.share for s in found.stages] == pytest.approx([0, 4 / (4 + 1.9**2), 1.9**2 / (4 + 1.9**2)], abs=1e-6)


def test_where_nan_begins_is_guilty():
    bad = outputs(conversion=0.1)
    bad[1]["y"][7] = np.nan
    found = attribute(
        [measured("reference", EXPECTED), measured("conversion", outputs(conversion=3.0)), measured("fusion", bad)],
        EXPECTED,
    )

    assert (found.culprit, found.share) == ("fusion", 1.0)
    assert math.isinf(found.stage("fusion").error or 0)  # type: ignore[union-attr]
    assert json.loads(json.dumps(found.to_json()))["stages"][2]["error"] == "inf"
    assert "NaN/inf" in "\n".join(attribution_lines(found))


def test_a_case_that_is_close_has_no_culprit():
    found = chain(conversion=0.01, fusion=0.005)

    assert found.culprit == "none"
    assert "  culprit      none" in attribution_lines(found)


def test_a_stage_that_was_not_run_takes_no_part():
    rows = [
        measured("reference", EXPECTED),
        Measured("conversion", "typed", note="cannot run: no kernel"),
        measured("fusion", outputs(fusion=1.0)),
    ]
    found = attribute(rows, EXPECTED)

    assert (found.culprit, found.share) == ("fusion", 1.0)
    assert any(line.endswith("cannot run: no kernel") for line in attribution_lines(found))


# --- planted faults ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tiny")


@pytest.fixture
def labs(tmp_path: Path) -> Iterator[Any]:
    made: list[Lab] = []

    def make(**settings: Any) -> Lab:
        given = {"cache_dir": tmp_path / "cache", "profile": ("b8",), "backend": ("fake",), **settings}
        made.append(Lab(Settings(**given), tmp_path))
        return made[-1]

    yield make
    for lab in made:
        lab.close()


def subject(lab: Lab, folder: Path, precision: str = "fp32", **given: Any) -> Subject:
    (case,) = [case for case in lab.cases(lab.add(folder)) if case.precision == precision]
    return Subject(lab, case, **given)


def test_a_healthy_case_has_all_stages_and_no_culprit(labs: Any, folder: Path):
    found = attribute_case(subject(labs(), folder))

    assert found.culprit == "none"
    assert [s.word for s in found.stages] == ["reference", "conversion", "parser", "fusion", "lottery", "run-to-run"]
    assert all(stage.ok for stage in found.stages)
    assert (found.samples, found.point) == (2, "opt")


def test_an_engine_that_differs_only_when_optimized_is_fusions(labs: Any, folder: Path):
    found = attribute_case(subject(labs(fake="fusion=0.5,at=0"), folder))

    assert (found.culprit, found.share) == ("fusion", pytest.approx(1, abs=1e-6))
    assert {s.word: s.ok for s in found.stages} == {
        "reference": True,
        "conversion": True,
        "parser": True,
        "fusion": False,
        "lottery": False,
        "run-to-run": False,
    }


def test_at_optimization_level_0_it_would_be_the_parsers(labs: Any, folder: Path):
    found = attribute_case(subject(labs(fake="error=0.5", opt_level=0), folder))

    assert found.culprit == "parser"
    assert [s.word for s in found.stages] == ["reference", "conversion", "parser", "lottery", "run-to-run"]


def test_an_error_at_every_level_is_the_parsers(labs: Any, folder: Path):
    assert attribute_case(subject(labs(fake="error=0.5"), folder)).culprit == "parser"


def test_builds_of_different_outputs_are_the_lottery(labs: Any, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Each plan of the fake backend draws its error anew, by its number."""
    monkeypatch.setattr("pytest_trt.backends.fake._TICKETS", itertools.count(1))
    found = attribute_case(subject(labs(fake="lottery=1,error=0.5"), folder))

    assert found.culprit == "lottery"


def test_an_engine_that_never_repeats_itself_is_run_to_run(labs: Any, folder: Path):
    found = attribute_case(subject(labs(fake="unstable=40000"), folder))

    assert found.culprit == "run-to-run"
    assert found.share > 0.5


def test_a_recipe_that_breaks_a_weight_is_the_conversion(labs: Any, folder: Path, monkeypatch: pytest.MonkeyPatch):
    break_recipes(monkeypatch, corrupt_tiny)
    for backend in ("fake", "onnxruntime-cpu"):
        found = attribute_case(subject(labs(backend=(backend,), precision=("fp16",)), folder, "fp16"))

        assert found.culprit == "conversion"
        assert found.share > 0.99
        assert found.stages[-1].word == "run-to-run"
        assert ("parser" in [s.word for s in found.stages]) == (backend == "fake")


def test_stored_outputs_that_the_model_does_not_give_are_the_references(labs: Any, folder: Path, tmp_path: Path):
    with np.load(folder / "inputs.npz") as archive:
        x = archive["x"]
    np.savez(folder / "inputs.npz", x=x[:8])
    lab = labs(backend=("onnxruntime-cpu",))
    real = subject(lab, folder)
    real.expected = [{"y": row["y"] * 1.5} for row in real.expected]
    real.reference = "stored outputs"

    found = attribute_case(real)

    assert found.culprit == "reference"
    assert found.stages[0].note == "stored outputs"


def test_stages_that_would_come_too_late_are_left_out(labs: Any, folder: Path):
    ticks = iter(range(0, 10_000, 50))
    found = attribute_case(subject(labs(fake="error=0.5"), folder), seconds=60, clock=lambda: float(next(ticks)))

    late = [s.word for s in found.stages if s.error is None]
    assert "lottery" in late
    assert "conversion" not in late
    assert found.culprit != "none"
    assert all("the time for explanations was over" in s.note for s in found.stages if s.error is None)


def test_the_point_and_the_number_of_samples_can_be_chosen(labs: Any, folder: Path):
    found = attribute_case(subject(labs(), folder, point="min", limit=3))

    assert (found.samples, found.point) == (3, "min")
    assert attribution_lines(found)[0].startswith("where the error enters (3 samples at min;")


def test_any_shapes_and_any_samples_can_be_explained(labs: Any, folder: Path):
    lab = labs(fake="fusion=0.5,at=0")
    odd = subject(lab, folder, point="odd", shapes={"x": (5, 4)})
    given = subject(lab, folder, point="saved", given=(odd.samples[:1], list(odd.expected[:1]), odd.reference))

    assert {row["y"].shape for row in odd.expected} == {(5, 3), (1, 3)}  # 16 rows, five at a time
    assert attribute_case(odd).culprit == attribute_case(given).culprit == "fusion"
    assert (attribute_case(given).samples, attribute_case(given).point) == (1, "saved")


def test_an_explanation_has_the_table_and_the_numbers(labs: Any, folder: Path):
    found = explain(subject(labs(backend=("onnxruntime-cpu",), precision=("int8",)), folder, "int8"))

    assert [pair.tensor for pair in found.pairs] == ["x", "W", "r", "V"]
    assert found.roundings == ()
    assert explanation_lines(found)[0].startswith("where the error enters")
    assert found.notes == ()


def test_an_overflow_in_float16_is_explained_down_to_the_node(labs: Any, tmp_path: Path):
    folder = write_model(tmp_path / "grown")
    model = onnx.load(folder / "model.onnx")
    model.graph.node.insert(1, onnx.helper.make_node("Mul", ["h", "big"], ["g"], name="grow"))
    model.graph.node[2].input[0] = "g"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(60000), "big"))
    onnx.save(model, folder / "model.onnx")

    found = explain(subject(labs(backend=("onnxruntime-cpu",), precision=("fp16",)), folder, "fp16"))

    assert (found.attribution.culprit, found.attribution.share) == ("conversion", 1.0)
    assert found.nonfinite is not None
    assert (found.nonfinite.node, found.nonfinite.op_type) == ("grow", "Mul")
    assert [row.node for row in found.roundings if row.overflowed][:1] == ["grow"]
    data = json.loads(json.dumps(found.to_json()))
    first, (row, *_) = data["nonfinite"], data["roundings"]
    assert (first["node"], first["operator"], first["tensor"]) == ("grow", "Mul", "g")
    assert 0 < first["nonfinite"] <= first["count"]
    assert first["inputs"]["big"] == [60000, 60000]
    assert (row["node"], row["tensor"], row["overflowed"]) == ("grow", "g", found.roundings[0].overflowed)
    assert any(line.startswith("  first NaN/inf  grow (Mul) makes 'g'") for line in explanation_lines(found))
