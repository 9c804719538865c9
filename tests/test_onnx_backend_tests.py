"""A sample of ONNX's backend tests through the command that runs them all; the full table is in the documentation."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

COMMAND = Path(__file__).parents[1] / "benchmarks" / "onnx_backend_tests"

# What must come of each. Several have found faults: scalars that became vectors, inputs that ONNX Runtime leaves behind
# when it folds what fills them, a default that strict shape inference misses, types that NumPy lacks.
EXPECTED = {
    **dict.fromkeys(
        (
            "light/squeezenet",
            "node/abs",
            "node/add_bcast",
            "node/attention_4d",
            "node/averagepool_2d_ceil",
            "node/batchnorm_example",
            "node/castlike_BFLOAT16_to_FLOAT",
            "node/conv_with_strides_padding",
            "node/dynamicquantizelinear_expanded",
            "node/gemm_all_attributes",
            "node/isinf",
            "node/layer_normalization_4d_axis1",
            "node/loop11",
            "node/matmul_3d",
            "node/mvn",
            "node/nonzero_example",
            "node/scan9_scalar",
            "node/where_example",
            "pytorch-converted/Conv2d",
            "pytorch-operator/operator_maxpool",
            "simple/expand_shape_model1",
        ),
        "passed",
    ),
    **dict.fromkeys(
        (
            "node/cast_FLOAT_to_FLOAT8E5M2",
            "node/identity_sequence",
            "node/optional_has_element_optional_input",
            "node/string_split_basic",
            "simple/strnorm_model_monday_empty_output",
        ),
        "skipped",
    ),
    **dict.fromkeys(("node/gru_batchwise", "node/image_decoder_decode_png_rgb", "simple/gradient_of_add"), "refused"),
    **dict.fromkeys(("node/maxunpool_export_with_output_shape", "node/training_dropout"), "differs"),
}
# What older ONNX Runtimes lack: 1.23 is the last one for Python 3.10, 1.21 the oldest that is supported.
_RELEASE = tuple(int(part) for part in version("onnxruntime").split(".")[:2])
if _RELEASE <= (1, 23):
    EXPECTED["node/castlike_BFLOAT16_to_FLOAT"] = "refused"
if _RELEASE <= (1, 22):
    EXPECTED["node/attention_4d"] = "refused"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, dict[str, str]], str]:
    folder = tmp_path_factory.mktemp("run")
    match = f"^({'|'.join(map(re.escape, EXPECTED))})$"
    options = [
        "--match",
        match,
        "--jobs",
        "1",
        "--json",
        str(folder / "found.json"),
        "--output",
        str(folder / "page.md"),
    ]
    done = subprocess.run([sys.executable, str(COMMAND), *options], capture_output=True, text=True, check=False)
    assert (folder / "found.json").is_file(), done.stderr
    return done.returncode, json.loads((folder / "found.json").read_text()), (folder / "page.md").read_text()


def test_each_of_the_sample_ends_as_it_should(run: tuple[int, dict[str, dict[str, str]], str]):
    code, found, _ = run

    assert {name: verdict["verdict"] for name, verdict in found.items()} == {name: EXPECTED[name] for name in found}
    assert len(found) > 0.8 * len(EXPECTED)  # other versions of onnx lack some
    assert code == 0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("node/identity_sequence", "'x' is a sequence_type; only tensors can be fed and compared"),
        ("node/string_split_basic", "'x' holds strings, which no engine takes"),
        ("node/cast_FLOAT_to_FLOAT8E5M2", "it has float8e5m2 tensors, and no precision is named after that"),
        ("node/gru_batchwise", "Batchwise recurrent operations (layout == 1) are not supported"),
    ],
)
def test_what_is_not_supported_says_why(run: tuple[int, dict[str, dict[str, str]], str], name: str, text: str):
    assert text in run[1][name]["text"]


def test_the_page_counts_every_test_once(run: tuple[int, dict[str, dict[str, str]], str]):
    (total,) = re.findall(r"^\| \*\*all\*\* (.*)\|$", run[2], re.MULTILINE)
    *numbers, whole = [int(number) for number in re.findall(r"\d+", total)]

    assert sum(numbers) == whole == len(run[1])


@pytest.fixture
def judging(monkeypatch: pytest.MonkeyPatch):
    """The modules of the command that judge and read outcomes."""
    monkeypatch.syspath_prepend(str(COMMAND))
    names = ("cases", "outcomes_plugin", "running", "table")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    import running
    import table

    yield running, table
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("outcome", "alone", "verdict"),
    [
        ("passed", "passes", "passed"),
        ("error", "refuses", "refused"),
        ("error", "passes", "unexplained"),  # only pytest-trt cannot run it
        ("failed", "passes", "unexplained"),  # only pytest-trt gives other values
        ("failed", "differs", "unexplained"),  # nobody has looked into why
        ("failed", "refuses", "unexplained"),
        ("not collected", "passes", "unexplained"),
        ("crashed", "", "crashed"),
    ],
)
def test_only_what_onnx_runtime_cannot_do_either_is_excused(judging, outcome: str, alone: str, verdict: str):
    running, table = judging
    case = running.TestCase("node/abs", Path("abs"), lambda folder: None)

    (found,) = table.verdicts([running.Result(case, outcome, "m")], {"node/abs": (alone, "t")}, "onnxruntime-cpu")

    assert found.kind == verdict
    assert found.red == (verdict in ("unexplained", "crashed"))


def test_a_process_that_ends_within_a_test_is_that_tests_crash(judging, tmp_path: Path):
    running, _ = judging
    cases = [running.TestCase(f"node/{name}", tmp_path / name, lambda folder: None) for name in ("abs", "acos")]
    results = {case.id: running.Result(case) for case in cases}
    rows = [
        {"started": "node/abs/model.onnx::model"},
        {"item": "node/abs/model.onnx::model", "outcome": "passed", "message": "", "seconds": 0.1},
        {"started": "node/acos/model.onnx::model"},
    ]
    (tmp_path / "out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    assert running.read_outcomes(tmp_path / "out.jsonl", results) == "node/acos"
    assert results["node/abs"].outcome == "passed"
