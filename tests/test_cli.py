"""The shell's front door: each command and each exit code, in this process; the two ways in, in one of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from project import write_model
from shell import Cli, Ran, shell

from pytest_trt import __version__, backends
from pytest_trt.artifacts.directory import DirectoryStore
from pytest_trt.backends import get_backend
from pytest_trt.record import Record

PASS, MISMATCH, USAGE, NOTHING, ENVIRONMENT = 0, 1, 2, 4, 5
NEEDS_NO_TENSORRT = pytest.mark.skipif(get_backend("tensorrt").probe().ok, reason="TensorRT works here")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with the model folder ``tiny``; its cache is its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTEST_TRT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTEST_TRT_BACKEND", "fake")
    write_model(tmp_path / "tiny")
    return tmp_path


@pytest.fixture
def cli(project: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    return shell(capsys)


# ---- doctor ----------------------------------------------------------------------------------------------------------


def test_doctor_shows_each_backend_and_the_cache(cli: Cli, project: Path) -> None:
    ran = cli("doctor")

    lines = ran.out.splitlines()
    assert ran.code == PASS
    assert lines[0].startswith(f"pytest-trt {__version__}, Python 3.")
    assert [line.split()[1].rstrip(":") for line in lines if line.startswith("backend ")] == list(backends.BACKENDS)
    assert "backend  fake: works" in lines
    assert f"cache    {project / 'cache'}" in lines
    assert any(line.startswith("package  onnx ") for line in lines)


@NEEDS_NO_TENSORRT
def test_doctor_says_why_a_backend_does_not_work(cli: Cli) -> None:
    (line,) = [line for line in cli("doctor").out.splitlines() if line.startswith("backend  tensorrt")]

    assert line == f"backend  tensorrt: does not work: {get_backend('tensorrt').probe().reason}"


def test_doctor_where_nothing_but_the_simulation_works(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "BACKENDS", {"fake": backends.BACKENDS["fake"]})

    assert cli("doctor").code == ENVIRONMENT


# ---- build -----------------------------------------------------------------------------------------------------------


def test_build_builds_once(cli: Cli) -> None:
    first, second = cli("build", "tiny"), cli("build", "tiny")

    assert first.code == second.code == PASS
    assert [line.split(",")[0] for line in first.out.splitlines()] == [
        "tiny-fp32-b1-fake: built in 0.00 s",
        "tiny-fp32-b8-fake: built in 0.00 s",
    ]
    assert [line.split(",")[0] for line in second.out.splitlines()] == [
        "tiny-fp32-b1-fake: cached",
        "tiny-fp32-b8-fake: cached",
    ]
    assert "fake: building tiny" in first.err
    assert second.err == ""
    assert [line.split()[-1] for line in first.out.splitlines()] == [
        line.split()[-1] for line in second.out.splitlines()
    ]


def test_a_failed_build_does_not_stop_the_others(cli: Cli) -> None:
    cli("build", "tiny", "--profile=b8")

    ran = cli("build", "tiny", "--fake=build=1")

    assert ran.code == MISMATCH
    assert "tiny-fp32-b1-fake: the fake builder was told to fail\n  hint: leave build=1 out" in ran.out
    assert "tiny-fp32-b8-fake: cached" in ran.out


def test_build_says_what_is_simulated(cli: Cli) -> None:
    ran = cli("build", "tiny", "--precision=fp32,fp16", "--profile=b1")

    assert [", simulated," in line for line in ran.out.splitlines()] == [False, True]


# ---- compare ---------------------------------------------------------------------------------------------------------


def test_compare_passes_with_its_evidence(cli: Cli) -> None:
    ran = cli("compare", "tiny", "--precision=fp16", "--profile=b8")

    assert ran.code == PASS
    assert ran.out.startswith('passed tiny[fp16, b8, fake] (simulated): output "y" is close to the reference')
    assert "worst abs" in ran.out
    assert "reference: running tiny in onnxruntime" in ran.err


def test_compare_fails_with_where_and_how_to_go_on(cli: Cli) -> None:
    ran = cli("compare", "tiny", "--profile=b8", "--fake=error=0.1", "--seed=7")

    assert ran.code == MISMATCH
    assert 'FAILED tiny[fp32, b8, fake]: output "y" is not close to the reference: ' in ran.out
    assert "tolerance " in ran.out
    assert (
        "reproduce    pytest-trt compare tiny --precision=fp32 --profile=b8 --backend=fake --seed=7 --fake=error=0.1\n"
        in ran.out
    )


@pytest.mark.parametrize("flag", ["--plugin", "--plugins"])
def test_the_line_that_reproduces_names_plugins_in_one_spelling(cli: Cli, project: Path, flag: str) -> None:
    (project / "libfoo.so").write_bytes(b"a library")

    ran = cli("compare", "tiny", "--profile=b8", f"{flag}=libfoo.so", "--fake=error=0.1")

    assert ran.code == MISMATCH
    assert "reproduce    pytest-trt compare tiny --precision=fp32 --profile=b8 --backend=fake --plugin=" in ran.out


@pytest.mark.parametrize(
    ("command", "ignored"),
    [
        ("bisect", {"alpha": "0.1", "power": "0.9", "explain": "on", "explain-seconds": "9", "census": "fail"}),
        ("tolerances", {"alpha": "0.1", "explain": "on", "census": "fail", "tolerance": "cosine=0.9", "shapes": "9"}),
        ("build", {"alpha": "0.1", "explain": "on", "census": "fail", "tolerance": "rtol=1,atol=1", "samples": "3"}),
    ],
)
def test_an_option_that_a_command_would_ignore_is_refused(cli: Cli, command: str, ignored: dict[str, str]) -> None:
    for name, value in ignored.items():
        ran = cli(command, "tiny", f"--{name}={value}")

        assert ran.code == USAGE
        assert f"unrecognized arguments: --{name}" in ran.err


def test_compare_goes_on_after_a_broken_model(cli: Cli, project: Path) -> None:
    (write_model(project / "cut") / "model.onnx").write_bytes(b"")

    ran = cli("compare", "cut", "tiny", "--profile=b1")

    assert ran.code == MISMATCH
    assert "FAILED " in ran.out
    assert "model.onnx is empty" in ran.out
    assert "passed tiny[fp32, b1, fake]" in ran.out


def test_what_the_cache_has_to_say_is_said_once(cli: Cli, project: Path) -> None:
    (project / "file").touch()

    ran = cli("compare", "tiny", f"--cache-dir={project / 'file' / 'cache'}")

    assert ran.code == PASS
    assert ran.err.count("pytest-trt: cache: nothing is kept in ") == 1
    assert ran.err.endswith("; see --cache-dir\n")


def test_compare_takes_manifests_and_files_from_anywhere(cli: Cli, project: Path) -> None:
    write_model(project / "far" / "bare", manifest=None)

    by_manifest = cli("compare", "tiny/trt.toml", "--profile=b1")
    by_file = cli("compare", str(project / "far" / "bare" / "model.onnx"), "--fake=error=0.5")

    assert by_manifest.code == PASS
    assert by_file.code == MISMATCH
    assert "reproduce    pytest-trt compare far/bare/model.onnx --precision=fp32 --profile=default" in by_file.out


def test_compare_on_onnxruntime_where_the_precision_does_not_exist(cli: Cli) -> None:
    ran = cli("compare", "tiny", "--precision=tf32", "--backend=onnxruntime-cpu")

    assert ran.code == NOTHING
    assert ran.out.count("skipped: ONNX Runtime's CPU provider has no tf32") == 2


def test_compare_with_one_skip_and_one_pass_passes(cli: Cli) -> None:
    assert cli("compare", "tiny", "--precision=tf32,fp32", "--backend=onnxruntime-cpu", "--profile=b1").code == PASS


def test_compare_writes_a_report_of_each_outcome(cli: Cli, project: Path) -> None:
    (write_model(project / "cut") / "model.onnx").write_bytes(b"")
    cases = ("--precision=fp32,tf32", "--profile=b1", "--report=out/report.json", "--backend=onnxruntime-cpu")

    cli("compare", "tiny", "cut", *cases)

    records = json.loads((project / "out" / "report.json").read_text())["records"]
    assert {r["id"]: r["outcomes"]["accuracy"] for r in records} == {
        "tiny-fp32-b1-onnxruntime-cpu": "passed",
        "tiny-tf32-b1-onnxruntime-cpu": "skipped",
        "cut-fp32-b1-onnxruntime-cpu": "error",
        "cut-tf32-b1-onnxruntime-cpu": "skipped",
    }
    assert "is empty" in records[2]["messages"]["accuracy"]


@NEEDS_NO_TENSORRT
@pytest.mark.parametrize("command", ["build", "compare"])
def test_tensorrt_where_it_is_missing_is_an_error_of_the_environment(cli: Cli, command: str) -> None:
    ran = cli(command, "tiny", "--backend=tensorrt")

    assert ran.code == ENVIRONMENT
    assert ran.out == ""
    assert get_backend("tensorrt").probe().reason in ran.err
    assert "hint: pytest-trt doctor" in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision=fp61"], "unknown precision 'fp61'\n  hint: did you mean 'fp16'?"),
        (["--backend=tensorrtt"], "unknown backend 'tensorrtt'\n  hint: did you mean 'tensorrt'?"),
        (["--profile=b9"], "none of the models has a profile b9"),
        (["--seed=-1"], "--seed: cannot use '-1': a number of 0 or more is wanted"),
        (["--cache=of"], "--cache: cannot use 'of': one of off, ro, rw is wanted; did you mean 'off'?"),
        (["--tolerance=rtool=1"], "unknown tolerance 'rtool' in 'rtool=1'\n  hint: did you mean 'rtol'?"),
        (["--tolerance=rtol=1"], "rtol"),
        (["--fake=latncy=2"], "unknown fault 'latncy'\n  hint: did you mean 'latency'?"),
        (["--update-baselines=all"], "unrecognized arguments"),  # compare records nothing
        (["--search=9"], "unrecognized arguments"),  # an item of its own, as --streams and --builds are
        (["--tactics=JIT"], "'JIT' is not +SOURCE or -SOURCE"),
        (["--backend=onnxruntime-cpu", "--tactics=+CUBLAS"], "is TensorRT's; onnxruntime-cpu has nothing like it"),
        (["--backend=onnxruntime-cpu", "--opt-level=3"], "is TensorRT's; onnxruntime-cpu has nothing like it"),
        (["tinny"], "tinny: there is no such model"),
        (["--presicion=fp16"], "unrecognized arguments: --presicion=fp16"),
    ],
)
def test_wrong_usage_says_so_on_stderr_before_anything_is_built(
    cli: Cli, project: Path, arguments: list[str], message: str
) -> None:
    ran = cli("compare", "tiny", *arguments)

    assert ran.code == USAGE
    assert ran.out == ""
    assert message in ran.err
    assert not (project / "cache").exists()


@pytest.mark.parametrize("option", ["--output", "--records"])
def test_a_page_that_cannot_be_written_is_usage(cli: Cli, project: Path, option: str) -> None:
    cli("compare", "tiny", "--report=report.json")

    ran = cli("report", "report.json", f"{option}={project / 'tiny'}")

    assert (ran.code, ran.out) == (USAGE, "")
    assert "cannot be written: Is a directory" in ran.err


def test_a_folder_of_models_names_them(cli: Cli, project: Path) -> None:
    ran = cli("compare", ".")

    assert ran.code == USAGE
    assert "there is no such model\n  hint: name a model of this folder: tiny\n" in ran.err


@pytest.mark.parametrize("arguments", [[], ["cache"], ["compare"], ["cache", "lst"], ["report"], ["bench"]])
def test_an_incomplete_command_is_usage(cli: Cli, arguments: list[str]) -> None:
    ran = cli(*arguments)

    assert ran.code == USAGE
    assert "usage: pytest-trt" in ran.err


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("[modle]\n", "unknown table [modle]\n  hint: did you mean 'model'?"),
        ("[tolerance.fp32]\ncosin = 1\n", "[tolerance.fp32] in trt.toml: unknown tolerance 'cosin'"),
        ("[tolerance.fp32]\ncosine = 2\n", "[tolerance.fp32] in trt.toml: cosine must lie in -1 … 1"),
        ('[model]\npath = "a\\u0000b"\n', "cannot be followed"),
    ],
)
def test_a_wrong_manifest_is_usage(cli: Cli, project: Path, manifest: str, message: str) -> None:
    write_model(project / "wrong", manifest=manifest)

    ran = cli("compare", "wrong")

    assert ran.code == USAGE
    assert message in ran.err


# ---- cache -----------------------------------------------------------------------------------------------------------


def entry_of(project: Path, kind: str) -> Path:
    (folder,) = (project / "cache" / kind).glob("*/*")
    return folder


def test_cache_lists_what_there_is(cli: Cli) -> None:
    empty = cli("cache", "ls")
    cli("compare", "tiny", "--profile=b1")
    filled = cli("cache", "ls")

    assert empty == Ran(PASS, "0 entries, 0.0 MB\n", "")
    kinds = {line.split()[1]: line for line in filled.out.splitlines()[:-1]}
    assert set(kinds) == {"engine", "fact", "reference"}
    assert kinds["engine"].endswith("tiny-fp32-b1-fake")
    assert filled.out.splitlines()[-1].startswith(f"{len(filled.out.splitlines()) - 1} entries")


def test_cache_explains_an_entry_against_the_one_most_like_it(cli: Cli, project: Path) -> None:
    cli("build", "tiny", "--profile=b1")
    alone = cli("cache", "explain", entry_of(project, "engine").name[:12])
    lines = cli("build", "tiny", "--profile=b8").out.split("entry ")

    differs = cli("cache", "explain", lines[-1].strip())

    assert alone.code == differs.code == PASS
    assert "label    tiny-fp32-b1-fake" in alone.out
    assert "no other entry is like it" in alone.out
    assert "(tiny-fp32-b1-fake) in:\n  profiles.0.x: [[1,4],[1,4],[1,4]] → [[1,4],[8,4],[16,4]]" in differs.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "cache explain needs the digest"), (["zz"], "0 entries begin with 'zz'"), ([""], "needs the digest")],
)
def test_cache_explain_needs_one_entry(cli: Cli, arguments: list[str], message: str) -> None:
    ran = cli("cache", "explain", *arguments)

    assert ran.code == USAGE
    assert message in ran.err
    assert "pytest-trt cache ls" in ran.err


def test_a_damaged_engine_is_named_and_built_again(cli: Cli, project: Path) -> None:
    cli("compare", "tiny", "--profile=b1")
    sound = cli("cache", "verify")
    folder = entry_of(project, "engine")
    plan = bytearray((folder / "engine.fake").read_bytes())
    plan[len(plan) // 2] ^= 1
    (folder / "engine.fake").write_bytes(plan)

    damaged = cli("cache", "verify")
    compared = cli("compare", "tiny", "--profile=b1")
    repaired = cli("cache", "verify")

    assert (sound.code, sound.err) == (PASS, "")
    assert "entries, each matches its recorded digest\n" in sound.out
    assert damaged.code == MISMATCH
    assert damaged.out == f"{folder.name[:12]}  engine: engine.fake does not match its recorded digest\n"
    assert compared.code == PASS
    assert "fake: building tiny" in compared.err
    assert "reference: running" not in compared.err
    assert repaired.code == PASS


def test_cache_gc_evicts_what_is_asked(cli: Cli, project: Path) -> None:
    cli("build", "tiny")

    kept = cli("cache", "gc", "--older-than=1")
    evicted = cli("cache", "gc", "--cache-size=0")

    assert kept.out.startswith("0 entries removed")
    assert "entries removed" in evicted.out
    assert list(DirectoryStore(project / "cache").entries()) == []


def test_cache_gc_of_a_cache_that_is_only_read_is_usage(cli: Cli) -> None:
    ran = cli("cache", "gc", "--cache=ro")

    assert ran.code == USAGE
    assert "cannot be trimmed" in ran.err


def test_a_cache_only_read_stays_as_it_is(cli: Cli, project: Path) -> None:
    cli("build", "tiny", "--profile=b1")

    ran = cli("build", "tiny", "--cache=ro")

    assert [line.split(",")[0].split(": ")[1].split()[0] for line in ran.out.splitlines()] == ["cached", "built"]
    assert len(list((project / "cache" / "engine").glob("*/*"))) == 1


# ---- baseline and report ---------------------------------------------------------------------------------------------


@pytest.fixture
def measured(cli: Cli, project: Path) -> Path:
    """The path of a report with one case that has passed and one that has failed."""
    cli("compare", "tiny", "--precision=fp32,fp16", "--profile=b1", "--report=good.json")
    content = json.loads((project / "good.json").read_text())
    cli("compare", "tiny", "--precision=int8", "--profile=b1", "--fake=error=0.5", "--report=bad.json")
    content["records"] += json.loads((project / "bad.json").read_text())["records"]
    (project / "report.json").write_text(json.dumps(content))
    return Path("report.json")


def test_baseline_accept_writes_what_passed_and_ls_lists_it(cli: Cli, project: Path, measured: Path) -> None:
    nothing = cli("baseline", "ls")
    accepted = cli("baseline", "accept", str(measured), "--reason=agreed")
    again = cli("baseline", "accept", str(measured), "--update-baselines=all", "--reason=a better kernel")
    listed = cli("baseline", "ls")

    assert (nothing.code, nothing.out) == (NOTHING, "")
    assert "there are no baselines below" in nothing.err
    assert accepted.code == again.code == PASS
    assert "baselines: 2 written below" in accepted.out
    assert "tiny-int8-b1-fake" not in accepted.out
    (file,) = project.glob("baselines/*/tiny.json")
    assert set(json.loads(file.read_text())["cases"]) == {"tiny-fp32-b1-fake", "tiny-fp16-b1-fake"}
    assert listed.code == PASS
    assert listed.out.startswith(f"{file}: ")
    assert listed.out.count("a better kernel") == 2


def test_baseline_anchor_moves_anchors_with_a_reason(cli: Cli, project: Path, measured: Path) -> None:
    cli("baseline", "accept", str(measured), "--reason=agreed")
    cli("baseline", "accept", str(measured), "--update-baselines=all", "--reason=again")
    beside = cli("baseline", "ls")
    refused = cli("baseline", "anchor")
    moved = cli("baseline", "anchor", "--reason=release 2")
    nothing = cli("baseline", "anchor", "--reason=release 2")
    measured_again = cli("baseline", "anchor", str(measured), "--reason=release 3")

    assert beside.out.count("    anchor no latency, recorded ") == 2
    assert (refused.code, moved.code, nothing.code, measured_again.code) == (USAGE, PASS, PASS, PASS)
    assert "moving anchors needs a reason" in refused.err
    assert "--trt-" not in refused.err
    assert len(moved.out.splitlines()) == 2
    assert nothing.out == "baselines: every anchor is the recent one\n"
    assert "baselines: 2 written below" in measured_again.out
    assert "anchor no latency" not in cli("baseline", "ls").out


def test_baseline_accept_that_refuses_a_case_exits_with_1(cli: Cli, project: Path, measured: Path) -> None:
    content = json.loads(measured.read_text())
    content["records"][0]["streams"] = {"repeats": False}
    measured.write_text(json.dumps(content))

    ran = cli("baseline", "accept", str(measured), "--reason=agreed")

    assert ran.code == MISMATCH
    assert "baselines: 1 written below" in ran.out
    assert "tiny-fp32-b1-fake: not written: the engine gives other outputs each time" in ran.out


def test_baseline_ls_lists_waivers(cli: Cli, project: Path, measured: Path) -> None:
    cli("baseline", "accept", str(measured), "--reason=agreed")
    row = '[[waiver]]\ncase = "{}"\nowner = "jane"\nreason = "late"\nexpires = {}\n'
    text = row.format("tiny-*", "2999-01-31") + row.format("a", "2020-01-31")
    (project / "baselines" / "waivers.toml").write_text(text)

    listed = cli("baseline", "ls").out.splitlines()

    assert listed[-2:] == ["waiver tiny-*  until 2999-01-31  jane: late", "waiver a  EXPIRED on 2020-01-31  jane: late"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "baseline accept needs a report"),
        (["nothing.json", "--reason=r"], "nothing.json: cannot be read: No such file"),
        (["tiny/inputs.npz", "--reason=r"], "tiny/inputs.npz: not a report of pytest-trt"),
        (["report.json"], "accepting a report (new) needs a reason"),
        (["report.json", "--update-baselines=new", "--reason=  "], "accepting a report (new) needs a reason"),
        (["report.json", "--update-baselines=renamed"], "changing baselines (renamed) needs a reason"),
        (["report.json", "--update-baselines=orphaned"], "changing baselines (orphaned) needs a reason"),
        (["report.json", "--update-baselines=failed", "--reason=  "], "changing baselines (failed) needs a reason"),
        (["report.json", "--update-baselines=all"], "changing baselines (all) needs a reason"),
    ],
)
def test_baseline_accept_says_what_it_needs(cli: Cli, measured: Path, arguments: list[str], message: str) -> None:
    ran = cli("baseline", "accept", *arguments)

    assert ran.code == USAGE
    assert message in ran.err
    assert "--trt-reason" not in ran.err
    assert not Path("baselines").exists()
    assert len(ran.err) < 500


def test_a_broken_baseline_file_is_named(cli: Cli, project: Path, measured: Path) -> None:
    cli("baseline", "accept", str(measured), "--reason=agreed")
    (file,) = project.glob("baselines/*/tiny.json")
    file.write_bytes(bytes(range(256)) * 40)

    ran = cli("baseline", "ls")

    assert ran.code == MISMATCH
    assert "tiny.json: not a baseline file" in ran.err
    assert len(ran.err) < 500


def test_report_is_markdown_on_stdout_or_in_a_file(cli: Cli, project: Path, measured: Path) -> None:
    shown = cli("report", str(measured), "--title=Nightly")
    written = cli("report", str(measured), "--title=Nightly", "--output=page.md")

    assert shown.code == written.code == PASS
    assert shown.out.startswith("# Nightly\n")
    assert "## tiny" in shown.out
    main_table = shown.out.partition("## What the engines are made of")[0]
    rows = [line for line in main_table.splitlines() if line.startswith("| tiny-")]
    cases = [row.split(" | ")[0].removeprefix("| ") for row in rows]
    assert [case.rstrip(" *").removesuffix("-fake") for case in cases] == [
        "tiny-fp32-b1",
        "tiny-fp16-b1",
        "tiny-int8-b1",
    ]
    assert [case.endswith(" *") for case in cases] == [False, True, True]
    assert "is not close to the reference" in shown.out
    assert "simulated: the fake backend computes fp16 in float32" in shown.out
    assert written.out == ""
    assert (project / "page.md").read_text() == shown.out


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"schema": 0}', '{"schema": 1}', '{"schema": 1, "records": [{}]}'], ids=str
)
def test_report_refuses_what_is_no_report(cli: Cli, project: Path, content: str) -> None:
    (project / "x.json").write_text(content)

    ran = cli("report", "x.json")

    assert ran.code == USAGE
    assert "x.json: " in ran.err


def test_a_report_reads_back_as_it_was_written(measured: Path) -> None:
    content = json.loads(measured.read_text())

    assert [Record.from_json(row).to_json() for row in content["records"]] == content["records"]


# ---- the ways in -----------------------------------------------------------------------------------------------------


def test_the_module_and_the_script_are_the_same_program(project: Path) -> None:
    script = Path(sys.executable).with_name("pytest-trt")
    build = ["build", "tiny", "--profile=b1"]

    module, console = (
        subprocess.run([*program, *build], check=False, capture_output=True, text=True, timeout=120)
        for program in ([sys.executable, "-m", "pytest_trt"], [script])
    )

    assert module.returncode == console.returncode == PASS
    assert "tiny-fp32-b1-fake: built" in module.stdout
    assert "tiny-fp32-b1-fake: cached" in console.stdout
    assert console.stderr == ""


def test_a_reader_that_has_seen_enough_gets_no_traceback_and_no_pass(cli: Cli, project: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "pytest_trt", "doctor"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=120) == 141  # under pipefail a gate must not be green


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("buffered", [False, True])
def test_a_full_disk_behind_the_output_is_no_verdict(cli: Cli, project: Path, buffered: bool) -> None:
    environ = {**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pytest_trt", "doctor"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False, env=environ,
        )  # fmt: skip

    assert done.returncode == ENVIRONMENT
    assert done.stderr.splitlines()[-1] == "pytest-trt: the output cannot be written: No space left on device"


def test_an_error_of_something_else_is_not_laid_on_the_output(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from pytest_trt.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*_: object) -> int:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("pytest_trt.cli.doctor.run", run)
    with pytest.raises(OSError, match="Cannot allocate memory"):
        main(["doctor"])
    assert "the output cannot be written" not in capfd.readouterr().err


def test_a_verdict_is_whole_where_the_terminal_lacks_characters(project: Path) -> None:
    command = [sys.executable, "-m", "pytest_trt", "compare", "tiny", "--profile=b1", "--fake=error=0.5"]
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}

    done = subprocess.run(command, env=ascii_only, check=False, capture_output=True, text=True, timeout=120)

    assert done.returncode == MISMATCH
    assert "|actual - expected| <= " in done.stdout
    assert "reproduce    pytest-trt compare " in done.stdout
    assert "Traceback" not in done.stderr


def test_version_and_help(cli: Cli) -> None:
    assert cli("--version") == Ran(PASS, f"pytest-trt {__version__}\n", "")
    shown = cli("compare", "--help")
    assert shown.code == PASS
    assert "--precision P[,P…]" in shown.out


# --- the same build elsewhere ---


def test_the_lines_of_other_tools_name_files_that_exist(cli: Cli, project: Path) -> None:
    ran = cli(
        "build", "tiny", "--precision=fp16", "--opt-level=3", "--tiling=full", "--as-trtexec=8.6", "--as-polygraphy"
    )

    assert ran.code == PASS
    lines = ran.out.splitlines()
    trtexec = [line for line in lines if line.startswith("trtexec ")]
    polygraphy = [line for line in lines if line.startswith("polygraphy ")]
    assert len(trtexec) == len(polygraphy) == 2
    assert all("--fp16" in line and "--builderOptimizationLevel=3" in line for line in trtexec)
    assert "# trtexec 8.6 has no flag for tiling" in lines
    (model,) = {word.partition("=")[2] for line in trtexec for word in line.split() if word.startswith("--onnx=")}
    assert (project / model).is_file()
    plans = {word for line in trtexec for word in line.split() if word.startswith("--saveEngine=")}
    assert len(plans) == 2, "two profiles are two engines"


def test_what_no_other_tool_can_build_is_skipped_aloud(cli: Cli, project: Path) -> None:
    (project / "hand").mkdir()
    (project / "hand" / "net.py").write_text("def build(network, trt):\n    pass\n")
    (project / "hand" / "trt.toml").write_text(
        '[model]\nsource = "net.py:build"\n[interface.inputs]\nx = [2, 4]\n[interface.outputs]\ny = [2, 4]\n'
        "[profiles.b2]\nx = [2, 4]\n"
    )
    write_model(project / "finished", '[model]\nplan = "net.plan"\npath = "model.onnx"\n[profiles.b1]\nx = [1, 4]\n')
    (project / "finished" / "net.plan").write_bytes(b"plan")
    ran = cli("build", "hand", "finished", "tiny", "--as-trtexec=10")
    none = cli("build", "hand", "--as-polygraphy")

    assert ran.code == PASS
    assert "# hand[fp32, b2, tensorrt]\n# skipped: there is no ONNX graph that trtexec could read\n" in ran.out
    assert "# finished[fp32, b1, tensorrt]\n# skipped: it is a finished plan: trtexec --loadEngine=" in ran.out
    assert len([line for line in ran.out.splitlines() if line.startswith("trtexec ")]) == 2
    assert none.code == NOTHING


def test_a_precision_that_a_model_cannot_have_leaves_the_other_lines(cli: Cli) -> None:
    ran = cli("build", "tiny", "--precision=int4,fp32", "--as-trtexec=10.13")

    assert ran.code == MISMATCH
    assert "# tiny[int4, b1, tensorrt]\n# recipe int4: nothing to do in int4" in ran.out
    assert all(line.startswith(("#", "trtexec ")) for line in ran.out.splitlines() if line)
    assert len([line for line in ran.out.splitlines() if line.startswith("trtexec ")]) == 2


@pytest.mark.parametrize("version", ["7.2", "8.5", "ten"])
def test_a_version_that_is_none_is_refused(cli: Cli, version: str) -> None:
    ran = cli("build", "tiny", f"--as-trtexec={version}")

    assert ran.code == USAGE
    assert f"{version!r} is not a TensorRT version" in ran.err
    assert "8.6" in ran.err
