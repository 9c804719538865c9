"""Every build axis that TensorRT 8.6 has, one case each, on one model or on several.

    AXES_MODELS=digits pytest benchmarks/axes.py -p no:randomly --trt-backend=tensorrt --trt-variant=full \\
        --trt-samples=8 --trt-loads=1 --trt-duration=0.3 --trt-explain=off --trt-report=digits.json

Each engine is built, compared with the reference and measured: fp16 at profile b8 unless the axis wants another. A
precision that this TensorRT lacks is skipped with the backend's reason; an option that it lacks is one failed test with
the backend's words. ``digits.json.partial`` holds the records so far.

``AXES_MODELS`` (comma-separated) chooses models: one each in several processes, with CUDA_VISIBLE_DEVICES=0, 1, …, uses
several GPUs. ``PYTEST_TRT_LEAN_RUNTIME`` is the lean runtime of the builder's version; the axis that needs it is left
out without.

The axes that are no option of the builder have pages and scripts of their own: ``--trt-streams``, ``--trt-builds``,
``--trt-lock``, ``--trt-timing-cache``, ``--trt-isolate``.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

MODELS = os.environ.get("AXES_MODELS", "digits,minilm,resnet50,bert_base").split(",")
ALGORITHMS = ("entropy", "entropy2", "minmax", "legacy")

# One entry per axis: what the marker gets besides the model. "plain" is first: its tactic timings serve the others.
AXES: dict[str, dict[str, object]] = {
    "plain": {},
    "one engine per profile": {"profiles": ["b1", "b8"], "profiles_per_engine": "one"},
    "all profiles in one engine": {"profiles": ["b1", "b8"], "profiles_per_engine": "all"},
    "weak typing": {"typing": "weak"},
    "opt_level 0": {"opt_level": 0},
    "opt_level 1": {"opt_level": 1},
    "opt_level 2": {"opt_level": 2},
    "opt_level 3": {"opt_level": 3},
    "opt_level 4": {"opt_level": 4},
    "workspace": {"workspace": "64MB"},
    "memory_pools": {"memory_pools": {"TACTIC_DRAM": "4GB"}},
    "without JIT": {"tactics": ["-JIT_CONVOLUTIONS"]},
    "without edge masks": {"tactics": ["+JIT_CONVOLUTIONS", "-EDGE_MASK_CONVOLUTIONS"]},
    "without libraries": {"tactics": ["-CUBLAS", "-CUBLAS_LT", "-CUDNN"]},
    "sparsity": {"sparsity": True},
    "no auxiliary streams": {"max_aux_streams": 0},
    "four auxiliary streams": {"max_aux_streams": 4},
    "avg_timing": {"avg_timing": 4},
    "refit": {"refit": "on"},
    "ampere-plus": {"hardware_compatibility": "ampere-plus"},
    "heuristic": {"builder_flags": ["+ENABLE_TACTIC_HEURISTIC"]},
    "timing_cache_miss": {"timing_cache_miss": "build"},
    "precision fp32": {"precisions": ["fp32"]},
    "precision tf32": {"precisions": ["tf32"]},
    "precision int8": {"precisions": ["int8"]},
    **{f"precision int8-{name}": {"precisions": [f"int8-{name}"], "opt_level": 1} for name in ALGORITHMS},
}

# Flags without an option of their own. SAFETY_SCOPE is left out: it is for another kind of engine.
FLAGS = (
    "DEBUG",
    "DIRECT_IO",
    "DISABLE_TIMING_CACHE",
    "OBEY_PRECISION_CONSTRAINTS",
    "PREFER_PRECISION_CONSTRAINTS",
    "REJECT_EMPTY_ALGORITHMS",
    "STRICT_TYPES",
)

# What is asked of one model alone: formats of its own tensors, and what is the same for any model but takes long.
OF_MODEL: dict[str, dict[str, dict[str, object]]] = {
    "digits": {
        "opt_level 5": {"opt_level": 5},
        "half input": {"io_formats": ["image=HALF:LINEAR"]},
        "padded channels": {"io_formats": ["image=HALF:CHW2"]},
        "precision bf16": {"precisions": ["bf16"]},
        "precision fp8": {"precisions": ["fp8"]},
        "precision int4": {"precisions": ["int4"]},
        # What only a later TensorRT can turn on may be off in any.
        "all off": {
            "sparsity": False,
            "tiling": "none",
            "refit": "off",
            "strip_plan": False,
            "weight_streaming": False,
            "hardware_compatibility": "none",
            "version_compatibility": "off",
            "editable_timing_cache": False,
        },
        **{f"flag {name}": {"builder_flags": [f"+{name}"]} for name in FLAGS},
        **{f"graph {name}": {"graphs": [name]} for name in ("ort-basic", "simplified", "opset=16")},
    },
    "minilm": {
        "half output": {"io_formats": ["embedding=HALF:LINEAR"]},
        "graph simplified": {"graphs": ["simplified"]},
    },
    "resnet50": {
        "channels last": {"io_formats": ["image=HALF:HWC8", "logits=HALF:LINEAR"]},
        "graph ort-basic": {"graphs": ["ort-basic"]},
    },
    "bert_base": {"half outputs": {"io_formats": ["last_hidden_state=HALF:LINEAR", "pooler_output=HALF:LINEAR"]}},
}


def tensorrt_files(pattern: str) -> list[Path]:
    """Files that lie beside TensorRT's library."""
    for name in ("tensorrt_libs", "tensorrt"):
        found = importlib.util.find_spec(name)
        if found and found.origin:
            files = sorted(Path(found.origin).parent.glob(pattern))
            if files:
                return files
    return []


def axes(model: str) -> dict[str, dict[str, object]]:
    found = {**AXES, **OF_MODEL.get(model, {})}
    if os.environ.get("PYTEST_TRT_LEAN_RUNTIME"):
        found["version compatible"] = {"version_compatibility": "exclude-lean"}
    if importlib.util.find_spec("onnxslim") is None:
        found.pop("graph simplified", None)
    if tensorrt_files("libnvinfer_lean.so*"):
        found["version compatible, lean inside"] = {"version_compatibility": "on"}
    # TensorRT's own plugins, loaded again by path: a library that has creators.
    for library in tensorrt_files("libnvinfer_plugin.so*")[:1]:
        found["plugin library"] = {"plugins": [str(library)]}
    return found


def make_test(model: str, keywords: dict[str, object]):
    @pytest.mark.trt(f"models/{model}", **{"precisions": ["fp16"], "profiles": ["b8"], **keywords})
    def test(trt_check, trt_latency):
        trt_latency()
        trt_check()

    return test


def make_calibration_test(model: str):
    precisions = [f"int8-{name}" for name in ALGORITHMS]

    @pytest.mark.trt(f"models/{model}", precisions=precisions, profiles=["b8"], opt_level=1)
    def test(trt_lab, trt_case):
        """Calibrated once more from nothing, the table is the one that the engine of the axis left, bit for bit."""
        from pytest_trt.artifacts.calibration_cache import load_calibration_cache, same_cache

        backend = trt_lab.backend(trt_case.backend)
        support = backend.support(_precision(trt_case.precision))
        if support.kind == "unsupported" or trt_case.backend != "tensorrt":
            pytest.skip(support.reason or "TensorRT's own calibration")
        trt_lab.engine(trt_case)
        first = load_calibration_cache(trt_lab.store, backend, trt_lab.request(trt_case))
        second = trt_lab.build(trt_case).calibration_cache
        assert first
        assert second
        assert same_cache(first, second)

    return test


def _precision(name: str):
    from pytest_trt.spec.precision import get_precision

    return get_precision(name)


def _identifier(text: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in text)


for _model in MODELS:
    for _name, _keywords in axes(_model).items():
        globals()[f"test_{_model}_{_identifier(_name)}"] = make_test(_model, _keywords)
    globals()[f"test_{_model}_calibration_tables"] = make_calibration_test(_model)
