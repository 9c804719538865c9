"""``pytest-trt report``: one page from several runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_trt.cli.exits import PASS
from pytest_trt.errors import UsageError

if TYPE_CHECKING:
    from pytest_trt.lab import Lab

__all__ = ["HELP", "add_arguments", "run"]

HELP = "render report.json files as one Markdown page"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is not an option of the settings."""
    parser.add_argument("reports", nargs="+", type=Path, metavar="REPORT")
    parser.add_argument("--title", default="Results")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write there instead of to standard output")
    parser.add_argument("--records", type=Path, metavar="FILE", help="also write the merged records, without samples")


def run(lab: Lab, given: argparse.Namespace) -> int:
    """Merge the reports and write the page."""
    from pytest_trt.record import merge_records
    from pytest_trt.report.export import read_report, write_report
    from pytest_trt.report.markdown import render

    records = merge_records(record for file in given.reports for record in read_report(file))
    if given.records:
        write_report(given.records, records, lab.root, samples=False)
    page = render(records, given.title)
    if given.output:
        try:
            given.output.write_text(page, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--output: {given.output} cannot be written: {error.strerror or error}") from error
    else:
        print(page, end="")
    return PASS
