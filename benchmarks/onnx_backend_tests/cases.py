"""ONNX's backend tests as folders in the layout of the model zoo: ``KIND/NAME/model.onnx`` and ``test_data_set_0/``.

The wheel of onnx holds the kinds ``simple``, ``pytorch-converted``, ``pytorch-operator`` and ``light`` as files; its
node tests are Python code that makes model and arrays.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from pytest_trt.spec.precision.already import quantized_precisions
from pytest_trt.spec.precision.graph import low_types_in

__all__ = ["KINDS", "TestCase", "expected_rtol", "find"]

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator", "light")

# Of types that are no tensors, and of those that have no infinities.
_FINITE = {"", "string", "bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (2, 4, 8, 16, 32, 64))}


@dataclass(frozen=True)
class TestCase:
    """One test, which lies in ``folder`` once it was written. ``id`` is ``KIND/NAME``, without ONNX's ``test_``."""

    __test__ = False  # for pytest: no class of tests

    id: str
    folder: Path
    fill: Callable[[Path], None] = field(repr=False, compare=False)

    @property
    def kind(self) -> str:
        return self.id.partition("/")[0]

    def write(self) -> None:
        """Write model, arrays, and a manifest where one is needed."""
        self.folder.mkdir(parents=True)
        self.fill(self.folder)
        _write_manifest(self)


def find(root: Path, kinds: tuple[str, ...] = KINDS) -> list[TestCase]:
    """All tests of *kinds* in the order of their ids, to be written below *root*."""
    makers = {"node": _nodes, "light": _light}
    found = [
        TestCase(f"{kind}/{name}", root / kind / name, fill)
        for kind in kinds
        for name, fill in makers.get(kind, _files)(kind)
    ]
    return sorted(found, key=lambda case: case.id)


def expected_rtol(case_id: str) -> float:
    """The relative tolerance to which ONNX holds its own implementations; the absolute one is 1e-7."""
    return 2e-3 if case_id == "light/densenet121" else 1e-3


_Found = Iterator[tuple[str, Callable[[Path], None]]]


def _nodes(kind: str) -> _Found:
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, of overflows that some tests want
        cases = load_model_tests(kind=kind)
    for case in cases:
        name = case.name.removeprefix("test_")
        # Older versions have them as files.
        yield name, partial(_write_node, case) if case.model_dir is None else partial(_copy, Path(case.model_dir))


def _write_node(case: Any, folder: Path) -> None:
    (folder / "model.onnx").write_bytes(case.model.SerializeToString())
    graph = case.model.graph
    for number, arrays in enumerate(case.data_sets):
        data = folder / f"test_data_set_{number}"
        data.mkdir()
        for word, values, infos in zip(("input", "output"), arrays, (graph.input, graph.output), strict=True):
            for index, value in enumerate(values):
                (data / f"{word}_{index}.pb").write_bytes(_stored(value, infos[index]).SerializeToString())


def _stored(value: Any, info: onnx.ValueInfoProto) -> Any:
    if isinstance(value, onnx.TensorProto):
        return value
    makers = {
        "sequence_type": numpy_helper.from_list,
        "optional_type": numpy_helper.from_optional,
        "map_type": numpy_helper.from_dict,
    }
    make = makers.get(info.type.WhichOneof("value"))
    return make(value, info.name) if make else numpy_helper.from_array(np.asarray(value), info.name)


def _files(kind: str) -> _Found:
    for file in sorted((_data() / kind).glob("*/model.onnx")):
        yield file.parent.name.removeprefix("test_"), partial(_copy, file.parent)


def _copy(source: Path, folder: Path) -> None:
    shutil.copytree(source, folder, dirs_exist_ok=True)


def _light(kind: str) -> _Found:
    """Whole networks whose weights the graph itself generates; fed with ONNX's ramp from 0 to 1."""
    for file in sorted((_data() / kind).glob("light_*.onnx")):
        yield file.stem.removeprefix("light_"), partial(_write_light, file)


def _write_light(file: Path, folder: Path) -> None:
    data = folder / "test_data_set_0"
    data.mkdir()
    shutil.copyfile(file, folder / "model.onnx")
    graph = onnx.load(file).graph
    filled = {tensor.name for tensor in graph.initializer}
    for index, info in enumerate(value for value in graph.input if value.name not in filled):
        shape = tuple(dim.dim_value or 1 for dim in info.type.tensor_type.shape.dim)
        ramp = (np.arange(np.prod(shape)).reshape(shape) / np.prod(shape)).astype(np.float32)
        (data / f"input_{index}.pb").write_bytes(numpy_helper.from_array(ramp, info.name).SerializeToString())
    for index in range(len(graph.output)):
        shutil.copyfile(file.with_name(f"{file.stem}_output_{index}.pb"), data / f"output_{index}.pb")


def _data() -> Path:
    from onnx.backend.test import loader

    return Path(loader.DATA_DIR)


def _write_manifest(case: TestCase) -> None:
    """Most tests stay bare files. NaN and infinities that are meant, and a precision that the model has already, are
    said in a ``trt.toml``, as a user would."""
    model = onnx.load(case.folder / "model.onnx")
    lines = []
    if any(_nonfinite(file) for file in _float_tensors(case.folder, model.graph)):
        lines += ["[inputs]", "allow_nonfinite = true"]
    if precision := _precision(model):
        lines += ["[run]", f'precisions = ["{precision}"]']
    if expected_rtol(case.id) != 1e-3:
        lines += ["[tolerance.fp32]", f"rtol = {expected_rtol(case.id)}", "atol = 1e-7", "atol_scale = 1e-4"]
    if lines:
        (case.folder / "trt.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _precision(model: onnx.ModelProto) -> str | None:
    """The one precision under whose name the model is taken as it is; None for float32, and where there is none."""
    quantized, low = quantized_precisions(model), low_types_in(model)
    if quantized:
        return quantized[0] if len(quantized) == 1 else None
    return {"float16": "fp16", "bfloat16": "bf16"}.get(next(iter(low))) if len(low) == 1 else None


def _float_tensors(folder: Path, graph: onnx.GraphProto) -> Iterator[Path]:
    filled = {tensor.name for tensor in graph.initializer}
    fed = [value for value in graph.input if value.name not in filled]
    for word, infos in (("input", fed), ("output", graph.output)):
        for index, info in enumerate(infos):
            tensor = info.type.tensor_type
            name = onnx.TensorProto.DataType.Name(tensor.elem_type).lower() if tensor.elem_type else ""
            if info.type.HasField("tensor_type") and name not in _FINITE:
                yield from folder.glob(f"test_data_set_*/{word}_{index}.pb")


def _nonfinite(file: Path) -> bool:
    array = numpy_helper.to_array(onnx.load_tensor(file))
    wide = array if array.dtype.kind in "fc" else array.astype(np.float64)  # NumPy has no answer for ml_dtypes' types
    return not np.isfinite(wide).all()
