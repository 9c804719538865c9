"""Records -> a Markdown page: the environment, a table per model, and every failure in full."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_trt.record import Record
from pytest_trt.report.terminal import notes, row

__all__ = ["render"]

_HEADER = ("case", "engine", "max abs", "cosine", "top-1", "median ms", "p95 ms", "vs baseline", "result")


def render(records: Sequence[Record], title: str) -> str:
    """Return the page. Nothing is left out: skipped and failed cases have their rows and reasons."""
    lines = [f"# {title}", ""]
    environments: dict[str, dict[str, Any]] = {str(r.environment): r.environment for r in records if r.environment}
    for environment in environments.values():
        libraries = ", ".join(f"{k} {v}" for k, v in environment["libraries"].items())
        lines.append(
            f"- **{environment['backend']}** on {environment['device']};"
            f" driver {environment['driver'] or '-'}; {libraries}"
        )
    for model in dict.fromkeys(r.case.model for r in records):
        lines += ["", f"## {model}", "", "| " + " | ".join(_HEADER) + " |", "|" + "---|" * len(_HEADER)]
        lines += [
            "| " + " | ".join(cell.replace("|", "\\|") for cell in row(r)) + " |"
            for r in records
            if r.case.model == model
        ]
    failures = [r for r in records if r.outcome in ("failed", "error")]
    if failures:
        lines += ["", "## What failed", ""]
        lines += [f"- `{r.case.id}` {part}: {message}" for r in failures for part, message in r.messages.items()]
    lines += ["", "## Notes", "", *(f"- {line.removeprefix('* ')}" for line in notes(records)), ""]
    return "\n".join(lines)
