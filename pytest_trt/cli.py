"""Front door: the shell. The same Lab and the same options as the plugin, without ``trt-`` in their names.

Exit codes: 0 pass, 1 mismatch or regression, 2 usage, 3 inconclusive, 4 nothing was measured, 5 environment (no
GPU, no TensorRT, no onnxruntime).
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_trt import __version__, cli_bisect, cli_gate
from pytest_trt.environment import cpu_name, gpus, version_of
from pytest_trt.errors import BackendUnavailableError, Failure, TrtError, UnsupportedError, UsageError
from pytest_trt.history.commands import add_commands
from pytest_trt.settings import Settings, options

if TYPE_CHECKING:
    from pytest_trt.lab import Lab
    from pytest_trt.spec.case import Case

__all__ = ["main"]

PASS, MISMATCH, USAGE, INCONCLUSIVE, NOTHING, ENVIRONMENT = range(6)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
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
            return run(lab, given)
    except BackendUnavailableError as error:
        return _fail(error, ENVIRONMENT)
    except UsageError as error:
        return _fail(error, USAGE)
    except (TrtError, Failure) as error:
        return _fail(error, MISMATCH)
    except KeyboardInterrupt:
        return 130  # as a shell says it
    except BrokenPipeError:
        # The reader has seen enough; Python would complain once more while it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PASS


def _fail(error: Exception, code: int) -> int:
    print(f"pytest-trt: {_own_flags(str(error))}", file=sys.stderr)
    return code


def _own_flags(message: str) -> str:
    # Messages name the plugin's options; here the same options have no prefix.
    return message.replace("--trt-", "--")


def _progress(message: str) -> None:
    print(f"  {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pytest-trt", description="Build, compare and measure TensorRT engines from the shell."
    )
    parser.add_argument("--version", action="version", version=f"pytest-trt {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable[[Lab, argparse.Namespace], int], help: str, takes: Set[str], *, matrix: bool = False
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(run=run)
        if matrix:
            sub.add_argument("model", nargs="+", type=Path, help="model folder, trt.toml or .onnx file")
        _add_options(sub, takes)
        return sub

    building, caching = _options_of("matrix", "accuracy", "build", "cache"), _options_of("cache")
    command("doctor", _doctor, "show what is installed, what works, and why something does not", caching)
    build = command("build", _build, "build the engines of models, or find them in the cache", building, matrix=True)
    for tool in ("trtexec", "polygraphy"):
        build.add_argument(
            f"--as-{tool}",
            nargs="?",
            const="",
            metavar="VERSION",
            help=f"build nothing: print the {tool} line of the same build (for the installed TensorRT, or VERSION)",
        )
    build.add_argument(
        "--export",
        type=Path,
        default=Path("typed-models"),
        metavar="DIR",
        help="where those lines find the typed models",
    )
    comparing = building | {"baselines", "report"}
    command("compare", _compare, "compare engines with their references", comparing, matrix=True)
    proposing = building - {"shapes", "tolerance", "search", "streams", "builds"}  # all inputs, at opt, one engine
    command("tolerances", _tolerances, "propose tolerances from the spread over all inputs", proposing, matrix=True)
    bisecting = command(
        "bisect",
        lambda lab, given: cli_bisect.run(lab, given, _cases(lab, given)),
        cli_bisect.HELP,
        building,
        matrix=True,
    )
    cli_bisect.add_arguments(bisecting)
    cli_gate.add_arguments(command("gate", cli_gate.run, cli_gate.HELP, cli_gate.OPTIONS))
    cache = command("cache", _cache, "look into the artifact cache, or tidy it", caching)
    cache.add_argument("action", choices=("ls", "explain", "verify", "gc"))
    cache.add_argument("digest", nargs="?", help="for explain: the entry's digest, or how it begins")
    cache.add_argument(
        "--older-than", type=float, metavar="DAYS", help="for gc: also evict what was not used for so long"
    )
    accepting = {"baselines", "update_baselines", "reason"}
    baseline = command("baseline", _baseline, "list baselines, accept those of a report, or move anchors", accepting)
    baseline.add_argument("action", choices=("ls", "accept", "anchor"))
    baseline.add_argument(
        "report_file",
        nargs="?",
        type=Path,
        metavar="REPORT",
        help="for accept: a report.json; for anchor: anchor its values, without it the recent ones",
    )
    text = "look into the history of runs: what changed, how much, and when"
    history = commands.add_parser("history", help=text, description=text)
    history.set_defaults(run=_history)
    add_commands(history, _declared)
    report = command("report", _report, "render report.json files as one Markdown page", set())
    report.add_argument("reports", nargs="+", type=Path, metavar="REPORT")
    report.add_argument("--title", default="Results")
    report.add_argument("--output", type=Path, metavar="FILE", help="write there instead of to standard output")
    report.add_argument("--records", type=Path, metavar="FILE", help="also write the merged records, without samples")
    return parser


def _add_options(parser: argparse.ArgumentParser, takes: Set[str]) -> None:
    for option in options():
        if option.name in takes:  # one that a command would ignore must not be accepted
            parser.add_argument(
                option.short_flag,
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


def _doctor(lab: Lab, given: argparse.Namespace) -> int:  # noqa: ARG001 - every command has this signature
    from pytest_trt.artifacts.maintenance import describe
    from pytest_trt.backends import BACKENDS, get_backend

    print(f"pytest-trt {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    print(f"cpu      {cpu_name()}")
    for gpu in gpus():
        print(
            f"gpu      {gpu.name}, {gpu.memory_mb} MB, compute capability {gpu.compute_capability}, driver {gpu.driver}"
        )
    if not gpus():
        print("gpu      none that NVML shows")
    for name in (
        "tensorrt",
        "cuda-python",
        "onnxruntime",
        "onnxruntime-gpu",
        "onnx",
        "numpy",
        "pytest",
        "pytest-benchmark",
    ):
        print(f"package  {name} {version_of(name) or '-'}")
    usable = []
    for name in BACKENDS:
        found = get_backend(name).probe()
        print(f"backend  {name}: {'works' if found.ok else 'does not work: ' + found.reason}")
        usable += [name] if found.ok and name != "fake" else []
    print(f"cache    {describe(lab.store)}")
    return PASS if usable else ENVIRONMENT


def _cases(lab: Lab, given: argparse.Namespace) -> list[Case]:
    """The matrix of all models. What the command line names must exist: said before anything is built."""
    from pytest_trt.spec.build_options import BuildOptions

    settings = lab.settings
    asked = BuildOptions.of({**vars(settings), "tactics": None})
    cases = [case for path in given.model for case in lab.cases(lab.add(path))]
    missing = sorted({*(settings.profile or ())} - {case.profile for case in cases})
    if missing:
        raise UsageError(f"--profile: none of the models has a profile {', '.join(missing)}")
    for backend, tactics in {(case.backend, case.tactics) for case in cases}:
        lab.backend(backend).check(replace(asked, tactics=tactics))
    return cases


def _build(lab: Lab, given: argparse.Namespace) -> int:
    asked = {
        tool: version for tool in ("trtexec", "polygraphy") if (version := getattr(given, f"as_{tool}")) is not None
    }
    if asked:
        return _lines(lab, given, asked)
    code = NOTHING
    for case in _cases(lab, given):
        try:
            stored, _ = lab.engine(case)
        except UnsupportedError as error:
            print(f"{case.id}: skipped: {error.message}")
            continue
        except (TrtError, Failure) as error:
            print(f"{case.id}: {_own_flags(str(error))}")
            code = MISMATCH
            continue
        code = PASS if code == NOTHING else code
        made = f"built in {stored.facts.get('build_seconds', 0):.2f} s" if stored.fresh else "cached"
        simulated = ", simulated" if "simulated" in stored.facts else ""
        print(f"{case.id}: {made}, {len(stored.plan)} bytes{simulated}, entry {stored.digest[:12]}")
    return code


def _lines(lab: Lab, given: argparse.Namespace, asked: dict[str, str]) -> int:
    from pytest_trt.backends import get_backend
    from pytest_trt.lab.command_lines import command_line, parse_version
    from pytest_trt.spec.case import Axes

    installed = get_backend("tensorrt").probe().versions.get("tensorrt")
    for path in given.model:
        for case in lab.cases(lab.add(path), Axes(backends=("tensorrt",)), check=False):
            for tool, text in asked.items():
                print(command_line(lab, case, tool, parse_version(text, installed), given.export), end="\n\n")
    return PASS


def _compare(lab: Lab, given: argparse.Namespace) -> int:
    code, records = NOTHING, []
    for case in _cases(lab, given):
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
            print(f"FAILED {_own_flags(str(error))}\n")
            code = MISMATCH
            continue
        record.outcomes["accuracy"] = "passed"
        code = PASS if code == NOTHING else code
        synthetic = (record.inputs or {}).get("synthetic")
        said = [word for word, so in (("simulated", record.simulated), ("synthetic inputs", synthetic)) if so]
        remark = f" ({', '.join(said)})" if said else ""
        print(f"passed {case}{remark}: {comparison.summary}\n\n{comparison.detail}\n")
    if lab.settings.report:
        from pytest_trt.report.export import write_report

        write_report(lab.settings.report, records, Path.cwd())
    return code


def _tolerances(lab: Lab, given: argparse.Namespace) -> int:
    from pytest_trt.lab.floors import propose

    together: dict[Case, list[Case]] = {}  # the profiles of one model in one precision have one tolerance
    for case in _cases(lab, given):
        together.setdefault(replace(case, profile=""), []).append(case)
    code = NOTHING
    for cases in together.values():
        try:
            found = propose(lab, cases)
        except UnsupportedError as error:
            print(f"{cases[0]}: skipped: {error.message}\n")
            continue
        print("\n".join([*found.lines, "", found.toml, ""]))
        code = PASS
    return code


def _cache(lab: Lab, given: argparse.Namespace) -> int:
    from pytest_trt.artifacts import maintenance

    if given.action == "ls":
        lines = maintenance.listing(lab.store)
    elif given.action == "verify":
        lines = maintenance.problems(lab.store)
        if lines:
            print("\n".join(lines))
            return MISMATCH
        lines = [f"{sum(1 for _ in lab.store.entries())} entries, each matches its recorded digest"]
    elif given.action == "gc":
        lines = maintenance.collect_garbage(lab.store, lab.settings.cache_size, given.older_than)
    else:
        if not given.digest:
            raise UsageError("cache explain needs the digest of an entry", hint="pytest-trt cache ls shows them")
        lines = maintenance.explanation(lab.store, given.digest)
    print("\n".join(lines))
    return PASS


def _baseline(lab: Lab, given: argparse.Namespace) -> int:
    from pytest_trt.baselines.changes import brief

    if given.action == "ls":
        files = lab.baselines.files()
        if not files:
            print(f"pytest-trt: there are no baselines below {lab.baselines.root}", file=sys.stderr)
        for file in files:
            content = lab.baselines.load(file)
            print(f"{file}: {content['environment']['device']}, {content['environment']['backend']}")
            for name, entry in content["cases"].items():
                median = (entry.get("latency") or {}).get("median_ms")
                shown = f"{median:.4g} ms" if median else "-"
                print(f"  {name}  {shown}  recorded {entry['recorded']}: {entry['reason']}")
                if anchor := entry.get("anchor"):
                    print(f"    anchor {brief(anchor)}, recorded {anchor['recorded']}: {anchor['reason']}")
        for waiver in lab.baselines.waivers:
            until = f"{'EXPIRED on' if waiver.expired() else 'until'} {waiver.expires}"
            print(f"waiver {waiver.case}  {until}  {waiver.owner}: {waiver.reason}")
        return PASS if files else NOTHING
    if given.action == "anchor" and given.report_file is None:
        if not lab.settings.reason:
            raise UsageError("moving anchors needs a reason", hint='add --trt-reason="release 2.1"')
        moved = lab.baselines.move_anchors(reason=lab.settings.reason)
        print("\n".join(moved) if moved else "baselines: every anchor is the recent one")
        return PASS
    if given.report_file is None:
        raise UsageError("baseline accept needs a report", hint="pytest … --trt-report=report.json writes one")
    from pytest_trt.baselines.update import accept
    from pytest_trt.report.export import read_report

    mode = "anchor" if given.action == "anchor" else lab.settings.update_baselines or "new"
    done = accept(lab.baselines, read_report(given.report_file), mode, lab.settings.reason)
    print(_own_flags("\n".join(done.lines)))
    return MISMATCH if done.refused else PASS


def _history(lab: Lab, given: argparse.Namespace) -> int:
    from pytest_trt.history.commands import run

    code, lines, errors = run(given, lab.settings, lab.root)
    for line in errors:
        print(f"pytest-trt: {_own_flags(line)}", file=sys.stderr)
    if lines:
        print("\n".join(lines))
    return code


def _report(lab: Lab, given: argparse.Namespace) -> int:
    from pytest_trt.record import merge_records
    from pytest_trt.report.export import read_report, write_report
    from pytest_trt.report.markdown import render

    records = merge_records(record for file in given.reports for record in read_report(file))
    if given.records:
        write_report(given.records, records, lab.root, samples=False)
    page = render(records, given.title)
    if given.output:
        given.output.write_text(page, encoding="utf-8")
    else:
        print(page, end="")
    return PASS
