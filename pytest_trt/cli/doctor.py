"""``pytest-trt doctor``: what is installed, and what works."""

from __future__ import annotations

import argparse
import platform
from typing import TYPE_CHECKING

from pytest_trt import __version__
from pytest_trt.cli.exits import ENVIRONMENT, PASS
from pytest_trt.environment import cpu_name, gpus, version_of

if TYPE_CHECKING:
    from pytest_trt.lab import Lab

__all__ = ["HELP", "run"]

HELP = "show what is installed, what works, and why something does not"


def run(lab: Lab, given: argparse.Namespace) -> int:  # noqa: ARG001 - every command has this signature
    from pytest_trt.artifacts.maintenance import describe
    from pytest_trt.backends import BACKENDS, get_backend

    print(f"pytest-trt {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    print(f"cpu      {cpu_name()}")
    for gpu in gpus():
        print(
            f"gpu      {gpu.name}, {gpu.memory_mb} MB, compute capability {gpu.compute_capability}, driver {gpu.driver}"
        )
    if not gpus():
        print("gpu      none that NVML shows")
    for name in (
        "tensorrt",
        "cuda-python",
        "onnxruntime",
        "onnxruntime-gpu",
        "onnx",
        "numpy",
        "pytest",
        "pytest-benchmark",
    ):
        print(f"package  {name} {version_of(name) or '-'}")
    usable = []
    for name in BACKENDS:
        found = get_backend(name).probe()
        print(f"backend  {name}: {'works' if found.ok else 'does not work: ' + found.reason}")
        usable += [name] if found.ok and name != "fake" else []
    print(f"cache    {describe(lab.store)}")
    return PASS if usable else ENVIRONMENT
