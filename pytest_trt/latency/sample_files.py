"""Files of durations, by whatever made them: ``.npz``, pytest-benchmark's JSON, the JSON of trtexec's --exportTimes.

Reading executes nothing: arrays are read without pickle.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.errors import InputsError
from pytest_trt.latency.benchmark_json import as_durations, benchmarks_of, is_benchmark_json
from pytest_trt.latency.modes import prior_of
from pytest_trt.latency.priors import PRIORS
from pytest_trt.latency.trtexec_times import WARMUP_MS, after_warmup, durations

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Repeats = list[NDArray[np.float64]]

__all__ = ["TRTEXEC_NAME", "SampleFile", "read_sample_file", "read_samples"]

# What the one series of a trtexec file is called: its ``computeMs``, the time on the GPU without copies.
TRTEXEC_NAME = "compute"
_FORMATS = "an .npz of arrays, the JSON of pytest-benchmark, or that of trtexec --exportTimes"


@dataclass(frozen=True)
class SampleFile:
    """``samples``: name -> repeats, each an array of durations in ms in the order taken. ``clocks``: name -> clock (see
    ``modes``), where the file says one; ``usual_clock`` is what such files are otherwise from, if that can be said.
    ``kind`` is ``npz``, ``pytest-benchmark`` or ``trtexec``."""

    kind: str
    samples: Mapping[str, Repeats]
    clocks: Mapping[str, str]
    usual_clock: str | None = None


def read_samples(path: Path) -> dict[str, Repeats]:
    """``read_sample_file(path).samples`` alone: name -> repeats in ms."""
    return dict(read_sample_file(path).samples)


def read_sample_file(path: Path) -> SampleFile:
    """Read *path* by what is in it, whatever it is called.

    | file | names | repeats | clock |
    |---|---|---|---|
    | ``.npz`` | its keys | (samples,) is one, (repeats, samples) several; ms | as in NAME``__graph`` |
    | pytest-benchmark | ``fullname`` | one: ``stats.data``, seconds | pytest-trt's own say it; usually host |
    | trtexec | ``compute`` | one: ``computeMs`` after 200 ms of warm-up | usually sync |

    Raises InputsError that names the file, the place in it and what is wanted.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise InputsError(f"{path}: cannot be read: {error.strerror or error}") from error
    found = _npz(path) if start.startswith(b"PK") else _json(path)
    if not found.samples:
        raise InputsError(f"{path}: there are no samples in it", hint=f"it holds an empty list; wanted is {_FORMATS}")
    return found


def _npz(path: Path) -> SampleFile:
    samples: dict[str, Repeats] = {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:  # np.load leaves a broken one open
            for name in arrays.files:
                samples[name] = _repeats(f"{path}: {name}", arrays[name])
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputsError(
            f"{path}: not an .npz of numbers: {error}", hint="np.savez(file, name=array), durations in ms"
        ) from error
    suffixes = {name: name.rpartition("__")[2] for name in samples if "__" in name}
    return SampleFile("npz", samples, {name: clock for name, clock in suffixes.items() if prior_of(clock) in PRIORS})


def _repeats(place: str, array: NDArray[Any]) -> Repeats:
    if array.dtype.kind not in "fiu":
        raise InputsError(f"{place}: {array.dtype} is no duration", hint="floats, in ms")
    if array.ndim not in (1, 2):
        raise InputsError(
            f"{place}: the shape is {array.shape}", hint="(samples,) is one repeat, (repeats, samples) are several"
        )
    return [as_durations(place, row) for row in np.atleast_2d(array)]


def _json(path: Path) -> SampleFile:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputsError(f"{path}: neither .npz nor JSON: {error}", hint=f"wanted is {_FORMATS}") from error
    if is_benchmark_json(content):
        return _pytest_benchmark(path, content["benchmarks"])
    if isinstance(content, list):
        return _trtexec(path, content)
    raise InputsError(
        f"{path}: JSON, but neither pytest-benchmark's (an object with benchmarks) nor trtexec's (a list of queries)",
        hint=f"wanted is {_FORMATS}",
    )


def _pytest_benchmark(path: Path, rows: list[Any]) -> SampleFile:
    samples: dict[str, Repeats] = {}
    clocks: dict[str, str] = {}
    for one in benchmarks_of(str(path), rows):
        if one.fullname in samples:
            raise InputsError(
                f"{path}: two benchmarks are called {one.fullname!r}", hint="merge runs as repeats in an .npz"
            )
        samples[one.fullname] = [one.samples_ms]
        if one.clock and prior_of(one.clock) in PRIORS:
            clocks[one.fullname] = one.clock
    return SampleFile("pytest-benchmark", samples, clocks, usual_clock="host")


def _trtexec(path: Path, queries: list[Any]) -> SampleFile:
    if not queries:
        return SampleFile("trtexec", {}, {})
    place = str(path)
    durations(place, queries)  # before any is left out: what is none is said
    counted = after_warmup(queries, WARMUP_MS) or queries  # all of them where trtexec was told of a shorter warm-up
    # It does not say whether a graph was launched: the wider prior of the two is the safe one.
    return SampleFile("trtexec", {TRTEXEC_NAME: [durations(place, counted)]}, {}, "sync")
