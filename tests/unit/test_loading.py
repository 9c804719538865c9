"""Models from outside: the sound ones load, all others get one message that says what to do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_trt.errors import InputsError, ModelError, UnsafeModelError
from pytest_trt.spec.input_files import load_inputs
from pytest_trt.spec.loading import check_proto, load_proto
from pytest_trt.spec.model import Model
from pytest_trt.spec.payload import iter_tensors
from tests.hostile import EXPECTED, HOSTILE, INPUTS, MODELS, UNSAFE, small_model

ROOT = Path(__file__).parents[2]
ONNX_DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"


def _saved(model: onnx.ModelProto, folder: Path) -> Path:
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


def _chain(nodes: list[onnx.NodeProto], initializers: list[onnx.TensorProto], domain: str = "") -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4]) for n in "xy")
    imports = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y], initializers), opset_imports=imports, ir_version=8)


@pytest.mark.parametrize("name", MODELS)
def test_hostile_model_is_refused(name: str, tmp_path: Path) -> None:
    """Each hostile model raises one ModelError that names the file and says what to do."""
    path = MODELS[name](tmp_path)
    with pytest.raises(ModelError) as caught:
        Model.load(path)
    assert re.search(EXPECTED[name], str(caught.value))
    assert path.name in caught.value.message
    assert caught.value.hint
    assert len(str(caught.value)) < 1500
    assert (type(caught.value) is UnsafeModelError) == (name in UNSAFE)


@pytest.mark.parametrize("name", INPUTS)
def test_hostile_inputs_are_refused(name: str, tmp_path: Path) -> None:
    """Each hostile input file raises one InputsError that says what to do; its model is sound."""
    path = INPUTS[name](tmp_path)
    model = Model.load(path)
    archive = path.with_name("inputs.npz")
    with pytest.raises(InputsError) as caught:
        load_inputs(archive if archive.exists() else path.parent, model.inputs, model_outputs=model.outputs)
    assert re.search(EXPECTED[name], str(caught.value))
    assert caught.value.hint
    assert len(str(caught.value)) < 1500


def test_every_hostile_case_has_a_pattern() -> None:
    assert EXPECTED.keys() == HOSTILE.keys()
    assert len(HOSTILE) >= 30


# What a child process does with hostile cases and mutations: prints one line each, dies visibly otherwise.
_CHILD = """
import resource, sys, tempfile
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
import numpy as np
from tests.hostile import MODELS, small_model
from pytest_trt.errors import TrtError
from pytest_trt.spec.model import Model
from pytest_trt.spec.payload import iter_tensors

def load(path):
    try:
        model = Model.load(path)
        model.inputs, model.outputs, model.fingerprint
    except TrtError as error:
        str(error).encode()
        return "refused"
    return "loaded"

if sys.argv[1] == "hostile":
    for name, build in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            print(load(build(Path(folder))), name, flush=True)
else:
    rng = np.random.default_rng(int(sys.argv[2]))
    sound = np.frombuffer(small_model().SerializeToString(), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        for i in range(int(sys.argv[3])):
            data = sound.copy()
            where = rng.integers(0, len(data), rng.integers(1, 4))
            bits = 1 << rng.integers(0, 8, len(where))
            data[where] = rng.integers(0, 256, len(where)) if i % 2 else data[where] ^ bits
            path.write_bytes(data.tobytes() if i % 10 else data.tobytes()[: rng.integers(1, len(data))])
            print(load(path), i, flush=True)
"""


def _child(*args: str) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _CHILD, *args],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"after {lines[-1:]}: {done.stderr[-2000:]}"
    return lines


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_hostile_models_do_not_crash_the_process() -> None:
    """All of them in one process with 6 GiB of address space: refused one by one, no crash, no hang."""
    assert _child("hostile") == [f"refused {name}" for name in MODELS]


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_mutated_models_load_or_are_refused() -> None:
    """200 seeded mutations of a sound model end in a model or a TrtError, and in nothing else."""
    lines = _child("mutate", "20240607", "200")
    results = [line.split()[0] for line in lines]
    assert len(results) == 200
    assert set(results) == {"loaded", "refused"}  # both happen: neither the mutations nor the checks are idle


def test_sound_model_loads_unchanged(tmp_path: Path) -> None:
    proto = small_model()
    assert load_proto(_saved(proto, tmp_path)) == proto


def test_external_data_equal_inline(tmp_path: Path) -> None:
    """External data are resolved into memory: same fingerprint as the model with its data inside."""
    proto = small_model()
    inline = Model.load(_saved(proto, tmp_path)).fingerprint
    onnx.save_model(proto, tmp_path / "ext.onnx", save_as_external_data=True, location="ext.bin", size_threshold=0)
    assert (tmp_path / "ext.bin").stat().st_size > 0
    assert Model.load(tmp_path / "ext.onnx").fingerprint == inline


def test_overlapping_and_hard_linked_external_data(tmp_path: Path) -> None:
    """Two tensors may share bytes, a length may be left out, and the file may be a hard link."""
    values = np.arange(8, dtype=np.float32)
    (tmp_path / "first.bin").write_bytes(values.tobytes())
    os.link(tmp_path / "first.bin", tmp_path / "weight.bin")
    tensors = []
    for name, offset in (("a", 0), ("b", 16)):
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="weight.bin")
        tensor.external_data.add(key="offset", value=str(offset))
        tensors.append(tensor)
    nodes = [helper.make_node("Add", ["x", "a"], ["t"]), helper.make_node("Add", ["t", "b"], ["y"])]
    proto = load_proto(_saved(_chain(nodes, tensors), tmp_path))
    loaded = [numpy_helper.to_array(t).tolist() for t in proto.graph.initializer]
    assert loaded == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_symlink_inside_the_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "v1").mkdir()
    _saved(small_model(), tmp_path / "v1")
    (tmp_path / "latest.onnx").symlink_to(tmp_path / "v1" / "model.onnx")
    assert load_proto(tmp_path / "latest.onnx") == small_model()


def test_imported_custom_domain_is_the_backends_business(tmp_path: Path) -> None:
    """A contrib operator or plugin loads when its domain is imported, also before standard operators."""
    nodes = [helper.make_node("Plugin", ["x"], ["t"], domain="trt.plugins"), helper.make_node("Add", ["t", "x"], ["y"])]
    assert load_proto(_saved(_chain(nodes, [], "trt.plugins"), tmp_path)).graph.node[0].op_type == "Plugin"


def test_local_functions_load(tmp_path: Path) -> None:
    body = [helper.make_node("Relu", ["a"], ["b"])]
    function = helper.make_function("local", "Act", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    proto = _chain([helper.make_node("Act", ["x"], ["y"], domain="local")], [], "local")
    proto.functions.append(function)
    assert load_proto(_saved(proto, tmp_path)).functions[0].name == "Act"


def test_missing_output_shape_is_inferred(tmp_path: Path) -> None:
    proto = small_model()
    proto.graph.output[0].ClearField("type")
    (output,) = Model.load(_saved(proto, tmp_path)).outputs
    assert (output.dtype, len(output.shape)) == ("float32", 2)


def test_deep_but_legal_subgraphs_load(tmp_path: Path) -> None:
    """Twenty nested If nodes, each reading the outermost input, are legal."""
    out = helper.make_tensor_value_info("o", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["o"])], "leaf", [], [out])
    leaf = graph
    for _ in range(20):
        node = helper.make_node("If", ["c"], ["o"], then_branch=graph, else_branch=leaf)
        graph = helper.make_graph([node], "level", [], [out])
    proto = _chain([helper.make_node("If", ["c"], ["y"], then_branch=graph, else_branch=leaf)], [])
    proto.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    assert [spec.name for spec in Model.load(_saved(proto, tmp_path)).inputs] == ["x", "c"]


@pytest.mark.parametrize("place", ["initializer", "constant", "branch"])
def test_large_tensors_are_checked_without_their_bytes(place: str) -> None:
    """Wherever a tensor above the limit lies, its shape still takes part in shape inference."""

    def proto(columns: int) -> onnx.ModelProto:
        weight = numpy_helper.from_array(np.zeros((4, columns), np.float32), "w")
        shrink = helper.make_node("ReduceSum", ["big"], ["s"], keepdims=0)
        nodes = [helper.make_node("MatMul", ["x", "w"], ["big"]), shrink, helper.make_node("Add", ["x", "s"], ["y"])]
        if place == "initializer":
            return _chain(nodes, [weight])
        constant = helper.make_node("Constant", [], ["w"], value=weight)
        if place == "constant":
            return _chain([constant, *nodes], [])
        out = [helper.make_tensor_value_info("big", TensorProto.FLOAT, ["n", columns])]
        then = helper.make_graph([constant, helper.make_node("MatMul", ["x", "w"], ["big"])], "then", [], out)
        weight.name = "other"
        orelse = helper.make_graph([helper.make_node("MatMul", ["x", "other"], ["big"])], "else", [], out, [weight])
        condition = numpy_helper.from_array(np.array(True), "c")
        branch = helper.make_node("If", ["c"], ["big"], then_branch=then, else_branch=orelse)
        return _chain([branch, *nodes[1:]], [condition])

    sound = proto(40_000)
    before = sound.SerializeToString()
    check_proto(sound, "model.onnx")
    assert sound.SerializeToString() == before
    broken = proto(40_000)
    for tensor, _ in iter_tensors(broken):
        if tensor.name == "w":
            tensor.dims[:] = [5, 32_000]
    with pytest.raises(ModelError, match="clash"):
        check_proto(broken, "model.onnx")


def test_branches_may_share_a_name() -> None:
    """Large constants of one name but different shapes in two branches are legal and load."""

    def branch(rows: int) -> onnx.GraphProto:
        weight = numpy_helper.from_array(np.zeros((4, rows), np.float32), "w")
        nodes = [
            helper.make_node("Constant", [], ["w"], value=weight),
            helper.make_node("MatMul", ["x", "w"], ["t"]),
            helper.make_node("ReduceSum", ["t"], ["s"], keepdims=0),
            helper.make_node("Add", ["x", "s"], ["o"]),
        ]
        return helper.make_graph(nodes, "b", [], [helper.make_tensor_value_info("o", TensorProto.FLOAT, ["n", 4])])

    condition = numpy_helper.from_array(np.array(True), "c")
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch(20_000), else_branch=branch(30_000))
    check_proto(_chain([node], [condition]), "model.onnx")


def test_checks_are_fast_on_100_mb(tmp_path: Path) -> None:
    """Loading 100 MB of weights takes well under two seconds (0.2 s measured)."""
    weights = [numpy_helper.from_array(np.zeros((1024, 1024), np.float32), f"w{i}") for i in range(25)]
    names = ["x", *(f"t{i}" for i in range(24)), "y"]
    nodes = [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(25)]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 1024]) for n in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    path = _saved(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path)
    started = time.process_time()
    load_proto(path)
    assert time.process_time() - started < 2


def test_models_of_the_onnx_package_load() -> None:
    """Every model in onnx's own backend test data that onnx can check is accepted."""
    paths = sorted(ONNX_DATA.glob("*/*/model.onnx"))
    assert len(paths) >= 100
    for path in paths:
        load_proto(path)
