"""A small project on the simulated backend, in which pytest is run as a user would."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path

import pytest
from project import write_model

import pytest_trt

# pytester forgets the modules that an inner run is the first to import. Ours would then be there twice, and a test that
# replaces a name in one would not reach the other; the rest take longer than a small run does.
OURS = [module.name for module in pkgutil.walk_packages(pytest_trt.__path__, "pytest_trt.")]
OTHERS = (
    "hypothesis",
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
    "numpy.fft",
    "onnx.reference.ops",
    "rich.console",
)
for name in (*OTHERS, *(n for n in OURS if not n.endswith("__main__"))):
    importlib.import_module(name)

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root directory with one model in ``models/tiny``; its cache is its own."""
    monkeypatch.setenv("PYTEST_TRT_CACHE_DIR", str(pytester.path / "cache"))
    # On the simulated clock the interval ends the sampling, after milliseconds; on the host's clock this does.
    monkeypatch.setenv("PYTEST_TRT_WARMUP", "0")
    monkeypatch.setenv("PYTEST_TRT_DURATION", "0.05")
    # A process a verdict is most of the time of a red run; test_ab.py is about it.
    monkeypatch.setenv("PYTEST_TRT_CONFIRM", "off")
    # pytest-benchmark switches itself off in a worker of xdist, which the outer run may be.
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    pytester.makeini("[pytest]\n")
    write_model(pytester.path / "models" / "tiny")
    return pytester.path


@pytest.fixture
def run(pytester: pytest.Pytester, project: Path) -> Run:
    """Run pytest in the project on the fake backend, in item order, without the terminal's width in the way."""

    def run(*arguments: str, backend: str = "fake") -> pytest.RunResult:
        return pytester.runpytest(f"--trt-backend={backend}", "-p", "no:randomly", "-p", "no:cacheprovider", *arguments)

    return run
