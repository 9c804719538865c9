"""Arrays under any name as the bytes of an ``.npz``."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["write_npz"]

_EPOCH = (1980, 1, 1, 0, 0, 0)


def write_npz(file: Path | IO[bytes], arrays: Mapping[str, NDArray[Any]], *, compress: bool = False) -> None:
    """Write *arrays* in the order of their names; the bytes depend on them alone. Raises OSError.

    Not np.savez: its keywords cannot be called "file" or "allow_pickle", and its members carry the time of day.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            about = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            about.compress_type = archive.compression
            with archive.open(about, "w", force_zip64=True) as member:
                array = arrays[name]
                np.lib.format.write_array(member, np.ascontiguousarray(array).reshape(array.shape), allow_pickle=False)
