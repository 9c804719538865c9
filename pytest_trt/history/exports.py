"""Rows of one run -> what other tools read: pytest-benchmark, github-action-benchmark and bencher. Pure."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from typing import Any

from pytest_trt.errors import UsageError
from pytest_trt.history.rows import Row, spread

__all__ = ["FORMATS", "bencher", "github_action_benchmark", "pytest_benchmark"]

_Z = 1.96
# In ms in a row, in seconds for pytest-benchmark; the rest are counts and texts.
_DURATIONS = ("min", "max", "mean", "stddev", "median", "iqr", "q1", "q3", "ld15iqr", "hd15iqr", "total")


def pytest_benchmark(rows: Sequence[Row]) -> dict[str, Any]:
    """The JSON of ``--benchmark-json``, for ``pytest-benchmark compare``: seconds, one benchmark per measured case.

    The names are those that a run gives pytest-benchmark itself, so both compare with each other. Without stored
    samples ``stats`` has no ``data``. Raises UsageError when nothing was measured, or a case is there twice.
    """
    first = _measured(rows)[0]
    environment = first.environment or {}
    git = first.git
    return {
        "machine_info": {
            "node": "",
            "processor": platform.processor(),
            "machine": str(environment.get("system", "")).partition("-")[2],
            "python_version": platform.python_version(),
            "python_implementation": platform.python_implementation(),
            "system": str(environment.get("system", "")).partition("-")[0],
            "cpu": {"brand_raw": str(environment.get("device", ""))},
        },
        "commit_info": {
            "id": git.commit if git else "unversioned",
            "time": git.committed if git else None,
            "dirty": git.dirty if git else False,
            "project": "",
            "branch": (git.branch if git else None) or "(unknown)",
        },
        "benchmarks": [_benchmark(row) for row in _measured(rows)],
        "datetime": first.time,
        "version": "5.0.0",
    }


def _benchmark(row: Row) -> dict[str, Any]:
    latency, case = row.latency or {}, row.case or {}
    found = latency.get("spread") or (spread(latency["samples_ms"]) if latency.get("samples_ms") else None)
    if found is None:
        raise UsageError(f"{row.id}, run {row.run}: the samples' spread is not recorded, which pytest-benchmark needs")
    stats = {name: value / 1e3 if name in _DURATIONS else value for name, value in found.items()}
    stats |= {"ops": 1 / stats["mean"], "iterations": 1}
    if latency.get("samples_ms"):
        stats["data"] = [sample / 1e3 for sample in latency["samples_ms"]]
    return {
        "group": case.get("model"),
        "name": row.id,
        "fullname": row.id,
        "params": case or None,
        "param": row.id.removeprefix(f"{case.get('model')}-") if case else None,
        "extra_info": {
            "clock": latency.get("clock"),
            "trt": row.environment,
            "simulated": row.simulated,
            "run": row.run,
        },
        "options": {"disable_gc": False, "timer": str(latency.get("clock")), "min_rounds": 1, "warmup": True},
        "stats": stats,
    }


def github_action_benchmark(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For its tool ``customSmallerIsBetter``: the median latency (the gated figure) in ms, the plan's size in bytes.

    Errors of outputs are left out: it alerts on the ratio to the last run, and an exact output has error 0.
    """
    entries = []
    for row in _measured(rows):
        latency, summary = row.latency or {}, (row.latency or {})["summary"]
        extra = [f"{latency.get('clock')} clock, {summary.get('count', '?')} samples", row.slug]
        extra += ["simulated"] if row.simulated else []
        entry = {"name": f"{row.id} latency", "unit": "ms", "value": summary["median_ms"]}
        if summary.get("median_se"):
            reach = _Z * summary["median_se"] * summary["median_ms"]
            entry["range"] = f"± {reach:.3g}"
        entries.append({**entry, "extra": "\n".join(extra)})
        if row.plan_bytes:
            entries.append({"name": f"{row.id} plan", "unit": "bytes", "value": row.plan_bytes})
    return entries


def bencher(rows: Sequence[Row]) -> dict[str, dict[str, dict[str, float]]]:
    """Bencher Metric Format, for ``bencher run --adapter json``: the built-in measures ``latency`` (ns, the median with
    its 95 % interval) and ``file-size`` (bytes of the plan), and ``rmse`` (the worst output's, relative)."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in _measured(rows):
        summary = (row.latency or {})["summary"]
        value, reach = summary["median_ms"] * 1e6, _Z * (summary.get("median_se") or 0.0)
        measures = {"latency": {"value": value, "lower_value": value / (1 + reach), "upper_value": value * (1 + reach)}}
        if row.plan_bytes:
            measures["file-size"] = {"value": float(row.plan_bytes)}
        if row.rmse is not None:
            measures["rmse"] = {"value": row.rmse}
        found[row.id] = measures
    return found


FORMATS: dict[str, Callable[[Sequence[Row]], Any]] = {
    "pytest-benchmark": pytest_benchmark,
    "github-action-benchmark": github_action_benchmark,
    "bencher": bencher,
}


def _measured(rows: Sequence[Row]) -> list[Row]:
    found = [row for row in rows if row.median_ms]
    if not found:
        raise UsageError("none of these rows has a latency to export")
    ids = [row.id for row in found]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise UsageError(
            f"{twice[0]} is there {ids.count(twice[0])} times, and these formats know a name once",
            hint="choose one run, or one environment with --environment",
        )
    return found
