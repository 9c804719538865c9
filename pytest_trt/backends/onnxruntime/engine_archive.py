"""The plan of ONNX Runtime's TensorRT provider: a ZIP of the model and of what the provider keeps beside it.

The provider finds an engine in its cache folder by names of nodes, not by their content: two models of one structure,
or one model under two sets of options, would share one. So each plan has a folder of its own, and this archive is the
only thing that is kept.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from pytest_trt.errors import RunError

__all__ = ["MODEL", "SUFFIX", "TIMING", "engines", "pack", "unpack"]

SUFFIX = ".ort-trt.zip"
MODEL = "model.onnx"
TIMING = ".timing"  # of the provider's timing cache, which has a place of its own in the store
_EPOCH = (1980, 1, 1, 0, 0, 0)


def pack(model: bytes, folder: Path) -> bytes:
    """The archive of *model* and of the files that the provider left in *folder*, timings left out."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo(MODEL, _EPOCH), model)
        for file in sorted(folder.iterdir()):
            if file.is_file() and file.suffix != TIMING:
                archive.writestr(zipfile.ZipInfo(file.name, _EPOCH), file.read_bytes())
    return buffer.getvalue()


def unpack(plan: bytes | memoryview, folder: Path) -> bytes:
    """Write the provider's files into *folder* and return the model. Raises RunError."""
    try:
        with zipfile.ZipFile(io.BytesIO(plan)) as archive:
            for name in archive.namelist():
                if Path(name).name != name:
                    raise RunError(f"the plan holds {name!r}, which is no plain file name")
                if name != MODEL:
                    (folder / name).write_bytes(archive.read(name))
            return archive.read(MODEL)
    except (zipfile.BadZipFile, KeyError) as error:
        raise RunError(
            f"the plan ({len(plan)} bytes) is no archive of an engine: {error}", hint="remove it and build it again"
        ) from error


def engines(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of each engine in *folder*: they differ once the provider has built one again."""
    found = {}
    for file in sorted(folder.glob("*.engine")):
        status = file.stat()
        found[file.name] = (status.st_size, status.st_mtime_ns)
    return found
