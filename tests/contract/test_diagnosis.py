"""Where an error enters, and the node or tensor that makes it, through the bindings of every TensorRT; builds and runs
are simulated. No layer precision is set anywhere: typed models and marked tensors are all that it takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from planted import PLANTS, plant, with_other_weight, write_chain

from pytest_trt.diagnosis.hunt import Bisection
from pytest_trt.lab import Lab
from pytest_trt.settings import Settings

WIDTH, ROWS = 16, 8
STAGES = ("reference", "conversion", "parser")

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")


@pytest.fixture
def bisected(backend, cuda, tmp_path: Path) -> Iterator[Any]:
    def act(folder: Path, precision: str, **given: Any) -> Bisection:
        settings = Settings(
            cache_dir=tmp_path / "cache", backend=("tensorrt",), precision=(precision,), census="off", opt_level=1
        )
        with Lab(settings, tmp_path) as lab:
            (case,) = lab.cases(lab.add(folder))
            return lab.bisect(case, stages=STAGES, **given)

    yield act
    assert not cuda.live


@pytest.mark.parametrize("on_engine", [False, True])
def test_a_corrupted_weight_of_the_typed_model_is_named(
    bisected: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, on_engine: bool
):
    folder = plant(monkeypatch, tmp_path / "chain", PLANTS[0], width=WIDTH, rows=ROWS)
    found = bisected(folder, "fp16", on_engine=on_engine)

    assert found.explanation.attribution.culprit == "conversion"
    assert found.culprits.exclude_nodes == PLANTS[0].nodes


@pytest.mark.parametrize(("optimized_only", "culprit"), [(False, "parser"), (True, "fusion")])
def test_an_engine_that_leaves_its_model_is_named_with_the_tensor(
    trt, backend, bisected: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, optimized_only: bool, culprit: str
):
    build = type(backend).build
    marked: list[set[str]] = []

    def wrong(self: Any, request: Any, *arguments: Any) -> Any:
        marked.append({spec.name for spec in request.model.outputs} - {"y"})
        if not (optimized_only and request.options.opt_level == 0):
            request = with_other_weight(request, "w2")
        return build(self, request, *arguments)

    monkeypatch.setattr(type(backend), "build", wrong)
    found = bisected(write_chain(tmp_path / "chain", 4, width=WIDTH, rows=ROWS), "fp16", group=3)

    assert found.explanation.attribution.culprit == culprit
    assert (found.divergence.outcome, found.divergence.tensor, found.divergence.node) == ("found", "m2", "matmul_2")
    assert max(len(names) for names in marked) == 3
