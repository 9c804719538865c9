"""Each axis of a build: option, marker argument and manifest key are one, named in the cache key and in the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from project import MANIFEST, write_model

from pytest_trt.artifacts.engines import engine_key
from pytest_trt.artifacts.key import leaves
from pytest_trt.backends import BuildOptions
from pytest_trt.errors import ManifestError
from pytest_trt.lab import Lab
from pytest_trt.settings import Settings
from pytest_trt.spec.case import NO_AXES, Axes

# Each option of a build, as the command line and as TOML write it.
AXES: dict[str, tuple[str, object]] = {
    "workspace": ("64MB", "64MB"),
    "memory_pools": ("TACTIC_DRAM=1GB", {"TACTIC_DRAM": "1GB"}),
    "opt_level": ("0", 0),
    "typing": ("weak", "weak"),
    "profiles_per_engine": ("all", "all"),
    "sparsity": ("off", False),
    "max_aux_streams": ("0", 0),
    "tiling": ("none", "none"),
    "max_tactics": ("5", 5),
    "avg_timing": ("4", 4),
    "refit": ("off", "off"),
    "strip_plan": ("on", True),
    "weight_streaming": ("on", True),
    "hardware_compatibility": ("ampere-plus", "ampere-plus"),
    "version_compatibility": ("exclude-lean", "exclude-lean"),
    "lean_runtime": ("tiny/liblean.so", "liblean.so"),
    "plugins": ("tiny/liblean.so", ["liblean.so"]),
    "io_formats": ("x=CHW16,y=HALF:LINEAR", ["x=CHW16", "y=HALF:LINEAR"]),
    "builder_flags": ("+STRICT_NANS,-DEBUG", ["+STRICT_NANS", "-DEBUG"]),
    "timing_cache_miss": ("build", "build"),
    "editable_timing_cache": ("on", True),
    "dla": ("0", 0),
}
# They say how a plan is loaded, or whether a build may go on.
NOT_IN_THE_KEY = {"lean_runtime", "timing_cache_miss"}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_model(tmp_path / "tiny")
    (tmp_path / "tiny" / "liblean.so").write_bytes(b"a library")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def toml(value: object) -> str:
    """*value* as TOML writes it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(entry)}" for key, entry in value.items()) + " }"
    return json.dumps(value)


def seen(root: Path, axes: Axes = NO_AXES, **command_line: str) -> tuple[BuildOptions, dict[str, Any], dict[str, Any]]:
    """The options of the model's last case, the ingredients of its engine's key, and what the record says of them."""
    settings = Settings.resolve({"backend": "fake", "cache": "off", **command_line}, {}, {})
    with Lab(settings, root) as lab:
        case = lab.cases(lab.add("tiny"), axes)[-1]
        record = lab.record(case)
        lab.check(case, record)
        key = engine_key(lab.backend("fake"), lab.request(case))
        ingredients = {".".join(path): value for path, value in leaves(key.ingredients)}
        return lab.build_options(case), ingredients, (record.engine or {}).get("options", {})


def test_the_table_has_every_axis():
    assert {*AXES, "tactics"} == set(BuildOptions.names())


@pytest.mark.parametrize("name", AXES)
def test_an_axis_has_one_name_everywhere(root: Path, name: str):
    text, value = AXES[name]
    plain, without, _ = seen(root)
    given, with_it, reported = seen(root, **{name: text})
    marked = seen(root, Axes(options=((name, text),)))
    (root / "tiny" / "trt.toml").write_text(f"{MANIFEST}\n[build]\n{name} = {toml(value)}\n")
    written = seen(root)

    assert list(plain.given()) == []
    assert list(given.given()) == [name]
    assert list(reported) == [name]
    if name == "profiles_per_engine":  # what the engine holds is another ingredient
        without = {key: entry for key, entry in with_it.items() if key in without or key.startswith("profiles.")}
    changed = {key for key in with_it.keys() ^ without.keys() if key != "options"}
    assert {".".join(key.split(".")[:2]) for key in changed} == (
        set() if name in NOT_IN_THE_KEY else {f"options.{name}"}
    )
    for other in (marked, written):
        assert other[1:] == (with_it, reported)
        if name not in ("plugins", "lean_runtime"):  # where they lie is said from another folder
            assert other[0] == given


def sets_of(root: Path, backend: str = "tensorrt", axes: Axes = NO_AXES, **command_line: str) -> list[tuple[str, ...]]:
    with Lab(Settings.resolve({"backend": backend, "profile": "b8", **command_line}, {}, {}), root) as lab:
        return [case.tactics for case in lab.cases(lab.add("tiny"), axes, check=False)]


def test_tactics_are_an_axis_of_the_matrix(root: Path):
    text = "+EDGE_MASK_CONVOLUTIONS,-CUDNN"
    given, key, reported = seen(root, tactics=f"default;{text}")

    assert given.tactics == tuple(text.split(","))
    assert key["options.tactics"] == reported["tactics"] == sorted(text.split(","))


def test_sets_of_tactics_come_from_the_marker_the_command_line_or_the_manifest(root: Path):
    assert sets_of(root) == [()]
    (root / "tiny" / "trt.toml").write_text(f'{MANIFEST}\n[run]\ntactics = ["default", "-A", "+B,-C"]\n')

    assert sets_of(root) == [(), ("-A",), ("+B", "-C")]
    assert sets_of(root, backend="onnxruntime-cpu") == [()]
    assert sets_of(root, tactics="default") == [()]
    assert sets_of(root, tactics="-D") == [("-D",)]
    assert sets_of(root, axes=Axes(tactics=(("-E",),)), tactics="-D") == [("-E",)]


def test_a_case_without_tactics_says_so_where_the_manifest_has_some(root: Path):
    def reproduced(**command_line: str) -> list[str]:
        settings = Settings.resolve({"backend": "tensorrt", "profile": "b8", **command_line}, {}, {})
        with Lab(settings, root) as lab:
            return [lab.reproduce(case) for case in lab.cases(lab.add("tiny"), check=False)]

    assert "--tactics" not in reproduced()[0]
    (root / "tiny" / "trt.toml").write_text(f'{MANIFEST}\n[run]\ntactics = ["default", "-A"]\n')
    plain, without = reproduced()
    assert plain.endswith("--tactics=default")
    assert without.endswith("--tactics=-A")


@pytest.mark.parametrize(
    ("text", "said"), [('["A"]', "run.tactics: 'A' is not [+]SOURCE or -SOURCE"), ("[]", "run.tactics is empty")]
)
def test_sets_of_tactics_that_cannot_be_read(root: Path, text: str, said: str):
    (root / "tiny" / "trt.toml").write_text(f"{MANIFEST}\n[run]\ntactics = {text}\n")
    with pytest.raises(ManifestError, match=said):
        sets_of(root)
