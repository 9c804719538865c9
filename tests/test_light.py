"""Installed, but not used: what unrelated runs import, seen from fresh processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "cuda",
    "filelock",
    "matplotlib",
    "ml_dtypes",
    "numba",
    "numpy",
    "onnx",
    "onnxruntime",
    "platformdirs",
    "polygraphy",
    "pynvml",
    "pytest_benchmark",
    "rich",
    "ruptures",
    "scipy",
    "tensorrt",
    "torch",
}
# Ours that an unrelated run may load: the plugin's own modules, and what they need to declare options.
EXPECTED = {
    "pytest_trt",
    "pytest_trt.build_settings",
    "pytest_trt.errors",
    "pytest_trt.latency_settings",
    "pytest_trt.option",
    "pytest_trt.option_values",
    "pytest_trt.plugin",
    "pytest_trt.plugin.collect",
    "pytest_trt.plugin.fixtures",
    "pytest_trt.plugin.marks",
    "pytest_trt.plugin.options",
    "pytest_trt.plugin.parts",
    "pytest_trt.plugin.reporting",
    "pytest_trt.settings",
}

CONFTEST = """
import json, pathlib, sys

def pytest_unconfigure(config):
    pathlib.Path("modules.json").write_text(json.dumps(sorted(sys.modules)))
"""


def loaded_by(code: str, **environment: str) -> set[str]:
    """Names in ``sys.modules`` after *code* ran in a fresh interpreter."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **environment}, check=True, capture_output=True, text=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project that has nothing to do with models, and writes down what was imported."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_unrelated.py").write_text("def test_unrelated():\n    assert True\n")
    return tmp_path


def loaded_by_pytest(folder: Path, *arguments: str) -> set[str]:
    """Names in ``sys.modules`` at the end of a pytest run with no plugin but ours."""
    command = [sys.executable, "-m", "pytest", "-p", "trt", "-p", "no:cacheprovider", *arguments]
    # Other plugins would load libraries of their own; our variables would make the run one of ours.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return set(json.loads((folder / "modules.json").read_text()))


def test_importing_the_package_imports_nothing():
    before = loaded_by("import importlib")
    assert loaded_by("import pytest_trt") - before == {"pytest_trt"}


@pytest.mark.parametrize("arguments", [["--collect-only"], []], ids=["collect-only", "run"])
def test_an_unrelated_run_loads_no_library(folder: Path, arguments: list[str]):
    loaded = loaded_by_pytest(folder, *arguments)

    assert HEAVY & loaded == set()
    assert {name for name in loaded if name.partition(".")[0] == "pytest_trt"} == EXPECTED


def test_the_look_at_modules_sees_a_heavy_one(folder: Path):
    (folder / "test_unrelated.py").write_text("import numpy\n\ndef test_unrelated():\n    assert True\n")

    assert HEAVY & loaded_by_pytest(folder, "--collect-only") == {"numpy"}


@pytest.mark.parametrize("part", ["collect", "fixtures", "reporting"])
def test_a_part_that_is_switched_off_is_not_imported(folder: Path, part: str):
    loaded = loaded_by_pytest(folder, "--collect-only", "-p", f"no:pytest_trt.plugin.{part}")

    assert f"pytest_trt.plugin.{part}" not in loaded
    assert "pytest_trt.plugin.options" in loaded


@pytest.mark.parametrize(
    "module",
    [
        "baselines.store",
        "baselines.update",
        "cli",
        "environment",
        "history.commands",
        "history.log",
        "record",
        "report.export",
        "report.markdown",
        "report.terminal",
        "spec.case",
        "spec.manifest",
        "spec.model",
        "spec.precision",
        "spec.shapes",
    ],
)
def test_a_light_module_stays_light_with_all_that_it_imports(module: str):
    assert HEAVY & loaded_by(f"import pytest_trt.{module}") == set()


def test_the_lab_needs_locks_but_no_numerics():
    assert HEAVY & loaded_by("import pytest_trt.lab") == {"filelock"}
