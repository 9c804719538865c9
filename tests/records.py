"""Hand-made records: one that passed, one that failed, one that is simulated; and others made from them."""

from __future__ import annotations

from typing import Any

from pytest_trt.latency.stats import summarize
from pytest_trt.record import Record
from pytest_trt.spec.case import Case

ENVIRONMENT: dict[str, Any] = {
    "backend": "tensorrt",
    "device": "NVIDIA H200 143771 MB sm_90",
    "driver": "570.86.15",
    "libraries": {"cuda": "12.8", "tensorrt": "10.16.1"},
    "system": "Linux-x86_64",
}
CPU: dict[str, Any] = {
    "backend": "onnxruntime-cpu",
    "device": "AMD EPYC x2",
    "driver": "",
    "libraries": {"onnxruntime": "1.31.1"},
    "system": "Linux-x86_64",
}


def latency(median_ms: float = 1.25, clock: str = "graph") -> dict[str, Any]:
    """A latency section of three samples around *median_ms*."""
    samples = [median_ms, round(median_ms * 0.98, 6), round(median_ms * 1.02, 6)]
    return {
        "clock": clock,
        "summary": summarize(samples).to_json(),
        "transfers_ms": {},
        "conditions": {},
        "warmup_count": 3,
        "samples_ms": samples,
    }


def accuracy(ok: bool = True, **figures: Any) -> dict[str, Any]:
    """An accuracy section of one output ``y``."""
    row = {
        "ok": ok,
        "problems": [],
        "tolerance": {},
        "max_abs": 0.00125,
        "rmse": 2.5e-4,
        "cosine": 0.99994,
        "top1": 1.0,
    }
    return {
        "ok": ok,
        "samples": 16,
        "summary": "1 output is close" if ok else 'output "y" is not close',
        "outputs": {"y": {**row, **figures}},
        "drift": [],
    }


def passed(model: str = "digits", profile: str = "b8", median_ms: float = 1.25) -> Record:
    return Record(
        Case(model, "fp16", profile, "tensorrt"),
        outcomes={"accuracy": "passed", "latency": "passed"},
        environment=dict(ENVIRONMENT),
        engine={
            "digest": "ab" * 32,
            "fresh": True,
            "plan": "cd" * 32,
            "plan_bytes": 1_234_567,
            "build_seconds": 12.34,
            "model_fingerprint": "0123456789abcdef" * 4,
        },
        precision={"kind": "native", "reason": "", "simulated": None},
        inputs={"origin": "images.npz", "synthetic": False, "notes": []},
        accuracy=accuracy(),
        latency=latency(median_ms),
        verdict={
            "outcome": "pass",
            "ratio": 1.01,
            "low": 1.0,
            "high": 1.02,
            "threshold": 0.05,
            "detectable": 0.07,
            "clock": "graph",
            "sentence": "+1.0% against the baseline",
            "gates": True,
        },
        baseline={"state": "current", "median_ms": 1.24},
    )


def failed(model: str = "digits") -> Record:
    return Record(
        Case(model, "int8", "b8", "tensorrt", ("-JIT_CONVOLUTIONS",)),
        outcomes={"accuracy": "failed", "latency": "passed"},
        messages={"accuracy": 'digits[int8, b8]: output "y" is not close | 3 / 80 mismatched'},
        environment=dict(ENVIRONMENT),
        engine={"digest": "ef" * 32, "fresh": False, "plan": "01" * 32, "plan_bytes": 654_321, "build_seconds": 9.0},
        precision={"kind": "native", "reason": "", "simulated": None},
        inputs={"origin": "images.npz", "synthetic": False, "notes": []},
        accuracy=accuracy(False, max_abs=1.5, cosine=0.91, top1=0.85),
        latency=latency(0.5),
        baseline={"state": "missing"},
    )


def simulated(model: str = "net") -> Record:
    reason = "computed in float32, every float16 tensor rounded to float16; latency is not that of float16"
    return Record(
        Case(model, "fp16", "default", "onnxruntime-cpu"),
        outcomes={"accuracy": "passed", "latency": "inconclusive"},
        messages={"latency": "cannot tell whether slower by 5.0%"},
        environment=dict(CPU),
        engine={"digest": "23" * 32, "fresh": True, "plan": "45" * 32, "plan_bytes": 1000, "build_seconds": 0.2},
        precision={"kind": "simulated", "reason": reason, "simulated": reason},
        inputs={"origin": "synthetic, seed 0", "synthetic": True, "notes": []},
        accuracy=accuracy(max_abs=0.0, cosine=None, top1=None),
        latency=latency(3.0, "host"),
        verdict={
            "outcome": "inconclusive",
            "ratio": 0.9,
            "low": 0.3,
            "high": 2.6,
            "threshold": 0.05,
            "detectable": 6.29,
            "clock": "host",
            "sentence": "-10.0% against the baseline",
            "gates": False,
        },
        baseline={"state": "stale", "median_ms": 3.3, "differences": ["onnxruntime: 1.30 → 1.31.1"]},
    )
