"""``--trt-history`` and ``--trt-markdown`` in a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from history_rows import git
from project import write_model

from pytest_trt.history.log import HistoryLog

RUN = ("tiny", "--trt-backend=fake", "--trt-profile=b1", "--trt-precision=fp32,fp16", "-p", "no:randomly")


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTEST_TRT_CACHE_DIR", str(pytester.path / "cache"))
    monkeypatch.setenv("PYTEST_TRT_WARMUP", "0")
    monkeypatch.setenv("PYTEST_TRT_DURATION", "0.001")
    pytester.makeini("[pytest]\n")
    write_model(pytester.path / "tiny")
    return pytester.path


@pytest.fixture
def repository(project: Path) -> Path:
    """The project, committed."""
    git(project, "init", "-q")
    git(project, "add", "tiny")
    git(project, "commit", "-q", "-m", "model")
    return project


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_a_run_appends_its_cases_once(pytester: pytest.Pytester, repository: Path, workers: tuple[str, ...]):
    if workers:
        pytest.importorskip("xdist")
    for _ in range(2):
        result = pytester.runpytest(*RUN, *workers, "--trt-history=history")
        result.stdout.fnmatch_lines(["history: 2 cases appended as *.jsonl"])

    rows, problems = HistoryLog(repository / "history").read()

    assert problems == []
    assert sorted(row.id for row in rows) == ["tiny-fp16-b1-fake"] * 2 + ["tiny-fp32-b1-fake"] * 2
    assert len({row.run for row in rows}) == 2
    assert all(row.median_ms and row.rmse is not None and row.plan_bytes for row in rows)
    assert {row.commit for row in rows} == {git(repository, "rev-parse", "HEAD")}


def test_what_the_run_itself_writes_does_not_make_it_dirty(pytester: pytest.Pytester, repository: Path):
    (repository / "report.json").write_text("{}")
    git(repository, "add", "report.json")
    git(repository, "commit", "-q", "-m", "an old report")

    pytester.runpytest(*RUN, "--trt-history=history", "--trt-report=report.json")

    rows, _ = HistoryLog(repository / "history").read()
    assert git(repository, "status", "--porcelain", "--untracked-files=no") == "M report.json"
    assert [row.git is not None and row.git.dirty for row in rows] == [False, False]


@pytest.mark.parametrize("kept", ["on", "off"])
def test_samples_are_kept_where_asked_for(pytester: pytest.Pytester, project: Path, kept: str):
    pytester.runpytest(*RUN, "--trt-history=history", f"--trt-history-samples={kept}")

    rows, _ = HistoryLog(project / "history").read()

    assert [("samples_ms" in (row.latency or {})) for row in rows] == [kept == "on"] * 2


def test_a_failed_run_is_history_too(pytester: pytest.Pytester, project: Path):
    result = pytester.runpytest(*RUN, "--trt-history=history", "--trt-fake=error=0.5")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert [row.outcome for row in HistoryLog(project / "history").read()[0]] == ["failed", "failed"]


def test_a_history_that_cannot_be_written_is_an_error(pytester: pytest.Pytester, project: Path):
    (project / "history").write_text("a file")

    result = pytester.runpytest(*RUN, "--trt-history=history")

    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    result.stdout.fnmatch_lines(["ERROR: --trt-history: history cannot be written: *"])


def test_the_page_goes_to_a_file(pytester: pytest.Pytester, project: Path):
    result = pytester.runpytest(*RUN, "--trt-markdown=out/page.md")

    page = (project / "out" / "page.md").read_text()
    assert page.startswith("# Engines: 2 passed\n")
    assert "| tiny-fp32-b1 |" in page
    result.stdout.fnmatch_lines(["page written to out?page.md"])


@pytest.mark.parametrize("given", ["option", "ini"])
def test_the_page_is_appended_to_the_job_summary(
    pytester: pytest.Pytester, project: Path, monkeypatch: pytest.MonkeyPatch, given: str
):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(project / "summary.md"))
    (project / "summary.md").write_text("before\n")
    if given == "ini":
        pytester.makeini("[pytest]\ntrt_markdown = -\n")

    pytester.runpytest(*RUN, *(["--trt-markdown=-"] if given == "option" else []))

    assert (project / "summary.md").read_text().startswith("before\n# Engines: 2 passed\n")


def test_without_a_job_summary_nothing_is_run(pytester: pytest.Pytester, project: Path):
    result = pytester.runpytest(*RUN, "--trt-markdown=-")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --trt-markdown=- appends to the job summary*GITHUB_STEP_SUMMARY is not set*"])


def test_a_page_that_is_too_long_is_cut_and_says_so(tmp_path: Path):
    from records import passed

    from pytest_trt.report.page import write_page

    summary = tmp_path / "summary.md"
    summary.write_text("x" * 500_000)
    records = [passed(model=f"model-{number}") for number in range(3000)]

    write_page(Path("-"), records, {"GITHUB_STEP_SUMMARY": str(summary)})

    text = summary.read_text()
    assert 990_000 < len(text.encode()) <= 1_000_000
    assert text.endswith("`--trt-report` has all records.\n")
