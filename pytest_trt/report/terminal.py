"""Records -> lines of text: one row per case, then what a reader must know about them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from pytest_trt.baselines.state import baseline_notes
from pytest_trt.counted import counted
from pytest_trt.record import Record
from pytest_trt.report.tables import providers

__all__ = ["builds_line", "metric_lines", "notes", "search_line", "streams_line", "table"]

_COLUMNS = ("case", "engine", "max abs", "cosine", "top-1", "median ms", "p95 ms", "vs baseline", "result")


# Wider than any table: rich would cut ids and numbers to fit a narrower one.
_WIDTH = 10_000


def table(records: Sequence[Record]) -> list[str]:
    """The summary table, one row per case, as wide as its cells are: a terminal that is narrower wraps its lines.
    Where several backends ran, a second table holds them side by side."""
    several = len({record.case.backend for record in records}) > 1
    lines = _grid(_COLUMNS, [row(record, backend=several) for record in records])
    header, beside = providers(records)
    return lines + (["", *_grid(header, beside)] if beside else [])


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name in header:
        number = name in _COLUMNS and name not in ("case", "engine", "vs baseline", "result")
        grid.add_column(name, justify="right" if number else "left", no_wrap=True)
    for cells in rows:
        grid.add_row(*cells)
    stream = io.StringIO()
    Console(file=stream, width=_WIDTH, force_terminal=False, highlight=False, markup=False, emoji=False).print(grid)
    return [line.rstrip() for line in stream.getvalue().splitlines() if line.strip()]


def row(record: Record, *, backend: bool = True) -> tuple[str, ...]:
    """The cells of one record, in the order of the header; without *backend* its name is left out of the id."""
    outputs = ((record.accuracy or {}).get("outputs") or {}).values()
    summary = (record.latency or {}).get("summary", {})
    return (
        (record.case.id if backend else record.case.id.removesuffix(f"-{record.case.backend}"))
        + (" *" if record.simulated else ""),
        _engine(record.engine),
        _worst(outputs, "max_abs", max, "{:.2e}"),
        _worst(outputs, "cosine", min, "{:.6f}"),
        _worst(outputs, "top1", min, "{:.3f}"),
        _number(summary.get("median_ms"), "{:.4g}"),
        _number(summary.get("p95_ms"), "{:.4g}"),
        _baseline(record),
        _result(record),
    )


def _engine(engine: dict[str, Any] | None) -> str:
    if not engine:
        return "-"
    return f"built {engine.get('build_seconds', 0):.1f} s" if engine.get("fresh") else "cached"


def _worst(outputs: Any, key: str, pick: Any, form: str) -> str:
    values = [o[key] for o in outputs if isinstance(o.get(key), (int, float))]
    return form.format(pick(values)) if values else "-"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _baseline(record: Record) -> str:
    state: str = (record.baseline or {}).get("state", "-")
    if record.verdict is None:
        return state
    from pytest_trt.latency.verdict import change_of

    change = change_of(record.verdict["ratio"])
    return change if state == "current" else f"{change} ({state})"


def _result(record: Record) -> str:
    """One word where both parts agree; else the parts that did not pass, or the only one that ran."""
    outcomes = record.outcomes
    if len(outcomes) > 1 and len(set(outcomes.values())) == 1:
        return next(iter(outcomes.values()))
    told = {part: outcome for part, outcome in outcomes.items() if outcome != "passed"} or outcomes
    return ", ".join(f"{part} {outcome}" for part, outcome in sorted(told.items())) or "-"


def notes(records: Sequence[Record]) -> list[str]:
    """What the table cannot say: simulations, synthetic inputs, baselines, the cache, noise."""
    lines = []
    for reason in dict.fromkeys(r.simulated for r in records if r.simulated):
        lines.append(f"* simulated: {reason}")
    made = sorted({r.case.model for r in records if (r.inputs or {}).get("synthetic")})
    if made:
        lines.append(f"synthetic inputs (accuracy on real data is not shown): {', '.join(made)}")
    empty = [r.case.id for r in records if _nothing_compared(r)]
    if empty:
        lines.append(f"no value was compared, the outputs are empty: {', '.join(empty)}")
    for reason, count in _counted(
        r.messages[p] for r in records for p, o in r.outcomes.items() if o == "skipped" and p in r.messages
    ):
        lines.append(f"skipped ({count}): {reason}")
    lines += baseline_notes(records)
    for reason, count in _counted(
        row["not_compared"]
        for r in records
        for row in ((r.accuracy or {}).get("metrics") or {}).values()
        if row.get("not_compared")
    ):
        lines.append(f"metrics not compared ({count}): {reason}")
    undecided = [r for r in records if r.outcomes.get("latency") == "inconclusive" and r.verdict]
    if undecided:
        seen = max(r.verdict["detectable"] for r in undecided if r.verdict)
        lines.append(
            f"latency inconclusive ({len(undecided)}): "
            f"the {_clocks(undecided)} clock of this machine shows a slowdown only above {seen:.0%}; not a failure"
        )
    for record in records:
        lines += [f"{record.case.id}: {remark}" for remark in (record.engine or {}).get("remarks", ())]
        if machine := (record.verdict or {}).get("machine"):
            lines.append(f"{record.case.id}: {machine}")
        if note := (record.latency or {}).get("note"):
            lines.append(f"{record.case.id}: {note}")
        lines += [f"{record.case.id}: latency: {said}" for said in (record.latency or {}).get("disturbed", ())]
        if record.streams:
            lines.append(f"{record.case.id}: {streams_line(record.streams)}")
        if record.builds:
            lines.append(f"{record.case.id}: {builds_line(record.builds)}")
        if record.search:
            lines.append(f"{record.case.id}: {search_line(record.search)}")
        lines += [f"{record.case.id}: not judged: {missed}" for missed in (record.accuracy or {}).get("not_judged", ())]
    lines += _metric_notes(records)
    engines = [r.engine for r in records if r.engine]
    built = [e for e in engines if e.get("fresh")]
    seconds = sum(e.get("build_seconds", 0) for e in built)
    lines.append(f"engines: {len(built)} built in {seconds:.1f} s, {len(engines) - len(built)} from the cache")
    return lines


def _nothing_compared(record: Record) -> bool:
    outputs = ((record.accuracy or {}).get("outputs") or {}).values()
    return bool(outputs) and all(output.get("count") == 0 for output in outputs)


def _metric_notes(records: Sequence[Record]) -> list[str]:
    """The verdicts on task metrics; what is said of several cases alike stands once."""
    told: dict[str, list[str]] = {}
    for record in records:
        for line in metric_lines(record, compared=True):
            told.setdefault(line, []).append(record.case.id)
    return [f"{ids[0]}{f' and {len(ids) - 1} more' if ids[1:] else ''}: {line}" for line, ids in told.items()]


def metric_lines(record: Record, *, doubtful: bool = False, compared: bool = False) -> list[str]:
    """Each task metric: its verdict against the baseline, or its mean and why there is none. *compared* leaves out
    those that have none, *doubtful* those that pass as well."""
    lines = []
    for name, row in ((record.accuracy or {}).get("metrics") or {}).items():
        verdict = row.get("verdict")
        if doubtful and not row.get("beyond") and (not verdict or verdict["outcome"] == "pass"):
            continue
        if compared and row.get("not_compared"):
            continue
        if verdict:
            gates = "" if verdict["gates"] else "not gated, "
            against = "the anchor, " if verdict["against"] == "anchor" else ""
            said = f"{verdict['outcome']} ({gates}{against}{verdict['sentence']})"
        else:
            why = row.get("beyond") or f"not compared: {row['not_compared']}"
            said = f"{row['mean']:.4g} on {counted(row['count'], 'sample')}, {why}"
        lines.append(f"metric {name}: {said}")
    return lines


def streams_line(streams: dict[str, Any]) -> str:
    """What several contexts at once gave: equal outputs or not, and the throughput beside one stream's."""
    same = "equal outputs" if streams["identical"] else "outputs differ"
    if not streams["repeats"]:
        same = "the engine does not repeat itself, even alone"
    rate, batch = streams["several"]["per_second"], streams["batch"]
    return (
        f"{streams['streams']} streams: {same}, {rate:.4g} launches/s ({rate * batch:.4g} samples/s),"
        f" {streams['gain']:.2f} x one stream"
    )


def builds_line(builds: dict[str, Any]) -> str:
    """How far several builds of one request are apart."""
    tactics = "not visible" if builds["equal_tactics"] is None else f"{builds['equal_tactics']:.0%} equal"
    outputs = "bitwise equal outputs" if builds["equal_outputs"] else f"outputs up to {builds['max_abs']:.3g} apart"
    return f"{builds['count']} builds: medians spread {builds['spread']:.1%}, {outputs}, tactics {tactics}"


def search_line(search: dict[str, Any]) -> str:
    """How far the worst input that a search found is from failing, or that it fails."""
    if search["ok"]:
        return f"search: {counted(search['runs'], 'input')}, the worst one uses {search['error']:.1%} of the tolerance"
    saved = f", saved as {search['saved']}" if search["saved"] else ", not saved"
    return f"search: an input fails after {counted(search['runs'], 'run')}{saved}"


def _clocks(records: Sequence[Record]) -> str:
    return "/".join(sorted({(r.verdict or {})["clock"] for r in records}))


def _counted(values: Any) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return list(counts.items())
