"""Records -> a Markdown page: the environments, a table per model, and every failure and skip in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_trt.record import Record
from pytest_trt.report.tables import ENGINE_HEADER, engines, providers
from pytest_trt.report.terminal import notes, row

__all__ = ["render"]

_HEADER = (
    "case",
    "build s",
    "plan MB",
    "layers by type",
    "max abs",
    "cosine",
    "top-1",
    "median ms",
    "p95 ms",
    "CoV",
    "H2D + D2H ms",
    "clock",
    "vs baseline",
    "result",
)


def render(records: Sequence[Record], title: str) -> str:
    """Return the page. Nothing is left out: skipped and failed cases have their rows and reasons."""
    lines = [f"# {title}", ""]
    environments: dict[str, dict[str, Any]] = {str(r.environment): r.environment for r in records if r.environment}
    for environment in environments.values():
        libraries = ", ".join(f"{k} {v}" for k, v in environment["libraries"].items())
        lines.append(
            f"- **{environment['backend']}** on {environment['device']}, {environment['system']};"
            f" driver {environment['driver'] or '-'}; {libraries}"
        )
    several = len({r.case.backend for r in records}) > 1
    for model in dict.fromkeys(r.case.model for r in records):
        mine = [r for r in records if r.case.model == model]
        lines += ["", f"## {model}", "", f"Inputs: {_inputs(mine)}.", ""]
        lines += _table(_HEADER, [_cells(r, several) for r in mine])
    header, beside = providers(records)
    if beside:
        lines += ["", "## Backends side by side", "", *_table(header, beside)]
    made = engines(records)
    if made:
        lines += ["", "## What the engines are made of", "", *_table(ENGINE_HEADER, made)]
    failures = [r for r in records if r.outcome in ("failed", "error")]
    if failures:
        lines += ["", "## What failed", ""]
        lines += [f"- `{r.case.id}` {part}: {_inline(m)}" for r in failures for part, m in r.messages.items()]
    lines += ["", "## Notes", "", *(f"- {_inline(line.removeprefix('* '))}" for line in notes(records)), ""]
    return "\n".join(lines)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return lines + ["| " + " | ".join(_inline(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]


def _inputs(records: Sequence[Record]) -> str:
    known = dict.fromkeys(f"{r.inputs['origin']}" for r in records if r.inputs)
    return "; ".join(known) or "not read"


def _inline(text: str) -> str:
    return " ".join(text.split()).replace("<", "&lt;")


def _cells(record: Record, backend: bool) -> tuple[str, ...]:
    case, _, max_abs, cosine, top1, median, p95, baseline, result = row(record, backend=backend)
    engine, latency = record.engine or {}, record.latency or {}
    transfers = latency.get("transfers_ms") or {}
    return (
        case,
        _form(engine.get("build_seconds"), "{:.1f}"),
        _form(engine.get("plan_bytes"), "{:.2f}", 1e-6),
        _layers(engine.get("precisions")),
        max_abs,
        cosine,
        top1,
        median,
        p95,
        _form((latency.get("summary") or {}).get("cov"), "{:.2%}"),
        " + ".join(f"{value:.4f}" for value in transfers.values()) or "-",
        latency.get("clock", "-"),
        baseline,
        result,
    )


def _layers(census: Any) -> str:
    """The engine's layers by data type, as its inspector shows them."""
    if isinstance(census, dict):
        return ", ".join(f"{count} {name}" for name, count in census.items())
    return str(census or "-")


def _form(value: float | None, form: str, factor: float = 1.0) -> str:
    return "-" if value is None else form.format(value * factor)
