"""Rewrite the generated blocks of README.md and docs/: ``python docs/generate.py``; ``--check`` only looks.

A block stands between ``<!-- BEGIN name -->`` and ``<!-- END name -->``. What it says is read from the package, so
that a table cannot say something else than the code. ``tests/test_docs.py`` runs the check.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parent.parent
API = ROOT / "tests" / "contract" / "api"
COMMAND = "python docs/generate.py"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: frozenset[int] = frozenset()) -> str:
    """A Markdown table; columns of *numbers* are set flush right."""
    rule = "|" + "|".join("---:" if i in numbers else "---" for i in range(len(header))) + "|"
    return "\n".join(["| " + " | ".join(header) + " |", rule, *("| " + " | ".join(row) + " |" for row in rows)])


def code(text: str) -> str:
    # A bar ends a cell even inside of backticks.
    return f"`{text}`".replace("|", "\\|")


def option_table() -> str:
    """Every option that is declared, group by group, in the order of the declarations."""
    from pytest_trt.settings import options

    declared = list(options())
    groups = list(dict.fromkeys(option.group for option in declared))
    rows, group = [], ""
    for option in sorted(declared, key=lambda option: groups.index(option.group)):
        shown = option.group if option.group != group else ""
        group = option.group
        meaning = option.help.replace("|", "\\|")
        rows.append((shown, code(f"{option.flag}={option.metavar}"), _default(option.name, option.default), meaning))
    return table(("group", "option", "default", "meaning"), rows)


def _default(name: str, value: object) -> str:
    if value is None or value == ():
        return "-"
    if name.endswith("_size") and isinstance(value, int):
        return f"`{value // 10**9}GB`"
    from pytest_trt.settings import as_words

    return code(f"{value:g}" if isinstance(value, float) else as_words(value))


def command_table() -> str:
    """Every command of ``pytest-trt`` with the words of its help, in its order."""
    from pytest_trt.cli import _parser

    (commands,) = (action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    return table(
        ("command", "what it does"), [(code(f"pytest-trt {a.dest}"), a.help or "") for a in commands._choices_actions]
    )


def tolerance_table() -> str:
    """``DEFAULTS`` of ``accuracy/tolerance.py``."""
    from pytest_trt.accuracy.tolerance import DEFAULTS

    columns = ("rtol", "atol", "atol_scale", "cosine", "snr_db")
    rows = []
    for name, tolerance in DEFAULTS.items():
        values = [getattr(tolerance, column) for column in columns]
        off = [None, None, 0.0, None, None]
        rows.append((code(name), *("-" if v == o else f"{v:g}" for v, o in zip(values, off, strict=True))))
    return table(("precision", *map(code, columns)), rows, frozenset(range(1, 6)))


def recipe_table() -> str:
    """Every precision: what it is, and how the CPU backend runs it."""
    from pytest_trt.backends.onnxruntime import CpuBackend
    from pytest_trt.spec.precision import PRECISIONS

    backend = CpuBackend()
    rows = []
    for precision in PRECISIONS.values():
        found = backend.support(precision)
        on_cpu = f"**{found.kind}**: {found.reason}" if found.reason else f"**{found.kind}**"
        rows.append((code(precision.name), precision.summary, "yes" if precision.calibrated else "no", on_cpu))
    return table(("precision", "recipe", "needs ranges", "on `onnxruntime-cpu`"), rows)


def flag_table() -> str:
    """The builder flags of each precision, by what the recorded bindings of each TensorRT have."""
    from pytest_trt.backends.tensorrt import versions
    from pytest_trt.spec.precision import PRECISIONS, Precision

    def cell(trt: SimpleNamespace, precision: Precision) -> str:
        found = versions.support(trt, precision, (9, 0))
        if found.kind == "unsupported":
            return "skipped: " + found.reason.rpartition(":")[2].partition(";")[0].strip()
        # Calibration picks types itself: it is for weak typing, also where strong typing is the default.
        calibrated = precision.calibrator is not None and versions.strongly_typed(trt)
        typed, known = versions.strongly_typed(trt) and not calibrated, trt.BuilderFlag.__members__
        on = [n for n in precision.flags_on if n in known and not (typed and n in versions.TYPE_FLAGS)]
        off = [n for n in precision.flags_off if n in known]
        said = [f"{word} {', '.join(map(code, names))}" for word, names in (("sets", on), ("clears", off)) if names]
        return ("weak: " if calibrated else "") + ("; ".join(said) or "no flag")

    merged: list[tuple[list[str], list[str]]] = []  # versions, their cells: neighbours with equal cells share a column
    for trt in sorted(_recorded(), key=versions.version):
        cells = ["strong" if versions.strongly_typed(trt) else "weak", *(cell(trt, p) for p in PRECISIONS.values())]
        if merged and merged[-1][1] == cells:
            merged[-1][0].append(trt.__version__)
        else:
            merged.append(([trt.__version__], cells))
    header = ["precision", *(f"TensorRT {' and '.join(dict.fromkeys([v[0], v[-1]]))}" for v, _ in merged)]
    header = [text.replace(" and ", " to ") for text in header]
    names = ["typing of the network", *map(code, PRECISIONS)]
    return table(header, [(name, *(cells[i] for _, cells in merged)) for i, name in enumerate(names)])


def _recorded() -> list[SimpleNamespace]:
    """What ``versions.py`` asks of a TensorRT module, from the recorded bindings."""
    found = []
    for file in API.glob("[0-9]*.json"):  # the lean runtime builds nothing
        content = json.loads(file.read_text(encoding="utf-8"))
        enums = {name: SimpleNamespace(__members__=values) for name, values in content["enum_values"].items()}
        classes = {name: object for name in content["classes"] if name not in enums}
        found.append(SimpleNamespace(__version__=content["version"], **classes, **enums))
    return found


def build_table() -> str:
    """Every build option as a manifest's key, with the TensorRT that has it."""
    from pytest_trt.backends.tensorrt.versions.requirements import REQUIREMENTS
    from pytest_trt.settings import options
    from pytest_trt.spec.build_options import BuildOptions

    needs: dict[str, list[str]] = {}
    for row in REQUIREMENTS:
        values = "/".join("on" if value is True else str(value) for value in row.values)
        needs.setdefault(row.option, []).append(f"{values + ': ' if values else ''}{row.releases}")
    rows = []
    for option in options():
        if option.name in BuildOptions.names() and option.name != "tactics":
            meaning = option.help.replace("|", "\\|")
            versions = "; ".join(dict.fromkeys(needs.get(option.name, ["all"])))
            rows.append((code(f"build.{option.name}"), code(option.metavar), versions, meaning))
    return table(("key", "value", "TensorRT", "meaning"), rows)


def gate_table() -> str:
    """What the gate can see at the default threshold, were there no noise within the runs."""
    from pytest_trt.lab import DEFAULT_THRESHOLD
    from pytest_trt.latency import PRIORS, decide, summarize
    from pytest_trt.settings import Settings

    meaning = {
        "graph": "CUDA events around a CUDA-graph launch",
        "sync": "CUDA events around a plain enqueue, where no graph can be captured",
        "host": "the host's clock around a run of `onnxruntime-cpu`",
        "simulated": "the `fake` backend",
    }
    still = summarize(*[[1.0]] * Settings().loads)
    rows = []
    for clock, prior in PRIORS.items():
        verdict = decide(still, still, threshold=DEFAULT_THRESHOLD, clock=clock, repeats="loads")
        width = verdict.high
        limit = 1 + DEFAULT_THRESHOLD
        rows.append(
            (
                code(clock),
                meaning[clock],
                f"{prior.processes:.1%}",
                f"{prior.loads:.1%}",
                f"×{limit / width:.3f}",
                f"×{limit * width:.3f}",
                f"×{1 + verdict.detectable:.3f}",
            )
        )
    header = (
        "clock",
        "how it measures",
        "between processes",
        "between loads",
        "pass below",
        "fail above",
        "smallest detectable",
    )
    return table(header, rows, frozenset({2, 3, 4, 5, 6}))


def environment_rules() -> str:
    """``RULES`` of ``baselines/match.py``: what is compared, and what a difference does."""
    from pytest_trt.baselines.match import ACTIONS, RULES

    rows = [(rule.part, rule.compared, f"the baseline {ACTIONS[rule.differing]}", rule.why) for rule in RULES]
    return table(("part", "compared", "where it differs", "why"), rows)


def never_compared() -> str:
    """``NEVER`` of ``baselines/match.py``."""
    from pytest_trt.baselines.match import NEVER

    rows = [(name.replace("_", " "), why) for name, why in NEVER.items()]
    return table(("reading", "why it is not in the key"), rows)


BLOCKS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"options": option_table, "commands": command_table},
    "docs/precision.md": {"recipes": recipe_table, "flags": flag_table, "tolerances": tolerance_table},
    "docs/manifest.md": {"build": build_table},
    "docs/baselines.md": {"gates": gate_table, "environment": environment_rules, "never": never_compared},
}


def rewritten(text: str, name: str, content: str) -> str:
    """Return *text* with the block *name* replaced. Raises ValueError unless it stands there exactly once."""
    begin, end = f"<!-- BEGIN {name} -->", f"<!-- END {name} -->"
    result, count = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{content}\n{end}", text, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"block {name!r} stands there {count} times, not once")
    return result


def outdated(root: Path = ROOT, *, write: bool = False) -> list[str]:
    """The files of *root* whose blocks say something else than the code; *write* corrects them."""
    found = []
    for relative, blocks in BLOCKS.items():
        path = root / relative
        old = new = path.read_text(encoding="utf-8")
        for name, make in blocks.items():
            new = rewritten(new, name, make())
        if new != old:
            found.append(relative)
            if write:
                path.write_text(new, encoding="utf-8")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a block is out of date")
    check = parser.parse_args().check
    found = outdated(write=not check)
    for relative in found:
        sys.stdout.write(f"{relative}: {f'out of date, run {COMMAND}' if check else 'rewritten'}\n")
    return 1 if check and found else 0


if __name__ == "__main__":
    sys.exit(main())
