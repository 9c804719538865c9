"""``pytest-trt history …``: its arguments, and each command as a function from them to an exit code and lines.

Exit codes as everywhere: 0 pass, 1 a regression (``compare``), or slower now than it was (``when``), 3 inconclusive
where ``--inconclusive=fail`` asks for it, 4 nothing to look at.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pytest_trt.counted import counted
from pytest_trt.errors import UsageError
from pytest_trt.history import query
from pytest_trt.history.git import between, count_between, line_of, resolve
from pytest_trt.history.log import HistoryLog
from pytest_trt.history.rows import Row
from pytest_trt.settings import Settings

__all__ = ["DEFAULT_FOLDER", "add_commands", "run"]

DEFAULT_FOLDER = Path("history")
# What a change must exceed to be told by default: a gate asks whether it matters, a history whether it was.
_SMALLEST = 0.01
_THRESHOLD = 0.05

_PASS, _REGRESSION, _INCONCLUSIVE, _NOTHING = 0, 1, 3, 4
Result = tuple[int, list[str], list[str]]  # exit code, lines for standard output, lines for standard error


def add_commands(
    parser: argparse.ArgumentParser, declared: Callable[[frozenset[str]], argparse.ArgumentParser]
) -> None:
    """Add the commands to *parser*. *declared* makes a parent parser with the named options of ``settings``."""
    actions = parser.add_subparsers(metavar="ACTION", dest="action", required=True)

    def action(name: str, help: str, *takes: str) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=help, description=help, parents=[declared(frozenset({"history", *takes}))])
        if name != "import":
            sub.add_argument(
                "--environment", metavar="GLOB", help="only runs of this environment, e.g. 'nvidia-h200_*'"
            )
            sub.add_argument("--branch", metavar="NAME", help="only runs on this branch")
            sub.add_argument("--commits", metavar="A..B", help="only runs of these commits, as git log takes them")
        return sub

    listing = action("list", "list the runs, or the results of cases")
    listing.add_argument("case", nargs="?", metavar="CASE", help="id of a case, or a pattern such as 'digits-*'")
    comparing = action("compare", "judge one commit or run against another", "threshold", "inconclusive")
    for name in ("before", "after"):
        comparing.add_argument(name, metavar=name[0].upper(), help="commit, tag, branch, run, or latest~N")
    comparing.add_argument("--case", metavar="GLOB", help="only these cases")
    when = action("when", "say when cases became slower or faster, as a range of commits", "threshold")
    when.add_argument("case", metavar="CASE", help="id of a case, or a pattern")
    for sub in (listing, comparing, when):
        sub.add_argument("--json", action="store_true", help="print JSON")
    plotting = action("plot", "draw latency, error and size over the commits", "threshold")
    plotting.add_argument("case", nargs="?", metavar="CASE", help="id of a case, or a pattern")
    plotting.add_argument("--output", type=Path, default=Path("plots"), metavar="DIR", help="where the pictures go")
    plotting.add_argument("--format", choices=("svg", "png"), default="svg")
    for sub in (when, plotting):  # the option's own help names the gate's
        sub.epilog = f"Without --threshold: changes of {_SMALLEST:.0%} or more."
    exporting = action("export", "write one run in another tool's format")
    exporting.add_argument("format", choices=("pytest-benchmark", "github-action-benchmark", "bencher"))
    exporting.add_argument("--run", dest="selector", default="latest", metavar="RUN", help="run or commit; or latest~N")
    exporting.add_argument("--case", metavar="GLOB", help="only these cases")
    exporting.add_argument("--output", type=Path, metavar="FILE", help="write there instead of to standard output")
    importing = action("import", "append what pytest-benchmark or trtexec measured", "history_samples")
    importing.add_argument("file", type=Path, metavar="FILE", help="--benchmark-json's or --exportTimes' file")
    importing.add_argument("--name", metavar="ID", help="id of the case, for trtexec's times")
    importing.add_argument("--device", metavar="TEXT", help="what it ran on, for trtexec's times")
    importing.add_argument(
        "--clock", metavar="NAME", help="for trtexec's times: queued+graph, or queued without graphs"
    )
    importing.add_argument("--metric", default="compute", metavar="NAME", help="compute, latency, h2d or d2h")
    importing.add_argument("--warmup-ms", type=float, default=200.0, metavar="MS", help="trtexec's --warmUp")


def run(given: argparse.Namespace, settings: Settings, root: Path) -> Result:
    """Run the command in *root*. Raises UsageError and InputsError."""
    log = HistoryLog(settings.history or DEFAULT_FOLDER)
    if given.action == "import":
        return _import(given, settings, log, root)
    rows, problems = log.read()
    commits = None
    if given.commits:
        commits = between(root, given.commits)
        if commits is None:
            raise UsageError(f"--commits: git does not know the range {given.commits!r} here")
    case = given.case if given.action not in ("compare", "export") else None
    rows = query.select(rows, case=case, environment=given.environment, branch=given.branch, commits=commits)
    if not rows:
        return _NOTHING, [], [*problems, f"there are no such runs in {log.root}"]
    code, lines, errors = _COMMANDS[given.action](given, settings, rows, root)
    return code, lines, [*problems, *errors]


def _list(given: argparse.Namespace, settings: Settings, rows: list[Row], root: Path) -> Result:  # noqa: ARG001 - one signature
    from pytest_trt.history.lines import row_lines, run_lines

    if given.json:
        return _PASS, _json([row.to_json() for row in rows]), []
    return _PASS, (row_lines if given.case else run_lines)(rows), []


def _compare(given: argparse.Namespace, settings: Settings, rows: list[Row], root: Path) -> Result:
    from pytest_trt.history.compare import compare
    from pytest_trt.history.lines import change_lines

    before, after = (
        query.select(query.pick(rows, side, lambda name: resolve(root, name)), case=given.case)
        for side in (given.before, given.after)
    )
    changes = compare(before, after, rows, threshold=settings.threshold or _THRESHOLD)
    outcomes = [change.verdict.outcome.value for change in changes if change.verdict]
    code = _PASS if outcomes else _NOTHING
    if "fail" in outcomes:
        code = _REGRESSION
    elif "inconclusive" in outcomes and settings.inconclusive == "fail":
        code = _INCONCLUSIVE
    if given.json:
        return code, _json([change.to_json() for change in changes]), []
    errors = [] if outcomes else [f"{given.before} and {given.after} have no measured case in common"]
    return code, change_lines(changes, (given.before, given.after)) if changes else [], errors


def _when(given: argparse.Namespace, settings: Settings, rows: list[Row], root: Path) -> Result:
    from pytest_trt.history.change_points import shifts
    from pytest_trt.history.lines import shift_lines

    smallest = settings.threshold or _SMALLEST
    ordered, left_out = query.along([row for row in rows if row.median_ms], line_of(root))
    code, lines, found = _NOTHING, [], []
    for series, mine in query.series(ordered).items():
        if len(mine) < 4:
            lines.append(f"{series}: {counted(len(mine), 'run')}, too few to see a change")
            continue
        moved = shifts(mine, smallest=smallest)
        levels = [shift.before_ms for shift in moved]
        slower = bool(moved) and moved[-1].after_ms > min(levels) * (1 + smallest)
        code = _REGRESSION if slower or code == _REGRESSION else _PASS
        found.append(
            {"series": series._asdict(), "runs": len(mine), "slower": slower, "shifts": [s.to_json() for s in moved]}
        )
        many = "" if len(moved) == 1 else "s"
        lines.append(f"{series}: {len(mine)} runs, {len(moved)} change{many} above {smallest:.1%}")
        for shift in moved:
            lines += shift_lines(shift, count_between(root, *shift.commits) if shift.commits else None)
    errors = (
        [f"{left_out} runs of commits that HEAD does not contain, or of changed files, are left out"]
        if left_out
        else []
    )
    if not ordered:
        errors.append("none of these runs has a latency")
    return code, _json(found) if given.json else lines, errors


def _plot(given: argparse.Namespace, settings: Settings, rows: list[Row], root: Path) -> Result:
    from pytest_trt.history.change_points import shifts
    from pytest_trt.history.plots import draw, file_name

    ordered, _ = query.along(rows, line_of(root))
    lines = []
    for series, mine in query.series(ordered).items():
        path = given.output / file_name(series, given.format)
        draw(series, mine, shifts(mine, smallest=settings.threshold or _SMALLEST), path)
        lines.append(str(path))
    return _PASS, lines, []


def _export(given: argparse.Namespace, settings: Settings, rows: list[Row], root: Path) -> Result:  # noqa: ARG001 - one signature
    from pytest_trt.history.exports import FORMATS

    picked = query.select(query.pick(rows, given.selector, lambda name: resolve(root, name)), case=given.case)
    lines = _json(FORMATS[given.format](picked))
    if given.output is None:
        return _PASS, lines, []
    try:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--output: {given.output} cannot be written: {error}") from error
    return _PASS, [], []


def _import(given: argparse.Namespace, settings: Settings, log: HistoryLog, root: Path) -> Result:
    from pytest_trt.history.git import git_state
    from pytest_trt.history.imports import read_samples, rows_from

    found = read_samples(given.file, metric=given.metric, warmup_ms=given.warmup_ms, name=given.name)
    rows = rows_from(
        found, git_state(root), clock=given.clock, device=given.device, samples=settings.history_samples == "on"
    )
    log.append(rows)
    return _PASS, [f"{row.id}: {row.median_ms:.4g} ms, {(row.latency or {})['clock']} clock" for row in rows], []


_COMMANDS: dict[str, Callable[[argparse.Namespace, Settings, list[Row], Path], Result]] = {
    "list": _list,
    "compare": _compare,
    "when": _when,
    "plot": _plot,
    "export": _export,
}


def _json(content: Sequence[Any] | dict[str, Any]) -> list[str]:
    return [json.dumps(content, indent=1, ensure_ascii=False)]
