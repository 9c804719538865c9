"""Metrics of a manifest: what may stand there, functions of the user, and the digits as a user would score them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from project import write_model

from pytest_trt.artifacts.metric_functions import MetricFunction
from pytest_trt.baselines.update import accept
from pytest_trt.cli import main
from pytest_trt.errors import AccuracyFailure, ManifestError, MetricError
from pytest_trt.lab import Lab
from pytest_trt.record import Record, undecided_metric
from pytest_trt.report.terminal import metric_lines
from pytest_trt.settings import Settings
from pytest_trt.spec.inputs import Sample
from pytest_trt.spec.manifest import Manifest

MODELS = Path(__file__).resolve().parents[2] / "models"


def load(folder: Path, text: str) -> Manifest:
    (folder / "trt.toml").write_text(text)
    return Manifest.load(folder / "trt.toml")


# The manifest


def test_metrics_are_read(tmp_path: Path):
    manifest = load(
        tmp_path,
        """
        [metrics.accuracy]
        metric = "eval.py:score"
        lower_is_better = true
        args = { beta = 2 }
        max_drop = 0.5
        alpha = 0.01
        [metrics.mask]
        metric = "iou"
        output = "mask"
        threshold = 0.5
        limit = 1
        """,
    )
    accuracy, mask = manifest.metrics.values()

    assert (accuracy.source, mask.source) == ("eval.py:score", None)
    assert (accuracy.max_drop, accuracy.alpha, accuracy.power) == (0.5, 0.01, None)
    assert mask.definition() == {"metric": "iou", "threshold": 0.5, "output": "mask"}
    assert accuracy.definition()["args"] == {"beta": 2}


def test_what_is_gated_is_no_part_of_the_definition(tmp_path: Path):
    one, other = (
        load(tmp_path, f'[metrics.a]\nmetric = "tokens"\nmax_drop = {drop}').metrics["a"] for drop in (0.1, 0.2)
    )

    assert one.definition() == other.definition()


def test_a_variant_changes_one_key(tmp_path: Path):
    text = '[metrics.a]\nmetric = "topk"\nk = 3\n[variants.v.metrics.a]\nmax_drop = 0.1\n'
    (tmp_path / "trt.toml").write_text(text)
    spec = Manifest.load(tmp_path / "trt.toml", "v").metrics["a"]

    assert (spec.k, spec.max_drop) == (3, 0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metrics.a = 1", "metrics.a must be a table"),
        ("[metrics.a]", "has no metric"),
        ('[metrics.a]\nmetric = "top2"', "'top2' is unknown"),
        ('[metrics.a]\nmetric = "iou"\nthreshhold = 1', "did you mean 'threshold'"),
        ('[metrics.a]\nmetric = "iou"\nthreshold = "x"', "must be int or float"),
        ('[metrics.a]\nmetric = "iou"\nthreshold = 0.5\naxis = 1', "both threshold and axis"),
        ('[metrics.a]\nmetric = "iou"\nthreshold = nan', "must be finite"),
        ('[metrics.a]\nmetric = "cosine"\nthreshold = 0.5', "says nothing to cosine"),
        ('[metrics.a]\nmetric = "top1"\nlower_is_better = true', "says nothing to top1"),
        ('[metrics.a]\nmetric = "top1"\nagainst = "label"', "did you mean 'labels'"),
        ('[metrics.a]\nmetric = "top1"\nalpha = 0.9', "must lie in"),
        ('[metrics.a]\nmetric = "e.py:f"\nargs = { day = 2026-01-01 }', "cannot be recorded"),
    ],
)
def test_a_wrong_metric_is_an_error_that_names_it(tmp_path: Path, text: str, message: str):
    with pytest.raises(ManifestError) as found:
        load(tmp_path, text)

    assert message in str(found.value)
    assert "trt.toml" in str(found.value)


# Functions


def function(folder: Path, body: str, args: str = "") -> MetricFunction:
    (folder / "eval.py").write_text(body)
    manifest = load(folder, f'[metrics.m]\nmetric = "eval.py:score"\n{args}')
    return MetricFunction(manifest, manifest.metrics["m"])


def sample(rows: int = 2, batch: int = 4) -> Sample:
    return Sample({"x": np.arange(batch * 3.0).reshape(batch, 3)}, rows, batch, "rows 0..1", np.arange(rows))


def call(found: MetricFunction) -> np.ndarray:
    return found.scores({"y": np.ones((2, 1))}, {"y": np.zeros((2, 1))}, sample())


def test_a_function_gets_the_rows_that_are_real(tmp_path: Path):
    found = function(
        tmp_path,
        "def score(outputs, expected, inputs, labels, *, beta):\n"
        "    assert inputs['x'].shape == (2, 3)\n"
        "    return beta * labels + outputs['y'][:, 0] - expected['y'][:, 0]\n",
        "args = { beta = 10 }",
    )

    assert call(found).tolist() == [1.0, 11.0]


@pytest.mark.parametrize("returned", ["0.5", "True", "[0.5]", "inputs['x'][:, 0] > 1"])
def test_a_function_may_return_one_score_or_one_per_row(tmp_path: Path, returned: str):
    found = call(function(tmp_path, f"def score(outputs, expected, inputs, labels):\n    return {returned}\n"))

    assert found.dtype == np.float64
    assert found.tolist() in ([0.5], [1.0], [0.0, 1.0])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return outputs['z']", "eval.py:3 on rows 0..1: KeyError: 'z'"),
        ("return float('nan')", "returned NaN or infinity on rows 0..1"),
        ("return [1, 2, 3]", "scores of shape (3,) for 2 rows"),
        ("return 'good'", "returned str, which is no number"),
        ("return None", "returned nothing"),
        ("raise SystemExit", "eval.py:3 on rows 0..1: SystemExit"),
    ],
)
def test_what_a_function_does_wrong_is_said_with_its_place(tmp_path: Path, body: str, message: str):
    found = function(tmp_path, f"# a comment\ndef score(outputs, expected, inputs, labels):\n    {body}\n")

    with pytest.raises(MetricError) as error:
        call(found)

    assert message in str(error.value)
    assert "metrics.m: eval.py:score" in str(error.value)


def test_the_innermost_line_of_the_file_counts(tmp_path: Path):
    body = (
        "import json\ndef inner():\n    json.loads('{')\ndef score(outputs, expected, inputs, labels):\n    inner()\n"
    )

    with pytest.raises(MetricError, match=r"failed at eval\.py:3 "):
        call(function(tmp_path, body))


def test_a_signature_that_does_not_fit_is_explained(tmp_path: Path):
    with pytest.raises(MetricError, match="may be outputs, expected, inputs, labels"):
        call(function(tmp_path, "def score(out, ref):\n    return 1\n"))


def test_an_argument_cannot_take_the_place_of_what_is_given(tmp_path: Path):
    with pytest.raises(MetricError, match=r"metrics\.m: args names 'labels', which is what every function is given"):
        function(tmp_path, "def score(labels):\n    return 1\n", "args = { labels = 3 }")


@pytest.mark.parametrize("parameters", ["labels, outputs", "outputs, labels=None", "*, labels", "**all", "beta=3"])
def test_a_function_takes_what_it_has_parameters_for(tmp_path: Path, parameters: str):
    assert call(function(tmp_path, f"def score({parameters}):\n    return 0.25\n")).tolist() == [0.25]


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("def score(:\n", MetricError, "eval.py:1: SyntaxError"),
        ("x = 1\nraise ValueError('no data')\n", MetricError, "eval.py:2: ValueError: no data"),
        ("def skore(): pass\n", ManifestError, "did you mean 'skore'"),
    ],
)
def test_a_file_that_does_not_import_is_said_with_its_place(tmp_path: Path, body: str, error: type, message: str):
    with pytest.raises(error) as found:
        function(tmp_path, body)

    assert message in str(found.value)


def test_the_digest_is_the_files(tmp_path: Path):
    body = "def score():\n    return 1\n"
    first = function(tmp_path, body).digest

    assert function(tmp_path, body).digest == first
    assert function(tmp_path, body + "# changed\n").digest != first


# A case


@pytest.fixture
def scored(tmp_path: Path):
    """Check a small model with *metrics* in its manifest; returns the metrics of the record, or the error."""

    def score(metrics: str) -> dict:
        folder = write_model(tmp_path / "tiny")
        with (folder / "trt.toml").open("a") as stream:
            stream.write(metrics)
        settings = Settings(backend=("fake",), profile=("b8",), cache="off", samples=None)
        with Lab(settings, tmp_path) as lab:
            (case,) = lab.cases(lab.add("tiny"))
            record = lab.record(case)
            lab.check(case, record)
        return record.accuracy["metrics"]

    return score


def test_every_sample_is_scored_once(scored):
    (row,) = scored('[metrics.a]\nmetric = "top1"\n').values()

    assert (row["count"], row["mean"]) == (16, 1.0)  # two batches of 8
    assert row["not_compared"] == "there is no baseline"


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ('[metrics.a]\nmetric = "top1"\noutput = "z"', "there is no output 'z'"),
        ('[metrics.a]\nmetric = "top1"\nagainst = "labels"', "there are no labels"),
        ('[metrics.a]\nmetric = "tokens"\nmask = "m"', "there is no input 'm'"),
        ('[metrics.a]\nmetric = "iou"', "floats are no masks"),
        ('[metrics.a]\nmetric = "topk"', "the 5 best of 3 classes"),
        ('[metrics.a]\nmetric = "gone.py:f"', "gone.py:f"),
    ],
)
def test_a_metric_that_does_not_fit_the_model_is_an_error(scored, metrics: str, message: str):
    with pytest.raises((MetricError, ManifestError)) as found:
        scored(metrics)

    assert message in str(found.value)


def test_a_mean_below_its_limit_is_red_without_a_baseline(scored):
    with pytest.raises(AccuracyFailure, match=r'metric "a" is 1, required 1\.5'):
        scored('[metrics.a]\nmetric = "cosine"\nlimit = 1.5\n')


def test_padding_is_left_out_and_masks_are_scored(tmp_path: Path):
    """A model that passes its input on, beside stored outputs that are another token in the padding of one sample, and
    in the text of another one."""
    folder = tmp_path / "echo"
    folder.mkdir()
    sides = {"x": ["N", 4, 5], "attention_mask": ["N", 4]}
    nodes = [
        helper.make_node("Unsqueeze", ["attention_mask", "axis"], ["mask"]),
        helper.make_node("Mul", ["mask", "zero"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "echo",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in sides.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 5])],
        [numpy_helper.from_array(np.array([2]), "axis"), numpy_helper.from_array(np.float32([0]), "zero")],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "model.onnx")
    x = np.eye(5, dtype=np.float32)[np.array([[0, 1, 2, 3], [1, 1, 1, 1], [4, 3, 2, 1]])]
    stored = x.copy()
    stored[0, 3] = np.eye(5)[0]  # padding
    stored[2, 0] = np.eye(5)[0]  # text
    mask = np.ones((3, 4), np.float32)
    mask[0, 3] = 0
    np.savez(folder / "inputs.npz", x=x, attention_mask=mask, y=stored)
    (folder / "trt.toml").write_text(
        """
        [inputs]
        file = "inputs.npz"
        [profiles.b2]
        x = [2, 4, 5]
        attention_mask = [2, 4]
        [metrics.tokens]
        metric = "tokens"
        [metrics.named]
        metric = "tokens"
        mask = "attention_mask"
        [metrics.all]
        metric = "tokens"
        mask = "off"
        [metrics.overlap]
        metric = "iou"
        threshold = 0.5
        [metrics.classes]
        metric = "iou"
        axis = -1
        """
    )
    settings = Settings(backend=("onnxruntime-cpu",), cache="off", tolerance="rtol=off,atol=off,cosine=-1")
    with Lab(settings, tmp_path) as lab:
        (case,) = lab.cases(lab.add("echo"))
        record = lab.record(case)
        lab.check(case, record)
    means = {name: row["mean"] for name, row in record.accuracy["metrics"].items()}

    assert {row["count"] for row in record.accuracy["metrics"].values()} == {3}  # the filled-up row is not one
    assert means["tokens"] == means["named"] == pytest.approx((1 + 1 + 0.75) / 3)
    assert means["all"] == pytest.approx((0.75 + 1 + 0.75) / 3)
    assert means["overlap"] == pytest.approx((3 / 5 + 1 + 3 / 5) / 3)
    first, last = (1 / 2 + 1 + 1 + 0) / 4, (1 + 1 + 1 + 0 + 0) / 5
    assert means["classes"] == pytest.approx((first + 1 + last) / 3)


# The digits


@pytest.fixture
def digits(tmp_path: Path):
    """Check the digits in int8, calibrated on *percentile* percent of the values, and return record and error."""
    folder = tmp_path / "digits"
    folder.mkdir()
    for name in ("model.onnx", "inputs.npz", "eval.py"):
        shutil.copy(MODELS / "digits" / name, folder)
    manifest = (MODELS / "digits" / "trt.toml").read_text()

    def check(percentile: float, *, accepted: str = "") -> tuple[Record, AccuracyFailure | None]:
        recipe = f'[precision.int8]\ncalibration = "percentile"\npercentile = {percentile}\n'
        (folder / "trt.toml").write_text(manifest + recipe)
        settings = Settings(
            backend=("onnxruntime-cpu",),
            precision=("int8",),
            profile=("b8",),
            cache_dir=tmp_path / "cache",
            tolerance="cosine=0.9,snr_db=off,top1=off",
            explain="off",
        )
        failed = None
        with Lab(settings, tmp_path) as lab:
            (case,) = lab.cases(lab.add("digits"))
            record = lab.record(case)
            try:
                lab.check(case, record)
            except AccuracyFailure as failure:
                failed = failure
            record.outcomes["accuracy"] = "failed" if failed else "passed"
            if accepted:
                accept(lab.baselines, [record], accepted, None)
        return record, failed

    return check


def test_a_calibration_that_costs_confidence_is_seen_though_no_class_changes(digits):
    first, _ = digits(98, accepted="new")
    same, unchanged = digits(98)
    record, worse = digits(95)
    accuracy, confidence = (record.accuracy["metrics"][name] for name in ("accuracy", "confidence"))

    assert unchanged is None
    assert [row["verdict"]["outcome"] for row in same.accuracy["metrics"].values()] == ["pass", "pass"]
    assert first.accuracy["metrics"]["accuracy"]["mean"] == pytest.approx(0.98, abs=0.011)
    assert not record.accuracy["drift"]
    assert accuracy["verdict"]["outcome"] == "pass"
    assert confidence["verdict"]["outcome"] == "fail"
    assert confidence["verdict"]["drop"] == pytest.approx(0.0122, abs=0.002)
    assert worse is not None
    said = str(worse)
    assert 'metric "confidence" got worse' in said
    assert "sign flips, α = 0.05, power = 0.8, smallest detectable drop 0.00" in said
    assert "samples are worse" in said
    assert "pytest-trt compare digits --precision=int8" in said


def test_a_record_keeps_what_a_baseline_needs(digits):
    record, _ = digits(98)
    back = Record.from_json(json.loads(json.dumps(record.to_json())))

    assert back.accuracy == record.accuracy
    assert metric_lines(back)[0].endswith("on 200 samples, not compared: there is no baseline")
    assert not undecided_metric(back)


def test_compare_ends_with_3_where_there_are_too_few_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    folder = write_model(tmp_path / "tiny")
    with (folder / "trt.toml").open("a") as stream:
        stream.write('[metrics.a]\nmetric = "top1"\n')
    monkeypatch.chdir(tmp_path)
    asked = ["compare", "tiny", "--backend=fake", "--cache=off", "--profile=b8", "--report=report.json"]

    first = main(asked)
    accepted = main(["baseline", "accept", "report.json", "--reason=first"])
    second = main(asked)
    surer = main([*asked, "--alpha=0.2", "--power=0.5"])

    assert (first, accepted, second) == (0, 0, 3)
    out = capsys.readouterr().out
    assert "metric a: inconclusive (1 after 1, no worse (p = 1): too few samples to exclude a drop of 0.01" in out
    assert "the same 16 samples, McNemar's exact test, α = 0.05, power = 0.8, smallest detectable drop" in out
    assert "α = 0.2, power = 0.5" in out
    assert surer == 3
