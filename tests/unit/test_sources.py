"""What a model can be made from besides an ONNX file, and what each way says when it cannot."""

from __future__ import annotations

import pickle
import sys
import warnings
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from pytest_trt.artifacts.called_reference import obtain_called_reference
from pytest_trt.artifacts.export_shapes import example_shapes, export_specs
from pytest_trt.artifacts.memory import MemoryStore
from pytest_trt.artifacts.models import obtain_model, source_ingredients
from pytest_trt.artifacts.sources import call_reference
from pytest_trt.errors import InputsError, ManifestError, ModelError, TrtError, UnsafeModelError
from pytest_trt.spec.inputs import Sample
from pytest_trt.spec.interface import Interface, hold
from pytest_trt.spec.manifest import Manifest
from pytest_trt.spec.model import Model, TensorSpec
from pytest_trt.spec.shapes import Profile

PROFILE = "[profiles.b]\nx = { min = [1, 4], opt = [1, 4], max = [8, 4] }\n"
INTERFACE = '[interface.inputs]\nx = ["N", 4]\n[interface.outputs]\ny = ["N", 4]\n'


def doubled(name: str = "y") -> onnx.ModelProto:
    """x[N, 4] + x."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], [name])],
        "doubled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def folder(tmp_path: Path, toml: str, **files: str) -> Manifest:
    """A model folder with ``NAME.py`` of each keyword."""
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "trt.toml").write_text(toml)
    return Manifest.load(tmp_path / "trt.toml")


# A callable that returns a path


PATH = "from pathlib import Path\ndef build(): return {}\n"


@pytest.mark.parametrize("written", ["'net.onnx'", "Path('net.onnx')", "Path(__file__).with_name('net.onnx')"])
def test_a_source_can_name_a_file_of_the_folder(tmp_path: Path, written: str):
    onnx.save(doubled(), tmp_path / "net.onnx")
    manifest = folder(tmp_path, '[model]\nsource = "build.py:build"\n', build=PATH.format(written))
    store = MemoryStore()

    for _ in range(2):
        model = obtain_model(manifest, store)
        assert (model.path, model.outputs[0].name) == (tmp_path / "net.onnx", "y")


def test_a_named_file_is_read_anew_each_time(tmp_path: Path):
    """The entry holds the name, not the content: the file is no part of its key."""
    manifest = folder(tmp_path, '[model]\nsource = "build.py:build"\n', build=PATH.format("'net.onnx'"))
    store, found = MemoryStore(), []
    for name in ("y", "z"):
        onnx.save(doubled(name), tmp_path / "net.onnx")
        found.append(obtain_model(manifest, store).outputs[0].name)

    assert found == ["y", "z"]


def test_a_file_that_the_source_wrote_is_written_again_when_it_is_gone(tmp_path: Path):
    (tmp_path / "kept").write_bytes(doubled().SerializeToString())
    text = "import shutil\ndef build(): return shutil.copy(__file__[:-8] + 'kept', __file__[:-8] + 'net.onnx')\n"
    manifest = folder(tmp_path, '[model]\nsource = "build.py:build"\n', build=text)
    store, said = MemoryStore(), []
    for _ in range(3):
        assert obtain_model(manifest, store, said.append).outputs[0].name == "y"
    (tmp_path / "net.onnx").unlink()

    assert obtain_model(manifest, store, said.append).outputs[0].name == "y"
    assert len(said) == 2


@pytest.mark.parametrize(
    ("written", "error", "message"),
    [
        ("'../net.onnx'", UnsafeModelError, "outside the model's folder"),
        ("'/etc/hostname'", UnsafeModelError, "outside the model's folder"),
        ("'none.onnx'", ModelError, "no such model file"),
        ("[1]", ModelError, "returned list, not an onnx.ModelProto, the path of an .onnx file, or a torch.nn.Module"),
        ("()", ModelError, "returned tuple, not an onnx.ModelProto"),
    ],
)
def test_what_a_source_may_not_return(tmp_path: Path, written: str, error: type[TrtError], message: str):
    manifest = folder(tmp_path, '[model]\nsource = "build.py:build"\n', build=PATH.format(written))

    with pytest.raises(error, match=message) as caught:
        obtain_model(manifest, MemoryStore())
    assert type(caught.value) is error


def test_a_callable_that_is_not_there_names_those_that_are(tmp_path: Path):
    manifest = folder(tmp_path, '[model]\nsource = "build.py:elsewhere"\n', build="def build(): ...\nSIZE = 3\n")

    with pytest.raises(ManifestError, match=r"build\.py has no callable 'elsewhere'") as caught:
        obtain_model(manifest, MemoryStore())
    assert caught.value.hint == "known: build"


def test_data_files_are_part_of_the_key(tmp_path: Path):
    (tmp_path / "w.npz").write_bytes(b"1")
    manifest = folder(tmp_path, '[model]\nsource = "build.py:build"\nfiles = ["w.npz"]\n', build="")
    before = source_ingredients(manifest, "build.py:build")
    (tmp_path / "w.npz").write_bytes(b"2")

    assert source_ingredients(manifest, "build.py:build") != before
    assert "data" not in source_ingredients(replace(manifest, files=()), "build.py:build")
    (tmp_path / "w.npz").unlink()
    with pytest.raises(ManifestError, match=r"model\.files: .*w\.npz: No such file"):
        source_ingredients(manifest, "build.py:build")


# PyTorch. The stub has the parts of torch that an export touches, and writes x + x, whatever the module is.


class Tensor:
    def __init__(self, array: Any) -> None:
        self.array, self.shape, self.dtype = array, array.shape, f"torch.{array.dtype}"

    def to(self, dtype: str) -> Tensor:
        return Tensor(self.array.astype(dtype))

    def detach(self) -> Tensor:
        return self

    cpu = detach


class Module:
    training = True

    def eval(self) -> Module:
        self.training = False
        return self

    def cpu(self) -> Module:
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)  # type: ignore[attr-defined]


class TracerWarning(Warning):
    pass


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Any:
    stub: Any = ModuleType("torch")
    stub.__version__, stub.exports = "stub", []
    stub.Tensor, stub.no_grad, stub.from_numpy = Tensor, nullcontext, Tensor
    stub.float32, stub.int64 = "float32", "int64"
    stub.nn = SimpleNamespace(Module=Module)
    stub.jit = SimpleNamespace(ScriptModule=type("ScriptModule", (), {}), TracerWarning=TracerWarning)

    def export(module: Any, tensors: Any, file: str, *, dynamo: bool = True, **options: Any) -> None:
        warnings.warn(TracerWarning("a branch was fixed\nand more"), stacklevel=1)
        stub.exports.append({"training": module.training, "tensors": tensors, "dynamo": dynamo, **options})
        if dynamo:
            raise ModuleNotFoundError("No module named 'onnxscript'", name="onnxscript")
        onnx.save(doubled(*options["output_names"]), file)

    stub.onnx = SimpleNamespace(export=export)
    monkeypatch.setitem(sys.modules, "torch", stub)
    return stub


NET = """
import numpy as np
import torch
class Net(torch.nn.Module):
    def __init__(self, key="y"):
        self.key = key
    def forward(self, x):
        return {self.key: x, "none": None}
made = Net("z")
def pair(): return Net(), torch.from_numpy(np.ones((2, 4), np.float32))
def listed(): return Net(), {"x": torch.from_numpy(np.ones((2, 4), np.float32))}
def wrong(): return Net(), (1, 2)
"""


@pytest.mark.parametrize(
    ("attribute", "toml", "output"),
    [("Net", 'args = { key = "k" }\n', "k"), ("made", "", "z"), ("pair", "", "y"), ("listed", "", "y")],
)
def test_a_module_is_exported(tmp_path: Path, torch: Any, attribute: str, toml: str, output: str):
    manifest = folder(tmp_path, f'[model]\nsource = "net.py:{attribute}"\n{toml}{PROFILE}', net=NET)
    store, said = MemoryStore(), []

    first, again = (obtain_model(manifest, store, said.append) for _ in range(2))

    assert first.outputs == (TensorSpec(output, "float32", ("N", 4)),)
    assert again.fingerprint == first.fingerprint
    (export,) = torch.exports
    assert export["tensors"][0].shape == (2, 4)  # the profile's opt has one row, which exporters take for a constant
    del export["tensors"]
    assert export == {
        "training": False,
        "dynamo": False,
        "opset_version": 17,
        "input_names": ["x"],
        "output_names": [output],
        "dynamic_axes": {"x": {0: "N"}},
    }
    assert said[-1].endswith("warns: a branch was fixed")


def test_an_export_is_made_again_when_a_profile_opens_a_dimension(tmp_path: Path, torch: Any):
    manifest = folder(tmp_path, f'[model]\nsource = "net.py:Net"\n{PROFILE}', net=NET)
    store = MemoryStore()
    obtain_model(manifest, store)

    for change in (
        {"profiles": {"b": Profile.parse("b", "x=1x4:1x4:9x4")}},
        {"ranges": {"x": (0, 1)}},
        {"interface": Interface((TensorSpec("x", "float32", ("M", 4)),))},
    ):
        obtain_model(replace(manifest, **change), store)  # type: ignore[arg-type]
    assert [export["dynamic_axes"]["x"] for export in torch.exports] == [{0: "N"}] * 3 + [{0: "M"}]


def test_the_other_exporter_asks_for_what_it_needs(tmp_path: Path, torch: Any):
    manifest = folder(tmp_path, f'[model]\nsource = "net.py:Net"\nexporter = "dynamo"\n{PROFILE}', net=NET)

    with pytest.raises(ModelError, match="onnxscript") as caught:
        obtain_model(manifest, MemoryStore())
    assert caught.value.hint == 'pip install onnxscript, which exporter = "dynamo" needs'
    assert torch.exports[0]["dynamic_shapes"] == (({0: "N"},),)
    assert torch.exports[0]["opset_version"] == 18


@pytest.mark.parametrize(
    ("toml", "error", "message"),
    [
        ('source = "net.py:Net"\n', ManifestError, "nothing says the shapes of its inputs"),
        ('source = "net.py:made"\nargs = { key = "k" }\n' + PROFILE, ManifestError, "takes no model.args"),
        ('source = "net.py:wrong"\n' + PROFILE, ModelError, r"no tensors for forward\(x\)"),
        ('source = "net.py:pair"\n[profiles.b]\nz = [1]\n', ManifestError, "profile 'b' has the inputs z, not x"),
        (
            f'source = "net.py:Net"\n{PROFILE}[interface.inputs]\nx = [4]\n',
            ManifestError,
            "input 'x' is given shapes of different ranks",
        ),
        (
            f'source = "net.py:Net"\n{PROFILE}z = [1]\n',
            ManifestError,
            "forward has no parameter 'z'; it has x",
        ),
        (
            f'source = "net.py:Net"\n{PROFILE}{INTERFACE}z = [1]\n',
            ManifestError,
            "names 2 outputs, the module has 1",
        ),
        (
            f'source = "net.py:Net"\n{PROFILE}[interface.inputs]\nx = ["N", 4]\n[interface.outputs]\na = ["N", 5]\n',
            ModelError,
            r"not what \[interface\] declares: output 'a' is Nx4, declared Nx5",
        ),
    ],
)
def test_a_module_that_cannot_be_exported(tmp_path: Path, torch: Any, toml: str, error: type[TrtError], message: str):
    manifest = folder(tmp_path, f"[model]\n{toml}", net=NET)

    with pytest.raises(error, match=message) as caught:
        obtain_model(manifest, MemoryStore())
    assert type(caught.value) is error


def test_what_the_exporter_says_is_kept_without_its_colours(tmp_path: Path, torch: Any):
    def export(*_: Any, **__: Any) -> None:
        raise RuntimeError("\x1b[96mno such operator\x1b[0m")

    torch.onnx.export = export
    manifest = folder(tmp_path, f'[model]\nsource = "net.py:Net"\n{PROFILE}', net=NET)

    with pytest.raises(ModelError, match=r"the export failed: RuntimeError: no such operator\n.*dynamo"):
        obtain_model(manifest, MemoryStore())


def test_a_missing_torch_is_named_with_what_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    manifest = folder(tmp_path, f'[model]\nsource = "net.py:Net"\n{PROFILE}', net=NET)

    with pytest.raises(ModelError, match=r"import of torch halted") as caught:
        obtain_model(manifest, MemoryStore())
    assert caught.value.hint == 'pip install "pytest-trt[torch]"'


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_the_real_torch(tmp_path: Path, exporter: str):
    pytest.importorskip("torch")
    if exporter == "dynamo":
        pytest.importorskip("onnxscript")
    text = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.noise = torch.nn.Embedding(10, 4), torch.nn.Dropout(0.5)
    def forward(self, x, ids):
        return {"y": self.noise(x + 1), "parts": (self.table(ids).sum(1), x * 2)}
"""
    toml = f"""[model]
source = "net.py:Net"
exporter = "{exporter}"
[interface.inputs]
x = ["N", 4]
ids = {{ dtype = "int64", shape = ["N", "S"] }}
{PROFILE}ids = {{ min = [1, 3], opt = [1, 5], max = [8, 7] }}
"""
    model = obtain_model(folder(tmp_path, toml, net=text), MemoryStore())

    assert [(o.name, o.shape) for o in model.outputs] == [(n, ("N", 4)) for n in ("y", "parts_0", "parts_1")]
    for rows in (1, 3):
        feeds = {"x": np.ones((rows, 4), np.float32), "ids": np.zeros((rows, 6), np.int64)}
        y, summed, _ = ReferenceEvaluator(model.proto).run(None, feeds)
        np.testing.assert_array_equal(y, np.full((rows, 4), 2, np.float32))  # dropout is off
        assert summed.shape == (rows, 4)


# What an export needs to know


def specs_of(profiles: str, declared: Any = (), examples: Any = None) -> list[tuple[str, str, tuple]]:
    named = {str(i): Profile.parse(str(i), text) for i, text in enumerate(profiles.split(";"))} if profiles else {}
    return [(s.name, s.dtype, s.shape) for s in export_specs(named, declared, examples, "net.py:Net")]


@pytest.mark.parametrize(
    ("profiles", "shapes"),
    [
        ("x=1x4", [(1, 4)]),
        ("x=1x4:2x4:8x4", [("N", 4)]),
        ("x=1x4;x=8x4", [("N", 4)]),
        ("x=1x4:2x4:8x4,y=1x3:2x5:8x9", [("N", 4), ("N", "y_1")]),
        ("x=1x4:2x4:8x4,y=1x4:1x4:8x4", [("N", 4), ("y_0", 4)]),
        ("x=3x2:3x4:3x8", [(3, "x_1")]),
        ("x=scalar", [()]),
    ],
)
def test_dimensions_that_differ_between_profiles_stay_open(profiles: str, shapes: list[tuple]):
    assert [shape for _, _, shape in specs_of(profiles)] == shapes


def test_declared_types_and_symbols_win():
    declared = [TensorSpec("x", "int64", ("B", None, 4))]

    assert specs_of("x=1x3x4:1x5x4:8x7x4", declared) == [("x", "int64", ("B", "x_1", 4))]
    assert specs_of("", declared) == [("x", "int64", ("B", "x_1", 4))]
    assert specs_of("x=1x3x4", declared) == [("x", "int64", ("B", "x_1", 4))]  # open, though only one size is tested


def test_examples_say_types_and_without_profiles_shapes():
    examples = {"x": ("int64", (2, 4))}

    assert specs_of("", examples=examples) == [("x", "int64", (2, 4))]
    assert specs_of("x=1x4:2x4:8x4", examples=examples) == [("x", "int64", ("N", 4))]


def test_examples_have_two_where_one_would_look_fixed():
    specs = (TensorSpec("x", "float32", ("N", 1, "S")), TensorSpec("y", "float32", ("N",)))

    assert example_shapes(specs, {"b": Profile.parse("b", "x=1x1x3:1x1x5:8x1x9,y=1:1:8")}) == {
        "x": (2, 1, 5),
        "y": (2,),
    }
    assert example_shapes(specs, {}) == {"x": (2, 1, 2), "y": (2,)}


# TensorFlow. The stub of tf2onnx is run as the real one is: in a process of its own.


TF2ONNX = """
import pathlib, shutil, sys
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if "--signature_def" in options:
    sys.exit("Specified signature not in model " + options["--signature_def"])
assert options["--opset"] == "17", options
shutil.copy(pathlib.Path(options["--saved-model"], "saved_model.pb"), options["--output"])
"""


@pytest.fixture
def tf2onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes saved_model.pb for ONNX, and copies it."""
    place = tmp_path / "installed"
    (place / "tf2onnx").mkdir(parents=True)
    for file in ("tf2onnx/__init__.py", "tensorflow.py"):
        (place / file).write_text("")
    (place / "tf2onnx/convert.py").write_text(TF2ONNX)
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("PYTHONPATH", str(place))


def saved_model(tmp_path: Path, toml: str = "") -> Manifest:
    target = tmp_path / "net" / "saved"
    target.mkdir(parents=True, exist_ok=True)
    (target / "saved_model.pb").write_bytes(doubled().SerializeToString())
    return folder(target.parent, f'[model]\npath = "saved/"\n{toml}')


@pytest.mark.usefixtures("tf2onnx")
def test_a_saved_model_is_converted_once(tmp_path: Path):
    manifest, store, said = saved_model(tmp_path), MemoryStore(), []

    models = [obtain_model(manifest, store, said.append) for _ in range(2)]
    assert [model.outputs[0].name for model in models] == ["y", "y"]
    assert said == ["converting the SavedModel saved of net with tf2onnx"]

    (manifest.folder / "saved" / "variables").mkdir()
    for content in (b"1", b"2"):
        (manifest.folder / "saved" / "variables" / "data").write_bytes(content)
        obtain_model(manifest, store, said.append)
    assert len(said) == 3


@pytest.mark.usefixtures("tf2onnx")
def test_what_tf2onnx_says_is_the_error(tmp_path: Path):
    manifest = saved_model(tmp_path, 'args = { signature = "nope" }\n')

    with pytest.raises(ModelError, match="tf2onnx cannot convert saved:\n  Specified signature not in model nope"):
        obtain_model(manifest, MemoryStore())


def test_the_real_tensorflow(tmp_path: Path):
    tensorflow = pytest.importorskip("tensorflow")
    pytest.importorskip("tf2onnx")
    module = tensorflow.Module()
    module.weight = tensorflow.Variable(tensorflow.fill([4, 3], 0.5))
    spec = tensorflow.TensorSpec([None, 4], tensorflow.float32, name="x")
    call = tensorflow.function(lambda x: {"y": tensorflow.nn.relu(x @ module.weight)}, input_signature=[spec])
    module.__call__ = call
    saved = tmp_path / "net" / "saved"
    tensorflow.saved_model.save(module, str(saved), signatures={"serving_default": call})
    toml = f'[model]\npath = "saved/"\nargs = {{ signature = "serving_default", tag = "serve" }}\n{PROFILE}'

    model = obtain_model(folder(saved.parent, toml), MemoryStore())

    assert [spec.name for spec in (*model.inputs, *model.outputs)] == ["x", "y"]
    for rows in (1, 3):
        (y,) = ReferenceEvaluator(model.proto).run(None, {"x": np.ones((rows, 4), np.float32)})
        np.testing.assert_array_equal(y, np.full((rows, 3), 2, np.float32))


def test_a_saved_model_takes_two_arguments(tmp_path: Path):
    with pytest.raises(ManifestError, match=r"model\.args\.signatur means nothing to a SavedModel"):
        obtain_model(saved_model(tmp_path, 'args = { signatur = "a" }\n'), MemoryStore())


def test_a_link_out_of_a_saved_model_is_refused(tmp_path: Path):
    manifest = saved_model(tmp_path)
    (tmp_path / "secret").write_text("")
    (manifest.folder / "saved" / "link").symlink_to(tmp_path / "secret")

    with pytest.raises(UnsafeModelError, match="a link out of the SavedModel"):
        obtain_model(manifest, MemoryStore())


def test_a_folder_of_another_kind_is_no_model(tmp_path: Path):
    (tmp_path / "saved").mkdir()

    with pytest.raises(ModelError, match="is a folder, not an ONNX file"):
        obtain_model(folder(tmp_path, '[model]\npath = "saved"\n'), MemoryStore())


@pytest.mark.parametrize("missing", ["tensorflow", "tf2onnx"])
@pytest.mark.usefixtures("tf2onnx")
def test_a_missing_tensorflow_is_named_with_what_brings_it(
    tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch
):
    find = sys.modules["importlib.util"].find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == missing else find(name))

    with pytest.raises(ModelError, match=f"{missing} is not installed") as caught:
        obtain_model(saved_model(tmp_path), MemoryStore())
    assert caught.value.hint == 'pip install "pytest-trt[tensorflow]"'


# Network builders


NETWORK = """
def build(network, trt, width=4):
    network.append((trt, width))
    return [width]
"""


def network(tmp_path: Path, toml: str = INTERFACE, text: str = NETWORK) -> Manifest:
    return folder(tmp_path, f'[model]\nsource = "net.py:build"\nargs = {{ width = 5 }}\n{toml}', net=text)


def test_a_network_builder_is_a_model_without_a_graph(tmp_path: Path):
    manifest, store = network(tmp_path), MemoryStore()
    for _ in range(2):
        model = obtain_model(manifest, store)
        assert not model.has_graph
        assert model.inputs == (TensorSpec("x", "float32", ("N", 4)),)
        assert model.outputs == (TensorSpec("y", "float32", ("N", 4)),)

        filled: list[Any] = []
        assert model.network is not None
        assert pickle.loads(pickle.dumps(model)).network(filled, "trt") == [5]  # what an isolated build does
        assert model.network(filled, "trt") == [5]
        assert filled == [("trt", 5)] * 2


def test_a_network_that_the_function_cannot_fill_is_its_error(tmp_path: Path):
    model = obtain_model(network(tmp_path, text="def build(network, trt, width): network.add_nothing()"), MemoryStore())

    assert model.network is not None
    with pytest.raises(ModelError, match=r"net\.py:build failed: AttributeError: .*add_nothing"):
        model.network([], "trt")


@pytest.mark.parametrize("toml", ["", '[interface.inputs]\nx = ["N", 4]\n'])
def test_a_network_builder_needs_declared_inputs_and_outputs(tmp_path: Path, toml: str):
    with pytest.raises(ManifestError, match=r"fills a TensorRT network; its inputs and outputs must be known"):
        obtain_model(network(tmp_path, toml), MemoryStore())


def test_the_fingerprint_of_a_network_is_that_of_its_source_and_interface(tmp_path: Path):
    manifest, store = network(tmp_path), MemoryStore()
    same = obtain_model(manifest, store).fingerprint
    prints = {
        same,
        obtain_model(replace(manifest, args={"width": 6}), store).fingerprint,
        obtain_model(network(tmp_path, INTERFACE.replace("4", "5")), store).fingerprint,
        obtain_model(network(tmp_path, text=NETWORK + "# changed\n"), store).fingerprint,
    }

    assert len(prints) == 4
    assert obtain_model(network(tmp_path), MemoryStore()).fingerprint == same


def test_a_model_without_a_graph_cannot_become_onnx(tmp_path: Path):
    model = obtain_model(network(tmp_path), MemoryStore())

    for attempt in (model.serialized, lambda: model.save(tmp_path)):
        with pytest.raises(ModelError, match="is a TensorRT network builder: it has no ONNX graph"):
            attempt()
    assert Model.from_proto(doubled(), "m").has_graph


# [interface]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("[interface]", r"\[interface.inputs\] is missing or empty"),
        ("[interface.outputs]\ny = [1]", r"\[interface.inputs\] is missing or empty"),
        ("[interface.inputs]\nx = 3", r"interface.inputs.x must be a shape, or \{ dtype"),
        ("[interface.inputs]\nx = { shpe = [1] }", "interface.inputs.x must be a shape"),
        ("[interface.inputs]\nx = { shape = 1 }", "interface.inputs.x.shape must be a list"),
        ('[interface.inputs]\nx = { shape = [1], dtype = "float23" }', "did you mean 'float32'"),
        ("[interface.inputs]\nx = [-2]", "interface.inputs.x: -2 is no size"),
        ("[interface.inputs]\nx = [true]", "True is no size"),
        ('[interface.inputs]\nx = ["4"]', "'4' is no size"),
        ("[interface]\ninput = {}", "unknown key 'input' in .interface."),
    ],
)
def test_an_interface_that_cannot_be_read(tmp_path: Path, table: str, message: str):
    with pytest.raises(ManifestError, match=message) as caught:
        folder(tmp_path, table)
    assert str(caught.value).startswith(str(tmp_path / "trt.toml"))


def test_an_interface_keeps_order_types_and_open_dimensions(tmp_path: Path):
    table = '[interface.inputs]\nb = ["N", -1, 0]\na = { dtype = "bfloat16", shape = [] }\n'
    found = folder(tmp_path, table).interface

    assert found == Interface((TensorSpec("b", "float32", ("N", None, 0)), TensorSpec("a", "bfloat16", ())))
    assert found is not None
    assert Model.from_interface(found, "m", identity="1").inputs == found.inputs


@pytest.mark.parametrize(
    ("declared", "wrong"),
    [
        (("x", "float32", ("N", 4)), None),
        (("x", "float32", ("M", 4)), None),
        (("x", "float32", (2, 4)), None),
        (("x", "float32", ("N", "C")), "input 'x' is Nx4, declared NxC"),
        (("x", "float32", ("N", 5)), "input 'x' is Nx4, declared Nx5"),
        (("x", "float32", ("N",)), "input 'x' is Nx4, declared N"),
        (("x", "float16", ("N", 4)), "input 'x' is float32, declared float16"),
        (("z", "float32", ("N", 4)), "there is no input 'z' (known: x)"),
    ],
)
def test_a_model_is_held_against_the_declared_interface(tmp_path: Path, declared: Any, wrong: str | None):
    onnx.save(doubled(), tmp_path / "model.onnx")
    interface = Interface((TensorSpec(*declared),))
    manifest = replace(folder(tmp_path, ""), interface=interface)

    assert interface.mismatch(Interface.of(Model.from_proto(doubled(), "m"))) == wrong
    if wrong is None:
        assert obtain_model(manifest, MemoryStore()).has_graph
    else:
        with pytest.raises(ModelError, match=r"not what \[interface\] declares: "):
            obtain_model(manifest, MemoryStore())


def test_an_input_or_output_too_many_is_a_mismatch():
    x, y = TensorSpec("x", "float32", (1,)), TensorSpec("y", "float32", (1,))

    assert Interface((x,)).mismatch(Interface((x, y))) == "input 'y' is not declared"
    assert Interface((x,)).mismatch(Interface((x,), (y,))) is None  # no outputs declared
    assert Interface((x,), (x,)).mismatch(Interface((x,), (x, y))) == "output 'y' is not declared"


def test_a_narrowed_integer_is_no_mismatch():
    wide, narrow = (Interface((TensorSpec("x", dtype, (1,)),)) for dtype in ("int64", "int32"))

    assert wide.mismatch(narrow) is None
    assert narrow.mismatch(wide) is not None


def test_a_profile_takes_the_place_of_the_first_that_accepts_it():
    held = [Profile.parse("small", "x=1x4:2x4:2x4"), Profile.parse("b8", "x=1x4:4x4:9x4")]
    b8 = Profile.parse("b8", "x=8x4")

    assert hold(b8, held) == (held[0], b8)
    assert [p.name for p in hold(Profile.parse("b8", "x=1x4"), held)] == ["b8", "b8 (1)"]
    with pytest.raises(Exception, match=r"profile 'b' lies in none of the plan's 2\n.*x 1x4 to 2x4; or x 1x4 to 9x4"):
        hold(Profile.parse("b", "x=1x4:2x4:10x4"), held)
    with pytest.raises(Exception, match="lies in none"):
        hold(Profile.parse("b", "x=4"), held)


# References of one's own


def samples() -> list[Sample]:
    return [Sample({"x": np.full((n, 4), n, np.float32)}, n, n, str(n)) for n in (1, 3)]


def reference(tmp_path: Path, body: str, toml: str = "") -> Manifest:
    text = f"import numpy as np\ndef run(feeds, scale=2):\n    {body}\n"
    return folder(tmp_path, f'[model]\nplan = "a.plan"\nreference = "ref.py:run"\n{toml}{INTERFACE}', ref=text)


def test_a_reference_is_called_once_per_sample_and_kept(tmp_path: Path):
    manifest = reference(tmp_path, "return {'y': feeds['x'] * scale}", "args = { scale = 3 }\n")
    assert manifest.interface is not None
    model, store = Model.from_interface(manifest.interface, "m", identity="1"), MemoryStore()
    assert [o["y"].tolist() for o in call_reference(manifest, samples())] == [[[3.0] * 4], [[9.0] * 4] * 3]

    said: list[str] = []
    first, again = (obtain_called_reference(store, manifest, model, samples(), "f", said.append) for _ in range(2))
    assert [o["y"].tolist() for o in again.outputs] == [[[3.0] * 4], [[9.0] * 4] * 3]
    assert (first.fresh, again.fresh, first.origin) == (True, False, "ref.py:run of the model's folder")
    assert len(said) == 1

    for changed, fingerprint in ((manifest, "g"), (replace(manifest, args={"scale": 4}), "f")):
        assert obtain_called_reference(store, changed, model, samples(), fingerprint).fresh


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("return feeds['x']", InputsError, "returned ndarray, not arrays by the names of outputs"),
        ("return {'y': 1}", InputsError, "returned int for 'y', not a NumPy array"),
        ("return {'y': feeds['x'].astype(object)}", InputsError, "returned object for 'y'"),
        ("return {}", InputsError, "returned no output 'y'\n  hint: the model's outputs: y"),
        ("return {'y': feeds['x'], 'z': feeds['x']}", InputsError, "returned an unknown output 'z'"),
        ("raise OSError('gone')", ModelError, "run failed: OSError: gone"),
    ],
)
def test_a_reference_that_is_none(tmp_path: Path, body: str, error: type[TrtError], message: str):
    manifest = reference(tmp_path, body)
    assert manifest.interface is not None
    model, store = Model.from_interface(manifest.interface, "m", identity="1"), MemoryStore()

    with pytest.raises(error, match=message):
        obtain_called_reference(store, manifest, model, samples(), "f")
    assert list(store.entries()) == []


def test_nothing_to_compare_with_is_said(tmp_path: Path):
    manifest = folder(tmp_path, '[model]\nplan = "a.plan"\n' + INTERFACE)
    assert manifest.interface is not None
    model = Model.from_interface(manifest.interface, "m", identity="1")

    with pytest.raises(InputsError, match=r"nothing to compare with: 'm' has no ONNX graph .*\n.*reference = "):
        obtain_called_reference(MemoryStore(), manifest, model, samples(), "f")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("build.py", r"source 'build\.py' is not FILE:CALLABLE with a file of this folder$"),
        ("../build.py:build", r"is not FILE:CALLABLE with a file of this folder$"),
        ("biuld.py:build", r"source 'biuld\.py:build': there is no biuld\.py in this folder$"),
    ],
)
def test_a_source_that_names_no_file(tmp_path: Path, source: str, message: str):
    manifest = folder(tmp_path, f'[model]\nsource = "{source}"\n', build="def build(): ...\n")

    with pytest.raises(ManifestError, match=message):
        obtain_model(manifest, MemoryStore())
