"""What others measured -> samples in ms: pytest-benchmark's JSON, and the times that trtexec exports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_trt.environment import Environment
from pytest_trt.errors import InputsError
from pytest_trt.history.git import GitState
from pytest_trt.history.moments import moment_of
from pytest_trt.history.rows import Row, new_run, spread
from pytest_trt.latency.benchmark_json import benchmarks_of, is_benchmark_json
from pytest_trt.latency.trtexec_times import WARMUP_MS, after_warmup, durations, is_query

__all__ = ["Imported", "read_samples", "rows_from"]


@dataclass(frozen=True)
class Imported:
    """One benchmark of a file: its samples in ms in the order in which they were taken, and what the file says of
    where they are from."""

    name: str
    samples_ms: tuple[float, ...]
    clock: str | None = None
    case: dict[str, Any] | None = None
    environment: dict[str, Any] | None = None
    simulated: str | None = None
    git: GitState | None = None
    time: str | None = None


def read_samples(
    path: Path, *, metric: str = "compute", warmup_ms: float = WARMUP_MS, name: str | None = None
) -> list[Imported]:
    """Read *path*, whichever of the two it is. Of trtexec's times, *metric* is taken, and queries that began before
    *warmup_ms* are left out, as trtexec itself does: its older releases export them too. *name* is what trtexec's
    samples are called.

    Raises InputsError that names the file and what is wrong with it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputsError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise InputsError(f"{path}: not a JSON file ({type(error).__name__}: {error})") from error
    if is_benchmark_json(content):
        return _pytest_benchmark(path, content)
    if isinstance(content, list) and content and is_query(content[0]):
        return [Imported(name or path.stem, _trtexec(path, content, metric, warmup_ms))]
    raise InputsError(
        f"{path}: neither pytest-benchmark's JSON nor times of trtexec",
        hint="pytest --benchmark-json=FILE and trtexec --exportTimes=FILE write them",
    )


def rows_from(
    found: Sequence[Imported],
    git: GitState | None,
    *,
    clock: str | None = None,
    device: str | None = None,
    samples: bool = False,
) -> list[Row]:
    """The rows of one run. What a file does not say is taken from *git*, *clock* and *device*.

    Raises InputsError where a clock is said by neither, or unknown: its noise decides what a comparison can see.
    """
    from pytest_trt.latency.modes import prior_of
    from pytest_trt.latency.priors import PRIORS
    from pytest_trt.latency.stats import summarize

    state = found[0].git or git
    run, time = new_run(state, moment_of(found[0].time))
    rows = []
    for item in found:
        if not (used := item.clock or clock):
            raise InputsError(
                f"{item.name}: the file does not say how it was timed",
                hint="--clock=queued+graph for trtexec with --useCudaGraph, --clock=queued without",
            )
        if prior_of(used) not in PRIORS:
            raise InputsError(
                f"{item.name}: nothing is known of the clock {used!r}; known: {', '.join(PRIORS)}, queued, …"
            )
        environment = item.environment or {
            "backend": "trtexec",
            "device": device or "",
            "driver": "",
            "libraries": {},
            "system": "",
        }
        latency: dict[str, Any] = {
            "clock": used,
            "summary": summarize(list(item.samples_ms)).to_json(),
            "spread": spread(item.samples_ms),
        }
        if samples:
            latency["samples_ms"] = list(item.samples_ms)
        rows.append(
            Row(
                run=run,
                time=time,
                id=item.name,
                outcome="imported",
                case=item.case,
                git=item.git or state,
                slug=_slug(environment),
                environment=environment,
                simulated=item.simulated,
                latency=latency,
            )
        )
    return rows


def _slug(environment: Mapping[str, Any]) -> str:
    libraries = environment.get("libraries")
    return Environment(
        **{name: str(environment.get(name, "")) for name in ("backend", "device", "driver", "system")},
        libraries=tuple(sorted((libraries if isinstance(libraries, dict) else {}).items())),
    ).slug


def _pytest_benchmark(path: Path, content: Mapping[str, Any]) -> list[Imported]:
    found = []
    for one in benchmarks_of(str(path), content["benchmarks"]):
        environment = one.extra.get("trt")
        ours = isinstance(environment, dict)
        found.append(
            Imported(
                name=one.name if ours else one.fullname,
                samples_ms=tuple(one.samples_ms.tolist()),
                clock=one.clock if ours else "host",
                case=dict(one.params) if ours and one.params is not None else None,
                environment=environment if ours else _machine(_table(content.get("machine_info"))),
                simulated=one.extra.get("simulated") if ours else None,
                git=_commit(_table(content.get("commit_info"))),
                time=content.get("datetime"),
            )
        )
    if not found:
        raise InputsError(f"{path}: there is no benchmark in it")
    return found


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _machine(info: Mapping[str, Any]) -> dict[str, Any]:
    cpu = _table(info.get("cpu"))
    brand = cpu.get("brand_raw") or cpu.get("brand") or info.get("processor") or ""
    return {
        "backend": "pytest-benchmark",
        "device": str(brand),
        "driver": "",
        "libraries": {"python": str(info.get("python_version", ""))},
        "system": f"{info.get('system', '')}-{info.get('machine', '')}",
    }


def _commit(info: Mapping[str, Any]) -> GitState | None:
    commit = str(info.get("id") or "")
    if len(commit) < 7 or not all(c in "0123456789abcdef" for c in commit):
        return None  # it writes "unversioned"
    branch = info.get("branch")
    known = branch if isinstance(branch, str) and not branch.startswith("(") else None
    return GitState(commit, known, bool(info.get("dirty")), info.get("time"))


def _trtexec(path: Path, content: list[Any], metric: str, warmup_ms: float) -> tuple[float, ...]:
    durations(str(path), content, metric)  # before any is left out: what is none is said
    counted = after_warmup(content, warmup_ms)
    if not counted:
        raise InputsError(
            f"{path}: all {len(content)} queries began in the warm-up, before {warmup_ms:g} ms",
            hint="give the time that trtexec was told with --warmUp",
        )
    return tuple(durations(str(path), counted, metric).tolist())
