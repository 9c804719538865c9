"""``pytest-trt history``: what each command prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from history_rows import git, repository, row
from shell import Cli, shell

from pytest_trt.history.git import GitState
from pytest_trt.history.log import HistoryLog

PASS, REGRESSION, USAGE, INCONCLUSIVE, NOTHING = range(5)
CASE = "digits-fp16-b8-tensorrt"


@pytest.fixture
def commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A repository of 16 commits in the current directory; from the ninth on its case is 10 % slower."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTEST_TRT_CACHE_DIR", str(tmp_path / "cache"))
    found = repository(tmp_path, 16)
    log = HistoryLog(tmp_path / "history")
    for number, commit in enumerate(found):
        log.append([row(number, 1.0 if number < 8 else 1.1, git=GitState(commit, "main"))])
    return found


@pytest.fixture
def cli(commits: list[str], capsys: pytest.CaptureFixture[str]) -> Cli:
    return shell(capsys, "history")


def test_an_action_is_needed(cli: Cli):
    assert cli().code == USAGE


def test_list_shows_runs_and_rows(cli: Cli, commits: list[str]):
    runs, rows = cli("list").out.splitlines(), cli("list", "digits-*").out.splitlines()

    assert len(runs) == len(rows) == 17
    assert runs[1].split() == [
        "run-0000",
        "2026-01-01T00:00",
        commits[0][:8],
        "main",
        "1",
        "passed",
        "nvidia-h200_tensorrt_10.16.1",
    ]
    assert rows[16].split() == [
        "2026-01-16T00:00",
        commits[15][:8],
        "main",
        CASE,
        "1.1",
        "graph",
        "1.00e-04",
        "1.23",
        "passed",
    ]


def test_list_takes_filters_and_prints_json(cli: Cli, commits: list[str]):
    found = json.loads(cli("list", "--json", "--commits=HEAD~2..HEAD", "--branch=main").out)

    assert [line["git"]["commit"] for line in found] == commits[14:]
    assert cli("list", "--branch=topic").code == NOTHING
    assert cli("list", "--environment=amd-*").code == NOTHING
    assert "git does not know the range" in cli("list", "--commits=a..b").err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["HEAD~15", "HEAD"], REGRESSION),
        (["HEAD", "HEAD~15"], PASS),
        (["latest~1", "latest"], PASS),
        (["HEAD~15", "HEAD", "--threshold=20%"], PASS),
        (["HEAD~15", "HEAD", "--threshold=10%"], PASS),
        (["HEAD~15", "HEAD", "--threshold=10%", "--inconclusive=fail"], INCONCLUSIVE),
        (["HEAD~15", "HEAD", "--case=nothing*"], NOTHING),
        (["HEAD~15", "v9"], USAGE),
        (["HEAD~15"], USAGE),
    ],
)
def test_compare_s_exit_codes(cli: Cli, arguments: list[str], code: int):
    assert cli("compare", *arguments).code == code


def test_compare_prints_json(cli: Cli):
    (change,) = json.loads(cli("compare", "HEAD~15", "HEAD", "--json").out)

    assert change["verdict"]["outcome"] == "fail"
    assert change["before"]["median_ms"] == pytest.approx(1.0)


def test_when_names_the_commits(cli: Cli, commits: list[str]):
    pytest.importorskip("ruptures")
    ran = cli("when", CASE)

    assert ran.code == REGRESSION
    assert ": 16 runs, 1 change above 1.0%\n" in ran.out
    assert "slower by 10.0%: 1 → 1.1 ms (8 runs before, 8 after)" in ran.out
    assert f"git log --oneline {commits[7][:12]}..{commits[8][:12]}   # 1 commit\n" in ran.out
    (found,) = json.loads(cli("when", CASE, "--json").out)
    assert found["slower"]
    assert [shift["after"]["commit"] for shift in found["shifts"]] == [commits[8]]


def test_when_follows_git_and_not_the_clock(cli: Cli, commits: list[str], tmp_path: Path):
    """An old commit that is measured today stands at its place, and another branch's says nothing here."""
    pytest.importorskip("ruptures")
    log = HistoryLog(tmp_path / "history")
    log.append([row(60, 1.0, git=GitState(commits[2], "main"))])
    log.append([row(61, 5.0, git=GitState("f" * 40, "topic"))])
    log.append([row(62, 5.0, git=GitState(commits[3], "main", dirty=True))])

    ran = cli("when", CASE)

    assert "(9 runs before, 8 after)" in ran.out
    assert "2 runs of commits that HEAD does not contain" in ran.err


def test_when_there_is_nothing_slower(cli: Cli):
    pytest.importorskip("ruptures")

    assert cli("when", CASE, "--threshold=15%").code == PASS
    assert cli("when", CASE, "--commits=HEAD~8..HEAD").code == PASS
    few = cli("when", CASE, "--commits=HEAD~3..HEAD")
    assert (few.code, "3 runs, too few to see a change" in few.out) == (NOTHING, True)
    assert cli("when", "nothing").code == NOTHING


def test_when_nothing_was_measured_says_so(cli: Cli, tmp_path: Path):
    HistoryLog(tmp_path / "history").append([row(70, None, id="net-fp32-b1-fake")])

    ran = cli("when", "net-fp32-b1-fake")

    assert (ran.code, "none of these runs has a latency" in ran.err) == (NOTHING, True)


def test_plot_writes_a_picture_per_series(cli: Cli, tmp_path: Path):
    pytest.importorskip("ruptures")
    pytest.importorskip("matplotlib")

    ran = cli("plot", "--output=pictures", "--format=png")

    (written,) = ran.out.split()
    assert (tmp_path / written).read_bytes().startswith(b"\x89PNG")


def test_export_writes_the_latest_or_a_chosen_run(cli: Cli, tmp_path: Path):
    latest = json.loads(cli("export", "bencher").out)
    assert cli("export", "bencher", "--run=HEAD~15", "--output=out/first.json").code == PASS
    first = json.loads((tmp_path / "out" / "first.json").read_text())

    assert latest[CASE]["latency"]["value"] == pytest.approx(1.1e6)
    assert first[CASE]["latency"]["value"] == pytest.approx(1.0e6)
    assert cli("export", "gnuplot").code == USAGE
    blocked = cli("export", "bencher", "--output=out/first.json/second.json")
    assert (blocked.code, "--output: out/first.json/second.json cannot be written" in blocked.err) == (USAGE, True)


def test_import_appends_a_run(cli: Cli, tmp_path: Path):
    times = [{"startComputeMs": 300.0 + n, "computeMs": 2.0, "latencyMs": 2.5} for n in range(5)]
    (tmp_path / "times.json").write_text(json.dumps(times))

    unsaid = cli("import", "times.json", "--name=net")
    assert "how it was timed" in unsaid.err
    assert unsaid.code == USAGE  # 1 means slower
    ran = cli("import", "times.json", "--name=net", "--clock=graph", "--metric=latency", "--device=NVIDIA T4")

    assert (ran.code, ran.out) == (PASS, "net: 2.5 ms, graph clock\n")
    (found,) = json.loads(cli("list", "net", "--json").out)
    assert found["git"]["commit"] == git(tmp_path, "rev-parse", "HEAD")
    assert found["environment"]["device"] == "NVIDIA T4"


def test_a_broken_line_is_said_and_the_rest_is_used(cli: Cli, tmp_path: Path):
    (tmp_path / "history" / "2026-01" / "run-0000.jsonl").write_text("{\n")

    ran = cli("list")

    assert ran.code == PASS
    assert "run-0000.jsonl:1: not a row of the history" in ran.err
    assert len(ran.out.splitlines()) == 16


def test_another_folder_is_chosen_by_option_or_variable(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "history").rename(tmp_path / "elsewhere")

    assert cli("list").code == NOTHING
    assert cli("list", "--history=elsewhere").code == PASS
    monkeypatch.setenv("PYTEST_TRT_HISTORY", "elsewhere")
    assert cli("list").code == PASS
