"""``pytest-trt compare``: outputs against references."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_trt.cli.exits import INCONCLUSIVE, MISMATCH, NOTHING, PASS
from pytest_trt.cli.matrix import cases_of
from pytest_trt.cli.messages import own_flags
from pytest_trt.errors import Failure, TrtError, UnsupportedError

if TYPE_CHECKING:
    from pytest_trt.lab import Lab

__all__ = ["HELP", "run"]

HELP = "compare engines with their references"


def run(lab: Lab, given: argparse.Namespace) -> int:
    """Compare each case and print how close it is; 1 where one is not, 4 where none could be run."""
    from pytest_trt.record import undecided_metric
    from pytest_trt.report.terminal import metric_lines

    code, records = NOTHING, []
    for case in cases_of(lab, given):
        record = lab.record(case)
        records.append(record)
        try:
            comparison = lab.check(case, record)
        except UnsupportedError as error:
            record.outcomes["accuracy"], record.messages["accuracy"] = "skipped", error.message
            print(f"{case}: skipped: {error.message}\n")
            continue
        except (TrtError, Failure) as error:
            record.outcomes["accuracy"], record.messages["accuracy"] = (
                ("failed", error.summary) if isinstance(error, Failure) else ("error", error.message)
            )
            print(f"FAILED {own_flags(str(error))}\n")
            code = MISMATCH
            continue
        undecided = undecided_metric(record)
        record.outcomes["accuracy"] = "inconclusive" if undecided else "passed"
        if undecided and code != MISMATCH:
            code = INCONCLUSIVE
        code = PASS if code == NOTHING else code
        synthetic = (record.inputs or {}).get("synthetic")
        said = [word for word, so in (("simulated", record.simulated), ("synthetic inputs", synthetic)) if so]
        remark = f" ({', '.join(said)})" if said else ""
        print(f"passed {case}{remark}: {comparison.summary}\n\n{comparison.detail}\n")
        for line in metric_lines(record):
            print(f"{line}\n")
    if lab.settings.report:
        from pytest_trt.report.export import write_report

        write_report(lab.settings.report, records, Path.cwd())
    return code
