"""Every build axis that TensorRT 8.6 has, one case each: ``pytest benchmarks/axes.py --trt-variant=full``.

A test per model and option, fp16 at profile b8 unless the option wants another; each is built, compared with the
reference and measured. An option of another TensorRT is skipped with the reason that the backend gives.
``AXES_MODELS`` (comma-separated) chooses models; ``TENSORRT_LEAN8`` is the lean runtime of the builder's version.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

MODELS = os.environ.get("AXES_MODELS", "digits,minilm,resnet50,bert_base").split(",")

# One entry per option: what the marker gets besides the model.
AXES: dict[str, dict[str, object]] = {
    "plain": {},
    "opt_level 0": {"opt_level": 0},
    "opt_level 1": {"opt_level": 1},
    "opt_level 2": {"opt_level": 2},
    "opt_level 4": {"opt_level": 4},
    "workspace": {"workspace": "64MB"},
    "memory_pools": {"memory_pools": {"TACTIC_DRAM": "1GB"}},
    "without a tactic source": {"tactics": ["-JIT_CONVOLUTIONS"]},
    "weak typing": {"typing": "weak"},
    "all profiles in one engine": {"profiles_per_engine": "all"},
    "sparsity": {"sparsity": True},
    "no auxiliary streams": {"max_aux_streams": 0},
    "four auxiliary streams": {"max_aux_streams": 4},
    "avg_timing": {"avg_timing": 4},
    "refit": {"refit": "on"},
    "ampere-plus": {"hardware_compatibility": "ampere-plus"},
    "version compatible": {
        "version_compatibility": "exclude-lean",
        "lean_runtime": os.environ.get("TENSORRT_LEAN8", "-"),
    },
    "builder flag": {"builder_flags": ["+ENABLE_TACTIC_HEURISTIC"]},
}

# Options that say something of one model alone.
OF_MODEL: dict[str, dict[str, dict[str, object]]] = {
    "digits": {
        "opt_level 5": {"opt_level": 5},
        "half input": {"io_formats": ["image=HALF:LINEAR"]},
        "padded channels": {"io_formats": ["image=HALF:CHW2"]},
    },
    "resnet50": {"channels last": {"io_formats": ["image=HALF:HWC8"]}},
}


def plugin_library() -> Path | None:
    """TensorRT's own plugin library, loaded again by path: a library that has creators."""
    for name in ("tensorrt_libs", "tensorrt"):
        found = importlib.util.find_spec(name)
        if found and found.origin:
            for path in sorted(Path(found.origin).parent.glob("libnvinfer_plugin.so*")):
                return path
    return None


def axes(model: str) -> dict[str, dict[str, object]]:
    found = {**AXES, **OF_MODEL.get(model, {})}
    library = plugin_library()
    if library is not None:
        found["plugin library"] = {"plugins": [str(library)]}
    return found


def make_test(model: str, keywords: dict[str, object]):
    @pytest.mark.trt(f"models/{model}", **{"precisions": ["fp16"], "profiles": ["b8"], **keywords})
    def test(trt_check, trt_latency):
        trt_latency()
        trt_check()

    return test


for _model in MODELS:
    for _name, _keywords in axes(_model).items():
        globals()[f"test_{_model}_{_name.replace(' ', '_').replace('-', '_')}"] = make_test(_model, _keywords)
