"""Front door: the shell. The same Lab and the same options as the plugin, without ``trt-`` in their names.

Exit codes: 0 pass, 1 mismatch or regression, 2 usage, 3 inconclusive, 4 nothing was measured, 5 environment (no
GPU, no TensorRT, no onnxruntime).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pytest_trt import __version__
from pytest_trt.cli import baseline, bisect, build, cache, compare, doctor, gate, history, report, tolerances
from pytest_trt.cli.exits import ENVIRONMENT, MISMATCH, USAGE
from pytest_trt.cli.messages import own_flags
from pytest_trt.errors import BackendUnavailableError, Failure, TrtError, UsageError
from pytest_trt.history.commands import add_commands
from pytest_trt.report.plain import spell_out
from pytest_trt.settings import Settings, options

if TYPE_CHECKING:
    from pytest_trt.lab import Lab

__all__ = ["main"]


class _Command(Protocol):
    """What the module of a command has; one with arguments of its own has ``add_arguments`` too."""

    HELP: str

    def run(self, lab: Lab, given: argparse.Namespace) -> int: ...


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        spell_out(stream)
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        settings = Settings.resolve(
            {option.name: getattr(given, f"opt_{option.name}", None) for option in options()},
            os.environ,
            {},
            flag=lambda o: o.short_flag,
        )
        from pytest_trt.lab import Lab

        with Lab(settings, Path.cwd(), _progress) as lab:
            run: Callable[[Lab, argparse.Namespace], int] = given.run
            try:
                code = run(lab, given)
                sys.stdout.flush()  # at the end of the process nothing could be said of it
                return code
            finally:
                for event in dict.fromkeys(lab.events):
                    print(f"pytest-trt: {own_flags(event)}", file=sys.stderr)
    except BackendUnavailableError as error:
        return _fail(error, ENVIRONMENT)
    except UsageError as error:
        return _fail(error, USAGE)
    except (TrtError, Failure) as error:
        return _fail(error, MISMATCH)
    except KeyboardInterrupt:
        return 130  # as a shell says it
    except BrokenPipeError:
        # The reader has seen enough; Python would complain once more while it closes stdout. Nothing was judged to the
        # end, so that this is no pass: a pipe's exit code, as a shell says it.
        _close_stdout()
        return 141
    except OSError as error:
        if _takes_output():
            raise
        # A full disk behind stdout, say: 1 would say that something was judged.
        _close_stdout()
        return _fail(UsageError(f"the output cannot be written: {error.strerror}"), ENVIRONMENT)


def _takes_output() -> bool:
    """Whether stdout can be written to. It is tried: an error that was raised does not say which file it is of."""
    descriptor = sys.stdout.fileno()
    try:
        os.write(descriptor, b"\n")
    except OSError:
        return False
    return True


def _close_stdout() -> None:
    """Let what is still to be flushed go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(error: Exception, code: int) -> int:
    print(f"pytest-trt: {own_flags(str(error))}", file=sys.stderr)
    return code


def _progress(message: str) -> None:
    print(f"  {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pytest-trt", description="Build, compare and measure TensorRT engines from the shell."
    )
    parser.add_argument("--version", action="version", version=f"pytest-trt {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, module: _Command, takes: Set[str], *, matrix: bool = False) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=module.HELP, description=module.HELP)
        sub.set_defaults(run=module.run)
        if matrix:
            sub.add_argument("model", nargs="+", type=Path, help="model folder, trt.toml or .onnx file")
        _add_options(sub, takes)
        return sub

    # These are items of their own in a run of pytest; a command that took one would ignore it.
    items = {"search", "streams", "builds"}
    building, caching = _options_of("matrix", "accuracy", "build", "cache") - items, _options_of("cache")
    bundling = {"bundle", "bundle_size"}
    comparing = building | bundling | {"baselines", "report"}
    # What judges a case, and explains a failure by itself: a command that does neither would ignore these.
    judging = {"alpha", "power", "explain", "explain_seconds", "census"}
    # All inputs, at opt, one engine; nothing is held to a tolerance.
    proposing = building - judging - {"shapes", "tolerance"}
    command("doctor", doctor, caching)
    build.add_arguments(command("build", build, building - judging - {"samples", "tolerance"}, matrix=True))
    command("compare", compare, comparing, matrix=True)
    command("tolerances", tolerances, proposing, matrix=True)
    bisect.add_arguments(command("bisect", bisect, building - judging | bundling, matrix=True))
    gate.add_arguments(command("gate", gate, gate.OPTIONS))
    cache.add_arguments(command("cache", cache, caching))
    baseline.add_arguments(command("baseline", baseline, {"baselines", "update_baselines", "reason"}))
    add_commands(command("history", history, set()), _declared)
    report.add_arguments(command("report", report, set()))
    return parser


def _add_options(parser: argparse.ArgumentParser, takes: Set[str]) -> None:
    for option in options():
        if option.name in takes:  # one that a command would ignore must not be accepted
            parser.add_argument(
                *option.flags("--"),
                dest=f"opt_{option.name}",
                metavar=option.metavar,
                help=option.help.replace("%", "%%"),
            )


def _declared(takes: Set[str]) -> argparse.ArgumentParser:
    """A parent parser with the options *takes*, for the commands of a command."""
    parent = argparse.ArgumentParser(add_help=False)
    _add_options(parent, takes)
    return parent


def _options_of(*groups: str) -> Set[str]:
    return {option.name for option in options() if option.group in groups}
