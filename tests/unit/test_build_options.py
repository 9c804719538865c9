"""Build options in the cache key and in the report."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pytest_trt.backends import BuildOptions
from pytest_trt.errors import UsageError


def library(folder: Path, name: str, content: bytes) -> tuple[Path, str]:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name, hashlib.sha256(content).hexdigest()


def test_two_libraries_of_one_name_both_count(tmp_path: Path):
    one, first = library(tmp_path / "a", "libown.so", b"1")
    two, second = library(tmp_path / "b", "libown.so", b"2")
    both = ",".join(sorted((first, second)))

    assert BuildOptions(plugins=(one, two)).describe() == {"plugins": {"libown.so": both}}
    assert BuildOptions(plugins=(two, one)).describe() == BuildOptions(plugins=(one, two)).describe()
    assert BuildOptions(plugins=(two,)).describe() == {"plugins": {"libown.so": second}}
    assert BuildOptions(plugins=(one, one)).describe() == {"plugins": {"libown.so": first}}


def test_what_cannot_change_the_plan_is_reported_and_not_in_the_key(tmp_path: Path):
    lean, digest = library(tmp_path, "libnvinfer_lean.so", b"LEAN")
    options = BuildOptions(opt_level=3, lean_runtime=lean, timing_cache_miss="error")

    assert options.describe() == {"opt_level": 3}
    assert options.reported() == {
        "opt_level": 3,
        "lean_runtime": {"libnvinfer_lean.so": digest},
        "timing_cache_miss": "error",
    }
    assert set(options.reported()) == set(options.given())


def test_a_library_that_is_not_there_is_named_with_its_option(tmp_path: Path):
    with pytest.raises(UsageError, match=r"plugins: .*none\.so cannot be read: No such file"):
        BuildOptions(plugins=(tmp_path / "none.so",)).describe()
    with pytest.raises(UsageError, match=r"lean_runtime: .*none\.so cannot be read: No such file"):
        BuildOptions(lean_runtime=tmp_path / "none.so").reported()
