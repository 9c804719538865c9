"""Tables beside the main one: providers side by side, and what the engines are made of. Records -> rows of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_trt.record import Record

__all__ = ["ENGINE_HEADER", "engines", "providers"]

ENGINE_HEADER = (
    "case", "options", "layers", "fused", "reformats", "Myelin", "weights", "context MB", "what was visible",
)  # fmt: skip


def providers(records: Sequence[Record]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows: one row for what differs by backend alone, one column per backend with its median and its
    largest error. A case that only one backend ran has no row."""
    backends = list(dict.fromkeys(record.case.backend for record in records))
    if len(backends) < 2:
        return (), []
    rows: dict[str, dict[str, Record]] = {}
    for record in records:
        rows.setdefault(_without_backend(record), {})[record.case.backend] = record
    several = {name: found for name, found in rows.items() if len(found) > 1}
    return ("case", *backends), [
        (name, *(_cell(found.get(backend)) for backend in backends)) for name, found in several.items()
    ]


def _without_backend(record: Record) -> str:
    return record.case.id.removesuffix(f"-{record.case.backend}")


def _cell(record: Record | None) -> str:
    if record is None:
        return "-"
    if record.outcome == "skipped":
        return "skipped"
    median = ((record.latency or {}).get("summary") or {}).get("median_ms")
    errors = [
        o["max_abs"] for o in ((record.accuracy or {}).get("outputs") or {}).values() if o.get("max_abs") is not None
    ]
    parts = [f"{median:.4g} ms" if median else "", f"max abs {max(errors):.1e}" if errors else ""]
    clock = (record.latency or {}).get("clock")
    said = [word for word in (clock, "simulated" if record.simulated else None) if word]
    shown = (", ".join(part for part in parts if part) or "-") + (f" ({', '.join(said)})" if said else "")
    return shown if record.outcome in ("passed", "inconclusive") else f"{shown} {record.outcome.upper()}"


def engines(records: Sequence[Record]) -> list[tuple[str, ...]]:
    """One row per engine whose structure is known, in the order of ENGINE_HEADER."""
    return [_engine(record, record.engine) for record in records if record.engine and record.engine.get("structure")]


def _option(value: object) -> str:
    """One option's value in a cell; of a library's digest, the first 12 digits."""
    if not isinstance(value, dict):
        return str(value)
    return " ".join(f"{name}:{held[:12] if isinstance(held, str) else held}" for name, held in value.items())


def _engine(record: Record, engine: dict[str, Any]) -> tuple[str, ...]:
    structure, census = engine["structure"], engine.get("census") or {}
    options = ", ".join(f"{name}={_option(value)}" for name, value in (engine.get("options") or {}).items())
    weights = ", ".join(f"{size / 1e6:.2f} MB {kind}" for kind, size in (census.get("weights_bytes") or {}).items())
    counts = (str(structure.get(name, "-")) for name in ("layers", "fused", "reformats", "myelin"))
    memory = structure.get("device_memory_bytes")
    return (
        record.case.id,
        options or "-",
        *counts,
        weights or "-",
        "-" if memory is None else f"{memory / 1e6:.2f}",
        str(census.get("evidence", "-")),
    )
