"""ONNX Runtime by itself, as its own documentation uses it: the judge of what pytest-trt did not pass.

A test that ONNX Runtime alone refuses, or gets wrong, is none that pytest-trt could pass on it. One that it passes
alone is pytest-trt's to explain. Runs as a process of its own: FOLDER … on standard input, JSON lines out.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cases import TestCase, expected_rtol

__all__ = ["judge"]


def judge(cases: Sequence[TestCase]) -> dict[str, tuple[str, str]]:
    """Return per test ``passes``, ``refuses``, ``differs`` or ``crashes``, and what ONNX Runtime said."""
    found: dict[str, tuple[str, str]] = {}
    waiting = list(cases)
    while waiting:
        lines = "".join(f"{json.dumps([case.id, str(case.folder)])}\n" for case in waiting)
        done = subprocess.run([sys.executable, __file__], input=lines, capture_output=True, text=True, check=False)
        for line in done.stdout.splitlines():
            case_id, verdict, text = json.loads(line)
            found[case_id] = (verdict, text)
        waiting = [case for case in waiting if case.id not in found]
        if waiting:
            found[waiting[0].id] = ("crashes", f"the process ended with {done.returncode}")
            del waiting[0]
    return found


def _main() -> None:
    for line in sys.stdin:
        case_id, folder = json.loads(line)
        print(json.dumps([case_id, *_run(case_id, Path(folder))]), flush=True)


def _run(case_id: str, folder: Path) -> tuple[str, str]:
    import onnxruntime as ort

    ort.set_default_logger_severity(4)
    failures = (*_named(), RuntimeError, ValueError)  # those of its library, and those of its Python part
    try:
        session = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
        for data in sorted(folder.glob("test_data_set_*")):
            feeds = dict(zip(names, _tensors(data, "input"), strict=False))
            for actual, expected in zip(session.run(None, feeds), _tensors(data, "output"), strict=True):
                if difference := _difference(np.asarray(actual), expected, expected_rtol(case_id)):
                    return "differs", difference
    except failures as error:
        return "refuses", " ".join(str(error).split())
    return "passes", ""


def _named() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return tuple(found for found in vars(state).values() if isinstance(found, type) and issubclass(found, Exception))


def _tensors(data: Path, word: str) -> list[np.ndarray[Any, Any]]:
    import onnx

    files = [data / f"{word}_{index}.pb" for index in range(len(list(data.glob(f"{word}_*.pb"))))]
    return [onnx.numpy_helper.to_array(onnx.load_tensor(file)) for file in files]


def _difference(actual: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], rtol: float) -> str | None:
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return f"{actual.dtype} {actual.shape} for {expected.dtype} {expected.shape}"
    a, e = (x if x.dtype.kind in "biufc" else x.astype(np.float64) for x in (actual, expected))
    far = ~np.isclose(a, e, rtol=rtol, atol=1e-7, equal_nan=True)
    return f"{np.count_nonzero(far)} of {far.size} values" if far.any() else None


if __name__ == "__main__":
    _main()
