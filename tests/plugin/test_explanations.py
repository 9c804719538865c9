"""Failures that say where their error enters: the option, the shell's bisect, and what the Lab finds out by itself."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import model, node
from planted import break_recipes, corrupt_tiny

from pytest_trt.cli import main
from pytest_trt.lab import Lab
from pytest_trt.lab.samples import Samples
from pytest_trt.settings import Settings

Run = Callable[..., pytest.RunResult]

ONE = ("models", "--trt-profile=b8", "--trt-latency=off", "--trt-report=report.json")


def explanation(project: Path) -> dict[str, Any] | None:
    (record,) = json.loads((project / "report.json").read_text())["records"]
    found: dict[str, Any] | None = record["explanation"]
    return found


@pytest.mark.parametrize(("fake", "culprit"), [("error=0.5", "parser"), ("fusion=0.5,at=0", "fusion")])
def test_a_failure_says_where_its_error_enters(run: Run, project: Path, fake: str, culprit: str) -> None:
    result = run(*ONE, f"--trt-fake={fake}")

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "where the error enters (2 samples at opt;*",
            f"  culprit      {culprit}, *of the squared error",
            "  next         search the tensor: pytest-trt bisect models/tiny --precision=fp32 *",
            "reproduce    pytest-trt compare models/tiny *",
        ]
    )
    found = explanation(project)
    assert found is not None
    assert found["culprit"] == culprit


def test_it_can_be_switched_off(run: Run, project: Path) -> None:
    result = run(*ONE, "--trt-fake=error=0.5", "--trt-explain=off")

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.no_fnmatch_line("*where the error enters*")
    assert explanation(project) is None


@pytest.mark.parametrize("explain", ["fail", "on"])
def test_what_is_close_is_explained_only_when_asked(run: Run, project: Path, explain: str) -> None:
    run(*ONE, f"--trt-explain={explain}").assert_outcomes(passed=2)

    found = explanation(project)
    assert (found or {}).get("culprit") == (None if explain == "fail" else "none")


def test_out_of_time_the_engine_itself_is_still_explained(run: Run, project: Path) -> None:
    result = run(*ONE, "--trt-fake=error=0.5", "--trt-explain-seconds=0")
    result.assert_outcomes(passed=1, failed=1)

    found = explanation(project)
    assert found is not None
    assert found["culprit"] == "fusion"
    result.stdout.fnmatch_lines(
        [
            "  culprit      conversion or parser or fusion, *",
            "  next         run the stages that are missing: pytest-trt bis*",
        ]
    )
    assert [row["stage"] for row in found["stages"] if row["error"] is None] == ["conversion", "parser", "lottery"]


def test_the_point_that_fails_is_explained(run: Run, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_trt.backends.fake import FakeSession

    compute = FakeSession.run

    def only_alone(self: FakeSession, feeds: Any) -> Any:
        outputs = compute(self, feeds)
        return {name: array * (3 if len(array) == 1 else 1) for name, array in outputs.items()}

    monkeypatch.setattr(FakeSession, "run", only_alone)
    run(*ONE).assert_outcomes(passed=1, failed=1)

    found = explanation(project)
    assert found is not None
    assert (found["point"], found["culprit"]) == ("min", "parser")


# --- bisect ---


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every recipe stores one weight wrongly, where it stores it in float16."""
    break_recipes(monkeypatch, corrupt_tiny)


@pytest.fixture
def lab(project: Path) -> Iterator[Callable[..., Lab]]:
    made: list[Lab] = []

    def make(**settings: Any) -> Lab:
        given = {"cache_dir": project / "cache", "profile": ("b8",), "backend": ("onnxruntime-cpu",), **settings}
        made.append(Lab(Settings(**given), project))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("on_engine", [False, True])
@pytest.mark.parametrize("backend", ["fake", "onnxruntime-cpu"])
def test_a_node_that_the_conversion_breaks_is_found(
    lab: Callable[..., Lab], project: Path, backend: str, on_engine: bool
) -> None:
    subject = lab(backend=(backend,), precision=("fp16",))
    (case,) = subject.cases(subject.add("models/tiny"))
    found = subject.bisect(case, on_engine=on_engine)

    assert found.explanation.attribution.culprit == "conversion"
    assert found.culprits is not None
    assert found.culprits.exclude_nodes == ("out",)
    assert (found.culprits.before.ok, found.culprits.after.ok) == (False, True)


def test_ranges_are_calibrated_once_for_all_sets_of_nodes(lab: Callable[..., Lab], project: Path) -> None:
    manifest = project / "models" / "tiny" / "trt.toml"
    manifest.write_text(manifest.read_text() + '[precision.int8]\ncalibration = "minmax"\nexclude_nodes = ["out"]\n')
    subject = lab(precision=("int8",))
    said: list[str] = []
    subject.progress = said.append
    (case,) = subject.cases(subject.add("models/tiny"))

    conversion = subject.conversion(case)
    assert conversion.excluded == ("out",)
    assert [c.entry for c in conversion.candidates] == ["hidden", "out"]
    assert set(conversion.ranges or ()) == {"x", "r"}
    for excluded in ((), ("hidden",), ("out",), ("hidden", "out")):
        conversion.apply(excluded)
    assert len([line for line in said if line.startswith("calibrating")]) == 1


@pytest.mark.usefixtures("broken")
def test_the_shell_prints_what_to_write_into_the_manifest(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    asked = ["bisect", "models/tiny", "--precision=fp16", "--profile=b8", "--backend=onnxruntime-cpu"]

    assert main(asked) == 1
    out = capsys.readouterr().out
    assert out.startswith("tiny[fp16, b8, onnxruntime-cpu]\nwhere the error enters")
    assert '[precision.fp16]\nexclude_nodes = [\n    "out",\n]' in out

    assert main([*asked, "--json"]) == 1
    (row,) = json.loads(capsys.readouterr().out)
    assert row["case"]["model"] == "tiny"
    assert row["culprits"]["exclude_nodes"] == ["out"]
    assert row["explanation"]["culprit"] == "conversion"
    assert row["divergence"] is None


@pytest.mark.usefixtures("broken")
def test_the_shell_measures_what_the_exclusions_cost(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    asked = ["bisect", "models/tiny", "--precision=fp16", "--profile=b8", "--backend=fake", "--latency"]

    assert main([*asked, "--stages=conversion"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"  latency      \d.* ms: × \d.*, simulated clock; the fake backend computes fp16 in float32", out)
    assert re.search(r"^  parser +.* not run: left out$", out, re.MULTILINE)

    assert main([*asked, "--json"]) == 1
    (row,) = json.loads(capsys.readouterr().out)
    assert row["cost"]["clock"] == "simulated"


def test_the_shell_uses_debug_tensors_where_that_is_asked(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    asked = ["bisect", "models/tiny", "--profile=b8", "--backend=fake", "--taps=debug", "--json"]

    assert main([*asked, "--fake=fusion=0.5,at=0,shy=1,debug=1"]) == 1
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["divergence"]["tensor"], row["divergence"]["hiding"]) == ("h", [])
    assert main([*asked, "--fake=fusion=0.5,at=0"]) == 4
    (row,) = json.loads(capsys.readouterr().out)
    assert row["skipped"] == "fake has no debug tensors here"
    assert main([*asked[:-1], "--fake=fusion=0.5,at=0"]) == 4
    assert "  hint: --taps=outputs works with every backend and version" in capsys.readouterr().out


def test_the_shell_finds_the_tensor_of_an_engine(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    asked = ["bisect", "models/tiny", "--profile=b8", "--backend=fake"]

    assert main([*asked, "--fake=fusion=0.5,at=0", "--json"]) == 1
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["divergence"]["outcome"], row["divergence"]["tensor"], row["divergence"]["node"]) == (
        "found",
        "h",
        "hidden",
    )
    assert main(asked) == 0
    assert "culprit      none" in capsys.readouterr().out


def test_the_shell_goes_on_after_a_case_that_cannot_be_built(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    asked = ["bisect", "models/tiny", "--precision=fp32,tf32", "--profile=b8", "--backend=onnxruntime-cpu"]

    assert main([*asked, "--json"]) == 0
    close, skipped = json.loads(capsys.readouterr().out)
    assert close["explanation"]["culprit"] == "none"
    assert "no tf32" in skipped["skipped"]
    assert main(["bisect", "models/tiny", "--profile=b8", "--backend=fake", "--fake=build=1"]) == 1
    assert "the fake builder was told to fail" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("--group=0", "'0' is no whole number above 0"),
        ("--limit=x", "'x' is no whole number above 0"),
        ("--seconds=-1", "'-1' is no whole number above 0"),
        ("--stages=parsing", "no stage 'parsing'; there are reference, conversion"),
        ("--taps=none", "invalid choice: 'none'"),
    ],
)
def test_a_wrong_argument_is_a_usage_error(
    wrong: str, why: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["bisect", "models/tiny", wrong])
    assert caught.value.code == 2
    assert f"argument {wrong.partition('=')[0]}: {why}" in capsys.readouterr().err


def test_points_are_named_once(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(project)

    assert main(["bisect", "models/tiny", "--profile=b1", "--backend=fake", "--point=nowhere"]) == 2
    assert "hint: known: max, min, opt\n" in capsys.readouterr().err


def test_a_latency_without_exclusions_is_not_silently_left_out(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)

    assert main(["bisect", "models/tiny", "--profile=b8", "--backend=fake", "--latency"]) == 0
    assert "note         latency not measured: no exclusion was found" in capsys.readouterr().out


@pytest.fixture
def exponential(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Close in fp16 on its samples; e^12 overflows there."""
    folder = project / "models" / "exponential"
    folder.mkdir()
    nodes = [node("Exp", ["x"], ["e"], name="exp"), node("Log", ["e"], ["y"], name="log")]
    onnx.save(model(nodes, {"x": ["N", 4]}, {"y": ["N", 4]}), folder / "model.onnx")
    np.savez(folder / "inputs.npz", x=np.linspace(1, 2, 32, dtype=np.float32).reshape(8, 4))
    (folder / "trt.toml").write_text(
        '[inputs]\nfile = "inputs.npz"\n[profiles.b]\nx = { min = [1, 4], opt = [4, 4], max = [8, 4] }\n'
    )
    monkeypatch.chdir(project)
    return folder


def next_command(out: str) -> list[str]:
    (line,) = [line for line in out.splitlines() if line.startswith("  next ")]
    return shlex.split(line.partition("pytest-trt ")[2])


@pytest.mark.parametrize("point", ["regression found", "random-1"])
def test_what_is_suggested_looks_where_the_case_fails(
    exponential: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    arguments = ["models/exponential", "--precision=fp16", "--backend=onnxruntime-cpu"]
    if point == "random-1":
        arguments.append("--shapes=1")
        monkeypatch.setattr(Samples, "expected", at_random_points_times_12(Samples.expected))
    else:
        (exponential / "regressions").mkdir()
        np.savez(exponential / "regressions" / "found.npz", x=np.full((1, 4), 12, np.float32))

    assert main(["compare", *arguments]) == 1
    command = next_command(capsys.readouterr().out)
    assert f"--point={point}" in command
    assert main(["bisect", *arguments]) == 0  # at opt it is close
    capsys.readouterr()
    assert main(command) == 1
    out = capsys.readouterr().out
    assert f" at {point}; relative" in out
    assert "\n  exp (Exp)\n" in out


def at_random_points_times_12(expected: Callable[..., Any]) -> Callable[..., Any]:
    def changed(lab: Lab, case: Any, shapes: Any, count: int | None) -> Any:
        samples, outputs, source = expected(lab, case, shapes, count)
        if shapes["x"][0] in (1, 4, 8):
            return samples, outputs, source
        fed = [replace(sample, feeds={"x": np.full(shapes["x"], 12, np.float32)}) for sample in samples]
        return fed, [{"y": np.full(shapes["x"], 12, np.float32)} for _ in fed], source

    return changed


def test_a_point_that_does_not_exist_is_usage(exponential: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bisect", "models/exponential", "--backend=onnxruntime-cpu", "--point=mni"]) == 2
    assert "has no point 'mni'\n  hint: did you mean 'min'?" in capsys.readouterr().err


def test_what_is_to_be_reproduced_is_judged_in_the_same_way(
    exponential: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["models/exponential", "--precision=fp16", "--backend=onnxruntime-cpu"]
    arguments += ["--tolerance=rtol=1e-9,atol=1e-9", "--samples=1", "--explain-seconds=0"]

    assert main(["compare", *arguments]) == 1
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("reproduce ")]
    command = shlex.split(line.partition("pytest-trt ")[2])
    assert {"--tolerance=rtol=1e-9,atol=1e-9", "--samples=1"} <= set(command) & set(next_command(out))
    assert main(command) == 1
