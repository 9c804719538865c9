"""Bundles of engines of a real TensorRT: ``reproduce.py``, run by itself, shows the failure until it is mended."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from planted import PLANTS, Plant, plant

from pytest_trt.errors import AccuracyFailure
from pytest_trt.lab import Lab
from pytest_trt.settings import Settings

pytestmark = pytest.mark.gpu

WIDTH, ROWS = 512, 512


def reproduce(folder: Path, *arguments: str) -> int:
    done = subprocess.run([sys.executable, "reproduce.py", *arguments], cwd=folder, capture_output=True, check=False)
    assert done.returncode in (0, 1), done.stdout.decode() + done.stderr.decode()
    return done.returncode


@pytest.mark.parametrize("fault", [p for p in PLANTS if p.nodes == ("matmul_5",)], ids=lambda fault: fault.name)
def test_a_planted_fault_is_reduced_and_reproduced(
    backend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys, fault: Plant
) -> None:
    folder = plant(monkeypatch, tmp_path / "chain", fault, width=WIDTH, rows=ROWS)
    settings = Settings(
        cache_dir=tmp_path / "cache", backend=("tensorrt",), precision=(fault.precision,), bundle=tmp_path / "bundles",
        opt_level=1, explain_seconds=300,
    )  # fmt: skip
    with Lab(settings, tmp_path) as lab:
        (case,) = lab.cases(lab.add(folder))
        with pytest.raises(AccuracyFailure) as caught:
            lab.check(case, lab.record(case))
    with capsys.disabled():
        sys.stdout.write(
            "\n".join(["", *(line for line in str(caught.value).splitlines() if "nodes still" in line), ""])
        )
    (bundle,) = (tmp_path / "bundles").iterdir()
    found = json.loads((bundle / "case.json").read_text())

    assert found["run"]["tool"] == "tensorrt"
    assert found["reduction"]["backend_agrees"]
    assert set(fault.nodes) & set(found["reduction"]["nodes"])
    assert len(found["reduction"]["nodes"]) <= 3
    assert reproduce(bundle) == 1
    assert reproduce(bundle / "reduced") == 1
    # In float32 there is no fault; the flags of types are those of the case.
    assert reproduce(bundle, "model.onnx") == 0
