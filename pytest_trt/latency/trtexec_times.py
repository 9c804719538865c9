"""The list of queries that ``trtexec --exportTimes`` writes: which of them count, and their durations. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.errors import InputsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["METRICS", "WARMUP_MS", "after_warmup", "durations", "is_query"]

METRICS = ("compute", "latency", "h2d", "d2h")
WARMUP_MS = 200.0  # trtexec's own default of --warmUp


def is_query(entry: Any) -> bool:
    """Whether *entry* of a list is one of trtexec's."""
    return isinstance(entry, Mapping) and "computeMs" in entry


def after_warmup(queries: Sequence[Mapping[str, Any]], warmup_ms: float) -> list[Mapping[str, Any]]:
    """The queries that began *warmup_ms* after the first moment or later, as trtexec counts them. Its older releases
    export the others too, the newer ones do not. A query that does not say when it began counts."""
    return [query for query in queries if not _is_before(query.get("startComputeMs"), warmup_ms)]


def durations(place: str, queries: Sequence[Mapping[str, Any]], metric: str = "compute") -> NDArray[np.float64]:
    """*metric* of each query, in ms and in order. Raises InputsError that begins with *place*."""
    if metric not in METRICS:
        raise InputsError(f"{place}: unknown metric {metric!r}; known: {', '.join(METRICS)}")
    name = f"{metric}Ms"
    for number, query in enumerate(queries):
        if not is_query(query) or name not in query:
            raise InputsError(f"{place}: query {number} has no {name}, so this is no list of queries by trtexec")
        value = query[name]
        # JSON's true is a number to Python.
        if type(value) not in (int, float) or not 0 < value < float("inf"):
            raise InputsError(f"{place}: query {number}: {name} is {value!r}", hint="durations are finite and above 0")
    return np.array([query[name] for query in queries], dtype=np.float64)


def _is_before(began: Any, warmup_ms: float) -> bool:
    return type(began) in (int, float) and began < warmup_ms
