"""Settings: each option declared once, resolved once.

From the one declaration follow the pytest option ``--trt-NAME``, the ``pytest-trt`` flag ``--NAME`` (``flag_of``), the
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

from pytest_trt.build_settings import BuildSettings
from pytest_trt.errors import UsageError, nearest
from pytest_trt.latency_settings import LatencySettings
from pytest_trt.option import ENV_PREFIX, Option, as_text, as_words
from pytest_trt.option import option as _option
from pytest_trt.option_values import choice, graphs, names, number, path, path_of_file, shape_points, size, tactic_sets

__all__ = ["ENV_PREFIX", "Option", "Settings", "as_text", "as_words", "options", "unknown_variables"]

_GROUPS = ("matrix", "accuracy", "latency", "baselines", "cache", "build", "report")


@dataclass(frozen=True)
class Settings(BuildSettings, LatencySettings):
    """All options, resolved. Help texts are lowercase sentences without a full stop that say what the value does."""

    precision: tuple[str, ...] | None = _option(
        None,
        names,
        "P[,P…]",
        "precisions to test: fp32 tf32 fp16 bf16 int8 fp8 int4, int8-entropy2 and the like (default: the manifest's,"
        " else fp32)",
        group="matrix",
    )
    profile: tuple[str, ...] | None = _option(
        None, names, "NAME[,NAME…]", "shape profiles to test (default: all of the manifest)", group="matrix"
    )
    tactics: tuple[tuple[str, ...], ...] = _option(
        (),
        tactic_sets,
        "±SOURCE[,…][;…]",
        "tactic sources to add or take away; several sets are split by ';' (default: the manifest's, else TensorRT's)",
        group="matrix",
    )
    backend: tuple[str, ...] | None = _option(
        None,
        names,
        "NAME[,NAME…]",
        "what runs the engines (default: tensorrt where it works, else onnxruntime-cpu)",
        group="matrix",
    )
    graph: tuple[str, ...] = _option(
        ("as-is",),
        graphs,
        "NAME[,NAME…]",
        "the graph as it is, or optimized first: as-is ort-basic ort-extended simplified opset=N",
        group="matrix",
    )
    streams: int = _option(
        1,
        number(1, 64, int),
        "N",
        "also run each engine in N contexts and streams at once: equal outputs, throughput",
        group="matrix",
    )
    variant: str | None = _option(
        None, str, "NAME", "variant of each manifest that has one of this name (small, full, …)", group="matrix"
    )
    shapes: str | int = _option(
        "corners",
        shape_points,
        "corners|opt|all|N",
        "points of each profile at which accuracy is judged: opt, min, max; all: single extremes and odd sizes too"
        " (64 at most); N: random ones too",
        group="accuracy",
    )
    samples: int | None = _option(
        None,
        number(1, kind=int),
        "N",
        "use at most N input samples per point (default: all at opt, 4 at the other corners, 1 elsewhere)",
        group="accuracy",
    )
    seed: int = _option(
        0, number(0, kind=int), "N", "seed of synthetic inputs, random points and searches", group="accuracy"
    )
    search: int = _option(
        0,
        number(0, 10**6, int),
        "N",
        "also try N drawn inputs per case in at most 6 N + 1 runs, walk towards the worst one, and save what fails"
        " (needs hypothesis)",
        group="accuracy",
    )
    tolerance: str | None = _option(
        None, str, "K=V[,…]", "override tolerances, e.g. rtol=1e-2,atol=1e-3 or logits:cosine=0.999", group="accuracy"
    )
    alpha: float | None = _option(
        None,
        number(1e-6, 0.4999),
        "SHARE",
        "how often a metric that did not change may seem to drop (default: the manifest's, else 0.05)",
        group="accuracy",
    )
    power: float | None = _option(
        None,
        number(0.5, 0.999999),
        "SHARE",
        "how often a metric's drop must be seen (default: the manifest's, else 0.8)",
        group="accuracy",
    )
    explain: str = _option(
        "fail",
        choice("off", "fail", "on"),
        "off|fail|on",
        "say where the error of a case enters: never, when its accuracy fails, or always",
        group="accuracy",
    )
    explain_seconds: float = _option(
        60, number(0, 86400), "SECONDS", "begin no further stage of an explanation after this long", group="accuracy"
    )
    baselines: Path | None = _option(
        None, path, "DIR", "where baselines are kept (default: baselines/ in the root directory)", group="baselines"
    )
    update_baselines: str | None = _option(
        None,
        choice("new", "renamed", "orphaned", "failed", "all", "anchor"),
        "MODE",
        "write baselines: new (missing ones), failed (stale ones and regressions too), all, anchor (all, as anchors"
        " too); renamed moves entries, orphaned deletes them",
        group="baselines",
    )
    reason: str | None = _option(
        None, str, "TEXT", "why baselines change; needed by all but new, and by baseline accept", group="baselines"
    )
    baseline: str = _option(
        "report",
        choice("report", "strict"),
        "report|strict",
        "whether missing, stale, renamed, waived and orphaned baselines are only reported or fail",
        group="baselines",
    )
    cache_dir: Path | None = _option(
        None,
        path,
        "DIR",
        "where engines, references and calibration are kept (default: the user's cache folder)",
        group="cache",
    )
    cache: str = _option(
        "rw", choice("off", "ro", "rw"), "off|ro|rw", "use no cache, only read it, or read and write it", group="cache"
    )
    cache_size: int = _option(
        20 * 10**9, size, "SIZE", "evict the least recently used entries above this size", group="cache"
    )
    structure: str = _option(
        "warn",
        choice("off", "warn", "fail"),
        "off|warn|fail",
        "what it does to a case when layers, size or memory of the engine differ from the baseline",
        group="baselines",
    )
    lock: str = _option(
        "off",
        choice("off", "warn", "fail"),
        "off|warn|fail",
        "what it does to a case when the engine's tactics differ from the baseline",
        group="baselines",
    )
    report: Path | None = _option(None, path_of_file, "FILE", "write the records as JSON", group="report")
    markdown: Path | None = _option(
        None,
        path_of_file,
        "FILE|-",
        "write the records as a Markdown page; '-' appends it to the job summary of GitHub Actions",
        group="report",
    )
    history: Path | None = _option(
        None,
        path,
        "DIR",
        "append this run's records to the history in this folder, whose noise the gate then knows",
        group="report",
    )
    bundle: Path | None = _option(
        None,
        path,
        "DIR",
        "write each case whose accuracy fails into a folder here: models, arrays, explanation, reproduce.py",
        group="report",
    )
    bundle_size: int = _option(
        10**9, size, "SIZE", "leave models above this size out of a bundle, and say so", group="report"
    )
    history_samples: str = _option(
        "off", choice("on", "off"), "on|off", "whether the history keeps all latency samples", group="report"
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
                values[option.name] = _rooted(option.read(ini[option.name], f"ini key {option.ini}"), ini_root)
        settings = cls(**values)
        if settings.update_baselines not in (None, "new") and not (settings.reason or "").strip():
            raise UsageError(
                f"changing baselines ({settings.update_baselines}) needs a reason",
                hint='add --trt-reason="why it is right"',
            )
        return settings

    def evolve(self, **changes: Any) -> Settings:
        """Return a copy with *changes* (a marker's arguments, say)."""
        return dataclasses.replace(self, **changes)


def _rooted(value: Any, root: Path) -> Any:
    """*value*; a path, or each of several, counted from *root*."""
    if isinstance(value, tuple):
        return tuple(_rooted(entry, root) for entry in value)
    return root / value if isinstance(value, Path) else value


def options() -> Iterator[Option]:
    """Yield every declared option, group by group."""
    for field in sorted(dataclasses.fields(Settings), key=lambda field: _GROUPS.index(field.metadata["option"][3])):
        parse, metavar, help, group = field.metadata["option"]
        yield Option(field.name, parse, field.default, metavar, help, group)


def unknown_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return each ``PYTEST_TRT_*`` variable that is no option, with a suggestion: a typo must show."""
    known = {option.variable for option in options()}
    return {name: nearest(name, known) for name in environ if name.startswith(ENV_PREFIX) and name not in known}
