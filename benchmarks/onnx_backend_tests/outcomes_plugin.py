"""A pytest plugin for the child processes: which folders are collected, and what became of each item.

Outcomes are written line by line, before and after an item, so that a crash shows what it happened in.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

VARIABLE = "ONNX_BACKEND_TESTS"


class Outcomes:
    def __init__(self, wanted: set[Path], out: Path) -> None:
        self.wanted = wanted
        self.out = out

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        is_case = (collection_path / "model.onnx").is_file()
        return True if is_case and collection_path not in self.wanted else None

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.write({"started": nodeid})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            records = json.loads(getattr(report, "trt_records", "[]"))
            said = [message for record in records for message in record["messages"].values()]
            kinds = [kind for record in records for kind in record["outcomes"].values()]
            self.write(
                {
                    "item": report.nodeid,
                    "outcome": kinds[0] if kinds else report.outcome,
                    "message": said[0] if said else _text(report),
                    "seconds": round(report.duration, 3),
                }
            )

    def write(self, row: dict[str, Any]) -> None:
        with self.out.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")


def _text(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):  # of a skip: file, line, reason
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(report.longrepr or "")


def pytest_configure(config: pytest.Config) -> None:
    asked = json.loads(Path(os.environ[VARIABLE]).read_text(encoding="utf-8"))
    wanted = {Path(folder) for folder in asked["folders"]}
    config.pluginmanager.register(Outcomes(wanted, Path(asked["out"])))
