"""Which TensorRT onnxruntime has loaded: found among the files that this process has mapped."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_trt.backends.onnxruntime.providers import _tensorrt_version


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="the system does not show what is mapped")
@pytest.mark.parametrize("folder", [b"lib", b"my libraries", "größer".encode(), b"\xff"], ids=os.fsdecode)
def test_it_is_found_in_a_folder_of_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: bytes):
    library = tmp_path / os.fsdecode(folder) / "libnvinfer.so.10.13.3"
    library.parent.mkdir()
    library.write_bytes(b"\0" * mmap.PAGESIZE)
    versions = {str(library): 101303}
    monkeypatch.setattr(ctypes, "CDLL", lambda path: SimpleNamespace(getInferLibVersion=lambda: versions[path]))

    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ):
        found = _tensorrt_version()

    assert found == "10.13.3"
