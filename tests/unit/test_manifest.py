"""trt.toml: every key, every error with its file, the variants, and models without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_trt.errors import ManifestError
from pytest_trt.spec.build_options import BuildOptions
from pytest_trt.spec.manifest import Manifest
from pytest_trt.spec.shapes import Profile, ShapeRange

FULL = """
[model]
name = "net"
path = "weights/net.onnx"
requires = ["safetensors"]
[inputs]
file = "images.npz"
labels = "labels"
range = { ids = [0, 99], mask = [0.0, 1.0] }
allow_nonfinite = true
[profiles.b1]
x = [1, 3, 8, 8]
s = []
[profiles.b8]
x = { min = [1, 3, 8, 8], opt = [8, 3, 8, 8], max = [32, 3, 8, 8] }
s = []
[precision.int8]
exclude_nodes = ["/head/Gemm"]
exclude_ops = ["Softmax"]
calibration = "percentile"
percentile = 99.9
samples = 32
[tolerance.int8]
cosine = 0.995
[tolerance.fp16]
rtol = 1e-2
atol = 1e-3
[latency]
threshold = 0.03
[build]
workspace = "512MB"
opt_level = 0
refit = "off"
sparsity = true
plugins = ["lib/a.so"]
memory_pools = { TACTIC_DRAM = "1GB" }
builder_flags = ["+STRICT_NANS"]
[run]
precisions = ["fp16", "int8"]
profiles = ["b8"]
"""

VARIANTS = """
[model]
source = "build.py:build"
args = { layers = 1, heads = 2 }
variant = "small"
[inputs]
labels = "labels"
range = { ids = [0, 9], mask = [0, 1] }
[profiles.b1]
x = [1, 4]
y = [1, 2]
[latency]
threshold = 0.1
[variants.small.model]
name = "net_small"
args = { layers = 2 }
[variants.full.model]
name = "net_full"
args = { layers = 12 }
[variants.full.inputs.range]
ids = [0, 999]
[variants.full.profiles.b1]
x = [1, 8]
[variants.full.profiles.b9]
x = [9, 8]
y = [9, 2]
"""


def load(folder: Path, text: str, variant: str | None = None) -> Manifest:
    file = folder / "trt.toml"
    file.write_text(text, encoding="utf-8")
    return Manifest.load(file, variant)


def test_every_key_is_read(tmp_path: Path):
    manifest = load(tmp_path, FULL)

    fixed = ShapeRange.fixed((1, 3, 8, 8))
    scalar = ShapeRange.fixed(())
    assert manifest == Manifest(
        name="net",
        folder=tmp_path,
        file=tmp_path / "trt.toml",
        path=tmp_path / "weights/net.onnx",
        requires=("safetensors",),
        inputs_file=tmp_path / "images.npz",
        labels="labels",
        ranges={"ids": (0, 99), "mask": (0.0, 1.0)},
        allow_nonfinite=True,
        profiles={
            "b1": Profile("b1", {"x": fixed, "s": scalar}),
            "b8": Profile("b8", {"x": ShapeRange((1, 3, 8, 8), (8, 3, 8, 8), (32, 3, 8, 8)), "s": scalar}),
        },
        precision={
            "int8": {
                "exclude_nodes": ["/head/Gemm"],
                "exclude_ops": ["Softmax"],
                "calibration": "percentile",
                "percentile": 99.9,
                "samples": 32,
            }
        },
        tolerance={"int8": {"cosine": 0.995}, "fp16": {"rtol": 1e-2, "atol": 1e-3}},
        threshold=0.03,
        build=BuildOptions(
            workspace=512 * 10**6,
            opt_level=0,
            refit="off",
            sparsity=True,
            plugins=(tmp_path / "lib/a.so",),
            memory_pools=(("TACTIC_DRAM", 10**9),),
            builder_flags=("+STRICT_NANS",),
        ),
        precisions=("fp16", "int8"),
        default_profiles=("b8",),
    )


@pytest.mark.parametrize(("text", "value"), [("0.05", 0.05), ('"5%"', 0.05), ('"0.05"', 0.05), ('"150%"', 1.5)])
def test_a_threshold_is_written_as_on_the_command_line(tmp_path: Path, text: str, value: float):
    assert load(tmp_path, f"[latency]\nthreshold = {text}\n").threshold == pytest.approx(value)


def test_an_empty_manifest_is_a_model_of_its_folders_name(tmp_path: Path):
    folder = tmp_path / "resnet"
    folder.mkdir()
    manifest = load(folder, "")

    assert (manifest.name, manifest.path) == ("resnet", folder / "model.onnx")
    assert (manifest.precisions, manifest.default_profiles, dict(manifest.profiles)) == (("fp32",), (), {})
    assert (manifest.threshold, manifest.build) == (None, BuildOptions())


def test_a_source_takes_the_place_of_a_path(tmp_path: Path):
    manifest = load(tmp_path, '[model]\nsource = "build.py:build"\n[inputs]\nsource = "build.py:inputs"\n')

    assert (manifest.path, manifest.source, manifest.inputs_source) == (None, "build.py:build", "build.py:inputs")


def test_paths_are_absolute_whatever_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "trt.toml").write_text('[inputs]\nfile = "x.npz"\n')
    monkeypatch.chdir(tmp_path)
    manifest = Manifest.load(Path("trt.toml"))

    assert manifest.file == tmp_path / "trt.toml"
    assert manifest.path == tmp_path / "model.onnx"
    assert manifest.inputs_file == tmp_path / "x.npz"


@pytest.mark.parametrize(
    ("file", "name"), [("resnet18.onnx", "resnet18"), ("zoo/model.onnx", "zoo"), ("a.b.onnx", "a.b")]
)
def test_a_bare_model(tmp_path: Path, file: str, name: str):
    path = tmp_path / file
    manifest = Manifest.bare(path)

    assert (manifest.name, manifest.path, manifest.file, manifest.folder) == (name, path, path, path.parent)
    assert not manifest.profiles


_A_SIZE = "a size is 0, 1, 2, …; where it may vary, give { min = […], opt = […], max = […] }"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[modle]\n", "unknown table [modle]", "did you mean 'model'?"),
        ('[model]\npaht = "x"\n', "unknown key 'paht' in [model]", "did you mean 'path'?"),
        ("[inputs]\nlables = 'x'\n", "unknown key 'lables' in [inputs]", "did you mean 'labels'?"),
        ("[build]\nworkspaces = 1\n", "unknown key 'workspaces' in [build]", "did you mean 'workspace'?"),
        ("[latency]\ntreshold = 1\n", "unknown key 'treshold' in [latency]", "did you mean 'threshold'?"),
        ("[run]\nprecision = []\n", "unknown key 'precision' in [run]", "did you mean 'precisions'?"),
        ("[precision.int9]\n", "unknown precision in [precision.int9]", "did you mean 'int8'?"),
        ("[tolerance.pf16]\n", "unknown precision in [tolerance.pf16]", "did you mean 'fp16'?"),
        (
            "[precision.int8]\nexclude_node = []\n",
            "unknown key 'exclude_node' in [precision.int8]",
            "did you mean 'exclude_nodes'?",
        ),
        ("[precision]\nint8 = 1\n", "precision.int8 must be a table", None),
        ("model = 3\n", "model must be a table, not an integer", None),
        ("variants = 3\n", "variants must be a table, not an integer", None),
        ("profiles = []\n", "profiles must be a table, not a list", None),
        ("[model]\nname = 3\n", "model.name must be a string, not an integer", None),
        ("[model]\nargs = []\n", "model.args must be a table, not a list", None),
        ("[model]\nrequires = 'x'\n", "model.requires must be a list, not a string", None),
        ("[model]\nrequires = [1]\n", "model.requires must be a list of strings", None),
        ("[model]\nvariant = ['x']\n", "model.variant must be a string, not a list", None),
        ("[inputs]\nallow_nonfinite = 1\n", "inputs.allow_nonfinite must be true or false, not an integer", None),
        ("[build]\nopt_level = true\n", "build.opt_level: cannot use 'on': a whole number is wanted", None),
        ("[build]\nopt_level = 6\n", "build.opt_level: cannot use '6': a number from 0 to 5 is wanted", None),
        (
            "[build]\nworkspace = -1\n",
            "build.workspace: cannot use '-1': a size such as 512MB, 20GB or a number of bytes is wanted;"
            " units are KB, MB, GB, B",
            None,
        ),
        ("[build]\ntactics = ['-A']\n", "unknown key 'tactics' in [build]", "did you mean 'max_tactics'?"),
        (
            "[build]\nio_formats = ['x=A:B:C']\n",
            "build.io_formats: cannot use 'x=A:B:C': 'x=A:B:C' is not TENSOR=LAYOUT or TENSOR=DTYPE:LAYOUT,"
            " e.g. x=HALF:CHW16",
            None,
        ),
        ("[latency]\nthreshold = [5]\n", "latency.threshold must be a number or a string, not a list", None),
        ("[latency]\nthreshold = true\n", "latency.threshold must be a number or a string, not true or false", None),
        (
            "[latency]\nthreshold = 'x'\n",
            "latency.threshold: cannot use 'x': a share such as 5% or 0.05 is wanted",
            None,
        ),
        ("[latency]\nthreshold = 5\n", "latency.threshold: cannot use 5: that is 500 %; 5% or 0.05 is wanted", None),
        ("[latency]\nthreshold = 0\n", "latency.threshold: cannot use 0: a share such as 5% or 0.05 is wanted", None),
        (
            "[latency]\nthreshold = nan\n",
            "latency.threshold: cannot use nan: a share such as 5% or 0.05 is wanted",
            None,
        ),
        ("[precision.int8]\npercentile = 101\n", "precision.int8.percentile must lie in 1e-06 … 100, not 101", None),
        ("[precision.int8]\nsamples = 0\n", "precision.int8.samples must lie in 1 … 1e+09, not 0", None),
        ("[precision.int8]\nexclude_nodes = [1]\n", "precision.int8.exclude_nodes must be a list of strings", None),
        ("[run]\nprecisions = [16]\n", "run.precisions must be a list of strings", None),
        ("[run]\nprecisions = ['fp61']\n", "run.precisions names 'fp61'", "did you mean 'fp16'?"),
        (
            "[run]\nprecisions = []\n",
            "run.precisions is empty: nothing would be tested",
            "leave it out for the default",
        ),
        ("[run]\nprofiles = ['b8']\n", "run.profiles names 'b8'", "known: default"),
        ("[run]\nprofiles = ['b9']\n[profiles.b81]\nx = [1]\n", "run.profiles names 'b9'", "known: b81"),
        (
            "[model]\npath = 'a.onnx'\nsource = 'b.py:c'\n",
            "[model] has both path and source",
            "keep one: a file, or the callable that makes it",
        ),
        (
            "[model]\npath = '../a.onnx'\n",
            "model.path = '../a.onnx' leaves the model's folder",
            "copy the file beside the manifest",
        ),
        (
            "[inputs]\nfile = '/etc/passwd'\n",
            "inputs.file = '/etc/passwd' leaves the model's folder",
            "copy the file beside the manifest",
        ),
        ("[inputs]\nrange = { x = [1, 0] }\n", "inputs.range.x must be [low, high], both included, not [1, 0]", None),
        ("[inputs]\nrange = { x = [1] }\n", "inputs.range.x must be [low, high], both included, not [1]", None),
        (
            "[inputs]\nrange = { x = ['a', 'b'] }\n",
            "inputs.range.x must be [low, high], both included, not ['a', 'b']",
            None,
        ),
        (
            "[inputs]\nrange = { x = [nan, 1] }\n",
            "inputs.range.x must be [low, high], both included, not [nan, 1]",
            None,
        ),
        (
            "[inputs]\nrange = { x = [false, true] }\n",
            "inputs.range.x must be [low, high], both included, not [False, True]",
            None,
        ),
        ("[profiles]\nb1 = [1]\n", "[profiles.b1] must be a table of input = shape", None),
        (
            "[profiles.b1]\nx = 8\n",
            "profiles.b1.x must be a shape, or { min = […], opt = […], max = […] }; it has 8",
            None,
        ),
        (
            "[profiles.b1]\nx = { min = [1], max = [2] }\n",
            "profiles.b1.x must be a shape, or { min = […], opt = […], max = […] }; it has min, max",
            None,
        ),
        ("[profiles.b1]\nx = [1, -1]\n", "profiles.b1.x must be a list of sizes, not [1, -1]", _A_SIZE),
        ("[profiles.b1]\nx = ['N', 3]\n", "profiles.b1.x must be a list of sizes, not ['N', 3]", _A_SIZE),
        ("[profiles.b1]\nx = [true]\n", "profiles.b1.x must be a list of sizes, not [True]", _A_SIZE),
        (
            "[profiles.b1]\nx = { min = [1], opt = [2.0], max = [3] }\n",
            "profiles.b1.x.opt must be a list of sizes, not [2.0]",
            _A_SIZE,
        ),
        (
            "[model]\nvariant = 'small'\n",
            "model.variant names 'small'",
            "there is no variant; write [variants.small.model]",
        ),
        (
            "[model]\nvariant = 'smal'\n[variants.small]\n",
            "model.variant names 'smal'",
            "did you mean 'small'?",
        ),
        ("[variants]\nsmall = 1\n", "[variants.small] must be a table", None),
        ("[variants.a.modle]\n", "unknown table [variants.a.modle]", "did you mean 'model'?"),
        ("[variants.a.variants.b.model]\n", "unknown table [variants.a.variants]", None),
        (
            "[variants.a.model]\npaht = 'x'\n",
            "unknown key 'paht' in [variants.a.model]",
            "did you mean 'path'?",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, message: str, hint: str | None):
    with pytest.raises(ManifestError) as caught:
        load(tmp_path, text)

    assert caught.value.message == f"{tmp_path / 'trt.toml'}: {message}"
    assert hint is None or caught.value.hint == hint


@pytest.mark.parametrize("content", [b"[model\n", b"a = 1\na = 2\n", b"\xff\xfe"], ids=["syntax", "twice", "not-utf-8"])
def test_what_is_no_toml_names_its_file(tmp_path: Path, content: bytes):
    file = tmp_path / "trt.toml"
    file.write_bytes(content)
    with pytest.raises(ManifestError) as caught:
        Manifest.load(file)

    assert caught.value.message.startswith(f"{file}: cannot be read: ")
    assert caught.value.hint == ("save it as UTF-8" if content == b"\xff\xfe" else None)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ManifestError, match="cannot be read"):
        Manifest.load(tmp_path / "trt.toml")


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path):
    (tmp_path / "secret").write_text("x")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "inputs.npz").symlink_to(tmp_path / "secret")

    with pytest.raises(ManifestError, match=r"inputs\.file = 'inputs\.npz' leaves the model's folder"):
        load(folder, '[inputs]\nfile = "inputs.npz"\n')


def test_the_default_variant_is_laid_over_the_rest(tmp_path: Path):
    manifest = load(tmp_path, VARIANTS)

    assert (manifest.variant, manifest.name, manifest.args) == ("small", "net_small", {"layers": 2})
    assert manifest.ranges == {"ids": (0, 9), "mask": (0, 1)}
    assert (manifest.labels, manifest.threshold, manifest.source) == ("labels", 0.1, "build.py:build")
    assert list(manifest.profiles) == ["b1"]


def test_another_variant_replaces_args_and_range_and_merges_the_rest(tmp_path: Path):
    manifest = load(tmp_path, VARIANTS, "full")

    assert (manifest.variant, manifest.name, manifest.args) == ("full", "net_full", {"layers": 12})
    assert manifest.ranges == {"ids": (0, 999)}
    assert manifest.profiles["b1"] == Profile.fixed("b1", {"x": (1, 8), "y": (1, 2)})
    assert manifest.profiles["b9"] == Profile.fixed("b9", {"x": (9, 8), "y": (9, 2)})


def test_a_variant_that_a_manifest_lacks_leaves_its_default(tmp_path: Path):
    """One --trt-variant is for the whole run; models without it keep theirs."""
    assert load(tmp_path, VARIANTS, "tiny").variant == "small"
    assert load(tmp_path, "", "tiny").variant is None


def test_a_variant_may_name_profiles_of_its_own(tmp_path: Path):
    text = "[variants.a.profiles.b8]\nx = [8]\n[variants.a.run]\nprofiles = ['b8']\n[model]\nvariant = 'a'\n"

    assert load(tmp_path, text).default_profiles == ("b8",)


def test_default_is_the_profile_of_a_model_without_any(tmp_path: Path):
    assert load(tmp_path, "[run]\nprofiles = ['default']\n").default_profiles == ("default",)
