"""The JSON of pytest-benchmark: its benchmarks, and their samples. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.errors import InputsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Benchmark", "as_durations", "benchmarks_of", "is_benchmark_json"]


@dataclass(frozen=True)
class Benchmark:
    """One benchmark. ``samples_ms`` are in the order taken; ``clock`` is the one that pytest-trt noted in ``extra``,
    None where there is none; ``extra`` is empty and ``params`` None where the file holds no table there."""

    name: str
    fullname: str
    samples_ms: NDArray[np.float64]
    clock: str | None
    extra: Mapping[str, Any]
    params: Mapping[str, Any] | None


def is_benchmark_json(content: Any) -> bool:
    """Whether *content* of a JSON file is what pytest-benchmark writes."""
    return isinstance(content, Mapping) and isinstance(content.get("benchmarks"), list)


def benchmarks_of(place: str, rows: Sequence[Any]) -> list[Benchmark]:
    """The benchmarks in *rows*, the list ``benchmarks`` of a file. Raises InputsError that begins with *place*."""
    return [_benchmark(place, number, row) for number, row in enumerate(rows)]


def _benchmark(place: str, number: int, row: Any) -> Benchmark:
    stats = row.get("stats") if isinstance(row, Mapping) else None
    name = (row.get("fullname") or row.get("name")) if isinstance(row, Mapping) else None
    if not isinstance(stats, Mapping) or not isinstance(name, str):
        raise InputsError(f"{place}: benchmarks[{number}] has no name, or no stats")
    if "data" not in stats:
        raise InputsError(
            f"{place}: {name} has a summary but no samples",
            hint="--benchmark-json=FILE and --benchmark-save-data keep them; for an export of ours"
            " --trt-history-samples=on",
        )
    where, values = f"{place}: stats.data of {name}", stats["data"]
    # JSON's true is a number to Python, and to NumPy a text of digits is one.
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        raise InputsError(f"{where}: a list of numbers is wanted")
    extra, params, short = row.get("extra_info"), row.get("params"), row.get("name")
    extra = extra if isinstance(extra, Mapping) else {}
    clock = extra.get("clock")
    return Benchmark(
        name=short if isinstance(short, str) else name,
        fullname=name,
        samples_ms=as_durations(where, np.array(values, dtype=np.float64) * 1e3),
        clock=clock if isinstance(clock, str) else None,
        extra=extra,
        params=params if isinstance(params, Mapping) else None,
    )


def as_durations(place: str, values: Any) -> NDArray[np.float64]:
    """*values*, one repeat in ms, as an array. Raises InputsError that begins with *place* for an empty one, and for
    what is not finite and positive."""
    found = np.asarray(values, dtype=np.float64)
    if found.size == 0:
        raise InputsError(f"{place}: a repeat without samples")
    wrong = np.flatnonzero(~(np.isfinite(found) & (found > 0)))
    if wrong.size:
        raise InputsError(f"{place}: sample {wrong[0]} is {found[wrong[0]]:g}", hint="durations are finite and above 0")
    return found
