"""Settings: each option declared once, resolved once.

From the one declaration follow the pytest option ``--trt-NAME``, the ``pytest-trt`` flag ``--NAME``, the
variable ``PYTEST_TRT_NAME``, the ini key ``trt_NAME`` and the table in the README. Precedence: marker > command
line > environment variable > ini > default. ``None`` means "not given"; the default is applied last, so a
``0`` on the command line is never lost.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_trt.errors import UsageError, nearest

__all__ = ["ENV_PREFIX", "Option", "Settings", "options", "unknown_variables"]

ENV_PREFIX = "PYTEST_TRT_"


@dataclass(frozen=True)
class Option:
    """One declared option. ``parse`` turns text into the value and raises ValueError with what it wants."""

    name: str
    parse: Callable[[str], Any]
    default: Any
    metavar: str
    help: str
    group: str

    @property
    def flag(self) -> str:
        return f"--trt-{self.name.replace('_', '-')}"

    @property
    def short_flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        return ENV_PREFIX + self.name.upper()

    @property
    def ini(self) -> str:
        return f"trt_{self.name}"

    def read(self, text: object, origin: str) -> Any:
        """Parse *text* from *origin*. Raises UsageError that names both."""
        try:
            return self.parse(str(text))
        except ValueError as error:
            raise UsageError(f"{origin}: cannot use {str(text)!r}: {error}") from error


def _names(text: str) -> tuple[str, ...]:
    # A name that is given twice would make two cases with one id.
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise ValueError("a comma-separated list with at least one name is wanted")
    return names


def _tactic_sets(text: str) -> tuple[tuple[str, ...], ...]:
    sets: list[tuple[str, ...]] = []
    for part in text.split(";"):
        part = part.strip()
        if part in ("", "default"):
            sets.append(())
            continue
        names = tuple(name.strip() for name in part.split(","))
        for name in names:
            if name[:1] not in "+-" or not name[1:].isidentifier():
                raise ValueError(f"{name!r} is not +SOURCE or -SOURCE (sets are split by ';', 'default' is a set)")
        sets.append(names)
    return tuple(dict.fromkeys(sets))


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"one of {', '.join(allowed)} is wanted; {nearest(text, allowed)}")
        return text

    return parse


def _number(low: float, high: float = float("inf"), kind: type = float) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        value = kind(text)
        if not low <= value <= high:
            raise ValueError(f"a number from {low:g} to {high:g} is wanted")
        return value

    return parse


def _ratio(text: str) -> float:
    """``5%`` or ``0.05``."""
    value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    if not 0 < value < 100:
        raise ValueError("a share such as 5% or 0.05 is wanted")
    return value


def _size(text: str) -> int:
    """``512MB``, ``20GB`` or plain bytes; decimal units."""
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "B": 1}
    unit = next((u for u in units if text.upper().endswith(u)), "")
    try:
        size = int(float(text[: -len(unit)]) * units[unit]) if unit else int(text)
    except (ValueError, OverflowError):
        size = -1
    if size < 0:
        raise ValueError(f"a size such as 512MB, 20GB or a number of bytes is wanted; units are {', '.join(units)}")
    return size


def _option(default: Any, parse: Callable[[str], Any], metavar: str, help: str, *, group: str) -> Any:
    return dataclasses.field(default=default, metadata={"option": (parse, metavar, help, group)})


@dataclass(frozen=True)
class Settings:
    """All options, resolved. Help texts are lowercase sentences without a full stop that say what the value does."""

    precision: tuple[str, ...] | None = _option(
        None,
        _names,
        "P[,P…]",
        "precisions to test: fp32 tf32 fp16 bf16 int8 (default: the manifest's, else fp32)",
        group="matrix",
    )
    profile: tuple[str, ...] | None = _option(
        None, _names, "NAME[,NAME…]", "shape profiles to test (default: all of the manifest)", group="matrix"
    )
    tactics: tuple[tuple[str, ...], ...] = _option(
        ((),),
        _tactic_sets,
        "±SOURCE[,…][;…]",
        "tactic sources to add or take away; several sets are split by ';'",
        group="matrix",
    )
    backend: tuple[str, ...] | None = _option(
        None,
        _names,
        "NAME[,NAME…]",
        "what runs the engines (default: tensorrt where it works, else onnxruntime-cpu)",
        group="matrix",
    )
    variant: str | None = _option(
        None, str, "NAME", "variant of each manifest that has one of this name (small, full, …)", group="matrix"
    )
    shapes: str = _option(
        "corners",
        _choice("corners", "opt"),
        "corners|opt",
        "points of each profile at which accuracy is judged",
        group="accuracy",
    )
    samples: int | None = _option(
        None,
        _number(1, kind=int),
        "N",
        "use at most N input samples per point (default: all at opt, 4 at the other corners)",
        group="accuracy",
    )
    seed: int = _option(0, _number(0, kind=int), "N", "seed of synthetic inputs", group="accuracy")
    tolerance: str | None = _option(
        None, str, "K=V[,…]", "override tolerances, e.g. rtol=1e-2,atol=1e-3 or logits:cosine=0.999", group="accuracy"
    )
    latency: str = _option("on", _choice("on", "off"), "on|off", "measure latency", group="latency")
    threshold: float | None = _option(
        None,
        _ratio,
        "SHARE",
        "slowdown against the baseline that is a regression (default: the manifest's, else 5%)",
        group="latency",
    )
    warmup: float = _option(0.2, _number(0, 600), "SECONDS", "warm up this long before sampling", group="latency")
    duration: float = _option(
        0.9, _number(0.001, 3600), "SECONDS", "sample this long, over all loads together", group="latency"
    )
    loads: int = _option(
        3, _number(1, 100, int), "N", "load the engine N times, since loads of one plan differ", group="latency"
    )
    inconclusive: str = _option(
        "warn",
        _choice("warn", "fail"),
        "warn|fail",
        "what an inconclusive latency verdict does to the test",
        group="latency",
    )
    baselines: Path | None = _option(
        None, Path, "DIR", "where baselines are kept (default: baselines/ in the root directory)", group="baselines"
    )
    update_baselines: str | None = _option(
        None,
        _choice("new", "failed", "all"),
        "new|failed|all",
        "write baselines: missing ones; failed: stale ones and regressions too; or all",
        group="baselines",
    )
    reason: str | None = _option(
        None, str, "TEXT", "why a baseline is replaced; needed by failed and all", group="baselines"
    )
    baseline: str = _option(
        "report",
        _choice("report", "strict"),
        "report|strict",
        "whether a missing or stale baseline is only reported or fails",
        group="baselines",
    )
    cache_dir: Path | None = _option(
        None,
        Path,
        "DIR",
        "where engines, references and calibration are kept (default: the user's cache folder)",
        group="cache",
    )
    cache: str = _option(
        "rw", _choice("off", "ro", "rw"), "off|ro|rw", "use no cache, only read it, or read and write it", group="cache"
    )
    cache_size: int = _option(
        20 * 10**9, _size, "SIZE", "evict the least recently used entries above this size", group="cache"
    )
    workspace: int | None = _option(
        None, _size, "SIZE", "TensorRT's workspace limit (default: TensorRT's own)", group="build"
    )
    opt_level: int | None = _option(
        None, _number(0, 5, int), "0-5", "builder optimization level (default: TensorRT's own)", group="build"
    )
    timing_cache: str = _option(
        "on", _choice("on", "off"), "on|off", "reuse tactic timings between builds on one device", group="build"
    )
    report: Path | None = _option(None, Path, "FILE", "write the records as JSON", group="report")
    fake: str | None = _option(
        None,
        str,
        "K=V[,…]",
        "what the fake backend injects, e.g. latency=1.5,error=0.1 (to test a gate)",
        group="build",
    )

    @classmethod
    def resolve(
        cls,
        command_line: Mapping[str, Any],
        environ: Mapping[str, str],
        ini: Mapping[str, str],
        *,
        flag: Callable[[Option], str] = lambda option: option.flag,
        ini_root: Path = Path(),
    ) -> Settings:
        """Resolve each option from the first source that gives it.

        Values are texts, None or "" (ini only) where not given. A relative path counts from the working directory,
        one of the ini file from *ini_root*. Raises UsageError that names the source.
        """
        values = {}
        for option in options():
            if command_line.get(option.name) is not None:
                values[option.name] = option.read(command_line[option.name], flag(option))
            elif option.variable in environ:
                values[option.name] = option.read(environ[option.variable], option.variable)
            elif ini.get(option.name):
                value = option.read(ini[option.name], f"ini key {option.ini}")
                values[option.name] = ini_root / value if isinstance(value, Path) else value
        settings = cls(**values)
        if settings.update_baselines in ("failed", "all") and not settings.reason:
            raise UsageError(
                f"replacing baselines ({settings.update_baselines}) needs a reason",
                hint='add --trt-reason="why the new values are right"',
            )
        return settings

    def evolve(self, **changes: Any) -> Settings:
        """Return a copy with *changes* (a marker's arguments, say)."""
        return dataclasses.replace(self, **changes)


def options() -> Iterator[Option]:
    """Yield every declared option, in order."""
    for field in dataclasses.fields(Settings):
        parse, metavar, help, group = field.metadata["option"]
        yield Option(field.name, parse, field.default, metavar, help, group)


def unknown_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return each ``PYTEST_TRT_*`` variable that is no option, with a suggestion: a typo must show."""
    known = {option.variable for option in options()}
    return {name: nearest(name, known) for name in environ if name.startswith(ENV_PREFIX) and name not in known}
