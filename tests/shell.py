"""The shell's front door in this process: what a command ended with and what it said."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from pytest_trt.cli import main


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Ran]


def shell(capsys: pytest.CaptureFixture[str], *command: str) -> Cli:
    """What runs *command* with more arguments; a traceback is never what it should say."""

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        try:
            code = main([*command, *map(str, arguments)])
        except SystemExit as exit:  # argparse's own way to end
            code = exit.code if isinstance(exit.code, int) else -1
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return Ran(code, said.out, said.err)

    return run
