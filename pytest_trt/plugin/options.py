"""Options, ini keys and the marker; the header; and the one Lab of the session, made when first needed."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_trt.errors import TrtError, UsageError
from pytest_trt.settings import Settings, options, unknown_variables

if TYPE_CHECKING:
    from pytest_trt.lab import Lab

__all__ = ["get_lab", "get_settings", "made_lab"]

_SETTINGS = pytest.StashKey[Settings]()
_LAB = pytest.StashKey["Lab"]()
_HEADER_SHOWN = pytest.StashKey[bool]()

_MARKER = (
    "trt(model, *, precisions=None, profiles=None, threshold=None, **tolerance): "
    "run this test for each case of the model; tolerance names such as rtol, atol, cosine override the preset."
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("trt", "TensorRT engines (pytest-trt)")
    for option in options():
        help = option.help.replace("%", "%%")
        group.addoption(*option.flags(), dest=f"trt_{option.name}", default=None, metavar=option.metavar, help=help)
        parser.addini(option.ini, f"default of {option.flag}", type="string", default="")
    parser.addini(
        "trt_models", "patterns of .onnx files to collect, relative to the root directory", type="linelist", default=[]
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARKER)
    given = {option.name: config.getoption(f"trt_{option.name}") for option in options()}
    try:
        ini = _ini_of(config)
        settings = config.stash[_SETTINGS] = Settings.resolve(given, os.environ, ini, ini_root=config.rootpath)
        _check_names(config, settings)
    except TrtError as error:
        raise pytest.UsageError(str(error)) from error


def _ini_of(config: pytest.Config) -> dict[str, str]:
    """The ini key of each option. TOML has lists, and pytest hands on what it reads of them, with a warning. That is
    said better here, and must not end the run as an internal error where warnings are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ini = {option.name: config.getini(option.ini) for option in options()}
    for option in options():
        value = ini[option.name]
        if isinstance(value, list):
            text = ",".join(map(str, value))
            raise UsageError(f"ini key {option.ini}: a list stands there", hint=f'write {option.ini} = "{text}"')
    return ini


def _check_names(config: pytest.Config, settings: Settings) -> None:
    """What the command line names must exist: said once, before anything is collected."""
    if settings.precision:
        from pytest_trt.spec.precision import get_precision

        for name in settings.precision:
            get_precision(name)
    if settings.tolerance:
        from pytest_trt.accuracy.tolerance import ToleranceSet, default_tolerance, parse_tolerance

        ToleranceSet(default_tolerance("fp32")).merged(parse_tolerance(settings.tolerance), "--trt-tolerance")
    asks_of_the_builder = any(getattr(settings, o.name) != o.default for o in options() if o.group == "build")
    if settings.backend or asks_of_the_builder or settings.tactics:
        from pytest_trt.spec.build_options import BuildOptions

        asked = BuildOptions.of({**vars(settings), "tactics": None})
        lab = get_lab(config)
        for name in lab.backend_names:
            for tactics in settings.tactics or ((),):
                lab.backend(name).check(replace(asked, tactics=tactics))


def pytest_unconfigure(config: pytest.Config) -> None:
    if _LAB in config.stash:
        config.stash[_LAB].close()


def get_settings(config: pytest.Config) -> Settings:
    return config.stash[_SETTINGS]


def get_lab(config: pytest.Config) -> Lab:
    """The session's Lab. What it says about long steps goes to the terminal where there is one."""
    if _LAB not in config.stash:
        from pytest_trt.lab import Lab
        from pytest_trt.plugin.progress import progress_line

        config.stash[_LAB] = Lab(get_settings(config), config.rootpath, progress_line(config))
    return config.stash[_LAB]


def made_lab(config: pytest.Config) -> Lab | None:
    """The session's Lab if anything has needed one."""
    return config.stash.get(_LAB, None)


def pytest_report_header(config: pytest.Config) -> list[str]:
    return header(config) if _concerns_us(config) else []


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> list[str]:
    ours = any(item.get_closest_marker("trt") for item in items)
    quiet = config.getoption("verbose") < 0  # pytest leaves headers out then, but not what is said here
    return header(config) if ours and not quiet and _HEADER_SHOWN not in config.stash else []


def _concerns_us(config: pytest.Config) -> bool:
    """A guess from names alone: probing a GPU costs seconds, which an unrelated run must not pay."""
    if any(config.getoption(f"trt_{option.name}") is not None for option in options()):
        return True
    for argument in config.args:
        path = Path(str(argument).partition("::")[0])
        if path.suffix == ".onnx" or path.name == "trt.toml" or (path / "trt.toml").is_file():
            return True
        with suppress(OSError):
            if next(path.glob("*/trt.toml"), None):
                return True
    return False


def header(config: pytest.Config) -> list[str]:
    """Say what will run the engines and why, what is cached where, and every variable that is set."""
    from pytest_trt.artifacts.maintenance import describe

    config.stash[_HEADER_SHOWN] = True
    settings, lab = get_settings(config), get_lab(config)
    lines = []
    try:
        for name in lab.backend_names:
            environment = lab.environment(name)
            libraries = ", ".join(
                f"{k} {v}" for k, v in environment.libraries if k in ("tensorrt", "onnxruntime", "fake")
            )
            lines.append(f"trt: backend {name} ({libraries}) on {environment.device}{_why(name, settings)}")
    except TrtError as error:
        lines.append(f"trt: {error.message}")
    lines.append(f"trt: cache {settings.cache} {describe(lab.store)}; baselines {lab.baselines.root}")
    variables = sorted(name for name in os.environ if name.startswith("PYTEST_TRT_"))
    if variables:
        lines.append("trt: " + ", ".join(f"{name}={os.environ[name]}" for name in variables))
    lines += [f"trt: {name} is no option, {hint}" for name, hint in unknown_variables(os.environ).items()]
    return lines


def _why(name: str, settings: Settings) -> str:
    if name == "fake":
        return " - SIMULATED, nothing is built or timed"
    if name == "onnxruntime-cpu" and not settings.backend:
        from pytest_trt.backends import get_backend

        return f" - the embedded default; TensorRT is not used: {get_backend('tensorrt').probe().reason}"
    return ""
