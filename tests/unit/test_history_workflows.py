"""The example workflows: they are YAML, their commands exist, and do what they say, as far as a CPU shows it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from history_rows import git, repository
from project import write_model

from pytest_trt.cli import _parser, main
from pytest_trt.settings import options

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.yml"))
PROGRAMS = ("pytest", "pytest-trt")
# What prepares the machine; tests do not install.
PREPARES = ("pip", "python3")


class Step(NamedTuple):
    """A command of a job: its program's plain name, its arguments, where its output goes, and whether it may fail."""

    program: str
    arguments: list[str]
    target: str | None
    condition: str
    may_fail: bool


def steps(path: Path) -> list[Step]:
    found = []
    for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
        for step in job["steps"]:
            for command in re.split(r"&&|\n", step.get("run", "")):
                words = shlex.split(command)
                if words:
                    target = words[words.index(">>") + 1] if ">>" in words else None
                    kept = words[: words.index(">>")] if target else words
                    condition, may_fail = str(step.get("if", "")), bool(step.get("continue-on-error"))
                    found.append(Step(Path(kept[0]).name, kept[1:], target, condition, may_fail))
    return found


def run(step: Step, folder: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    arguments = ["--trt-backend=fake" if word == "--trt-backend=tensorrt" else word for word in step.arguments]
    environ = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTEST_TRT_WARMUP": "0",
        "PYTEST_TRT_DURATION": "0.001",
        **environ,
    }
    if step.program == "pytest":
        command = [sys.executable, "-m", "pytest", *arguments]
        done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    else:
        done = shell(arguments, folder, environ)
    if step.target:
        assert step.target == "$GITHUB_STEP_SUMMARY"
        with Path(environ["GITHUB_STEP_SUMMARY"]).open("a") as summary:
            summary.write(done.stdout)
    return done


def shell(arguments: list[str], folder: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """``pytest-trt`` in this process, which has imported it already."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.chdir(folder)
        for name, value in environ.items():
            patch.setenv(name, value)
        code = main(arguments)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """A repository with one model, and the variables of a job in it."""
    folder = tmp_path / "repository"
    write_model(folder / "models" / "tiny")
    repository(folder, 1)
    git(folder, "add", "models")
    git(folder, "commit", "-q", "-m", "models")
    git(folder, "checkout", "-q", "--detach")
    return {
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "GITHUB_REF_NAME": "main",
        "GITHUB_HEAD_REF": "",
        "PYTEST_TRT_CACHE_DIR": str(tmp_path / "cache"),
    }


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_command_exists(path: Path):
    flags = {option.flag for option in options()}
    found = steps(path)

    for step in found:
        assert step.program in (*PROGRAMS, *PREPARES)
        if step.program == "pytest-trt":
            _parser().parse_args(step.arguments)  # exits with 2 otherwise
        if step.program == "pytest":
            assert {word.partition("=")[0] for word in step.arguments if word.startswith("--trt-")} <= flags
    assert {"pytest"} <= {step.program for step in found}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_file_that_is_kept_is_written(path: Path):
    for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
        (kept,) = (s["with"]["path"].split() for s in job["steps"] if "upload-artifact" in s.get("uses", ""))
        commands = " ".join(s.get("run", "") for s in job["steps"])
        assert kept
        assert all(f"={name.rstrip('/')}" in commands for name in kept)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_extras_and_variables_exist(path: Path):
    text = path.read_text(encoding="utf-8")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

    extras = [name for found in re.findall(r"pytest-trt\[([\w,]+)\]", text) for name in found.split(",")]
    assert extras
    assert all(re.search(rf"^{name} = \[", project, re.MULTILINE) for name in extras)
    assert set(re.findall(r"PYTEST_TRT_\w+", text)) <= {option.variable for option in options()}


def test_the_cpu_job_runs(job: dict[str, str], tmp_path: Path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("xdist")
    (step,) = (step for step in steps(ROOT / "docs" / "examples" / "github-cpu.yml") if step.program in PROGRAMS)

    done = run(step, tmp_path / "repository", job)

    assert done.returncode == 0, done.stdout
    page = Path(job["GITHUB_STEP_SUMMARY"]).read_text()
    assert page.startswith("# Engines: 6 passed\n")
    assert "tiny-int8-b8" in page
    assert (tmp_path / "repository" / "report.json").is_file()
    assert (tmp_path / "repository" / "junit.xml").is_file()


def baseline_modes() -> dict[str, str]:
    """Each event that starts the GPU job -> what the job then asks of baselines."""
    workflow = yaml.safe_load((ROOT / "docs" / "examples" / "github-gpu.yml").read_text(encoding="utf-8"))
    (job,) = workflow["jobs"].values()
    asked = re.fullmatch(
        r"\$\{\{ contains\('([\w ]+)', github\.event_name\) && '(\w+)' \|\| '(\w+)' \}\}",
        job["env"]["PYTEST_TRT_BASELINE"],
    )
    assert asked
    events, then, otherwise = asked.groups()
    # YAML 1.1 reads the key "on" as true.
    return {event: then if event in events.split() else otherwise for event in workflow[True]}


def test_strict_is_for_the_runs_that_no_change_waits_for():
    assert baseline_modes() == {
        "push": "report",
        "pull_request": "report",
        "schedule": "strict",
        "workflow_dispatch": "strict",
    }


def test_a_waiver_holds_where_a_change_waits_and_nowhere_else(job: dict[str, str], tmp_path: Path):
    folder = tmp_path / "repository"
    (step,) = (s for s in steps(ROOT / "docs" / "examples" / "github-gpu.yml") if s.program == "pytest")
    recording = step._replace(arguments=[*step.arguments, "--trt-update-baselines=new"])
    assert run(recording, folder, job).returncode == 0

    def codes() -> dict[str, int]:
        slow = {**job, "PYTEST_TRT_FAKE": "latency=1.5"}
        return {mode: run(step, folder, {**slow, "PYTEST_TRT_BASELINE": mode}).returncode for mode in modes}

    modes = sorted(set(baseline_modes().values()))
    regressed = codes()
    row = '[[waiver]]\ncase = "*"\nowner = "jane"\nreason = "late"\nexpires = 2999-01-31\n'
    (folder / "baselines" / "waivers.toml").write_text(row)

    assert regressed == {"report": 1, "strict": 1}
    assert codes() == {"report": 0, "strict": 1}


def test_the_gpu_job_runs_up_to_the_gpu(job: dict[str, str], tmp_path: Path):
    pytest.importorskip("ruptures")
    pytest.importorskip("matplotlib")
    folder, environ = tmp_path / "repository", {**job, "PYTEST_TRT_HISTORY": str(tmp_path / "history")}
    commands = [step for step in steps(ROOT / "docs" / "examples" / "github-gpu.yml") if step.program in PROGRAMS]
    main_job = next(step for step in commands if step.program == "pytest")
    recording = [*main_job.arguments, "--trt-update-baselines=new"]
    assert run(main_job._replace(arguments=recording), folder, environ).returncode == 0

    codes: dict[str, Any] = {}
    for step in commands:
        event = {"GITHUB_HEAD_REF": "topic"} if "pull_request" in step.condition else {}
        if step.program == "pytest":
            event = {"GITHUB_HEAD_REF": "topic"}  # the run that is compared with main
        done = run(step, folder, {**environ, **event})
        codes[" ".join([step.program, *step.arguments[:2]])] = done.returncode
        assert step.may_fail or done.returncode == 0, done.stdout + done.stderr

    assert codes["pytest-trt history compare"] == 0
    assert codes["pytest-trt history when"] == 4  # two runs are too few to see a change
    summary = Path(environ["GITHUB_STEP_SUMMARY"]).read_text()
    assert "# Engines: 6 passed" in summary
    assert "main ms" in summary
    assert len(list((folder / "plots").glob("*.svg"))) == 6
    assert (folder / "benchmark.json").is_file()
