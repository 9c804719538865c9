"""ONNX Runtime: the embedded default backend on the CPU, its CUDA and TensorRT providers, references and calibration.

``cpu`` is the default backend, ``runner`` runs references; ``opening`` and ``host_clock`` serve all. ``on_cuda`` and
``on_tensorrt`` are backends on a GPU: ``gpu`` is what they share, ``providers`` finds them, ``partition`` says what
they leave to the CPU, ``gpu_session`` runs them.
"""

from __future__ import annotations

from pytest_trt.backends.onnxruntime.cpu import CpuBackend, CpuSession
from pytest_trt.backends.onnxruntime.host_clock import HostClock
from pytest_trt.backends.onnxruntime.runner import GraphRunner

__all__ = ["CpuBackend", "CpuSession", "GraphRunner", "HostClock"]
