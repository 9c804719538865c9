"""Who may import whom inside the package, and who may import which library: two tables and one AST walk.

A string that is nothing but the dotted name of one of our modules counts as an import of it: the tables of backends
and plugin modules are resolved with ``import_module``.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import pytest_trt

ROOT = Path(pytest_trt.__file__).parent

# Left may be imported by right, never the reverse; names of one row do not import each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("",),  # pytest_trt/__init__.py: the version, and public names that are resolved on use
    ("counted", "errors", "whole_file"),
    ("option", "option_values"),
    ("build_settings", "latency_settings"),
    ("environment", "settings"),
    ("spec",),
    ("backends",),
    ("artifacts",),
    ("accuracy", "latency"),
    ("record",),
    ("baselines",),
    ("history",),
    ("diagnosis",),
    ("report",),
    ("strategies",),
    ("search",),
    ("lab",),
    ("plugin", "cli"),
    ("__main__",),
)

# What must stay usable with arrays and numbers alone -> all of ours that it may import.
_NUMBERS = tuple(f"latency.{name}" for name in ("evidence", "gate", "priors", "stats", "student", "verdict"))
PURE = {"accuracy": ("accuracy", "errors"), **dict.fromkeys(_NUMBERS, ("errors", *_NUMBERS))}

# Library -> the modules that may import it, those below them included. A library without a row may not be imported.
LIBRARIES: dict[str, tuple[str, ...]] = {
    "pytest": ("plugin",),
    "_pytest": ("plugin",),
    "pytest_benchmark": ("plugin", "history.rows"),
    "tensorrt": ("backends.tensorrt",),
    "cuda": ("backends.tensorrt", "backends.cuda", "backends.clocks"),
    "pynvml": ("backends.nvml", "environment"),
    "onnxruntime": ("backends.onnxruntime",),
    "onnx": ("spec", "backends", "artifacts", "diagnosis"),
    "google": ("spec",),  # protobuf, for its exceptions
    "ml_dtypes": ("spec", "backends", "strategies"),
    "numpy": (
        "spec",
        "backends",
        "artifacts",
        "accuracy",
        "latency",
        "diagnosis",
        "history",
        "search",
        "strategies",
        "lab.ab",
        "lab.task_scores",
        "cli.gate",
    ),
    "filelock": ("artifacts",),
    "platformdirs": ("artifacts",),
    "rich": ("report",),
    "tomli": ("spec.manifest", "baselines.waivers"),
    "matplotlib": ("history.plots", "diagnosis.bundle.pictures"),
    "ruptures": ("history.change_points",),
    "hypothesis": ("strategies",),
    "scipy": ("accuracy.drop_test",),
    "numba": ("accuracy.compiled",),
    "torch": ("artifacts.exporters",),
    "onnxslim": ("artifacts.graphs",),
}

# Only inside functions, wherever they are used.
NEVER_AT_MODULE_LEVEL = (
    "tensorrt",
    "cuda",
    "pynvml",
    "onnxruntime",
    "onnx",
    "ml_dtypes",
    "pytest_benchmark",
    "rich",
    "matplotlib",
    "ruptures",
    "scipy",
    "numba",
)

# What a run loads before any model is tested: no numpy at module level either.
LIGHT = (
    "errors",
    "option",
    "build_settings",
    "latency_settings",
    "settings",
    "environment",
    "record",
    "lab",
    "cli",
    "plugin",
    "baselines",
    "history",
    "report",
    "backends/__init__",
    "spec/__init__",
    "spec.case",
    "spec.manifest",
    "spec.manifest_schema",
    "spec.shapes",
    "spec/precision/__init__",
)


class Import(NamedTuple):
    """One import: the dotted name, its line, and whether it runs when the module is imported."""

    target: str
    line: int
    at_module_level: bool


def imports_of(source: str, package: str) -> Iterator[Import]:
    """Every import in *source*; *package* is what relative ones start from."""
    yield from _walk(ast.parse(source), package, at_module_level=True, for_types=False)


def _walk(node: ast.AST, package: str, *, at_module_level: bool, for_types: bool) -> Iterator[Import]:
    typed = isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
    inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST):
                continue
            types, top = for_types or (typed and field == "body"), at_module_level and not (inside and field == "body")
            for target in _targets(child, package):
                yield Import(target, child.lineno, top and not types)  # type: ignore[attr-defined]
            yield from _walk(child, package, at_module_level=top, for_types=types)


def _targets(node: ast.AST, package: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        start = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        module = ".".join([*start, *([node.module] if node.module else [])])
        # ``from pytest_trt import lab`` imports a module, ``from pytest_trt import __version__`` does not.
        if module == "pytest_trt":
            return [f"{module}.{alias.name}" if _is_layer(alias.name) else module for alias in node.names]
        return [module]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value] if re.fullmatch(r"pytest_trt(\.[a-z_]+)+", node.value) else []
    return []


def _is_layer(name: str) -> bool:
    return any(name in row for row in LAYERS)


def _row(name: str) -> int:
    return next(index for index, row in enumerate(LAYERS) if name in row)


def _below(module: str, prefixes: tuple[str, ...]) -> bool:
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes)


def violations(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """What *source* breaks, if it were ``pytest_trt.<module>``; a sentence for each."""
    full = f"pytest_trt.{module}".rstrip(".")
    package = full if is_package else full.rpartition(".")[0]
    own = module.partition(".")[0]
    slashed = f"{module.replace('.', '/')}/__init__" if is_package else module
    light = slashed in LIGHT or _below(module, tuple(n for n in LIGHT if "/" not in n))
    found = []
    for target, line, at_module_level in imports_of(source, package):
        at = f"{full}:{line}"
        library, _, rest = target.partition(".")
        if library == "pytest_trt":
            name = rest.partition(".")[0]
            # The root's table of public names is resolved on use: it reaches everywhere by design.
            if own and name != own and _row(name) >= _row(own):
                found.append(f"{at} imports {target}, which is not left of {own}")
            pure = next((allowed for prefix, allowed in PURE.items() if _below(module, (prefix,))), None)
            if pure is not None and not _below(rest, pure):
                found.append(f"{at} is pure and imports {target}")
        elif library not in sys.stdlib_module_names and library != "tomllib":  # which is one from Python 3.11 on
            if not _below(module, LIBRARIES.get(library, ())):
                found.append(f"{at} may not import {library}")
            if at_module_level and (library in NEVER_AT_MODULE_LEVEL or (light and library == "numpy")):
                found.append(f"{at} imports {library} at module level")
    return found


def test_every_module_keeps_to_the_tables():
    found, seen = [], 0
    for file in sorted(ROOT.rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if is_package else parts)
        found += violations(module, file.read_text(encoding="utf-8"), is_package=is_package)
        seen += 1

    assert seen > 50
    assert not found, "\n".join(found)


def test_the_root_imports_nothing():
    """Every pytest run of the environment imports it. Its table of public names is no import before one is used."""
    source = (ROOT / "__init__.py").read_text(encoding="utf-8")
    run_at_import = {found.target for found in imports_of(source, "pytest_trt") if found.at_module_level}

    assert run_at_import == set(pytest_trt._PUBLIC.values())


@pytest.mark.parametrize(
    ("module", "source", "reported"),
    [
        ("spec.model", "from pytest_trt.lab import Lab", "pytest_trt.lab, which is not left of spec"),
        ("spec.model", "import pytest_trt.backends.fake", "pytest_trt.backends.fake, which is not left of spec"),
        ("spec.model", "from pytest_trt import lab", "pytest_trt.lab, which is not left of spec"),
        ("spec.model", "def f():\n    from pytest_trt import cli", "pytest_trt.cli, which is not left of spec"),
        ("spec.model", "from ..artifacts import key", "pytest_trt.artifacts, which is not left of spec"),
        ("spec.model", "from .. import report", "pytest_trt.report, which is not left of spec"),
        ("settings", "import pytest_trt.environment", "pytest_trt.environment, which is not left of settings"),
        ("cli", "from pytest_trt.plugin.parts import Part", "pytest_trt.plugin.parts, which is not left of cli"),
        ("backends", "TABLE = ('pytest_trt.artifacts.key', 'Key')", "pytest_trt.artifacts.key, which is not left"),
        (
            "baselines.store",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pytest_trt.lab import Lab",
            "pytest_trt.lab, which is not left of baselines",
        ),
        ("accuracy.metrics", "from pytest_trt.latency import stats", "is pure and imports pytest_trt.latency"),
        ("accuracy.metrics", "from pytest_trt.spec.model import Model", "is pure and imports pytest_trt.spec.model"),
        ("latency.gate", "from pytest_trt.backends import Clock", "is pure and imports pytest_trt.backends"),
        ("lab", "def f():\n    import pytest", "may not import pytest"),
        ("report.terminal", "from _pytest.config import Config", "may not import _pytest"),
        ("backends.fake", "def f():\n    import tensorrt", "may not import tensorrt"),
        ("artifacts.references", "def f():\n    import onnxruntime as ort", "may not import onnxruntime"),
        ("lab", "def f():\n    import onnx", "may not import onnx"),
        ("report.plots", "def f():\n    import matplotlib.pyplot", "may not import matplotlib"),
        ("lab", "import requests", "may not import requests"),
        ("spec.model", "import onnx", "imports onnx at module level"),
        ("spec.model", "class A:\n    import onnx", "imports onnx at module level"),
        ("spec.model", "try:\n    import onnx\nexcept ImportError:\n    pass", "imports onnx at module level"),
        (
            "spec.model",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    import onnx",
            "imports onnx at module level",
        ),
        ("spec.shapes", "import numpy as np", "imports numpy at module level"),
        ("plugin.options", "from pytest_benchmark import fixture", "imports pytest_benchmark at module level"),
    ],
)
def test_the_tables_bite(module: str, source: str, reported: str):
    found = violations(module, source, is_package=module == "backends")

    assert len(found) >= 1
    assert reported in "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("lab", "from pytest_trt.spec.model import Model"),
        ("record", "from pytest_trt.accuracy.comparison import Comparison"),
        ("spec.inputs", "from . import shapes\nfrom .model import Model\nfrom pytest_trt.errors import InputsError"),
        ("spec.inputs", "import numpy as np"),
        ("spec.model", "def f():\n    import onnx"),
        ("spec.model", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import onnx"),
        ("plugin.options", "import pytest\nimport json"),
        ("cli", "from pytest_trt import __version__"),
    ],
)
def test_the_tables_allow_what_they_say(module: str, source: str):
    assert violations(module, source) == []
