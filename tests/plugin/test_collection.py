"""What is collected, and what a broken manifest does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from project import MANIFEST, write_model

Run = Callable[..., pytest.RunResult]


def test_a_manifest_gives_a_model_item_and_two_items_per_case(run: Run) -> None:
    result = run("models", "--trt-precision=fp32,fp16", "--collect-only", "-q")

    lines = [line for line in result.outlines if "::" in line]
    ids = [line.split("::", 1)[1] for line in lines]
    assert ids == [
        "model",
        *(
            f"{part}[{precision}-{profile}-fake]"
            for precision in ("fp32", "fp16")
            for profile in ("b1", "b8")
            for part in ("accuracy", "latency")
        ),
    ]


def test_a_bare_onnx_is_collected_only_when_it_is_named(run: Run, project: Path) -> None:
    write_model(project / "bare", manifest=None)

    walked = run("bare", "--collect-only", "-q")
    named = run("bare/model.onnx", "--collect-only", "-q")

    assert not [line for line in walked.outlines if "::" in line]
    named.stdout.fnmatch_lines(["*bare/model.onnx::model", "*::accuracy[[]fp32-default-fake]"])


def test_a_run_that_collects_nothing_names_the_models_it_passed_by(run: Run, project: Path) -> None:
    write_model(project / "bare", manifest=None)

    run("bare").stdout.fnmatch_lines(["trt: 1 .onnx not collected, model.onnx the first: name the file*"])
    assert "not collected" not in run("bare", "models").stdout.str()


def test_the_ini_option_names_patterns_of_models(run: Run, project: Path, pytester: pytest.Pytester) -> None:
    write_model(project / "zoo" / "a", manifest=None)
    pytester.makeini("[pytest]\ntrt_models = zoo/*/model.onnx\n")

    result = run("zoo", "--collect-only", "-q")

    result.stdout.fnmatch_lines(["*zoo/a/model.onnx::model"])


def test_a_model_that_a_pattern_and_a_manifest_bring_in_is_collected_once(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ntrt_models = models/*/model.onnx\n")

    result = run("models", "--collect-only", "-q")

    assert [line.split("::")[0] for line in result.outlines if line.endswith("::model")] == ["models/tiny/trt.toml"]


@pytest.mark.parametrize(
    ("kind", "said"),
    [("sequence", "is a sequence_type; only tensors"), ("string", "holds strings, which no engine takes")],
)
def test_what_no_engine_takes_is_skipped_with_the_reason(run: Run, project: Path, kind: str, said: str) -> None:
    strings = helper.make_tensor_type_proto(TensorProto.STRING, [1])
    made = strings if kind == "string" else helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [1]))
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_value_info("x", made)],
        [helper.make_value_info("y", made)],
    )
    (project / "odd").mkdir()
    imports = [helper.make_opsetid("", 16)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), project / "odd" / "model.onnx")

    result = run("odd/model.onnx", "-rs")
    alone = run("odd/model.onnx", "-rs", "-k", "accuracy")

    result.assert_outcomes(skipped=3)
    result.stdout.fnmatch_lines([f"*'x' {said}*"])
    alone.assert_outcomes(skipped=2 - 1, deselected=2)
    alone.stdout.fnmatch_lines([f"*'x' {said}*"])


def test_a_model_named_by_its_file_is_tested_as_its_manifest_says(run: Run) -> None:
    result = run("models/tiny/model.onnx", "--collect-only", "-q")

    result.stdout.fnmatch_lines(["*::accuracy[[]fp32-b8-fake]"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[modle]\n", "*unknown table [[]modle]*\n*did you mean 'model'?*"),
        ("[inputs]\nfiel = 'x.npz'\n", "*unknown key 'fiel' in [[]inputs]*\n*did you mean 'file'?*"),
        ("[tolerance.fp61]\n", "*unknown precision in [[]tolerance.fp61]*\n*did you mean 'fp16'?*"),
        ("[model]\npath = '../other.onnx'\n", "*leaves the model's folder*"),
        ("[model]\npath = 'a.onnx'\nsource = 'b.py:c'\n", "*both path and source*"),
        ("[model\n", "*trt.toml: cannot be read*"),
        ("[profiles.b1]\nx = {min = [1, 4]}\n", "*profiles.b1.x must be a shape*"),
        ("[model]\nvariant = 'smal'\n[variants.small]\n", "*model.variant names 'smal'*\n*did you mean 'small'?*"),
        ("[build]\nworkspace = true\n", "*build.workspace: cannot use 'on': a size such as*"),
    ],
)
def test_a_wrong_manifest_is_one_failed_item_and_the_rest_goes_on(
    run: Run, project: Path, text: str, message: str
) -> None:
    write_model(project / "models" / "broken", manifest=text)

    result = run("models")

    result.assert_outcomes(passed=5, failed=1)
    joined = " ".join(result.outlines)
    assert "Traceback" not in joined
    result.stdout.fnmatch_lines(message.split("\n"))


@pytest.mark.parametrize(
    ("profiles", "message"),
    [
        ("[profiles.b1]\ny = [1, 4]\n", "*the model has no input 'y'*"),
        ("[profiles.b1]\nx = [1, 5]\n", "*axis 1, fixed at 4*"),
        ("[profiles.b1]\nx = [1]\n", "*has rank 1, not 2*"),
        ("[profiles.b1]\nx = {min = [2, 4], opt = [1, 4], max = [4, 4]}\n", "*min ≤ opt ≤ max*"),
    ],
)
def test_a_profile_that_does_not_fit_is_one_failed_item(run: Run, project: Path, profiles: str, message: str) -> None:
    write_model(project / "wrong", manifest=profiles)

    result = run("wrong")

    result.assert_outcomes(failed=1, skipped=2)
    result.stdout.fnmatch_lines([message])


def test_profiles_that_would_share_a_baseline_are_refused(run: Run, project: Path) -> None:
    write_model(project / "alike", manifest='[profiles."b 1"]\nx = [1, 4]\n[profiles.b_1]\nx = [2, 4]\n')

    result = run("alike")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*alike[[]fp32, b 1, fake] and alike[[]fp32, b_1, fake] would share the id *"])


def test_models_that_would_share_a_baseline_are_refused(run: Run, project: Path) -> None:
    for folder, name in (("one", "a b"), ("two", "a_b")):
        write_model(project / "alike" / folder, manifest=f"[model]\nname = '{name}'\n")

    result = run("alike")

    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["*the models 'a b' (*) and 'a_b' (*) would share their ids*"])


def test_names_of_any_script_have_baselines_of_their_own(run: Run, project: Path) -> None:
    profiles = '[profiles."小"]\nx = [1, 4]\n[profiles."大"]\nx = [8, 4]\n'
    for name in ("模型", "モデル"):
        write_model(project / "names" / name, manifest=profiles)

    first = run("names", "--trt-update-baselines=new", "--trt-report=report.json")
    second = run("names", "--trt-baseline=strict")

    for result in (first, second):
        result.assert_outcomes(passed=10)
    ids = [record["id"] for record in json.loads((project / "report.json").read_text("utf-8"))["records"]]
    assert sorted(ids) == sorted(f"{m}-fp32-{p}-fake" for m in ("模型", "モデル") for p in ("小", "大"))


def test_without_the_model_item_a_broken_model_still_fails(run: Run, project: Path) -> None:
    folder = write_model(project / "models" / "cut")
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:50])

    result = run("models/cut", "-k", "accuracy")

    result.assert_outcomes(failed=2, deselected=3)


def test_a_case_with_tactics_has_them_in_its_id(run: Run) -> None:
    result = run("models", "--trt-tactics=default;-JIT_CONVOLUTIONS", "--trt-profile=b1", "--collect-only", "-q")

    ids = [line.split("::", 1)[1] for line in result.outlines if "accuracy" in line]
    assert ids == ["accuracy[fp32-b1-fake]", "accuracy[fp32-b1[-JIT_CONVOLUTIONS]-fake]"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--trt-precision=fp61", "*unknown precision 'fp61'*"),
        ("--trt-profile=b2", "*no collected model has a profile b2*"),
        ("--trt-cache=wr", "*--trt-cache: cannot use 'wr'*"),
        ("--trt-tactics=JIT", "*'JIT' is not +SOURCE or -SOURCE*"),
        ("--trt-update-baselines=all", "*needs a reason*"),
        ("--trt-fake=latncy=2", "*unknown fault 'latncy'*"),
        ("--trt-threshold=x", "*--trt-threshold: cannot use 'x'*"),
        ("--trt-tolerance=rtol=1e-9", "*--trt-tolerance: rtol given without atol*"),
        ("--trt-tolerance=cosine=2", "*cosine*"),
        ("--trt-precision=FP16", "*hint: did you mean 'fp16'?*"),
        ("--trt-samples=0", "*--trt-samples: cannot use '0': a number of 1 or more is wanted"),
    ],
)
def test_a_wrong_option_is_a_usage_error(run: Run, option: str, message: str) -> None:
    result = run("models", option)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])


@pytest.mark.parametrize("warnings_are", ["default", "error"])
def test_a_list_in_the_ini_file_says_how_it_is_written(
    project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, warnings_are: str
) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", warnings_are)
    (project / "tox.ini").unlink()
    pytester.makepyprojecttoml('[tool.pytest.ini_options]\ntrt_precision = ["fp16", "fp32"]\n')

    result = pytester.runpytest_subprocess("models")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*ini key trt_precision: a list*", '*hint: write trt_precision = "fp16,fp32"*'])


@pytest.mark.parametrize(("chosen", "passed"), [("trt", 6), ("not trt", 1)])
def test_models_carry_the_marker_of_the_tests_of_engines(
    run: Run, pytester: pytest.Pytester, chosen: str, passed: int
) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.trt("models/tiny", profiles=["b8"])
        def test_engine(trt_check):
            trt_check()

        def test_else():
            pass
    """)

    run("-m", chosen).assert_outcomes(passed=passed, deselected=7 - passed)


def test_an_unavailable_backend_is_an_error_and_never_a_fallback(run: Run) -> None:
    result = run("models", backend="tensorrt")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--trt-backend=tensorrt: *"])


def test_a_variant_lays_over_the_manifest(run: Run, project: Path) -> None:
    overlay = MANIFEST + "[variants.wide.model]\nname = 'wide'\n[variants.wide.profiles.b64]\nx = [64, 4]\n"
    write_model(project / "models" / "tiny", manifest=overlay)

    result = run("models", "--trt-variant=wide", "--collect-only", "-q")

    result.stdout.fnmatch_lines(["*::accuracy[[]fp32-b64-fake]"])


def test_a_variant_that_no_model_has_is_told(run: Run, project: Path) -> None:
    write_model(project / "models" / "other", manifest=MANIFEST + "[variants.wide.model]\nname = 'wide'\n")
    line = "trt: --trt-variant: no collected model has a variant 'wdie'"

    assert line in run("models", "--trt-variant=wdie", "--collect-only").outlines
    assert "no collected model" not in run("models", "--trt-variant=wide", "--collect-only").stdout.str()
