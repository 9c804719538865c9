"""Records: from the item to the controller, into the summary, the files and the baselines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_trt.errors import TrtError
from pytest_trt.plugin.options import get_lab, get_settings, made_lab
from pytest_trt.plugin.parts import RECORDS

if TYPE_CHECKING:
    from pytest_trt.history.git import GitState
    from pytest_trt.plugin.partial import PartialReport
    from pytest_trt.record import Record

_ATTRIBUTE = "trt_records"
_EVENTS = "trt_events"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, object, None]:
    outcome = yield
    records = item.stash.get(RECORDS, [])
    if call.when == "call" and records:
        report = outcome.get_result()  # type: ignore[attr-defined]  # pluggy's Result, untyped through the hook
        # One string: xdist carries the report's __dict__ to the controller.
        setattr(report, _ATTRIBUTE, json.dumps([record.to_json() for record in records]))
        item.stash[RECORDS] = []  # a rerun starts anew


class Collected:
    """Lives where the terminal is: on the controller, or in the only process."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.records: list[Record] = []
        self.lines: list[str] = []  # what was written where
        self.events: list[str] = []  # what the workers' caches had to say
        self.git: GitState | None = None
        self.partial: PartialReport | None = None
        self.encoding = getattr(sys.stdout, "encoding", None)  # what the terminal is given as well, at this moment

    def pytest_sessionstart(self) -> None:
        settings = get_settings(self.config)
        if settings.report:
            from pytest_trt.plugin.partial import PartialReport

            self.partial = PartialReport(settings.report, self.config.rootpath)
        if settings.history:
            from pytest_trt.history.git import git_state

            # Now, not at the end: baselines and reports that this run writes are no changes of what it measured.
            self.git = git_state(self.config.rootpath)
        if settings.markdown:
            from pytest_trt.report.page import page_target

            try:
                page_target(settings.markdown, os.environ)
            except TrtError as error:
                raise pytest.UsageError(str(error)) from error

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        text = getattr(report, _ATTRIBUTE, None)
        # pytest-rerunfailures gives an attempt that will be repeated this outcome.
        if text and str(report.outcome) != "rerun":
            from pytest_trt.record import Record

            self.records += [Record.from_json(data) for data in json.loads(text)]
            if self.partial is not None:
                self.partial.keep(self.records)
        if "trt" in report.keywords and isinstance(report.longrepr, str):
            from pytest_trt.report.plain import encodable

            # The terminal shows it at the end. What writes files has been told, and has the message as it is.
            report.longrepr = encodable(report.longrepr, self.encoding)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """xdist's: a worker has finished."""
        self.events += getattr(node, "workeroutput", {}).get(_EVENTS, [])

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not self.records:
            return
        from pytest_trt.record import merge_records

        self.records = merge_records(self.records)
        settings = get_settings(self.config)
        self.lines += _unheeded(self.config, self.records)
        try:
            if settings.update_baselines:
                from pytest_trt.baselines.update import update

                self.lines += update(
                    get_lab(self.config).baselines, self.records, settings.update_baselines, settings.reason
                )
            if settings.report:
                from pytest_trt.report.export import write_report

                write_report(settings.report, self.records, self.config.rootpath)
                if self.partial is not None:
                    self.partial.remove()
                self.lines.append(f"records written to {settings.report}")
            if settings.markdown:
                from pytest_trt.report.page import write_page

                self.lines.append(f"page written to {write_page(settings.markdown, self.records, os.environ)}")
            if settings.history:
                from pytest_trt.history.log import HistoryLog
                from pytest_trt.history.rows import rows_of

                rows = rows_of(self.records, self.git, samples=settings.history_samples == "on")
                if file := HistoryLog(settings.history).append(rows):
                    # Silent where git is missing, or refuses a checkout that belongs to another user, as in containers.
                    of = "" if self.git else f", of no commit: git names none for {self.config.rootpath}"
                    self.lines.append(f"history: {len(rows)} cases appended as {file}{of}")
        except TrtError as error:
            self.lines.append(f"ERROR: {error}")
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.records:
            return
        from pytest_trt.report.plain import encodable
        from pytest_trt.report.terminal import notes, table

        terminalreporter.section("TensorRT engines" if _any_tensorrt(self.records) else "engines")
        events = dict.fromkeys([*self.events, *get_lab(self.config).events])
        for line in [*table(self.records), *notes(self.records), *self.lines, *events]:
            terminalreporter.write_line(encodable(line, self.encoding))


def _unheeded(config: pytest.Config, records: list[Record]) -> list[str]:
    """What the user may believe to have been heeded, and was not."""
    settings, lines = get_settings(config), []
    if settings.fake and not any(record.case.backend == "fake" for record in records):
        lines.append("--trt-fake changed nothing: no case ran on --trt-backend=fake")
    root = get_lab(config).baselines.root
    if settings.baselines is None and not root.exists():
        above = (folder / root.name for folder in config.rootpath.parents)
        if found := next((folder for folder in above if next(folder.glob("*/*.json"), None)), None):
            lines.append(
                f"baselines: none in {root}; those in {found} are of another root directory: "
                "a pytest.ini beside that folder makes runs from below it use them"
            )
    return lines


def _any_tensorrt(records: list[Record]) -> bool:
    return any(record.case.backend == "tensorrt" for record in records)


class Sent:
    """Lives in an xdist worker: sends what its cache had to say."""

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        lab = made_lab(session.config)
        session.config.workeroutput[_EVENTS] = lab.events if lab else []  # type: ignore[attr-defined]  # xdist's


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(Sent(), "trt-sent")
    else:
        config.pluginmanager.register(Collected(config), "trt-collected")
