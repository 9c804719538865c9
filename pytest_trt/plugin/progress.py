"""One line in the terminal while something takes long."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_trt.backends import Progress

__all__ = ["progress_line"]


def progress_line(config: pytest.Config) -> Progress:
    """Return a Progress that writes through pytest's capture; on a terminal always, else with ``-v``."""

    def say(message: str) -> None:
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        if reporter is None or not (reporter.isatty or config.getoption("verbose") > 0):
            return
        capture = config.pluginmanager.get_plugin("capturemanager")
        if capture is None:
            _write(reporter, message)
        else:
            with capture.global_and_fixture_disabled():
                _write(reporter, message)

    return say


def _write(reporter: pytest.TerminalReporter, message: str) -> None:
    reporter.ensure_newline()
    reporter.write_line(f"  trt: {message}")
