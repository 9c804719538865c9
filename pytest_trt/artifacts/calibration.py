"""Model and samples -> activation ranges for a calibrated recipe: look them up, or run ONNX Runtime once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_trt.artifacts.key import Key
from pytest_trt.artifacts.store import Store
from pytest_trt.backends import Progress, silent
from pytest_trt.counted import counted
from pytest_trt.environment import version_of

if TYPE_CHECKING:
    from pytest_trt.spec.inputs import Sample
    from pytest_trt.spec.model import Model

__all__ = ["CalibrationOptions", "obtain_ranges"]

# Raise it when spec/precision/ranges.py comes to other ranges from the same values.
_COLLECTORS = 1
# Observed at once: a bound on memory, since every observed tensor is an output of the run.
_TENSORS_AT_ONCE = 64


@dataclass(frozen=True)
class CalibrationOptions:
    """``method``: ``minmax``, ``entropy`` or ``percentile`` (with ``percentile`` in percent)."""

    method: str = "entropy"
    percentile: float = 99.99


def obtain_ranges(
    store: Store,
    model: Model,
    tensors: Sequence[str],
    samples: Sequence[Sample],
    samples_fingerprint: str,
    options: CalibrationOptions,
    progress: Progress = silent,
) -> Mapping[str, tuple[float, float]]:
    """Return (low, high) of each of *tensors* over *samples*. Raises PrecisionError for NaN or Inf in one of them."""
    key = Key.make(
        "calibration",
        {
            "model": model.fingerprint,
            "inputs": samples_fingerprint,
            "tensors": sorted(tensors),
            "collectors": _COLLECTORS,
            "method": options.method,
            "percentile": options.percentile if options.method == "percentile" else None,
            "onnxruntime": version_of("onnxruntime", "onnxruntime-gpu") or "missing",
        },
    )

    def build() -> dict[str, bytes]:
        read = f"{counted(len(tensors), 'tensor')}, {counted(len(samples), 'sample')}"
        progress(f"calibrating {model.name}: {options.method}, {read}")
        return {
            "ranges.json": json.dumps(_collect(model, tensors, samples, options), indent=1, sort_keys=True).encode()
        }

    entry = store.get_or_build(key, build, label=f"calibration of {model.name} ({options.method})")
    return {name: (low, high) for name, (low, high) in json.loads(entry.files["ranges.json"]).items()}


def _collect(
    model: Model, tensors: Sequence[str], samples: Sequence[Sample], options: CalibrationOptions
) -> dict[str, Any]:
    from pytest_trt.backends.onnxruntime import GraphRunner
    from pytest_trt.spec.precision.ranges import make_collector

    ranges: dict[str, Any] = {}
    fed = {spec.name for spec in model.inputs}
    for start in range(0, len(tensors), _TENSORS_AT_ONCE):
        names = list(tensors[start : start + _TENSORS_AT_ONCE])
        computed = [name for name in names if name not in fed]
        runner = GraphRunner(model, computed) if computed else None
        collectors = {
            name: make_collector(options.method, percentile=options.percentile, tensor=name) for name in names
        }
        for sample in samples:
            values = {**sample.feeds, **(runner.run(sample.feeds) if runner else {})}
            for name, collector in collectors.items():
                collector.update(values[name])
        ranges.update({name: list(collector.range()) for name, collector in collectors.items()})
    return ranges
